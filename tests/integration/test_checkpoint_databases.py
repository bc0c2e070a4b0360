#!/usr/bin/python3
#
# Checkpoints of databases with their disks: a restored guest, and an image
# without its RAM, have exactly what was acknowledged before the pause
#
# Redis (appendfsync always), and PostgreSQL (fsync on) where TLM_DATABASES
# says so, in a Linux guest with their data on an ext4 on a virtio disk.
# Clients in the guest write records, the next one when the last has been
# acknowledged, and count in RAM what they asked for and what was acknowledged
# (tests/guest/linux/journal.c). So RAM and disk of one instant differ by one
# record of each client at most, and never the other way.
#
# TLM_DATABASES=redis,postgresql makes both; the second takes a minute.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import subprocess
import unittest

from bench.linux import BenchGuest
from tlmtest import migration
from tlmtest.disks import DisksCase, image_tool
from tlmtest.vm import wait_until

DATABASES = os.environ.get('TLM_DATABASES', 'redis').split(',')
CLIENTS = 4
RECORDS = 100                   # of all clients, to be sure that they go on
IMAGE_MB = {'redis': 128, 'postgresql': 512}
RAM_MB = {'redis': 256, 'postgresql': 768}
MODES = ('copy', 'write-protect')
# e2fsck's exit status: nothing to be done; it has brought the file system up
# to date from its journal, as a kernel does
CLEAN, REPLAYED = 0, 1
FOUND = re.compile(r'^TLM-BENCH journal (\d+) (\d+)\r?$', re.M)


class Databases(DisksCase):
    def guest(self, **settings):
        return BenchGuest(self.database, RAM_MB[self.database],
                          run=f'{self.database}_disk', clients=CLIENTS,
                          **settings)

    def format(self):
        """An image with an empty file system."""
        raw = os.path.join(self.dir, 'raw')
        with open(raw, 'wb') as f:
            f.truncate(IMAGE_MB[self.database] << 20)
        subprocess.run(['/sbin/mke2fs', '-q', '-t', 'ext4', raw], check=True)
        base = os.path.join(self.dir, 'base.qcow2')
        image_tool('convert', '-O', 'qcow2', raw, base)
        os.unlink(raw)
        return base

    def wait_records(self, guest, vm):
        done = guest.progress(vm)['pages']
        wait_until(lambda: guest._ok(vm) and
                   guest.progress(vm)['pages'] > done + RECORDS, 120,
                   f'{vm.name}: the clients write')

    def found(self, guest, vm):
        """{client: records}, after the database has recovered."""
        said = guest.verify(vm, 300)
        found = {int(c): int(n) for c, n in FOUND.findall(said)}
        self.assertTrue(found and 'gap:' not in said, said)
        return found

    @staticmethod
    def exact(found, clients):
        """Whether these are the records of @clients (see BenchGuest)."""
        return len(found) == len(clients) and all(
            acknowledged <= found[i] <= asked and asked <= acknowledged + 1
            for i, (asked, acknowledged) in enumerate(clients))

    def start_restored(self, guest, path, frozen, disk):
        dst = self.start_destination(guest, extra=self.disk_args(disk))
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        migration.wait_loaded(dst)
        self.assert_same_ram(frozen, dst)
        return dst

    def check_file_system(self, image):
        """On a copy, with what its journal has."""
        raw = os.path.join(self.dir, 'copy')
        image_tool('convert', '-O', 'raw', image, raw)
        run = subprocess.run(['/sbin/e2fsck', '-p', '-E', 'journal_only', raw],
                             capture_output=True, text=True, check=False)
        self.assertIn(run.returncode, (CLEAN, REPLAYED), run.stdout)
        run = subprocess.run(['/sbin/e2fsck', '-f', '-n', raw],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, CLEAN, run.stdout)
        os.unlink(raw)

    def saved(self):
        """A guest that has written on after each checkpoint, and is gone:
        [(file, RAM in the pause, image that was the disk until then)]"""
        guest = self.guest()
        disk, taken = self.format(), []
        src = self.start_source(guest, extra=self.disk_args(disk))
        migration.set_parameters(src, max_bandwidth=0)
        for number, mode in enumerate(MODES):
            self.wait_records(guest, src)
            overlay = self.add_overlay(src, f'overlay{number}',
                                       f'{IMAGE_MB[self.database]}M')
            path = os.path.join(self.dir, f'vm{number}')
            frozen, info = self.take(
                src, f'file:{path}', mode=mode, disks=[
                    {'node': self.top(src), 'overlay': f'overlay{number}'}])
            self.assertTrue(info['tlm']['checkpoint']['disks-switched'])
            migration.wait_idle(src)
            taken.append((path, frozen, disk))
            disk = overlay
        self.wait_records(guest, src)
        src.close()
        # What blockdev-snapshot does not write into the file
        image_tool('rebase', '-u', '-F', 'qcow2', '-b', taken[0][2],
                   taken[1][2])
        return taken

    def after_a_crash(self, image, name):
        """What another guest finds, that has the image only."""
        guest = self.guest(recover=1)
        vm = self.start_vm(name, self.dst_binary, [
            *guest.args('tcg'), *self.disk_args(
                self.image(f'{name}.qcow2', backing=image))])
        guest.wait_filled(vm)
        found = self.found(guest, vm)
        vm.close()
        return found

    def check(self, database):
        self.database = database
        then = []
        for number, (path, frozen, image) in enumerate(self.saved()):
            self.check_file_system(image)
            guest = self.guest()
            dst = self.start_restored(guest, path, frozen, self.image(
                f'restored{number}.qcow2', backing=image))
            then.append(guest.clients(dst))
            self.assertEqual(len(then[-1]), CLIENTS)
            dst.qmp('cont')
            self.wait_records(guest, dst)
            found = self.found(guest, dst)
            self.assertTrue(self.exact(found, guest.clients(dst)),
                            (found, guest.clients(dst)))
            dst.close()
        found = self.after_a_crash(image, 'crashed')
        self.assertTrue(self.exact(found, then[1]), (found, then))
        # The test can tell: RAM of another time
        self.assertFalse(self.exact(found, then[0]), (found, then))

    def test_redis(self):
        self.check('redis')

    @unittest.skipUnless('postgresql' in DATABASES, 'see TLM_DATABASES')
    def test_postgresql(self):
        self.check('postgresql')


if __name__ == '__main__':
    unittest.main()
