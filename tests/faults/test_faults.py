#!/usr/bin/python3
#
# A sample of the fault matrix, the same each time; tests/faults/run has all
#
# TLM_FAULTS=N tries N instead.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

from tlmtest import env

import matrix
import scenario

SAMPLE = 80


class Sample(unittest.TestCase):
    def test_every_fault_has_code(self):
        drawn = {scenario.draw(seed).what for seed in range(2000)}
        for what in drawn:
            self.assertTrue(hasattr(matrix.Faults, what.replace('-', '_')),
                            what)
        self.assertGreater(len(drawn), 25)

    def test_sample(self):
        reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU)
        if reason:
            self.skipTest(reason)
        count = int(os.environ.get('TLM_FAULTS', SAMPLE))
        for result in matrix.run(range(1, count + 1), os.cpu_count()):
            print(result)
            with self.subTest(case=result.seed):
                self.assertIsNone(result.wrong, str(result))


if __name__ == '__main__':
    unittest.main()
