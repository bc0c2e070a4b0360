#!/usr/bin/python3
#
# A sample of the differential fuzzer, the same each time, and what it finds
# when migrations are broken on purpose; tests/differ/run has all
#
# TLM_DIFFER=N tries N cases instead.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import re
import sys
import unittest
from unittest import mock

from tlmtest import env

import differ
import keys
from shrink import shrink

SAMPLE = 12
PROGRAM = os.path.join(env.ROOT, 'tests/differ/run')


def program():
    loader = importlib.machinery.SourceFileLoader('differ_run', PROGRAM)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('differ_run', loader))
    loader.exec_module(module)
    return module


def run_program(*arguments):
    """Exit status and output."""
    out = io.StringIO()
    with mock.patch.object(sys, 'argv', ['run', *arguments]), \
            contextlib.redirect_stdout(out):
        status = program().main()
    return status, out.getvalue()


class Keys(unittest.TestCase):
    def test_text_and_back(self):
        for seed in range(200):
            case = keys.draw(seed)
            self.assertEqual(keys.parse(keys.text(case).split()), case)
            self.assertEqual(keys.draw(seed), case)

    def test_each_value_is_drawn(self):
        drawn = [keys.draw(seed) for seed in range(2000)]
        for key, values in keys.KEYS.items():
            self.assertEqual({case[key] for case in drawn}, set(values), key)

    def test_what_is_no_case(self):
        for word in ('rum=32', 'ram=33', 'ram'):
            with self.assertRaisesRegex(ValueError, 'ram'):
                keys.parse([word])


class Shrinking(unittest.TestCase):
    """Of cases that are not run."""

    def assert_shrunk(self, fails, wanted):
        """From each seed that fails, in few steps."""
        for case in filter(fails, map(keys.draw, range(300))):
            asked = []

            def counted(tried):
                asked.append(tried)
                return fails(tried)
            self.assertEqual(keys.text(shrink(case, counted)), wanted)
            self.assertLess(len(asked), 3 * len(keys.KEYS))

    def test_nothing_matters(self):
        self.assert_shrunk(lambda case: True, '')

    def test_one_key(self):
        self.assert_shrunk(lambda case: case['compression'] == 'zstd',
                           'compression=zstd')

    def test_two_keys_together(self):
        self.assert_shrunk(lambda case: int(case['vcpus']) >= 2 and
                           case['memory'] == 'numa', 'memory=numa vcpus=2')

    def test_least_value(self):
        self.assert_shrunk(lambda case: int(case['ram']) > 64, 'ram=96')


class Rules(unittest.TestCase):
    """What is wrong of two endings, which are made up."""

    def judge(self, tlm, stock, said='', stock_said='', **case):
        return differ._judge({**keys.SIMPLE, **case},
                             differ.Ending(tlm, said),
                             differ.Ending(stock, stock_said, 'guest'))

    def test_alike(self):
        for how in ('completed', 'failed', 'refused'):
            self.assertIsNone(self.judge(how, how))

    def test_not_alike(self):
        self.assertEqual(self.judge('failed', 'completed', 'time bound'),
                         'failed, not completed')
        self.assertEqual(self.judge('refused', 'completed'),
                         'refused, not completed')
        self.assertEqual(self.judge('completed', 'refused'),
                         'completed, not refused')

    def test_refused_by_tlm_alone(self):
        for key, value, word in (
                ('channels', '1', 'multifd-channels'),
                ('zero-page', 'legacy', 'zero-page-detection'),
                ('auto-converge', 'on', 'auto-converge'),
                ('dtx-channels', '3', 'tlm-dtx-channels')):
            case = {key: value}
            self.assertIsNone(self.judge('refused', 'completed',
                                         f"Parameter '{word}'", **case))
            for how, said in (('refused', 'no'), ('completed', '')):
                self.assertEqual(self.judge(how, 'completed', said, **case),
                                 f'{how}, not refused')

    def test_bound(self):
        said = 'The time bound of 200 ms has passed'
        self.assertIsNone(self.judge('failed', 'completed', said, bound='200',
                                     action='cancel'))
        self.assertEqual(self.judge('failed', 'completed', said, bound='200'),
                         'failed, not completed')
        self.assertEqual(self.judge('failed', 'completed', 'other',
                                    bound='200', action='cancel'),
                         'failed, not completed')

    def test_cancelled_too_late(self):
        self.assertIsNone(self.judge('cancelled', 'completed',
                                     meanwhile='cancel'))
        self.assertEqual(self.judge('cancelled', 'completed'),
                         'cancelled, not completed')

    def test_wrong_without_tlm(self):
        self.assertEqual(self.judge('completed', 'wrong'),
                         'guest without TLM')
        for how, wrong in (('completed', None),
                           ('failed', 'failed, not completed')):
            self.assertEqual(self.judge(how, 'wrong',
                                        stock_said=differ.ABORTS), wrong)
            self.assertEqual(self.judge(how, 'wrong', memory='numa'), wrong)
            self.assertEqual(self.judge(how, 'wrong', dimm='32'), wrong)


