#!/usr/bin/python3
#
# A sample of the fault matrix, the same each time; tests/faults/run has all
#
# TLM_FAULTS=N tries N migrations instead.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

import matrix
import scenario
import served

# Of each kind so many; those but the migrations take several seconds each
SAMPLE = {'migrations': int(os.environ.get('TLM_FAULTS', '80')), 'stops': 2,
          'servers': 6, 'clusters': 2}
LEAST = {'migrations': 31, 'stops': 2, 'servers': 26, 'clusters': 15}
DRAWS = 2000                    # which have all faults


class Sample(unittest.TestCase):
    def test_every_fault_has_code(self):
        for kind, least in LEAST.items():
            drawn = {matrix.KINDS[kind].draw(seed).what
                     for seed in range(DRAWS)}
            for what in drawn:
                self.assertTrue(hasattr(matrix.KINDS[kind].case.faults,
                                        what.replace('-', '_')), what)
            self.assertGreaterEqual(len(drawn), least, kind)

    def test_connections(self):
        """A fault is never done to a connection that does not come."""
        for seed in range(DRAWS):
            s = served.draw(seed)
            if s.what in scenario.TO_A_CHANNEL:
                there = s.parts - 1 if s.aim == s.parts else len(
                    [n for n in range(s.channels) if n % s.parts == s.aim]
                ) + (s.aim == 0)
                self.assertLess(s.how, there, served.text(s))

    def sample(self, kind):
        reason = matrix.missing(kind)
        if reason:
            self.skipTest(reason)
        for result in matrix.run(range(1, SAMPLE[kind] + 1), os.cpu_count(),
                                 kind):
            print(result)
            with self.subTest(case=result.seed):
                self.assertIsNone(result.wrong, str(result))

    def test_sample(self):
        self.sample('migrations')

    def test_stops(self):
        self.sample('stops')

    def test_servers(self):
        self.sample('servers')

    def test_clusters(self):
        self.sample('clusters')


if __name__ == '__main__':
    unittest.main()
