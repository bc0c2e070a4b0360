#!/usr/bin/python3
#
# Checkpoints of guests whose RAM comes and goes: hotplug, a balloon, free
# pages that are reported
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

from tlmtest import migration
from tlmtest.case import CRAWL, MB, PAGE, SLOW, STEADY
from test_populated import Balloon, churned
from tlmtest.checkpoint import CheckpointCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.ram import FrozenRam
from tlmtest.vm import VmError, wait_until

DIMM_MB = 32
METHODS = ('copy', 'write-protect')


class HotplugGuest(RomGuest):
    """With slots for more RAM."""

    def args(self, accel):
        return [f'{a},slots=4,maxmem=1G' if a == f'{self.mem_mb}M' else a
                for a in super().args(accel)]


def backend(name):
    return {'qom_type': 'memory-backend-ram', 'id': f'{name}-ram',
            'size': DIMM_MB * MB}


def dimm(name):
    return {'driver': 'pc-dimm', 'id': name, 'memdev': f'{name}-ram'}


def dimm_args(name):
    return ('-object', f'memory-backend-ram,id={name}-ram,size={DIMM_MB}M',
            '-device', f'pc-dimm,id={name},memdev={name}-ram')


class Hotplug(CheckpointCase):
    def test_plugged_before(self):
        """Is in the checkpoint, what was written there last as well."""
        for mode in METHODS:
            with self.sub(mode=mode):
                guest = HotplugGuest(mem_mb=64, ws_mb=16)
                src, qtest = self.start_source_with_qtest(guest)
                src.qmp('object-add', **backend('dimm'))
                src.qmp('device_add', **dimm('dimm'))
                device, = src.qmp('query-memory-devices')
                address = device['data']['addr']
                migration.set_parameters(src, max_bandwidth=0)
                path = self.path()
                self.begin(src, f'file:{path}', gate=True, hold=True,
                           mode=mode)
                self.wait_stage(src, 'ready')
                for at in range(0, DIMM_MB * MB, 3 * MB):
                    qtest.write(address + at, os.urandom(64))
                src.qmp('migrate-tlm-switchover')
                migration.wait_status(src, 'pre-switchover')
                frozen = FrozenRam(src)
                self.assertIn('dimm-ram', frozen.blocks())
                src.qmp('migrate-continue', state='pre-switchover')
                self.assert_kept(migration.wait_status(src, 'completed'), mode)
                self.assert_runs_on(guest, src)
                src.close()
                self.restore(guest, frozen, path, extra=dimm_args('dimm'))

    def test_virtio_mem(self):
        """Parts that are not plugged are neither protected nor lost."""
        extra = ('-object', 'memory-backend-ram,id=more,size=32M',
                 '-device', 'virtio-mem-pci,memdev=more,id=more0')
        guest = HotplugGuest(mem_mb=64, ws_mb=16)
        src = self.start_source(guest, extra=extra)
        migration.set_parameters(src, max_bandwidth=0)
        path = self.path()
        frozen, info = self.take(src, f'file:{path}', mode='write-protect')
        kept = info['tlm']['checkpoint']
        self.assertEqual(kept['method'], 'copy')
        self.assertIn('virtio-mem', kept['note'])
        self.assert_runs_on(guest, src)
        self.restore(guest, frozen, path, extra=extra)

    def assert_no_device(self, src):
        with self.assertRaisesRegex(VmError, 'not allowed while migrating'):
            src.qmp('device_add', **dimm('late'))

    def test_plugged_meanwhile(self):
        """Memory may be made ready, but the guest gets it afterwards."""
        for mode in METHODS:
            with self.sub(mode=mode):
                guest = HotplugGuest(mem_mb=64, ws_mb=32)
                src = self.start_source(guest, extra=dimm_args('first'))
                migration.set_parameters(src, max_bandwidth=0)
                path = self.path()
                self.begin(src, f'file:{path}', gate=True, hold=True,
                           mode=mode)
                self.wait_stage(src, 'ready')
                src.qmp('object-add', **backend('late'))
                self.assert_no_device(src)
                src.qmp('object-del', id='late-ram')
                src.qmp('migrate-tlm-switchover')
                migration.wait_status(src, 'pre-switchover')
                frozen = FrozenRam(src)
                src.qmp('object-add', **backend('late'))
                self.assert_no_device(src)
                migration.set_parameters(src, max_bandwidth=CRAWL)
                src.qmp('migrate-continue', state='pre-switchover')
                self.wait_stage(src, 'flush')
                self.assert_no_device(src)
                src.qmp('object-del', id='late-ram')
                src.qmp('object-add', **backend('late'))
                migration.set_parameters(src, max_bandwidth=0)
                migration.wait_status(src, 'completed')
                self.assert_runs_on(guest, src)
                src.qmp('device_add', **dimm('late'))
                self.assert_guest_well(guest, src)
                src.close()
                self.restore(guest, frozen, path, extra=dimm_args('first'))


