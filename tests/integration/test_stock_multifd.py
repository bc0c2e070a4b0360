#!/usr/bin/python3
#
# Prove the harness: stock QEMU to stock QEMU, and controls that must fail
#
# A comparison that finds nothing and a guest that reports nothing are worth
# something only when both are seen to find and to report.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import time
import unittest
from unittest import mock

from tlmtest import env, migration
from tlmtest.case import MigrationCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.link import ShapedLink
from tlmtest.ram import PAGE, compare_ram
from tlmtest.vm import Vm, VmError, wait_until

import mkrom

# A rate that stock pre-copy can follow, and pages dirtied all the same
RATE = 5000


class StockMultifd(MigrationCase):
    src_binary = env.STOCK_QEMU

    def test_rom_tcg(self):
        _, report = self.migrate(RomGuest(ws_mb=64, rate=RATE), wire=True,
                                 max_bandwidth=100 << 20)
        self.assertGreater(report['pages_sent_again'], 0)

    def test_rom_tcg_channels(self):
        self.migrate(RomGuest(ws_mb=64, rate=RATE, pattern='uniform'),
                     channels=8, wire=True)

    def test_rom_kvm(self):
        self.migrate(RomGuest(ws_mb=64, rate=RATE), accel='kvm', wire=True)

    def test_rom_two_vcpus(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                self.migrate(RomGuest(ws_mb=64, rate=RATE, vcpus=2,
                                      pattern='hotcold'), accel=accel)

    def test_rom_q35(self):
        self.migrate(RomGuest(ws_mb=64, rate=RATE, machine='q35'))

    def test_rom_shared_memory(self):
        self.migrate(RomGuest(ws_mb=64, rate=RATE, shared=True))

    def test_linux(self):
        self.migrate(LinuxGuest(ws=128, rate=RATE), wire=True)

    def test_shaped_link(self):
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        rate, burst = 400, 1 << 20
        guest = RomGuest(ws_mb=64, rate=1000)
        with ShapedLink(rate) as link:
            src = self.start_source(guest, link=link)
            dst = self.start_destination(guest, link=link)
            address, _ = self.connect(src, dst, link=link)
            start = time.monotonic()
            migration.start(src, *address)
            info = migration.wait_status(src, 'completed')
            migration.wait_loaded(dst)
            seconds = time.monotonic() - start
            self.finish(guest, src, dst)
            src.close()
            dst.close()
        # All but the burst went at the link's rate, or slower
        size = info['ram']['transferred']
        self.assertGreater(size, 64 << 20)
        self.assertGreater(seconds, (size - burst) * 8 / (rate * 1e6))


class Controls(MigrationCase):
    """What must be found."""

    src_binary = env.STOCK_QEMU

    def _migrated(self, guest):
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst)
        migration.start(src, *address)
        migration.wait_status(src, 'completed')
        migration.wait_loaded(dst)
        return src, dst

    @staticmethod
    def _flip(vm, block, offset):
        byte, = vm.read_block(block, offset, 1)
        vm.write_block(block, offset, bytes([byte ^ 1]))

    def test_comparison_finds_one_byte(self):
        guest = RomGuest(ws_mb=64, rate=RATE)
        src, dst = self._migrated(guest)
        self.assert_same_ram(src, dst)
        blocks = dst.blocks()
        self.assertGreater(len(blocks), 1)
        for block in blocks.values():
            # the last byte: nothing is rounded away
            with self.subTest(block=block.name):
                self._flip(dst, block, block.used - 1)
                result = compare_ram(src, dst)
                self.assertEqual(result.differing, 1)
                name, offset, a, b = result.first
                self.assertEqual(name, block.name)
                self.assertEqual(offset, (block.used - 1) // PAGE * PAGE)
                self.assertNotEqual(a, b)
                self.assertIn(block.name, str(result))
                with self.assertRaises(AssertionError):
                    self.assert_same_ram(src, dst)
                self._flip(dst, block, block.used - 1)
        self.assert_same_ram(src, dst)

    def test_comparison_wants_stopped_guests(self):
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest)
        with self.assertRaises(ValueError):
            compare_ram(src, src)

    def test_comparison_finds_other_size(self):
        guest = RomGuest(ws_mb=16)
        bigger = RomGuest(ws_mb=16, mem_mb=guest.mem_mb * 2)
        self.addCleanup(bigger.close)
        src = self.start_source(guest)
        src.qmp('stop')
        dst = self.start_vm('dst', self.dst_binary,
                            [*bigger.args('tcg'), '-S'])
        self.assertTrue(compare_ram(src, dst).problems)

    def _guest_finds(self, guest, vm, damage):
        """The guest must not complain before the damage, and must after."""
        guest.wait_alive(vm)
        vm.qmp('stop')
        damage()
        vm.qmp('cont')
        found = wait_until(lambda: guest.corruption(vm), 60,
                           f'{vm.name}: the guest finds the damage')
        with self.assertRaises(VmError):
            guest.wait_alive(vm)
        return found

    def test_rom_finds_flipped_byte(self):
        for accel in ('tcg', 'kvm'):
            # the writer, or with all writes elsewhere the scan, must see it
            for share in (90, 100):
                with self.sub(accel=accel, share=share):
                    guest = RomGuest(ws_mb=16, pattern='hotcold', rate=RATE,
                                     hot_share=share)
                    vm = self.start_source(guest, accel)
                    page = 16 * 256 - 1
                    at = guest.page_offset(vm, page)
                    found = self._guest_finds(
                        guest, vm,
                        lambda: self._flip(vm, vm.main_block(), at + PAGE - 1))
                    self.assertIn(f'page={page:x} ', found)
                    vm.close()

    def test_rom_finds_old_page(self):
        """A page that is consistent, but of an earlier pass."""
        guest = RomGuest(ws_mb=16)
        vm = self.start_source(guest)
        block, page = vm.main_block(), 7
        at = guest.page_offset(vm, page)
        vm.qmp('stop')
        old = vm.read_block(block, at, PAGE)
        vm.qmp('cont')
        passes = guest.progress(vm)['passes']
        wait_until(lambda: guest.progress(vm)['passes'] > passes + 1, 60,
                   'two passes')

        def damage():
            self.assertEqual(guest.stale_pages(vm), [])
            vm.write_block(block, at, old)
            self.assertEqual(guest.stale_pages(vm), [page])
        found = self._guest_finds(guest, vm, damage)
        self.assertIn(f'page={page:x} ', found)

    def test_linux_finds_damage(self):
        guest = LinuxGuest(ws=32, pattern='hotcold', share=100, rate=RATE)
        vm = self.start_source(guest)
        block = vm.main_block()

        def damage():
            # The guest's pages are anywhere: find one by the value that the
            # last page of the set has had since the start, and change it
            page = 32 * 256 - 1
            value = (page * 2 + 1) * 0x9e3779b97f4a7c15 % (1 << 64)
            want = value.to_bytes(8, 'little')
            for start in range(0, block.used, PAGE):
                if vm.read_block(block, start, 8) == want:
                    self._flip(vm, block, start)
                    return
            self.fail('the page is not in guest memory')
        found = self._guest_finds(guest, vm, damage)
        self.assertIn(f'page={32 * 256 - 1} ', found)

    def test_reset_is_found(self):
        """The guest is well after it, but not what it was."""
        guest = RomGuest(ws_mb=16)
        vm = self.start_source(guest)
        self.assert_guest_well(guest, vm)
        vm.qmp('system_reset')
        with self.assertRaisesRegex(AssertionError, 'src was reset'):
            self.assert_guest_well(guest, vm)

    def test_half_a_line_says_nothing(self):
        """A guest is read while it prints."""
        rom, linux = RomGuest(ws_mb=16), LinuxGuest()
        self.addCleanup(rom.close)
        vm = Vm('half', env.STOCK_QEMU, [])
        self.addCleanup(vm.close)
        vm.rom_block = None
        vm.read_block = mock.Mock(return_value=bytes(mkrom.PROGRESS_SIZE))

        def printed(text):
            with open(vm.serial_path, 'w', newline='') as f:
                f.write('x\n' + text)
        for line, read, found in (
                ('E vcpu=0 page=7 addr=0\n', rom.corruption, 'page=7 '),
                ('H vcpu=0 beats=1\n', rom.beats, '1'),
                ('TLM-GUEST-CORRUPT page=8191 of 8192\r\n',
                 linux.corruption, 'page=8191 '),
                ('TLM-GUEST beat=1 ms=2 passes=3 pages=4 scans=56\r\n',
                 linux.beats, '1')):
            for size in range(len(line)):
                printed(line[:size])
                self.assertFalse(read(vm), line[:size])
            printed(line)
            self.assertIn(found, str(read(vm)))

    def test_nothing_outlives_close(self):
        guest = RomGuest(ws_mb=16)
        vm = self.start_source(guest)
        pid, where = vm.pid, vm.dir
        vm.close()
        self.assertFalse(os.path.exists(f'/proc/{pid}'))
        self.assertFalse(os.path.exists(where))

    def test_qemu_that_cannot_start(self):
        vm = Vm('bad', env.STOCK_QEMU, ['-machine', 'no-such-machine'])
        self.addCleanup(vm.close)
        with self.assertRaisesRegex(VmError, 'no-such-machine|unsupported'):
            vm.start()


if __name__ == '__main__':
    unittest.main()
