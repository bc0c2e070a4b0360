#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tests/compat/table says what has happened, in its cells and its status."""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import shlex
import sys
import tempfile
import unittest
from unittest import mock

from tlmtest import env, migration

PROGRAM = os.path.join(env.ROOT, 'tests/compat/table')
MACHINE = 'pc-q35-9.2'


def loaded():
    loader = importlib.machinery.SourceFileLoader('compat_table', PROGRAM)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('compat_table', loader))
    loader.exec_module(module)
    return module


class Table(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU)
        if reason:
            raise unittest.SkipTest(reason)

    def setUp(self):
        self.table = loaded()
        self.dir = self.enterContext(
            tempfile.TemporaryDirectory(prefix='tlm-table-'))

    def wrapped(self, name, body):
        """A QEMU that is @body."""
        path = os.path.join(self.dir, name)
        with open(path, 'w', encoding='utf-8') as f:
            f.write(f'#!/bin/sh\n{body}\n')
        os.chmod(path, 0o755)
        return path

    def run_program(self, source, destination, *more):
        """Exit status, head and the only row of its table."""
        out = io.StringIO()
        arguments = ['table', '--only', MACHINE, '--source', f'a={source}',
                     '--destination', f'b={destination}', *more]
        with mock.patch.object(sys, 'argv', arguments), \
                contextlib.redirect_stdout(out):
            status = self.table.main()
        head, _, row = out.getvalue().splitlines()
        return status, head, row

    def run_table(self, source=env.QEMU, destination=env.STOCK_QEMU):
        """Exit status and the cells of one machine's row."""
        status, head, row = self.run_program(source, destination)
        self.assertEqual(head, '| machine | a to b |')
        name, *cells = [part.strip() for part in row.split('|')[1:-1]]
        self.assertEqual(name, MACHINE)
        self.assertEqual(len(cells), 1)
        return status, cells[0]

    def test_passed(self):
        self.assertEqual(self.run_table(), (0, 'passed'))

    def test_one_byte_differs(self):
        waited = migration.wait_loaded

        def damaged(dst, *args):
            waited(dst, *args)
            block = dst.main_block()
            byte, = dst.read_block(block, block.used - 1, 1)
            dst.write_block(block, block.used - 1, bytes([byte ^ 1]))
        with mock.patch.object(migration, 'wait_loaded', damaged):
            status, cell = self.run_table()
        self.assertEqual(status, 1)
        self.assertRegex(cell, r'^\*\*failed\*\*: 1 of \d+ pages differ')

    def test_source_that_ends(self):
        """... is a failure, and no refusal."""
        start = migration.start

        def killed(src, *address):
            start(src, *address)
            src.kill()
        with mock.patch.object(migration, 'start', killed):
            status, cell = self.run_table()
        self.assertEqual(status, 1)
        self.assertRegex(cell, r'^\*\*failed\*\*')

    def test_refused(self):
        """A device that only the source has."""
        source = self.wrapped('more', f'exec {shlex.quote(env.QEMU)} "$@" '
                              '-device virtio-rng-pci')
        status, cell = self.run_table(source)
        self.assertEqual(status, 1)
        self.assertRegex(cell, r'^refused: .*virtio-rng')

    def test_short(self):
        for text, counted in (('passed', '1 of 1 | |'),
                              ('refused: no', f'0 of 1 | {MACHINE}: refused: '
                               'no |')):
            with mock.patch.object(self.table, 'cell',
                                   lambda *_, text=text: text):
                status, _, row = self.run_program(env.QEMU, env.STOCK_QEMU,
                                                  '--short')
            self.assertEqual(' '.join(row.split()), f'| a | b | {counted}')
            self.assertEqual(status, int(text != 'passed'))

    def test_no_such_machine(self):
        other = self.wrapped(
            'other', 'echo "pc-i440fx-9.2      Standard PC"')
        self.assertEqual(self.run_table(destination=other),
                         (0, 'not tried: no such machine'))


if __name__ == '__main__':
    unittest.main()
