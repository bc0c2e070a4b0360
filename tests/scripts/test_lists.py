#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""No test may be left out by forgetting to list it in a meson.build."""

import glob
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


def read(name):
    with open(os.path.join(ROOT, name), encoding='utf-8') as f:
        return f.read()


def found(pattern):
    return {os.path.basename(path)
            for path in glob.glob(os.path.join(ROOT, pattern))}


class Lists(unittest.TestCase):
    def assert_listed(self, pattern, meson, strip=''):
        files = found(pattern)
        self.assertTrue(files, f'no file {pattern}')
        listed = read(meson)
        left = sorted(f for f in files if not re.search(
            "['/]" + re.escape(f.removesuffix(strip)) + r"(\.c)?'", listed))
        self.assertEqual(left, [], f'not in {meson}')

    def test_unit(self):
        self.assert_listed('tests/unit/test-*.c', 'tests/unit/meson.build',
                           '.c')

    def test_unit_in_the_series(self):
        for where in ('tests/unit/tlm', 'tests/unit/tlm/engine',
                      'tests/unit/tlm/overcommit'):
            self.assert_listed(where + '/test-*.c', where + '/meson.build')
            self.assert_listed(where + '/test-*.c', 'tests/unit/meson.build')

    def test_unit_scripts(self):
        self.assert_listed('tests/unit/test-*.py', 'tests/unit/meson.build')

    def test_integration(self):
        self.assert_listed('tests/integration/test_*.py',
                           'tests/integration/meson.build')

    def test_faults(self):
        for where in ('tests/faults', 'tests/differ'):
            self.assert_listed(where + '/test_*.py',
                               'tests/integration/meson.build')

    def test_scripts(self):
        self.assert_listed('tests/scripts/test_*.py', 'tests/meson.build')

    def test_models(self):
        self.assert_listed('tests/model/test_*.py', 'tests/meson.build')

    def test_series(self):
        listed = {line.split('#')[0].strip()
                  for line in read('patches/series').splitlines()}
        self.assertEqual(found('patches/*.patch') - listed, set(),
                         'not in patches/series')


if __name__ == '__main__':
    unittest.main()
