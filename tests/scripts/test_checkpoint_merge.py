#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint commit: which images of disks are merged.

In a model of images, whose content can be looked at, histories at random:
checkpoints, restores, removals, writes of the guest.  After each merge every
checkpoint's disk must be what it was, and its base untouched."""

import contextlib
import os
import random
import tempfile
import unittest
from unittest import mock

from tlm.checkpoint import merge
from tlm.checkpoint.catalogue import Entry
from tlm.checkpoint.records import RESTORED, SAVED, Records
from tlm.errors import MigrateError

HISTORIES = 300
STEPS = 40
SECTORS = 8


class Images:
    """In memory: name -> (sectors that it has, the image below)."""

    def __init__(self):
        self.data = {'/d/disk.img': [{s: 0 for s in range(SECTORS)}, None]}
        self.made, self.written = {}, 0

    def chain(self, top):
        found = []
        while top:
            found.append(top)
            top = self.data[top][1]
        return found

    def seen(self, top):
        content = {}
        for name in reversed(self.chain(top)):
            content.update(self.data[name][0])
        return content

    def overlay(self, base, name, by):
        self.data[name] = [{}, base]
        self.made[name] = by
        return name

    def write(self, top, sector):
        self.written += 1
        self.data[top][0][sector] = self.written

    def backing(self, path):
        return self.data[path][1]

    def merge(self, one):
        for name in reversed(one.images):
            self.data[one.into][0].update(self.data[name][0])
        if one.above:
            assert self.data[one.above][1] == one.images[0]
            self.data[one.above][1] = one.into
        for name in one.images:
            del self.data[name], self.made[name]


class History:
    """Of a VM, its restores, and the catalogue."""

    def __init__(self, case, seed):
        self.case, self.rand = case, random.Random(seed)
        self.images, self.number = Images(), 0
        self.top = '/d/disk.img'
        self.tops = set()           # of VMs that were left, or are others
        self.entries, self.wanted = {}, {}

    def name(self, what):
        self.number += 1
        return f'/d/disk.img.{what}-{self.number}'

    def save(self, recorded=True, kept=True):
        base, below = self.top, self.images.chain(self.top)[1:]
        self.top = self.images.overlay(base, self.name('tlm'), SAVED)
        if not recorded:
            self.images.made[self.top] = 'nobody'
        name = f'c{self.number}'
        if kept:
            self.entries[name] = Entry(name, {
                'disks': [{'base': base, 'below': below}]})
        if kept or not recorded:        # of another directory: unknown here
            self.wanted[name] = (base, self.images.seen(base),
                                 dict(self.images.data[base][0]),
                                 self.images.data[base][1])

    def restore(self, go_on):
        if not self.entries:
            return
        base = self.rand.choice(list(self.wanted.values()))[0]
        new = self.images.overlay(base, self.name('restored'), RESTORED)
        self.tops.add(self.top if go_on else new)
        if go_on:
            self.top = new

    def remove(self):
        if self.entries:
            name = self.rand.choice(list(self.entries))
            del self.entries[name], self.wanted[name]

    def overlays(self):
        return {k: v for k, v in self.images.made.items() if v != 'nobody'}

    def commit(self):
        before = {top: self.images.seen(top) for top in
                  {*self.tops, self.top}}
        while True:
            merges, _ = merge.plan(self.images.chain(self.top),
                                   list(self.entries.values()),
                                   self.overlays())
            if not merges:
                break
            # Nothing depends on which is done first
            self.images.merge(self.rand.choice(merges))
            self.top = self.top if self.top in self.images.data else \
                merges[0].into
            self.check(before)

    def check(self, before):
        for base, seen, own, below in self.wanted.values():
            self.case.assertEqual(self.images.seen(base), seen)
            self.case.assertEqual(self.images.data[base], [own, below])
        for top, seen in before.items():
            if top in self.images.data:
                self.case.assertEqual(self.images.seen(top), seen)
            else:
                self.case.assertEqual(self.images.seen(self.top), seen)

    def step(self):
        what = self.rand.choices(
            ('write', 'save', 'fail', 'stranger', 'restore', 'go on',
             'remove', 'commit'), (6, 6, 1, .3, .5, .3, 4, 3))[0]
        if what == 'write':
            self.images.write(self.top, self.rand.randrange(SECTORS))
        elif what in ('save', 'fail', 'stranger'):
            self.save(what != 'stranger', what == 'save')
        elif what in ('restore', 'go on'):
            self.restore(what == 'go on')
        elif what == 'remove':
            self.remove()
        else:
            self.commit()


