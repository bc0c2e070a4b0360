#!/usr/bin/python3
#
# TLM under hardware-style KVM: dirty log with manual protect, dirty ring
#
# A nested guest (tests/guest/nested) runs under TCG, which emulates SVM: the
# QEMUs in it migrate under kvm-amd, wherever the tests run.  Not under TCG's
# control, and so real: KVM's page tables, write protection, dirty log and
# dirty ring.  The cases, and what they check, are in tests/guest/nested/
# cases.py; here they are waited for and reported.
#
# The dirty ring is first tried with stock QEMU.  If that loses pages, TLM's
# cases that lose pages in the same run are skipped, marked TODO.
#
# TLM_NESTED_CASES: the cases to run, parts of their names with commas, e.g.
# "log,ring_stock" (default: all)
#
# SPDX-License-Identifier: GPL-2.0-or-later

import ast
import os
import re
import time
import unittest

from tlmtest import env
from tlmtest.nested import NESTED, NoKernel, machine
from tlmtest.vm import PATIENCE, whole_lines

# Seconds on an idle machine, each several times what is needed: until the
# first case begins, and for one case
BOOT_LIMIT = 60
CASE_LIMIT = 90

RESULT = re.compile(r'(not )?ok \d+ - \S*\.(\w+)(?: # SKIP (.*))?$')


def case_names():
    """The test methods of cases.py, in the order in which they run."""
    with open(os.path.join(NESTED, 'cases.py'), encoding='utf-8') as f:
        tree = ast.parse(f.read())
    names = sorted(node.name for node in ast.walk(tree)
                   if isinstance(node, ast.FunctionDef)
                   and node.name.startswith('test_'))
    wanted = os.environ.get('TLM_NESTED_CASES')
    if wanted:
        names = [n for n in names if any(w in n for w in wanted.split(','))]
        if not names:
            raise ValueError(f'TLM_NESTED_CASES={wanted} names no case')
    return names


class NestedKvm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU)
        if not reason and os.uname().machine != 'x86_64':
            reason = 'the programs for the nested guest are those of this ' \
                     'host, which is not x86-64'
        if reason:
            raise unittest.SkipTest(reason)
        try:
            cls.vm, cls.tap_path = machine(case_names())
        except NoKernel as e:
            raise unittest.SkipTest(str(e)) from e
        cls.addClassCleanup(cls.vm.close)
        cls.vm.start()
        cls.first = True

    def tap(self):
        return whole_lines(self.tap_path).splitlines()

    def find(self, name):
        """What the guest says about a case: (not ok?, reason of a skip,
        explanation, whether that is all of it), or None."""
        lines = self.tap()
        for i, line in enumerate(lines):
            m = RESULT.match(line)
            if m and m[2] == name:
                j = i + 1
                while j < len(lines) and lines[j].startswith('#'):
                    j += 1
                return m[1], m[3], lines[i + 1:j], j < len(lines)
        return None

    def run_case(self, name):
        limit = CASE_LIMIT
        if self.first:
            limit += BOOT_LIMIT
            type(self).first = False
        deadline = time.monotonic() + limit * PATIENCE
        while True:
            ended = not self.vm.alive()
            late = time.monotonic() > deadline
            result = self.find(name)
            # An explanation is only waited for if there is one to come
            if result and (not result[0] or result[3] or ended or late):
                break
            if ended:
                self.fail('the nested guest has ended before the case, '
                          f'status {self.vm.process.returncode}:\n' +
                          self.console())
            if late:
                self.fail(f'not within {limit * PATIENCE} s:\n' +
                          self.console())
            time.sleep(0.2)
        bad, skipped, lines, _ = result
        if skipped is not None:
            self.skipTest(skipped)
        if bad:
            self.fail('in the nested guest:\n' +
                      '\n'.join(line[2:] for line in lines) +
                      '\nits console:\n' + self.console())

    def console(self):
        return '\n'.join(self.vm.serial().splitlines()[-40:]) + '\n' + \
            self.vm.messages()


def _add_case(name):
    def run(self):
        self.run_case(name)
    setattr(NestedKvm, name, run)


for _name in case_names():
    _add_case(_name)


if __name__ == '__main__':
    unittest.main()
