#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/analyze: cppcheck is asked in a way that finds faults."""

import importlib.machinery
import importlib.util
import os
import shutil
import tempfile
import unittest
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

CODE = '''#include <glib.h>

int element(void)
{
    int numbers[4] = { 0 };

    return numbers[%d];
}

char *name(bool known)
{
    char *copy = g_strdup("name");

    if (known) {
        return NULL;
    }
    return copy;
}
'''


def load():
    path = os.path.join(ROOT, 'scripts/analyze')
    spec = importlib.util.spec_from_loader(
        'analyze', importlib.machinery.SourceFileLoader('analyze', path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@unittest.skipUnless(shutil.which('cppcheck'),
                     'no cppcheck (scripts/install-deps analysis)')
class Cppcheck(unittest.TestCase):
    def analyse(self, code, name='tools/some.c'):
        """The names of the checks that have found something."""
        analyze = load()
        with tempfile.TemporaryDirectory() as root, \
                mock.patch.object(analyze.env, 'ROOT', root):
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path))
            with open(path, 'w', encoding='ascii') as f:
                f.write(code)
            return {line.rsplit('[', 1)[1].rstrip(']')
                    for line in analyze.cppcheck(root, [], path)}

    def test_found(self):
        self.assertEqual(self.analyse(CODE % 4),
                         {'arrayIndexOutOfBounds', 'memleak'})

    def test_no_fault(self):
        """What is off in one file is on in others, and other checks are on."""
        self.assertEqual(self.analyse(CODE % 3), {'memleak'})
        self.assertEqual(self.analyse(CODE % 4, 'tools/memserver/slab.c'),
                         {'arrayIndexOutOfBounds'})


if __name__ == '__main__':
    unittest.main()