class Migrations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU)
        if reason:
            raise unittest.SkipTest(reason)

    def test_sample(self):
        count = int(os.environ.get('TLM_DIFFER', SAMPLE))
        how = set()
        for seed, verdict, _ in differ.run(range(1, count + 1),
                                           os.cpu_count()):
            how.add(verdict.how().split()[0])
            with self.subTest(seed=seed, case=keys.text(verdict.case)):
                self.assertIsNone(verdict.wrong, str(verdict))
        self.assertLessEqual({'completed', 'refused'}, how)

    def assert_found(self, kind, case, wrong, smallest):
        """The program finds it, and shrinks it to that."""
        with mock.patch.object(keys, 'draw', lambda _: keys.parse(
                case.split())):
            sabotage = f"{kind}:{smallest.replace(' ', ',')}"
            status, out = run_program('--count', '1', '--jobs', '1',
                                      '--tries', '1', '--sabotage', sabotage)
        self.assertEqual(status, 1, out)
        self.assertIn(f'shrinking: {wrong}\n', out)
        again = f'{smallest} --sabotage {sabotage}'
        self.assertIn(f'Again: tests/differ/run {again}\n', out)
        status, repeated = run_program(*again.split())
        self.assertEqual(status, 1, repeated)
        self.assertIn(f'FAILED: {wrong}\n', repeated)
        self.assertRegex(out, r'\n0 passed, 1 failed; 1 wrong\n$')
        return out

    def test_one_byte_differs(self):
        out = self.assert_found(
            'byte', 'ram=48 rng=on vcpus=2 compression=zlib epoch=20 dtx=off',
            'ram', 'vcpus=2 compression=zlib')
        self.assertRegex(out, r'\b1 of \d+ pages differ')

    def test_guest_finds_another_byte(self):
        out = self.assert_found('page', 'memory=numa rate=20000', 'guest',
                                'memory=numa')
        self.assertIn('the guest reports', out)

    def test_another_answer(self):
        self.assert_found('answer', 'serial=on channels=8 transport=unix',
                          'failed, not completed', 'channels=8')

    def test_no_reason(self):
        self.assert_found('mute', 'channels=1 vga=on', 'silent', 'channels=1')

    def test_command_of_a_case(self):
        status, out = run_program('ram=48')
        self.assertEqual(out,
                         'TLM: completed\nQEMU alone: completed\npassed\n')
        self.assertEqual(status, 0)
        status, out = run_program('zero-page=legacy')
        self.assertTrue(re.match(
            r"TLM: refused \(.*'zero-page-detection'.*\)\n"
            r'QEMU alone: completed\npassed\n$', out), out)
        self.assertEqual(status, 0)

    def test_side_where_the_guest_runs(self):
        """A guest that is started at the destination as well is seen."""
        follow = differ.Move._follow

        def started(move):
            info = follow(move)
            if info['status'] == 'completed':
                move.src.qmp('cont')
            return info
        with mock.patch.object(differ.Move, '_follow', started):
            verdict = differ.compare(keys.parse([]))
        self.assertEqual(verdict.wrong, 'side')


if __name__ == '__main__':
    unittest.main()
