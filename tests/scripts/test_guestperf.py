#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's guestperf with TLM, without a virtual machine: what is told to whom."""

import os
import sys
import unittest
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.environ.get('TLM_BUILD', os.path.join(ROOT, 'build'))
sys.path.insert(0, os.path.join(BUILD, 'qemu-src/tests/migration-stress'))
sys.dont_write_bytecode = True      # the source tree stays as it is

from guestperf import engine, scenario, shell           # noqa: E402
from guestperf.comparison import COMPARISONS            # noqa: E402

EPOCHS = 100        # more than the default of --max-iters


class Machine:
    """Writes down what it is told; its migration ends after EPOCHS syncs."""

    def __init__(self):
        self.caps, self.params, self.cancelled = {}, {}, False
        self.syncs = 0

    def get_pid(self):
        return os.getpid()

    def cmd(self, command, **args):
        if command == 'query-cpus-fast':
            return []
        if command == 'migrate-set-capabilities':
            self.caps.update((c['capability'], c['state'])
                             for c in args['capabilities'])
        elif command == 'migrate-set-parameters':
            self.params.update(args)
        elif command == 'migrate_cancel':
            self.cancelled = True
        elif command == 'query-migrate':
            self.syncs += 1
            return {'status': 'cancelled' if self.cancelled else
                    'completed' if self.syncs > EPOCHS else 'active',
                    'ram': {'dirty-sync-count': self.syncs}}
        return {}


def migrate(what):
    """Returns (source, destination, result) of a Scenario."""
    src, dst = Machine(), Machine()
    with mock.patch('time.sleep'):
        *_, result = engine.Engine('qemu', 'localhost', '', '', sleep=0) \
            ._migrate(None, what, src, dst, 'unix:x', True)
    return src, dst, result


def parsed(*argv):
    s = shell.Shell()
    return s.get_scenario(s._parser.parse_args(argv))


class Guestperf(unittest.TestCase):
    def test_source_only(self):
        src, dst, result = migrate(parsed(
            '--multifd', '--multifd-channels', '4', '--tlm',
            '--tlm-converge', 'auto', '--tlm-time-bound', '9000',
            '--tlm-overcommit', '[{"progress": 50, "cpus": 2}]'))
        self.assertTrue(result._success)
        self.assertEqual(src.caps, {'multifd': True, 'tlm': True})
        self.assertEqual(dst.caps, {'multifd': True})
        self.assertEqual(dst.params, {'multifd_channels': 4})
        self.assertEqual(
            {k: v for k, v in src.params.items() if k.startswith('tlm')},
            {'tlm_converge': 'auto', 'tlm_time_bound': 9000,
             'tlm_overcommit': [{'progress': 50, 'cpus': 2}]})

    def test_epochs_are_no_iterations(self):
        for tlm in (True, False):
            src, _, result = migrate(scenario.Scenario(
                'x', multifd=True, tlm=tlm))
            self.assertEqual(src.cancelled, not tlm)
            self.assertEqual(result._success, tlm)

    def test_without_tlm_nothing_is_told(self):
        src, _, _ = migrate(parsed('--multifd', '--auto-converge'))
        self.assertEqual(src.caps, {'multifd': True, 'auto-converge': True})
        self.assertFalse([p for p in src.params if p.startswith('tlm')])

    def test_comparison(self):
        one, = (c for c in COMPARISONS if c._name == 'tlm')
        told = [migrate(s)[0] for s in one._scenarios]
        self.assertEqual([s.caps.get('tlm', False) for s in told],
                         [False, True, True, True])
        self.assertTrue(told[0].caps['auto-converge'])
        self.assertEqual([s.params.get('tlm_converge') for s in told],
                         [None, 'none', 'auto', 'auto'])
        for s in one._scenarios:
            kept = s.serialize()
            self.assertEqual(kept['tlm'], s._tlm)
            self.assertEqual(kept['tlm_time_bound'], s._tlm_time_bound)


if __name__ == '__main__':
    unittest.main()
