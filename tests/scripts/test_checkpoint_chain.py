#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint: incremental ones, which need others; made here, joined,
made whole, pruned, and killed at each step of that."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from tlm.checkpoint import (chain, clone, manifest, overlays, prune, saver,
                            verify)
from tlm.checkpoint.catalogue import Catalogue
from tlm.checkpoint.target import summed
from tlm.errors import MigrateError
from tlmtest import killed

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_mappedram                                   # noqa: E402

GENERATIONS = 5


def whole_ram(generations):
    ram = {}
    for generation in generations:
        for block, pages in generation.items():
            ram.setdefault(block, {}).update(pages)
    return ram


class Case(test_mappedram.Case):
    # These are about names and bytes: fsync of a disk would only take time
    where = '/dev/shm' if os.path.isdir('/dev/shm') else None

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory(dir=self.where)
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.catalogue = Catalogue(self.dir)
        self.wanted = {}

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, path, data):
        """Holes stay holes."""
        with open(path, 'wb') as f:
            f.truncate(len(data))
            for at in range(0, len(data), test_mappedram.PAGE):
                page = data[at:at + test_mappedram.PAGE]
                if page.strip(b'\0'):
                    f.seek(at)
                    f.write(page)

    def add(self, name, data, number, **members):
        self.write(self.path(f'{name}.part'), data)
        self.catalogue.add(name, {
            'name': name, 'created': f'2026-01-{number + 1:02}T00:00:00Z',
            'generation': f'id-{name}', 'pause-us': 1,
            'machine': {'status': 'running', 'running': True},
            'file': summed(self.path(f'{name}.part')), **members})

    def add_chain(self, num=GENERATIONS, first=0):
        """g0 is whole, the others need the one before."""
        self.generations = generations = []
        for i in range(first, first + num):
            generations.append(self.some_ram(0.1 if i == first else 0.02))
            tail = f'devices of g{i}'.encode() * (i + 1)
            data = self.contents(self.make(generations[-1], tail))
            self.wanted[f'g{i}'] = self.contents(self.make(
                whole_ram(generations), tail))
            parent = {} if i == first else {
                'parent': f'g{i - 1}', 'parent-generation': f'id-g{i - 1}'}
            self.add(f'g{i}', data, i, **parent)

    def assert_good(self, *names):
        """There are these, whole or not, and each is what it was."""
        entries = self.catalogue.entries()
        self.assertEqual([e.name for e in entries], list(names))
        for entry in entries:
            self.assertIsNone(verify.problem(self.catalogue, entry))
            with chain.joined(self.catalogue, entry) as path, \
                    open(path, 'rb') as f:
                self.assertEqual(f.read(), self.wanted[entry.name],
                                 entry.name)

    def flatten(self, name):
        chain.flatten(self.catalogue, self.catalogue.get(name), summed)


