#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner stays readable: named constants, one owner, no circles.

In migration/tlm/planner a number other than 0, 1 and 2 stands only where it
gets a name, in a #define, an enum or a static const, and a comment gives its
reason. A file is included only by those above it, and the user's parameters
are taken in at one place."""

import collections
import glob
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PLANNER = os.path.join(ROOT, 'migration/tlm/planner')
PLAIN = {'0', '1', '2'}
LINES_MAX = 450
# Where the user's parameters are handed on, declarations included
PARAMS_MAX = 12

COMMENT_OR_TEXT = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL)
DEFINE = re.compile(r'^[ \t]*#[^\n]*(?:\\\n[^\n]*)*', re.MULTILINE)
ENUM = re.compile(r'\benum\b[^;{]*\{[^}]*\}')
CONST = re.compile(r'^\s*static\s+const\b[^;{]*=\s*[^;]*;', re.MULTILINE)
NUMBER = re.compile(
    r'(?<![\w.])(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)'
    r'[uUlLfF]*(?![\w.])')
CONSTANT = re.compile(r'^#define[ \t]+(\w+)[ \t]+[^\n]*\d', re.MULTILINE)


def blank(match):
    """The text of MATCH as blanks: line numbers stay."""
    return re.sub(r'[^\n]', ' ', match.group())


def literals(text):
    """Line and literal of each number in C code that has no name."""
    text = COMMENT_OR_TEXT.sub(blank, text)
    for named in DEFINE, ENUM, CONST:
        text = named.sub(blank, text)
    return [(text.count('\n', 0, m.start()) + 1, m.group())
            for m in NUMBER.finditer(text) if m.group() not in PLAIN]


def unexplained(text):
    """Constants with neither a comment of their own nor one above them.

    A comment that ends right above a group of constants speaks for it."""
    lines = text.split('\n')
    bad = []
    for m in CONSTANT.finditer(text):
        at = text.count('\n', 0, m.start())
        if '/*' in lines[at]:
            continue
        above = at - 1
        while lines[above].startswith('#define'):
            above -= 1
        if not lines[above].endswith('*/'):
            bad.append(m[1])
    return bad


def circles(edges):
    """The nodes that can be reached from themselves."""
    def reach(start):
        seen, todo = set(), list(edges[start])
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += edges[node]
        return seen
    return sorted(n for n in list(edges) if n in reach(n))


class Checks(unittest.TestCase):
    """The checks themselves find what they are for."""

    def test_literal(self):
        found = [n for _, n in literals(
            '#define A 3\n/* 4 */ x = y * 0.98 + z / 20 + 1e3 - .5;\n'
            'enum { B = 7 };\nstatic const int c[] = { 8 };\n'
            'd[9] = 2 * x1 + 0x10;\nputs("11");\n')]
        self.assertEqual(found, ['0.98', '20', '1e3', '.5', '9', '0x10'])

    def test_unexplained(self):
        self.assertEqual(unexplained(
            '\n#define A 3\n\n/* why */\n#define B 4\n#define C 5\n'
            '#define D 6     /* why */\n\n#define E_H\n'), ['A'])

    def test_circles(self):
        edges = collections.defaultdict(set, {'a': {'b'}, 'b': {'c'},
                                              'c': {'b'}, 'd': {'a'}})
        self.assertEqual(circles(edges), ['b', 'c'])


class Planner(unittest.TestCase):

    def setUp(self):
        self.files = {}
        for path in sorted(glob.glob(os.path.join(PLANNER, '*.[ch]'))):
            with open(path, encoding='utf-8') as f:
                self.files[os.path.basename(path)] = f.read()
        self.assertGreater(len(self.files), 10)

    def test_literals(self):
        bad = [f'{name}:{line}: {number}' for name, text in self.files.items()
               for line, number in literals(text)]
        self.assertFalse(bad, 'numbers without a name')

    def test_reasons(self):
        bad = [f'{name}: {constant}' for name, text in self.files.items()
               for constant in unexplained(text)]
        self.assertFalse(bad, 'constants without a reason')

    def test_no_circles(self):
        """X.c and X.h are one; what one includes is below it.

        But for planner.h: the types in it are below all, the functions that
        it declares above all."""
        edges = collections.defaultdict(set)
        for name, text in self.files.items():
            for header in re.findall(r'^#include "([\w-]+\.h)"', text,
                                     re.MULTILINE):
                if header != 'planner.h' and header[:-2] != name[:-2]:
                    edges[name[:-2]].add(header[:-2])
            if name not in ('planner.c', 'planner.h', 'estimate.c'):
                self.assertNotRegex(text, r'\btlm_planner_\w+\(')
        self.assertGreater(len(edges), 5)
        self.assertFalse(circles(edges))

    def test_owners(self):
        """What link, guest, plan and clock know is private to one file."""
        for owner, struct in (('link', 'TlmLink'), ('guest', 'TlmGuest'),
                              ('plan', 'TlmPlan'), ('now', 'TlmPlanClock'),
                              ('planner', 'TlmPlanner')):
            where = [name for name, text in self.files.items()
                     if re.search(rf'^struct {struct} \{{', text,
                                  re.MULTILINE)]
            self.assertEqual(where, [owner + '.c'])

    def test_params(self):
        count = 0
        for text in self.files.values():
            text = COMMENT_OR_TEXT.sub(blank, text)
            count += len(re.findall(r'[(,]\s*(?:const TlmPlanParams \*)?params'
                                    r'\s*[,)]', text))
        self.assertGreater(count, 0)
        self.assertLessEqual(count, PARAMS_MAX)

    def test_length(self):
        for name, text in self.files.items():
            self.assertLessEqual(text.count('\n'), LINES_MAX, name)


if __name__ == '__main__':
    unittest.main()
