#!/usr/bin/python3
#
# How a checkpoint keeps what is owed: by each method, with each kind of RAM
#
# What a stock QEMU restores is compared with RAM as it was in the pause.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import pwd
import unittest

from tlmtest import hugepages, migration
from tlmtest.case import MB, PAGE
from tlmtest.checkpoint import CheckpointCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.hugepages import HugeGuest
from tlmtest.ram import FrozenRam, read_all
from tlmtest.vm import Vm

GIB = 1 << 30
# On machine "pc" with more than 3.5 GiB, 3 GiB are below
HIGH = 4 * GIB


# Those that libvirt turns on
SANDBOX = ('-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,'
           'resourcecontrol=deny')


def put(path, value):
    with open(path, 'w', encoding='ascii') as f:
        f.write(f'{value}\n')


def cgroup_dir(controller):
    """The directory of this process's cgroup, of v1 or, without a controller,
    of v2; None: there is none."""
    with open('/proc/self/cgroup', encoding='utf-8') as f:
        groups = [line.rstrip('\n').split(':', 2) for line in f]
    with open('/proc/self/mountinfo', encoding='utf-8') as f:
        mounts = [line.split() for line in f]
    for _, controllers, path in groups:
        if controller not in controllers.split(','):
            continue
        for mount in mounts:
            kind, _, options = mount[mount.index('-') + 1:]
            if kind == ('cgroup' if controller else 'cgroup2') and \
                    (not controller or controller in options.split(',')):
                return mount[4] + path.removeprefix(mount[3].rstrip('/'))
    return None


