#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents: advice that must not lose what makes it right, and links."""

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


def anchors(path):
    """Of a Markdown file's headings, as GitHub makes them."""
    with open(path, encoding='utf-8') as f:
        text = re.sub(r'^(    .*|```.*?^```)$', '', f.read(), flags=re.M)
    for heading in re.findall(r'^#+ +(.*)$', text, re.M):
        heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading)
        yield re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


class Links(unittest.TestCase):
    LINK = re.compile(r'\]\(([^)\s]+)\)')

    def test_lead_somewhere(self):
        """To files and headings that there are."""
        found = 0
        for page in [os.path.join(ROOT, 'README.md'), *(
                path for folder in ('docs', 'migration', 'patches', 'tests')
                for path in glob.glob(os.path.join(ROOT, folder, '**/*.md'),
                                      recursive=True))]:
            with open(page, encoding='utf-8') as f:
                text = re.sub(r'`[^`\n]*`', '', f.read())
            for link in self.LINK.findall(text):
                if re.match(r'\w+:', link):
                    continue
                found += 1
                path, _, anchor = link.partition('#')
                path = os.path.normpath(os.path.join(
                    os.path.dirname(page), path)) if path else page
                said = f'{os.path.relpath(page, ROOT)}: {link}'
                self.assertTrue(os.path.exists(path), said)
                if anchor:
                    self.assertIn(anchor, list(anchors(path)), said)
        self.assertGreater(found, 20)


if __name__ == '__main__':
    unittest.main()
