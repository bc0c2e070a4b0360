#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""patches/libvirt: fit for mailing, and made for the libvirt it names.

Whether it compiles is scripts/build-libvirt's business."""

import glob
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PATCHES = os.path.join(ROOT, 'patches', 'libvirt')


def load_prepare():
    path = os.path.join(ROOT, 'scripts', 'prepare-qemu')
    loader = importlib.machinery.SourceFileLoader('prepare_qemu', path)
    spec = importlib.util.spec_from_loader('prepare_qemu', loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


prepare_qemu = load_prepare()


def git(*args, cwd, **kwargs):
    # Neither the user's settings nor a repository around are of interest
    env = dict(os.environ, GIT_CONFIG_GLOBAL='/dev/null',
               GIT_CONFIG_SYSTEM='/dev/null',
               GIT_CEILING_DIRECTORIES=os.path.dirname(cwd))
    return subprocess.run(['git', *args], cwd=cwd, env=env, text=True,
                          capture_output=True, check=False, **kwargs)


class Series(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.dir = os.path.join(tmp.name, 'work')
        os.mkdir(self.dir)
        self.series = prepare_qemu.read_series(
            os.path.join(PATCHES, 'series'))

    def test_complete(self):
        self.assertTrue(self.series)
        self.assertEqual(
            sorted(map(os.path.basename, self.series)),
            sorted(map(os.path.basename,
                       glob.glob(os.path.join(PATCHES, '*.patch')))))
        self.assertEqual(len(self.series), len(set(self.series)))

    def test_mails(self):
        for path in self.series:
            with self.subTest(os.path.basename(path)):
                self.check_mail(path)

    def check_mail(self, path):
        with open(path, encoding='utf-8') as f:
            p = git('mailinfo', '-k', 'message', 'diff', cwd=self.dir,
                    stdin=f)
        self.assertEqual(p.returncode, 0, p.stderr)
        header = dict(line.split(': ', 1)
                      for line in p.stdout.splitlines() if line)
        for name in ('Author', 'Email', 'Date', 'Subject'):
            self.assertTrue(header.get(name), f'no {name}')
        self.assertRegex(header['Subject'], r'^\[PATCH\] [^ ].*[^.]$')
        with open(os.path.join(self.dir, 'message'), encoding='utf-8') as f:
            body = f.read()
        # libvirt takes no patch that its author has not signed off
        sign_off = f"Signed-off-by: {header['Author']} <{header['Email']}>"
        self.assertTrue(body.endswith(f'\n{sign_off}\n') or
                        body == f'{sign_off}\n', body)
        lines = [header['Subject'][len('[PATCH] '):],
                 *body.removesuffix(f'{sign_off}\n').splitlines()]
        for line in lines:
            self.assertLessEqual(len(line), 74, line)
        self.assertGreater(
            os.path.getsize(os.path.join(self.dir, 'diff')), 0)

    def test_applies(self):
        """In order, without fuzz, and without whitespace at line ends."""
        p = subprocess.run(
            [os.path.join(ROOT, 'scripts', 'fetch-libvirt'), '--offline'],
            capture_output=True, text=True, check=False)
        if p.returncode:
            self.skipTest(p.stderr.strip().removeprefix(
                'fetch-libvirt: error: ') +
                          ' (scripts/build-libvirt fetches it)')
        tree = os.path.join(self.dir, 'tree')
        prepare_qemu.Source(p.stdout.strip()).extract(
            prepare_qemu.touched_files(self.series), tree)
        for path in self.series:
            p = git('apply', '--whitespace=error-all', path, cwd=tree)
            self.assertEqual(p.returncode, 0,
                             f'{os.path.basename(path)}: {p.stderr}')


if __name__ == '__main__':
    unittest.main()