class Model(unittest.TestCase):
    def test_histories(self):
        for seed in range(HISTORIES):
            with self.subTest(seed=seed):
                history = History(self, seed)
                with mock.patch.object(merge, 'backing',
                                       history.images.backing):
                    for _ in range(STEPS):
                        history.step()
                    history.commit()

    def test_length(self):
        """It does not grow when old checkpoints are removed."""
        for keep in (1, 3):
            history = History(self, 0)
            with mock.patch.object(merge, 'backing', history.images.backing):
                for _ in range(20):
                    history.images.write(history.top, 1)
                    history.save()
                    for name in list(history.entries)[:-keep]:
                        del history.entries[name], history.wanted[name]
                    history.commit()
                    # The guest's, the bases, the one below, and the first
                    self.assertLessEqual(
                        len(history.images.chain(history.top)), keep + 3)
                history.entries.clear()
                history.wanted.clear()
                history.commit()
            self.assertEqual(history.top, '/d/disk.img')
            self.assertEqual(list(history.images.data), ['/d/disk.img'])


class Plans(unittest.TestCase):
    CHAIN = ['/4', '/3', '/2', '/1', '/0']
    MADE = dict.fromkeys(CHAIN[:-1], SAVED)

    def plan(self, *bases, overlays=None, backing=lambda path: None):
        entries = [Entry(f'c{b}', {'disks': [{'base': f'/{b}', 'below': []}]})
                   for b in bases]
        with mock.patch.object(merge, 'backing', backing):
            return merge.plan(self.CHAIN, entries, overlays or self.MADE)

    def test_all(self):
        (one,), kept = self.plan()
        self.assertEqual(one, merge.Merge(('/4', '/3', '/2', '/1'), '/0',
                                          None))
        self.assertEqual(kept, {})

    def test_between(self):
        (one,), kept = self.plan(3)
        self.assertEqual(one, merge.Merge(('/1',), '/0', '/2'))
        self.assertEqual(kept, {'/3': "checkpoint 'c3' needs it"})
        self.assertEqual(self.plan(2)[0], [merge.Merge(('/4',), '/3', None)])
        self.assertEqual(self.plan(0, 3)[0], [])

    def test_of_another_vm(self):
        """What lies below its disk is neither merged into nor removed."""
        other = Entry('other', {'disks': [{'base': '/x', 'below':
                                           ['/1', '/0']}]})
        with mock.patch.object(merge, 'backing', lambda path: None):
            (one,), kept = merge.plan(self.CHAIN, [other], self.MADE)
        self.assertEqual((one.images, one.into), (('/4', '/3'), '/2'))
        self.assertEqual(set(kept), {'/0', '/1'})

    def test_restored(self):
        overlays = {**self.MADE, '/r': RESTORED}
        merges, kept = self.plan(
            overlays=overlays, backing=lambda path: '/1')
        self.assertEqual(merges, [merge.Merge(('/4', '/3'), '/2', None)])
        self.assertEqual(kept['/1'], '/r lies on it')

    def test_golden(self):
        """Below what was the VM's own disk."""
        merges, kept = self.plan(overlays=dict.fromkeys(('/4', '/3'), SAVED))
        self.assertEqual(merges, [merge.Merge(('/4', '/3'), '/2', None)])
        self.assertIn('was not made here', kept['/1'])

    def test_manifest_that_cannot_be_read(self):
        with self.assertRaisesRegex(MigrateError, 'x: torn. It is not known'):
            merge.plan(self.CHAIN, [Entry('x', None, 'torn')], self.MADE)


class Recorded(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.records = Records(self.dir)

    def path(self, name, there=True):
        path = os.path.join(self.dir, name)
        if there:
            with open(path, 'wb'):
                pass
        return path

    def test_overlays(self):
        self.assertEqual(self.records.overlays(), {})
        one, two = self.path('one'), self.path('two', False)
        self.records.add(one, SAVED)
        self.records.add(one, SAVED)
        self.records.add(two, RESTORED)
        with open(os.path.join(self.records.directory, '.x.new'), 'w') as f:
            f.write('{"over')       # somebody writes it
        self.assertEqual(self.records.overlays(), {one: SAVED})
        self.path('two')
        self.assertEqual(self.records.overlays(), {one: SAVED})
        os.unlink(os.path.join(self.records.directory, '.x.new'))
        self.records.forget(one)
        self.assertEqual(sorted(os.listdir(self.dir)), ['one', 'two'])
        self.records.forget(one)
        self.records.add(two, RESTORED)
        self.assertEqual(self.records.overlays(), {two: RESTORED})

    def test_merge(self):
        self.assertIsNone(self.records.pending())
        self.records.begin_merge({'into': '/0'})
        self.assertEqual(self.records.pending(), {'into': '/0'})
        self.records.end_merge()
        self.assertIsNone(self.records.pending())

    def test_backing(self):
        path = self.path('image')
        for content, wanted in (
                (b'', None), (b'x' * 100, None),
                (b'QFI\xfb\0\0\0\3' + bytes(12), None),
                (b'QFI\xfb\0\0\0\3' + (20).to_bytes(8, 'big') +
                 (4).to_bytes(4, 'big') + b'base', self.path('base'))):
            with open(path, 'wb') as f:
                f.write(content)
            self.assertEqual(merge.backing(path), wanted)
        with contextlib.suppress(OSError):
            os.unlink(path)
        with self.assertRaises(OSError):
            merge.backing(path)


if __name__ == '__main__':
    unittest.main()
