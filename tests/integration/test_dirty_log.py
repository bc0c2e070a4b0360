#!/usr/bin/python3
#
# Dirty logging in ways that need care: all RAM must be at the destination
#
# SPDX-License-Identifier: GPL-2.0-or-later

import tempfile
import unittest

from tlmtest import migration, preload, trace
from tlmtest.case import CRAWL, MB, STEADY, TlmCase
from tlmtest.guests import RomGuest
from tlmtest.vm import Vm


class Blocks(TlmCase):
    """
    A guest that writes to two RAMBlocks of different sizes.  Without "Clear
    the TLB entries of the right RAMBlock" TCG loses what is written to the
    second one, or QEMU aborts: stock QEMU does.
    """

    def check(self, accel, numa, **settings):
        end = numa[0]
        # Half of the working set on each side of the border
        guest = RomGuest(mem_mb=sum(numa), numa=numa, start_mb=end - 40,
                         ws_mb=80, **settings)
        src = self.start_source(guest, accel)
        blocks = src.blocks()
        sizes = [blocks[f'ram{i}'].used // MB for i in range(len(numa))]
        self.assertEqual(tuple(sizes), numa)
        # Writes are seen in both
        for name, at in (('ram0', end - 20), ('ram1', 20)):
            offset = at * MB
            self.assertNotEqual(src.read_block(blocks[name], offset, 8),
                                bytes(8), name)
        dst = self.start_destination(guest, accel)
        address, check = self.connect(src, dst, wire=True,
                                      max_bandwidth=CRAWL * 2)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        result = self.finish(guest, src, dst, check)
        self.assertGreaterEqual(result.pages, sum(numa) * MB // 4096)
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info, report)

    def test_two_numa_nodes(self):
        for accel in ('tcg', 'kvm'):
            for numa in ((256, 512), (512, 256)):
                with self.sub(accel=accel, numa=numa):
                    self.check(accel, numa, pattern='uniform', rate=20000)

    def test_two_numa_nodes_unthrottled(self):
        self.check('tcg', (256, 512))


class Chunks(TlmCase):
    """
    The dirty log is cleared by chunks, and not before that a chunk tells of
    writes: with KVM_DIRTY_LOG_INITIALLY_SET it reports all of its pages.
    Small chunks are too many to be cleared at once, so mtx has to wait for
    them; by default a chunk has 1 GiB.
    """

    SMALL = ('-global', 'migration.x-clear-bitmap-shift=6')

    def check(self, guest, accel, **params):
        src = self.start_source(guest, accel, extra=self.SMALL + trace.ARMING)
        dst = self.start_destination(guest, accel)
        address, check = self.connect(src, dst, wire=True, **params)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)
        src.kill()
        if accel == 'kvm':
            armed = trace.armed_per_epoch(src)
            print(f'{self.id()}: armed after each sync: {armed}')
            # All, but for the ends of memory slots
            self.assertGreaterEqual(sum(armed), guest.mem_mb * 4 - 16)
        report = check.report()
        self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info, report)
        return src

    def test_kvm_hotcold(self):
        """
        mtx has nothing to send before it comes to the working set, and is
        there at once, if only it may.
        """
        start_mb = 1600
        src = self.check(
            RomGuest(mem_mb=2048, start_mb=start_mb, ws_mb=256,
                     pattern='hotcold', rate=STEADY),
            'kvm', max_bandwidth=100 * MB)
        armed = trace.armed_per_epoch(src, start_mb * MB // 4096)
        print(f'{self.id()}: ... until mtx is there: {armed}')
        self.assertGreaterEqual(sum(armed), start_mb * 4 - 16)
        self.assertGreater(sum(1 for n in armed if n), 1, armed)

    def test_kvm_unthrottled(self):
        self.check(RomGuest(mem_mb=1024, start_mb=800, ws_mb=128), 'kvm',
                   max_bandwidth=100 * MB)

    def test_kvm_converging(self):
        self.check(RomGuest(mem_mb=1024, start_mb=800, ws_mb=128), 'kvm',
                   max_bandwidth=100 * MB, tlm_converge='auto',
                   tlm_time_bound=30000)

    def test_tcg(self):
        self.check(RomGuest(mem_mb=1024, ws_mb=128, pattern='hotcold',
                            rate=STEADY), 'tcg', max_bandwidth=100 * MB)


class NoManualProtect(TlmCase):
    """KVM that clears the log when it is read, as before Linux 5.0."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix='tlm-preload-')
        cls.addClassCleanup(directory.cleanup)
        cls.library = preload.build(directory.name, 'no-manual-protect')

    def start_vm(self, name, binary, args, netns=None):
        vm = Vm(name, binary, args, netns)
        vm.command[:0] = ['env', f'LD_PRELOAD={self.library}']
        self.addCleanup(vm.close)
        return vm.start()

    def check(self, guest, **params):
        src = self.start_source(guest, 'kvm',
                                extra=('-trace', 'kvm_clear_dirty_log'))
        dst = self.start_destination(guest, 'kvm')
        address, check = self.connect(src, dst, wire=True, **params)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)
        # With manual protect it would have been called
        self.assertNotIn('kvm_clear_dirty_log', trace.read(src))
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info, report)
        return info

    def test_hotcold(self):
        info = self.check(RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY),
                          max_bandwidth=CRAWL)
        self.assertGreater(info['tlm']['ram']['resent'], 0)

    def test_unthrottled(self):
        self.check(RomGuest(ws_mb=64), max_bandwidth=50 * MB)

    def test_converging(self):
        self.check(RomGuest(ws_mb=64), max_bandwidth=50 * MB,
                   tlm_converge='auto', tlm_time_bound=30000)


if __name__ == '__main__':
    unittest.main()