class Chains(Case):
    def setUp(self):
        super().setUp()
        self.add_chain()
        self.names = [f'g{i}' for i in range(GENERATIONS)]

    def test_each_can_be_joined(self):
        self.assert_good(*self.names)
        self.assertEqual(self.catalogue.leftovers(), [])

    def test_flatten(self):
        self.flatten('g2')
        self.assertIsNone(self.catalogue.get('g2').parent)
        self.assertEqual(self.catalogue.get('g3').parent, 'g2')
        self.assertEqual(self.catalogue.leftovers(), [])
        self.assert_good(*self.names)
        for name in ('g0', 'g1'):
            self.catalogue.remove(name)
        self.assert_good('g2', 'g3', 'g4')

    def test_prune(self):
        self.assertEqual(prune.run(self.catalogue, 2), ['g0', 'g1', 'g2'])
        self.assertEqual(self.catalogue.leftovers(), [])
        self.assert_good('g3', 'g4')
        self.assertEqual(self.catalogue.get('g4').parent, 'g3')
        self.assertEqual(prune.run(self.catalogue, 1), ['g3'])
        self.assert_good('g4')

    def test_prune_between_chains(self):
        """Nothing needs to be joined where a whole one begins."""
        self.add_chain(2, GENERATIONS)
        with mock.patch.object(chain, 'flatten') as flatten:
            prune.run(self.catalogue, 2)
        flatten.assert_not_called()
        self.assert_good('g5', 'g6')

    def test_no_space_to_prune(self):
        """Then nothing is removed."""
        with mock.patch.object(clone, 'copied',
                               side_effect=OSError(28, 'full')), \
                mock.patch.object(clone, 'shared', return_value=False), \
                self.assertRaises(OSError):
            prune.run(self.catalogue, 2)
        self.assertEqual(self.catalogue.leftovers(), [])
        self.assert_good(*self.names)

    def test_parent_that_is_lost(self):
        os.unlink(self.path('g1.overlay'))
        problems = {e.name: e.problem for e in self.catalogue.entries()}
        self.assertIsNone(problems['g0'])
        self.assertIn('No such file', problems['g1'])
        self.assertIn("its parent 'g1'", problems['g2'])
        self.assertIn("its parent 'g3'", problems['g4'])
        self.catalogue.remove('g1')
        self.assertEqual(self.catalogue.get('g2').problem,
                         "its parent 'g1' is not there")

    def test_another_of_the_parents_name(self):
        content = self.catalogue.get('g1').manifest
        self.catalogue.remove('g1')
        with open(self.path('g0.checkpoint'), 'rb') as f:
            self.add('g1', f.read(), 1)
        self.assertNotEqual(content, self.catalogue.get('g1').manifest)
        with mock.patch.object(manifest, 'read', wraps=manifest.read):
            self.assertIsNone(self.catalogue.get('g2').problem)
        self.catalogue.remove('g1')
        self.add('g1', b'another', 1, generation='id-other')
        self.assertIn('not its parent any more',
                      self.catalogue.get('g2').problem)

    def test_verify_looks_at_the_parents(self):
        with open(self.path('g0.checkpoint'), 'r+b') as f:
            f.seek(5)
            f.write(b'!')
        problem = verify.problem(self.catalogue, self.catalogue.get('g2'))
        self.assertRegex(problem, "parent 'g1': its parent 'g0': .* 1 of")

    def test_interrupted(self):
        with self.assertRaises(KeyboardInterrupt):
            chain.flatten(self.catalogue, self.catalogue.get('g4'), summed,
                          check=mock.Mock(side_effect=KeyboardInterrupt))
        self.assertEqual(self.catalogue.leftovers(), [])
        self.assert_good(*self.names)


class Killed(Case):
    """At each system call that changes a file or the directory."""

    def setUp(self):
        super().setUp()
        self.add_chain(3)
        self.copy = self.dir + '.copy'
        shutil.copytree(self.dir, self.copy)
        self.addCleanup(shutil.rmtree, self.copy)

    def each_step(self, what, after):
        number = 0
        while killed.at_write(number := number + 1, what):
            with self.subTest(killed_at=number):
                after()
            shutil.rmtree(self.dir)
            shutil.copytree(self.copy, self.dir)
        self.assertGreater(number, 20)

    def test_flatten(self):
        def after():
            self.assert_good('g0', 'g1', 'g2')
            self.catalogue.remove_leftovers()
            self.flatten('g2')
            self.assertEqual(self.catalogue.leftovers(), [])
            self.assert_good('g0', 'g1', 'g2')
        self.each_step(lambda: self.flatten('g2'), after)

    def test_prune(self):
        def after():
            names = [e.name for e in self.catalogue.entries()]
            self.assertIn(names, [['g0', 'g1', 'g2'][i:] if i < 3 else names
                                  for i in range(3)] + [['g0', 'g2']])
            self.assert_good(*names)
            prune.run(self.catalogue, 1)
            self.catalogue.remove_leftovers()
            self.assert_good('g2')
            self.assertEqual(len(os.listdir(self.dir)), 2)
        self.each_step(lambda: prune.run(self.catalogue, 1), after)


