#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of tlm checkpoint without a virtual machine: which words of a command
line are replaced, which are refused; overlays that are made and removed."""

import contextlib
import io
import json
import os
import tempfile
import unittest
from unittest import mock

from tlm.checkpoint import drives, fresh, images, overlays
from tlm.checkpoint.records import RESTORED, SAVED, Records
from tlm.errors import MigrateError

BASE, BELOW = '/srv/vm/disk.img.tlm-one.qcow2', '/srv/vm/disk.img'
DISK = {'base': BASE, 'below': [BELOW], 'format': 'qcow2'}
NEW = '/srv/new,1.qcow2'
FILE = {'driver': 'file', 'filename': BELOW}


class Drives(unittest.TestCase):
    def on(self, *words, recorded=True, wanted=(DISK,)):
        return drives.on(words, '/srv', wanted, recorded,
                         lambda disk: NEW).words

    def refused(self, *words, **how):
        with self.assertRaisesRegex(MigrateError, 'not sure(.|\n)*qemu-img '
                                    f'create -f qcow2 -b {BASE} -F qcow2'):
            self.on(*words, **how)

    def test_drive(self):
        for old, new in (
                (f'file={BELOW},if=virtio',
                 'file=/srv/new,,1.qcow2,if=virtio,format=qcow2'),
                ('if=none,format=raw,id=a,file=vm/disk.img',
                 'if=none,format=qcow2,id=a,file=/srv/new,,1.qcow2'),
                (f'driver=raw,file={BASE}',
                 'driver=qcow2,file=/srv/new,,1.qcow2')):
            for option in ('-drive', '--drive'):
                self.assertEqual(self.on('qemu', option, old, '-S'),
                                 ['qemu', option, new, '-S'])
        self.assertEqual(self.on('qemu', '-hdb', 'vm/disk.img'),
                         ['qemu', '-hdb', NEW])

    def test_blockdev(self):
        above = 'driver=raw,node-name=d,file=f'
        words = self.on('-blockdev', f'file,node-name=f,filename={BELOW}',
                        '-blockdev', above, '-device', 'virtio-blk,drive=d')
        self.assertEqual(words[1], 'driver=file,node-name=f,'
                         'filename=/srv/new,,1.qcow2')
        self.assertEqual(words[3], 'driver=qcow2,node-name=d,file=f')
        words = self.on('-blockdev', json.dumps(
            {'driver': 'raw', 'node-name': 'd', 'read-only': False,
             'file': {**FILE, 'aio': 'native'}}))
        self.assertEqual(json.loads(words[1]), {
            'driver': 'qcow2', 'node-name': 'd', 'read-only': False,
            'file': {'driver': 'file', 'filename': NEW, 'aio': 'native'}})
        self.assertEqual(
            self.on('-blockdev', 'raw,node-name=d,file.driver=file,'
                    f'file.filename={BELOW}')[1],
            'driver=qcow2,node-name=d,file.driver=file,'
            'file.filename=/srv/new,,1.qcow2')

    def test_refused(self):
        for words in (
                ('qemu',), ('qemu', BELOW), ('-drive', f'file={BELOW}', BELOW),
                ('-drive', 'file=/srv/other.img'),
                ('-drive', f'file.filename={BELOW},format=raw'),
                ('-drive', f'file={BELOW},snapshot=on'),
                ('-drive', f'file={BELOW},backing.file.filename=x'),
                ('-drive', f'file={BELOW},format=raw,offset=512'),
                ('-drive', f'file={BELOW}', '-drive', f'file={BELOW}'),
                ('-drive', 'file=json:' + json.dumps(FILE)),
                ('-blockdev', f'file,node-name=f,filename={BELOW}'),
                ('-blockdev', f'file,node-name=f,filename={BELOW}',
                 '-blockdev', 'raw,file=f', '-blockdev', 'qcow2,file=f'),
                ('-blockdev', f'file,node-name=f,filename={BELOW}',
                 '-blockdev', 'qcow2,node-name=d,file=f,backing=null'),
                ('-blockdev', json.dumps({'driver': 'qcow2', 'backing': None,
                                          'file': FILE})),
                ('-blockdev', json.dumps({'driver': 'raw', 'offset': 512,
                                          'file': FILE}))):
            with self.subTest(words=words):
                self.refused(*words)

    def test_line_of_the_user(self):
        """One with other disks is taken as it is; not one that would write
        to an image of the checkpoint."""
        for words in (('-drive', 'file=/srv/mine.qcow2'),
                      ('-drive', f'file={BELOW},readonly=on')):
            self.assertEqual(self.on(*words, recorded=False), list(words))
        self.refused('qemu', BELOW, recorded=False)
        self.refused('-set', 'drive.d.file=disk.img', recorded=False)

    def test_other_names_of_a_file(self):
        with tempfile.TemporaryDirectory() as directory:
            file, link = (os.path.join(os.path.realpath(directory), name)
                          for name in ('disk', 'link'))
            with open(file, 'wb'):
                os.symlink(file, link)
            disk = {'base': file, 'below': [], 'format': 'raw'}
            self.assertIn(NEW, self.on('-hda', link, wanted=[disk],
                                       recorded=False))
            with self.assertRaises(MigrateError):
                self.on('qemu', link, wanted=[disk], recorded=False)

    def test_no_disks(self):
        self.assertEqual(self.on('qemu', BELOW, wanted=()), ['qemu', BELOW])


class Made(unittest.TestCase):
    """Overlays, with a qemu-img and a QEMU that are played."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = os.path.realpath(directory.name)
        tool = self.path('qemu-img')
        with open(tool, 'w') as f:
            f.write('#!/bin/sh\ntest ! -e "$0.broken" || '
                    '{ echo no luck >&2; exit 1; }\n')
        os.chmod(tool, 0o755)
        with open(self.path('disk.img'), 'wb') as f:
            os.fchmod(f.fileno(), 0o640)
        with open(self.path('qemu'), 'wb') as f:
            os.fchmod(f.fileno(), 0o755)
        self.vm = {'command': [self.path('qemu')], 'directory': self.dir}
        os.mkdir(self.path('qemu-checkpoints'))
        self.records = Records(self.path('qemu-checkpoints'))
        self.disks, self.asked, self.refuses = [self.disk()], [], ()

    def path(self, name):
        return os.path.join(self.dir, name)

    def files(self):
        return sorted(f for f in os.listdir(self.dir)
                      if not f.startswith('qemu'))

    @staticmethod
    def disk(file='disk.img', **members):
        return {'device': 'd', 'inserted': {
            'ro': False, 'node-name': 'n', 'drv': 'raw', 'file': file,
            'image': {'virtual-size': 1 << 20}, **members}}

    def qmp(self, command, **arguments):
        self.asked.append((command, arguments))
        if command in self.refuses:
            raise MigrateError(f'{command}: it does not want to')
        return self.disks

    def make(self):
        return overlays.Overlays(self.qmp, 'one', self.vm, self.records)

    def test_made(self):
        with self.make() as made:
            (node, overlay), = made.pairs
            self.assertEqual(node, 'n')
        path = self.path('disk.img.tlm-one.qcow2')
        self.assertEqual(self.records.overlays(), {path: SAVED})
        self.assertEqual(self.files(), ['disk.img', os.path.basename(path)])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o640)
        self.assertEqual(self.asked[1][1]['file']['filename'], path)
        self.assertEqual(self.asked[1][1]['node_name'], overlay)
        self.assertIsNone(self.asked[1][1]['backing'])
        # The next name does not grow, and nobody's file is written to
        self.disks = [self.disk(path)]
        with self.make():
            self.assertIn('disk.img.tlm-one-2.qcow2', self.files())

    def test_what_is_no_disk(self):
        self.disks += [{'device': 'cd'}, self.disk('x', ro=True)]
        self.assertEqual(len(overlays.found(self.qmp, self.dir)), 1)
        self.disks = self.disks[1:]
        with self.assertRaisesRegex(MigrateError, 'no disk'):
            overlays.found(self.qmp, self.dir)

    def test_refused(self):
        for disk in (self.disk('nbd://host/x'), self.disk('/dev/null'),
                     self.disk('json:{"driver": "nbd"}'),
                     self.disk('/var/tmp/vl.gone'), self.disk('json:{'),
                     self.disk(encrypted=True), self.disk(drv='throttle'),
                     self.disk('json:' + json.dumps({
                         'driver': 'raw', 'offset': 512, 'file': {
                             'driver': 'file', 'filename': 'disk.img'}}))):
            self.disks[1:] = [disk]
            with self.assertRaisesRegex(MigrateError, 'NODE=OVERLAY'), \
                    self.make():
                pass
        self.assertEqual(self.files(), ['disk.img'])

    def test_failures(self):
        """Before the switch, nothing is left; what QEMU uses stays."""
        with self.assertRaises(KeyError), self.make():
            raise KeyError
        self.assertEqual(self.files(), ['disk.img'])
        self.refuses = ('blockdev-add',)
        with self.assertRaisesRegex(MigrateError, 'not want'), self.make():
            pass
        self.assertEqual(self.files(), ['disk.img'])
        self.refuses, err = ('blockdev-del',), io.StringIO()
        with self.assertRaises(KeyError), \
                contextlib.redirect_stderr(err), self.make():
            raise KeyError
        self.assertIn('disk.img.tlm-one.qcow2 was not removed',
                      err.getvalue())
        self.assertEqual(self.files(), ['disk.img', 'disk.img.tlm-one.qcow2'])
        with open(self.path('qemu-img.broken'), 'w'), \
                self.assertRaisesRegex(MigrateError, 'no luck'):
            fresh.Fresh(None, 'one', [self.path('qemu')], self.records).make(
                {'base': self.path('disk.img'), 'format': 'raw'})

    def test_fresh(self):
        disk = {'base': self.path('disk.img'), 'format': 'raw'}
        with self.assertRaises(KeyError), \
                fresh.Fresh(None, 'one', [self.path('qemu')],
                            self.records) as new:
            self.assertTrue(os.path.exists(new.make(disk)))
            self.assertTrue(os.path.exists(new.make(disk)))
            raise KeyError
        self.assertEqual(self.files(), ['disk.img'])
        with fresh.Fresh(self.path('d'), 'one', [self.path('qemu')],
                         self.records) as new:
            path = new.make(disk)
        self.assertEqual(self.records.overlays(), {path: RESTORED})
        with self.assertRaises(FileExistsError), \
                fresh.Fresh(self.path('d'), 'one', [self.path('qemu')],
                            self.records) as new:
            new.make(disk)
        self.assertTrue(os.path.exists(path))

    def test_no_qemu_img(self):
        with mock.patch.dict(os.environ, PATH='/nowhere'), \
                self.assertRaisesRegex(MigrateError, 'qemu-utils'):
            images.tool('qemu-system-x86_64', None)


if __name__ == '__main__':
    unittest.main()
