#!/usr/bin/python3
#
# tlm checkpoint with disks: overlays that the command makes, and guests that
# are restored on new ones, so that each of them finds its disk as it was
#
# The guest writes blocks and reads them back, past its cache, and compares them
# with what it knows in RAM to have been written.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from tlmtest import env
from tlmtest.case import CRAWL, TlmCase
from tlmtest.guests import LinuxGuest
from tlmtest.vm import wait_until

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
IMAGE_TOOL = os.path.join(env.BUILD, 'qemu/qemu-img')
THREADS = 4
REQUESTS = 200                  # of each thread, to be sure that it goes on
# With one checkpoint: the guest's, the base, the one below, and the first
KEPT_IMAGES = 4


class DiskCommand(TlmCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-disks-')
        self.addCleanup(directory.cleanup)
        self.dir = os.path.join(directory.name, 'checkpoints')
        self.disks = os.path.join(directory.name, 'disks')
        os.mkdir(self.dir)
        os.mkdir(self.disks)
        self.image = os.path.join(self.disks, 'disk.img')
        self.guest = LinuxGuest(mem_mb=256, ws=32, disk=THREADS)
        self.qmp = os.path.join(directory.name, 'tool-qmp')

    def start(self, *disk):
        src = self.start_source(self.guest, extra=(
            *disk, '-qmp', f'unix:{self.qmp},server=on,wait=off'))
        self.wait_requests(src)
        return src

    def raw_disk(self):
        with open(self.image, 'wb') as f:
            f.truncate(16 << 20)
        return ('-drive', f'file={self.image},format=raw,if=virtio,'
                'cache=none,aio=threads')

    def qcow2_disk(self):
        subprocess.run([IMAGE_TOOL, 'create', '-q', '-f', 'qcow2', self.image,
                        '16M'], check=True)
        return ('-blockdev', f'file,node-name=file0,filename={self.image}',
                '-blockdev', json.dumps({
                    'driver': 'qcow2', 'node-name': 'disk0', 'file': 'file0'}),
                '-device', 'virtio-blk-pci,drive=disk0')

    def wait_requests(self, vm):
        done = self.guest.requests(vm)
        wait_until(lambda: self.guest._ok(vm) and
                   self.guest.requests(vm) > done + REQUESTS, 120,
                   f'{vm.name}: the guest uses its disk')

    def tool(self, command, *more, code=0):
        run = subprocess.run(
            [TOOL, 'checkpoint', command, '--dir', self.dir, *more],
            capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(run.returncode, code, run.stderr)
        return json.loads(run.stdout) if code == 0 else run.stderr

    def save(self, name):
        return self.tool('save', '--qmp', self.qmp, '--disk', 'auto',
                         '--name', name, '--json')

    @staticmethod
    def content(path):
        with open(path, 'rb') as f:
            return hashlib.file_digest(f, 'sha256').hexdigest()

    def files(self):
        return sorted(os.listdir(self.disks))


class Saved(DiskCommand):
    def test_save(self):
        src = self.start(*self.raw_disk())
        bases = []
        for name in ('one', 'two'):
            told = self.save(name)
            disk, = told['disks']
            self.assertIn('disks', told['pause-parts-us'])
            bases.append((disk['base'], os.stat(disk['base']).st_mtime_ns,
                          self.content(disk['base'])))
            self.assertEqual(disk['identity']['mtime-ns'], bases[-1][1])
            self.wait_requests(src)
        self.assert_runs_on(self.guest, src)
        src.qmp('quit')
        src.process.wait(60)
        self.assertEqual([base for base, *_ in bases], [
            self.image, f'{self.image}.tlm-one.qcow2'])
        self.assertEqual(disk['below'], [self.image])
        for base, time, content in bases:
            self.assertEqual((os.stat(base).st_mtime_ns, self.content(base)),
                             (time, content))

    def interrupt(self, src, stage):
        """Returns what the command says."""
        p = subprocess.Popen(
            [TOOL, 'checkpoint', 'save', '--dir', self.dir, '--qmp', self.qmp,
             '--disk', 'auto', '--name', stage, '--bandwidth', f'{CRAWL}B/s'],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.wait_stage(src, stage)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=180)
        self.assertEqual(p.returncode, 130, err)
        return err

    def test_interrupted(self):
        """Before the switch nothing is left; after it the overlay is the
        guest's disk."""
        src = self.start(*self.qcow2_disk())
        err = self.interrupt(src, 'live')
        self.assertNotIn('not removed', err)
        self.assertEqual(self.files(), ['disk.img'])
        self.assertEqual(src.qmp('query-block')[0]['inserted']['file'],
                         self.image)
        # No record of an overlay is left, either
        self.assertEqual(os.listdir(self.dir), ['.lock'])
        err = self.interrupt(src, 'flush')
        self.assertIn('disk.img.tlm-flush.qcow2 was not removed', err)
        self.assertEqual(self.files(),
                         ['disk.img', 'disk.img.tlm-flush.qcow2'])
        self.assertEqual(src.qmp('query-block')[0]['inserted']['file'],
                         f'{self.image}.tlm-flush.qcow2')
        self.wait_requests(src)
        self.assert_runs_on(self.guest, src)
        # "commit" knows by it that the overlay may be merged
        self.assertEqual(sorted(os.listdir(self.dir)), ['.lock', '.overlays'])

    def test_watch(self):
        """With --keep the chain of images does not become longer and longer,
        and with what stays the guest can be restored."""
        src = self.start(*self.raw_disk())
        p = subprocess.Popen(
            [TOOL, 'checkpoint', 'watch', '--dir', self.dir, '--qmp',
             self.qmp, '--disk', 'auto', '--every', '1s', '--keep', '1'],
            stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.kill)
        lines = iter(p.stdout.readline, '')
        merged = [line for line, _ in zip(
            (line for line in lines if line.startswith('Merged ')), range(3))]
        self.assertIn(f'into {self.image}', merged[-1])
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=180)
        self.assertEqual(p.returncode, 0)
        # One more may have been saved, and not yet be the only one
        self.assertLessEqual(len(self.files()), KEPT_IMAGES + 2)
        self.wait_requests(src)
        self.assert_runs_on(self.guest, src)


class Restored(DiskCommand):
    """By a stock QEMU, from the recorded command line."""

    def end(self, told):
        with contextlib.suppress(ProcessLookupError):
            os.kill(told['pid'], signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{told['pid']}/fd/0"),
                   30, 'QEMU has ended')
        shutil.rmtree(os.path.dirname(told['qmp']), ignore_errors=True)

    def restored(self, src, *more):
        """The guest goes on at the serial port of the source."""
        before = self.guest.requests(src)
        told = self.tool('restore', '--json', *more)
        try:
            self.assertEqual(told['status'], 'running')
            seen = src.serial_size()
            wait_until(lambda: self.after(src, seen) > REQUESTS, 120,
                       'the guest uses its disk again')
            self.assertIsNone(self.guest.corruption(src))
        finally:
            self.end(told)
        self.assertGreater(before, 0)
        return told['disks']

    @staticmethod
    def after(src, seen):
        """How far the guest's count went since then."""
        with open(src.serial_path, encoding='latin-1') as f:
            f.seek(seen)
            found = [int(n) for n in re.findall(
                r'^TLM-GUEST-DISK requests=(\d+)\r?$', f.read(), re.M)]
        return found[-1] - found[0] if found else 0

    def check(self, *disk):
        src = self.start(*disk)
        bases = {}
        for name in ('one', 'two'):
            used, = self.save(name)['disks']
            bases[name] = used['base']
            self.wait_requests(src)
        src.kill()
        contents = {base: self.content(base) for base in bases.values()}
        for name in ('one', 'two', 'one'):
            line = [env.STOCK_QEMU, *src.command[1:]]
            new, = self.restored(src, name, '--', *line)
            self.assertIn(f'restored-{name}-', new)
        new, = self.restored(src, '--disks-dir',
                             os.path.join(self.disks, 'new'), 'two')
        self.assertEqual(os.path.dirname(new),
                         os.path.join(self.disks, 'new'))
        self.assertEqual({base: self.content(base) for base in contents},
                         contents)

    def test_drive(self):
        self.check(*self.raw_disk())

    def test_blockdev(self):
        self.check(*self.qcow2_disk())


if __name__ == '__main__':
    unittest.main()
