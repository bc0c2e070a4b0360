#!/usr/bin/python3
#
# Checkpoints of a guest that ends meanwhile: it panics, switches itself off or
# is reset, before the pause, in it, or while the checkpoint is written
#
# Somebody who writes to devices does to them what the guest's kernel would.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import unittest

from tlmtest import migration
from tlmtest.case import CRAWL, STEADY
from tlmtest.checkpoint import CheckpointCase
from tlmtest.guests import RomGuest
from tlmtest.ram import FrozenRam
from tlmtest.vm import wait_until

PVPANIC, PANICKED = 0x505, 1
# Power management of machine "pc", where a firmware would have put it
PM_DEVICE, PM_BASE, PM_ENABLE = 0x80000b00, 0x40, 0x80
PM_PORTS, SLEEP, SOFT_OFF = 0x600, 4, 0x2000

STAGES = ('live', 'gate', 'flush')


def panic(qtest):
    qtest.do('outb', PVPANIC, PANICKED)


def power_off(qtest):
    for register, value in ((PM_BASE, PM_PORTS | 1), (PM_ENABLE, 1)):
        qtest.do('outl', 0xcf8, PM_DEVICE | register)
        qtest.do('outl', 0xcfc, value)
    qtest.do('outw', PM_PORTS + SLEEP, SOFT_OFF)


class GuestEnds(CheckpointCase):
    def begin_to(self, stage, *extra):
        """A checkpoint that has come as far as that; returns QEMU, qtest and
        where the checkpoint goes."""
        # The pass has to go on for a while, or a part of RAM to be left
        rate = STEADY if stage == 'live' else 0
        self.guest = RomGuest(mem_mb=64, ws_mb=32, rate=rate,
                              pattern='uniform' if rate else 'seq')
        src, qtest = self.start_source_with_qtest(
            self.guest, extra=('-device', f'pvpanic,ioport={PVPANIC}', *extra))
        path = self.path()
        migration.set_parameters(
            src, max_bandwidth=0 if stage == 'gate' else CRAWL)
        self.begin(src, f'file:{path}', gate=stage == 'gate')
        if stage == 'gate':
            migration.wait_status(src, 'pre-switchover')
        else:
            self.wait_stage(src, stage)
        return src, qtest, path

    def let_complete(self, src, stage):
        """Returns RAM as it must be in the checkpoint, where that is known."""
        frozen = None if stage == 'flush' else FrozenRam(src)
        if stage == 'gate':
            src.qmp('migrate-continue', state='pre-switchover')
        migration.set_parameters(src, max_bandwidth=0)
        migration.wait_status(src, 'completed')
        migration.wait_idle(src)
        return frozen

    def restore_as(self, status, frozen, path):
        """A guest that had ended is restored as one; another one runs."""
        dst = self.start_destination(
            self.guest, extra=('-device', f'pvpanic,ioport={PVPANIC}',
                               '-no-shutdown'))
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        migration.wait_status(dst, 'completed')
        wait_until(lambda: dst.status() == status, 30,
                   lambda: f'restored as {status}, not {dst.status()}')
        if frozen:
            self.assert_same_ram(frozen, dst)
        if status == 'paused':
            dst.qmp('cont')
            self.assert_guest_well(self.guest, dst)

    def check_ended(self, end, status, *extra):
        for stage in STAGES:
            with self.sub(stage=stage):
                src, qtest, path = self.begin_to(stage, *extra)
                end(qtest)
                wait_until(lambda: src.status() == status, 30,
                           lambda: f'{status}, not {src.status()}')
                frozen = self.let_complete(src, stage)
                # It does not come back to life
                self.assertEqual(src.status(), status)
                src.close()
                self.restore_as(status if stage == 'live' else 'paused',
                                frozen, path)

    def test_panic(self):
        self.check_ended(panic, 'guest-panicked', '-action', 'panic=pause')

    def test_power_off(self):
        """QEMU is told to stay."""
        self.check_ended(power_off, 'shutdown', '-no-shutdown')

    def test_quits(self):
        """With the guest, as QEMU does unless it is told otherwise."""
        for end in (panic, power_off):
            for stage in STAGES:
                with self.sub(end=end.__name__, stage=stage):
                    src, qtest, _ = self.begin_to(stage)
                    end(qtest)
                    src.process.wait(60)
                    self.assertEqual(src.process.returncode, 0,
                                     src.messages())

    def test_reset(self):
        """In the live stage: the checkpoint is of the guest that has begun
        anew."""
        src, _, path = self.begin_to('live')
        src.qmp('system_reset')
        src.wait_event('RESET')
        src.qmp('stop')
        frozen = self.let_complete(src, 'live')
        src.qmp('cont')
        self.guest.wait_filled(src)
        src.close()
        self.restore_as('paused', frozen, path)


if __name__ == '__main__':
    unittest.main()
