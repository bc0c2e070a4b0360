#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice in the documents that must not lose what makes it right."""

import glob
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

VALUE = re.compile(r'''[`'=]multifd[`']''')


def paragraphs(path):
    """Also list items and rows of tables, each on one line."""
    with open(path, encoding='utf-8') as f:
        text = f.read()
    for part in re.split(r'\n\s*\n|\n(?=\s*[-|] ?)', text):
        yield ' '.join(part.split())


class ZeroPages(unittest.TestCase):
    def test_older_destinations(self):
        """A destination before QEMU 9.0 loses the zero pages of
        zero-page-detection=multifd, which is silent."""
        found = 0
        for path in [os.path.join(ROOT, 'README.md'),
                     *glob.glob(os.path.join(ROOT, 'docs/**/*.md'),
                                recursive=True),
                     *glob.glob(os.path.join(ROOT, 'docs/**/*.rst'),
                                recursive=True)]:
            for text in paragraphs(path):
                if 'zero-page-detection' in text and VALUE.search(text):
                    found += 1
                    self.assertIn('9.0', text, path)
                    self.assertIn('none', text, path)
        self.assertGreater(found, 2)


if __name__ == '__main__':
    unittest.main()