class Discards(CheckpointCase):
    """The guest gives pages to the host that the checkpoint has not yet."""
    RING, PAGES, NUM = 200 * MB, 112 * MB, 16 * MB

    def begin_with_pages(self, mode):
        """Up to the gate, with pages left that the guest itself does not
        use; returns QEMU, a balloon driver, RAM, where it goes."""
        self.guest = RomGuest(ws_mb=64)
        src, qtest = self.start_source_with_qtest(self.guest,
                                                  extra=Balloon.ARGS)
        balloon = Balloon(qtest, self.RING)
        migration.set_parameters(src, max_bandwidth=0)
        path = self.path()
        self.begin(src, f'file:{path}', gate=True, hold=True, mode=mode)
        self.wait_stage(src, 'ready')
        migration.set_parameters(src, max_bandwidth=CRAWL)
        for at in range(self.PAGES, self.PAGES + self.NUM, PAGE):
            qtest.do('writeq', at, at)
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'pre-switchover')
        return src, balloon, FrozenRam(src), path

    def is_there(self, src):
        return any(src.read_block(src.main_block(), self.PAGES, PAGE))

    def finish_and_restore(self, src, frozen, path, mode):
        migration.set_parameters(src, max_bandwidth=0)
        self.assert_kept(migration.wait_status(src, 'completed'), mode)
        self.assert_runs_on(self.guest, src)
        src.close()
        dst = self.start_destination(self.guest, extra=Balloon.ARGS)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        migration.wait_loaded(dst)
        # The balloon's queue was written to after RAM was read
        ring = frozen.read_block(frozen.main_block(), self.RING, 8 * PAGE)
        dst.write_block(dst.main_block(), self.RING, ring)
        self.assert_same_ram(frozen, dst)

    def test_before_they_are_copied(self):
        """Then it stays: a page that is thrown away is not protected."""
        src, balloon, frozen, path = self.begin_with_pages('write-protect')
        balloon.inflate(self.PAGES, self.NUM)
        self.assertTrue(self.is_there(src))
        src.qmp('migrate-continue', state='pre-switchover')
        self.finish_and_restore(src, frozen, path, 'write-protect')

    def test_while_copies_are_written(self):
        for mode in METHODS:
            with self.sub(mode=mode):
                src, balloon, frozen, path = self.begin_with_pages(mode)
                src.qmp('migrate-continue', state='pre-switchover')
                self.wait_stage(src, 'flush')
                wait_until(lambda: self.given(src, balloon), 30,
                           'RAM may be discarded')
                self.assertEqual(migration.status(src), 'device')
                self.finish_and_restore(src, frozen, path, mode)

    def given(self, src, balloon):
        balloon.inflate(self.PAGES, self.NUM)
        return not self.is_there(src)


class LinuxBalloon(CheckpointCase):
    MEM, SMALL = 384, 256           # MiB
    LITTER = 160
    HINTS = ('-object', 'iothread,id=io0', '-device',
             'virtio-balloon-pci,free-page-hint=on,iothread=io0')
    DEVICE = ('-device', 'virtio-balloon-pci,free-page-reporting=on')

    def test_balloon(self):
        """The guest gives pages back that it has used a moment ago, as soon
        as it runs again: the checkpoint has them as they were."""
        # It takes, writes to and frees memory all the time, too
        guest = LinuxGuest(mem_mb=self.MEM, ws=64, churn=48)
        src = self.start_source(guest, extra=self.DEVICE)
        migration.set_parameters(src, max_bandwidth=0)
        for mode, target in (('copy', self.SMALL),
                             ('write-protect', self.MEM)):
            path = self.path()
            self.begin(src, f'file:{path}', gate=True, mode=mode)
            migration.wait_status(src, 'pre-switchover')
            src.qmp('balloon', value=target * MB)
            frozen = FrozenRam(src)
            src.qmp('migrate-continue', state='pre-switchover')
            self.assert_kept(migration.wait_status(src, 'completed'), mode)
            wait_until(lambda: self.has(src) == target, 60,
                       lambda: f'{target} MiB, not {self.has(src)}')
            migration.wait_idle(src)
            self.restore(guest, frozen, path, extra=self.DEVICE)
        self.assert_runs_on(guest, src)

    def test_hints(self):
        """The guest tells during the pass which pages are free.  What it
        takes again, in the pass or after the pause, is not lost."""
        guest = LinuxGuest(mem_mb=self.MEM, ws=48, churn=48,
                           litter=self.LITTER, pattern='hotcold',
                           rate=STEADY)
        guest.append += ' init_on_alloc=0'
        src = self.start_source(guest, extra=self.HINTS)
        wait_until(lambda: churned(src) >= 2, 60,
                   'the guest uses memory')
        migration.set_parameters(src, max_bandwidth=SLOW)
        path = self.path()
        self.begin(src, f'file:{path}', mode='write-protect')
        info = migration.wait_status(src, 'completed')
        self.assert_kept(info, 'write-protect')
        # It was filled once: only a hint can make it not be sent
        self.assertGreater(info['tlm']['ram']['skipped'],
                           self.LITTER // 2 * MB)
        self.assert_uses_memory(guest, src)
        self.assert_runs_on(guest, src)
        src.close()
        dst = self.start_destination(guest, extra=self.HINTS)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        migration.wait_loaded(dst)
        dst.qmp('cont')
        self.assert_uses_memory(guest, dst)
        self.assert_guest_well(guest, dst)

    @staticmethod
    def assert_uses_memory(guest, vm):
        """It takes memory, and finds what it has written there."""
        rounds = churned(vm) + 3
        wait_until(lambda: guest._ok(vm) and churned(vm) >= rounds, 60,
                   f'{vm.name}: memory is used')

    @staticmethod
    def has(vm):
        return vm.qmp('query-balloon')['actual'] // MB


if __name__ == '__main__':
    unittest.main()