class CheckpointMemory(CheckpointCase):
    def check_methods(self, guest, methods):
        """With one VM, each of @methods in turn; the last one is restored."""
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        for mode, limit_ms, method in methods:
            path = self.path()
            migration.set_parameters(src, downtime_limit=limit_ms)
            frozen, info = self.take(src, f'file:{path}', mode=mode)
            kept = info['tlm']['checkpoint']
            if 'userfaultfd' in kept.get('note', ''):
                self.skipTest(kept['note'])
            self.assertEqual(kept['method'], method, kept)
            migration.wait_idle(src)
            self.restore(guest, frozen, path)
        self.assert_runs_on(guest, src)
        return kept

    def test_mixed(self):
        """What is hot is copied as far as the limit goes."""
        guest = RomGuest(ws_mb=128)
        src = self.start_source(guest)
        path = self.path()
        # The rate is what the host has now: come down until it is too slow
        for limit_ms in (13, 8, 6, 5, 4):
            migration.set_parameters(src, max_bandwidth=0,
                                     downtime_limit=limit_ms)
            frozen, info = self.take(src, f'file:{path}')
            kept = info['tlm']['checkpoint']
            migration.wait_idle(src)
            if kept['method'] != 'copy':
                break
        if 'userfaultfd' in kept.get('note', ''):
            self.skipTest(kept['note'])
        self.assertEqual(kept['method'], 'mixed', kept)
        self.assertGreater(kept['copy-rate'], 0)
        self.assertGreater(kept['copied'], 0)
        self.restore(guest, frozen, path)
        self.assert_runs_on(guest, src)

    def test_several_blocks(self):
        """Two NUMA nodes, each with RAM of its own."""
        self.check_methods(RomGuest(ws_mb=64, numa=(64, 192)), (
            ('copy', 300, 'copy'),
            ('write-protect', 300, 'write-protect')))

    def test_over_4_gib(self):
        """RAM on both sides of the hole for devices.  Most of it was never
        touched, and that costs next to nothing."""
        guest = RomGuest(mem_mb=4608, ws_mb=32)
        src, qtest = self.start_source_with_qtest(guest)
        migration.set_parameters(src, max_bandwidth=0)
        path = self.path()
        self.begin(src, f'file:{path}', gate=True, hold=True,
                   mode='write-protect')
        self.wait_stage(src, 'ready')
        # Left for the pause: the first page above it, one more than 4 GiB
        # into its block, and the last one
        for address in (HIGH, HIGH + GIB + PAGE, HIGH + GIB * 3 // 2 - PAGE):
            qtest.write(address, os.urandom(64))
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'pre-switchover')
        frozen = FrozenRam(src)
        src.qmp('migrate-continue', state='pre-switchover')
        self.assert_kept(migration.wait_status(src, 'completed'),
                         'write-protect')
        self.assertLess(os.stat(path).st_blocks * 512, GIB)
        self.assert_runs_on(guest, src)
        src.close()
        self.restore(guest, frozen, path)

    def test_sparse(self):
        """Few pages of each huge page are owed, some of them."""
        self.check_methods(RomGuest(ws_mb=64, pattern='hotcold', rate=20000), (
            ('copy', 300, 'copy'),
            ('write-protect', 300, 'write-protect')))

    def test_linux(self):
        """Pages all over its RAM, several vCPUs."""
        self.check_methods(LinuxGuest(mem_mb=384, ws=128, vcpus=2), (
            ('write-protect', 300, 'write-protect'),))

    def test_huge_pages(self):
        """Cannot be protected page by page: copied, and so it is told."""
        guest = HugeGuest(128, ws_mb=32)
        # One VM after the other, and the restored one beside it
        hugepages.reserve(self, 2 * guest.mem_mb)
        kept = self.check_methods(guest, (('write-protect', 300, 'copy'),))
        self.assertIn('huge pages', kept['note'])

    def test_not_permitted(self):
        """QEMU without privileges, as libvirt's: copied, and so it is told."""
        with open('/proc/sys/vm/unprivileged_userfaultfd',
                  encoding='ascii') as f:
            if int(f.read()):
                self.skipTest('everybody may use userfaultfd here')
        if os.getuid():
            self.skipTest('only root can give privileges up')
        guest = RomGuest(ws_mb=64)
        extra = ('-run-with', 'user=nobody')
        src = self.start_source(guest, extra=extra)
        place = self.place()
        os.chmod(place, 0o777)
        migration.set_parameters(src, max_bandwidth=0)
        frozen, info = self.take(src, f'file:{place}/vm', mode='write-protect')
        kept = info['tlm']['checkpoint']
        self.assertEqual(kept['method'], 'copy')
        self.assertIn('userfaultfd', kept['note'])
        self.assert_runs_on(guest, src)
        self.restore(guest, frozen, f'{place}/vm')

    def test_sandbox(self):
        """As libvirt starts it: with seccomp, and a user of its own."""
        if os.getuid():
            self.skipTest('only root can start it as another user')
        for user, method in (('root', 'write-protect'), ('nobody', 'copy')):
            with self.sub(user=user):
                guest = RomGuest(ws_mb=64)
                src = self.start_in_sandbox(guest, user)
                path = os.path.join(src.dir, 'checkpoint')
                migration.set_parameters(src, max_bandwidth=0)
                frozen, info = self.take(src, f'file:{path}',
                                         mode='write-protect')
                kept = info['tlm']['checkpoint']
                self.assertEqual(kept['method'], method, kept)
                if method == 'copy':
                    self.assertIn('userfaultfd', kept['note'])
                self.assert_runs_on(guest, src)
                self.restore(guest, frozen, path)

    def start_in_sandbox(self, guest, user):
        self.addCleanup(guest.close)
        vm = Vm('src', self.src_binary, [*guest.args('tcg'), *SANDBOX])
        self.addCleanup(vm.close)
        vm.command[:0] = ['setpriv', '--reuid', user, '--clear-groups']
        uid = pwd.getpwnam(user).pw_uid
        for path in (vm.dir, vm.serial_path, guest.dir, guest.rom):
            os.chown(path, uid, -1)
        vm.start()
        guest.wait_filled(vm)
        return vm

    def test_cgroup(self):
        """With a limit that copies do not fit into: nobody is killed, and
        when there is room they are made."""
        guest = RomGuest(ws_mb=128)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        limit = self.own_cgroup(src)
        for megabytes, method in ((128, 'write'), (1024, 'copy')):
            path = self.path()
            limit(megabytes * MB)
            frozen, info = self.take(src, f'file:{path}', mode='copy')
            kept = info['tlm']['checkpoint']
            self.assertEqual(kept['method'], method, kept)
            if method == 'write':
                self.assertRegex(kept['note'], 'cgroup, has [0-9]+ to spare')
            self.assert_runs_on(guest, src)
            self.restore(guest, frozen, path)

    def test_more_than_foreseen(self):
        """Is left in the pause, and the cgroup has no memory for that."""
        guest = RomGuest(mem_mb=512, ws_mb=32)
        src, qtest = self.start_source_with_qtest(guest)
        def write(value):
            # QEMU makes a buffer of this size
            for at in range(128 * MB, 384 * MB, MB):
                qtest.do('memset', at, MB, value)
        # It has memory: the copies alone count in the cgroup
        write(1)
        migration.set_parameters(src, max_bandwidth=0)
        self.own_cgroup(src)(224 * MB)
        # A file would have its page cache in the cgroup
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, multifd=True)
        host, port = migration.listen(dst)
        self.begin(src, f'tcp:{host}:{port}', gate=True, mode='copy')
        migration.wait_status(src, 'pre-switchover')
        write(2)
        frozen = FrozenRam(src)
        src.qmp('migrate-continue', state='pre-switchover')
        info = migration.wait_status(src, 'completed')
        kept = info['tlm']['checkpoint']
        self.assertEqual(kept['method'], 'write', kept)
        self.assertIn('more than foreseen', kept['note'])
        self.assert_runs_on(guest, src)
        self.finish(guest, frozen, dst)

    def own_cgroup(self, vm):
        """Puts a QEMU into a new memory cgroup below that of this process;
        returns what sets its limit.  What it has used counts elsewhere."""
        read_all(vm)
        for hierarchy, limit in (('memory', 'memory.limit_in_bytes'),
                                 ('', 'memory.max')):
            parent = cgroup_dir(hierarchy)
            path = parent and os.path.join(parent, f'tlm-test-{vm.pid}')
            try:
                if parent:
                    os.mkdir(path)
            except OSError:
                continue
            if parent and os.path.exists(os.path.join(path, limit)):
                break
            if parent:
                os.rmdir(path)
        else:
            self.skipTest('no memory cgroup can be made here')
        self.addCleanup(os.rmdir, path)
        # A cgroup with processes cannot be removed
        self.addCleanup(vm.kill)
        put(os.path.join(path, 'cgroup.procs'), vm.pid)
        return lambda value: put(os.path.join(path, limit), value)

    def test_gives_memory_back(self):
        """While it is written, and all of it at the end."""
        guest = RomGuest(ws_mb=128)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        self.take(src, f'file:{self.path()}', mode='copy')
        migration.wait_idle(src)
        before = self.anonymous(src)
        for _ in range(3):
            self.take(src, f'file:{self.path()}', mode='copy')
            migration.wait_idle(src)
        self.assertLess(self.anonymous(src), before + 32 * MB)

    @staticmethod
    def anonymous(vm):
        with open(f'/proc/{vm.pid}/status', encoding='ascii') as f:
            fields = dict(line.split(':', 1) for line in f)
        return int(fields['RssAnon'].split()[0]) << 10


if __name__ == '__main__':
    unittest.main()