class Saved(Case):
    """What becomes of the file that QEMU has written."""

    ARGS = argparse.Namespace(bandwidth=None, bound=None, set=[], mode=None,
                              buffer=None, incremental=True)

    def save(self, number, parent):
        """As Saver does it after QEMU."""
        ram = self.some_ram(0.05)
        data = self.contents(self.make(ram, b'devices'))
        self.wanted[f'g{number}'] = self.contents(self.make(
            whole_ram([*self.generations, ram]), b'devices'))
        part = self.path(f'g{number}.part')
        self.write(part, data)
        content = {'parent-generation': parent, 'generation': f'id-g{number}'}
        chain.place(self.catalogue, part, chain.newest(self.catalogue),
                    content)
        return content, part

    def test_without_shared_data(self):
        self.add_chain(2)
        with mock.patch.object(clone, 'shared', return_value=False):
            content, part = self.save(2, 'id-g1')
        self.assertEqual(content['parent'], 'g1')
        self.assertEqual(os.listdir(self.dir).count('g2.part'), 1)
        self.assertEqual(self.catalogue.leftovers(), ['g2.part'])

    def test_another_parent(self):
        self.add_chain(2)
        with self.assertRaisesRegex(MigrateError, 'another'):
            self.save(2, 'id-g0')

    def test_arguments(self):
        def arguments(parent):
            return saver.arguments(self.ARGS, overlays.Named([]), parent and
                                   parent.manifest['generation'])
        self.assertIsNone(chain.newest(self.catalogue))
        self.assertEqual(arguments(None), {'incremental': True})
        self.add_chain(2)
        self.assertEqual(arguments(chain.newest(self.catalogue)),
                         {'incremental': True, 'parent': 'id-g1'})
        os.unlink(self.path('g1.overlay'))
        self.assertEqual(chain.newest(self.catalogue).name, 'g0')


def mounted(make, *words):
    """A directory on a new file system; None: it cannot be had here."""
    top = tempfile.mkdtemp()
    image = os.path.join(top, 'image')
    with open(image, 'wb') as f:
        f.truncate(400 << 20)
    os.mkdir(os.path.join(top, 'fs'))
    for command in ([make, '-q', *words, image],
                    ['mount', '-o', 'loop', image, f'{top}/fs']):
        try:
            run = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            run = None
        if run is None or run.returncode:
            shutil.rmtree(top)
            return None
    return top


class OnFileSystem:
    MAKE, WORDS, SHARES = '', (), False

    @classmethod
    def setUpClass(cls):
        cls.top = mounted(cls.MAKE, *cls.WORDS)
        if not cls.top:
            raise unittest.SkipTest(f'no file system by {cls.MAKE} here')
        cls.where = os.path.join(cls.top, 'fs')

    @classmethod
    def tearDownClass(cls):
        subprocess.run(['umount', cls.where], check=True)
        shutil.rmtree(cls.top)

    def test_saved(self):
        self.add_chain(1)
        content, part = self.save(1, 'id-g0')
        self.assertEqual('parent' not in content, self.SHARES)
        self.assertEqual(content.get('since'), 'g0' if self.SHARES else None)
        if self.SHARES:
            with open(part, 'rb') as f:
                self.assertEqual(f.read(), self.wanted['g1'])

    def test_chain(self):
        self.add_chain()
        self.flatten('g3')
        self.assert_good('g0', 'g1', 'g2', 'g3', 'g4')
        prune.run(self.catalogue, 1)
        self.assert_good('g4')


class Xfs(OnFileSystem, Saved):
    MAKE, SHARES = 'mkfs.xfs', True


class Btrfs(OnFileSystem, Saved):
    MAKE, SHARES = 'mkfs.btrfs', True


class Ext4(OnFileSystem, Saved):
    MAKE = 'mkfs.ext4'


if __name__ == '__main__':
    unittest.main()
