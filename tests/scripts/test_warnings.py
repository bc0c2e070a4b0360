#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A compiler warning in the project's own C is an error, wherever it is
compiled. (What Meson and QEMU's build compile has werror=true.)"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

# What only a warning comes of
HEADER = 'static int tlm_test_nobody_uses_this;\n'
COMPILER = '#!/bin/sh\nexec "{gcc}" {more} "$@"\n'


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix='tlm-test-')
        self.addCleanup(shutil.rmtree, self.tmp)
        self.header = os.path.join(self.tmp, 'warn.h')
        with open(self.header, 'w', encoding='utf-8') as f:
            f.write(HEADER)

    def compiler(self, warn):
        """A directory with gcc, whose every C file has a warning in it."""
        path = os.path.join(self.tmp, f'bin-{warn}')
        os.mkdir(path)
        gcc = os.path.join(path, 'gcc')
        with open(gcc, 'w', encoding='utf-8') as f:
            f.write(COMPILER.format(
                gcc=shutil.which('gcc'),
                more=f'-include "{self.header}"' if warn else ''))
        os.chmod(gcc, 0o755)
        return path

    def build(self, warn, script, *args):
        cache = os.path.join(self.tmp, f'cache-{warn}')
        return subprocess.run(
            [os.path.join(ROOT, script), *args], text=True,
            capture_output=True, check=False,
            env={**os.environ, 'TLM_CACHE': cache,
                 'TLM_GUEST_KERNEL': self.header,      # none is booted
                 'PATH': self.compiler(warn) + ':' + os.environ['PATH']})

    def assert_refused(self, script):
        run = self.build(False, script)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertNotIn('warning', run.stderr)
        run = self.build(True, script)
        self.assertIn('tlm_test_nobody_uses_this', run.stderr)
        self.assertNotEqual(run.returncode, 0, 'a warning is overlooked')


class Builds(Case):
    def test_linux_guest(self):
        self.assert_refused('tests/guest/linux/build.sh')

    def test_npb(self):
        self.assert_refused('tests/guest/npb/build.sh')

    def test_rom(self):
        sys.dont_write_bytecode = True
        spec = importlib.util.spec_from_file_location(
            'mkrom', os.path.join(ROOT, 'tests/guest/rom/mkrom.py'))
        mkrom = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(mkrom)
        out = os.path.join(self.tmp, 'rom.o')
        command = ['gcc', *mkrom.CFLAGS, '-c', '-o', out,
                   os.path.join(ROOT, 'tests/guest/rom/rom.c')]
        for more, good in ((), True), (('-include', self.header), False):
            run = subprocess.run([*command, *more], text=True,
                                 capture_output=True, check=False)
            self.assertEqual(run.returncode == 0, good, run.stderr)


class Commands(unittest.TestCase):
    """Also of what is not built here: it needs packages of a guest."""

    def commands(self):
        """Every command with gcc that makes something, on one line."""
        names = subprocess.run(
            ['git', '-C', ROOT, 'ls-files'],
            text=True, capture_output=True, check=True).stdout.split()
        for name in names:
            with open(os.path.join(ROOT, name), encoding='utf-8',
                      errors='replace') as f:
                text = f.read()
            if name == 'tests/scripts/test_warnings.py' or \
                    not text.startswith('#'):
                continue
            text = re.sub(r'\\\n|,\n', ' ', text)
            for line in text.splitlines():
                if re.search(r'''(^|[\s\[('"])g?cc['"]?,? .*-[oc]\b''',
                             line) and not line.lstrip().startswith('#') \
                        and 'pan.c' not in line:    # spin has written it
                    yield name, line.strip()

    def test_all_have_it(self):
        found = list(self.commands())
        self.assertGreaterEqual(
            {name for name, _ in found},
            {'tests/guest/linux/build.sh', 'tests/guest/npb/build.sh',
             'tests/guest/linux/build-bench.sh',
             'python/tlmtest/preload.py'})
        for name, line in found:
            with self.subTest(name):        # CFLAGS: see test_rom
                self.assertRegex(line, r'-Werror|TLM_WARNINGS|\*CFLAGS')


if __name__ == '__main__':
    unittest.main()
