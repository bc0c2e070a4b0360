#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""patches/series-10.2 is the same series as patches/series."""

import hashlib
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PATCHES = os.path.join(ROOT, 'patches')


def lines(*name):
    with open(os.path.join(PATCHES, *name), encoding='utf-8') as f:
        return f.read().splitlines()


def series(name):
    named = (line.split('#', 1)[0].strip() for line in lines(name))
    return [line for line in named if line]


def sum_of_changes(name):
    """As scripts/port-series makes it."""
    changes = [line for line in lines(name)
               if line.startswith(('-', '+'))
               and not re.match(r'(---|\+\+\+) ', line)]
    text = ''.join(line + '\n' for line in changes)
    return hashlib.sha256(text.encode()).hexdigest()


class Port(unittest.TestCase):
    def test_same_patches(self):
        ported = [os.path.basename(name) for name in series('series-10.2')]
        self.assertEqual(ported, series('series'),
                         'run scripts/port-series')

    def test_made_from_what_is_there(self):
        """A patch that has changed has not been forgotten in its port."""
        for line in lines('10.2', 'made-from'):
            was, name = line.split(' ', 1)
            with self.subTest(name):
                self.assertEqual(sum_of_changes(name), was,
                                 'run scripts/port-series')

    def test_no_more_than_named(self):
        own = sorted(name for name in os.listdir(os.path.join(PATCHES, '10.2'))
                     if name != 'made-from')
        named = sorted(os.path.basename(name)
                       for name in series('series-10.2') if '/' in name)
        self.assertEqual(own, named)
        self.assertEqual(sorted(line.split(' ', 1)[1]
                                for line in lines('10.2', 'made-from')), own)


if __name__ == '__main__':
    unittest.main()
