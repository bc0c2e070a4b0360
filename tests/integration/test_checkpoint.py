#!/usr/bin/python3
#
# Checkpoints by TLM: the guest goes on here, and a stock QEMU restores it
#
# The manager's gate (pause-before-switchover) holds the guest in the pause,
# until all of its RAM has been read: that is what must be restored.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import subprocess
import unittest

from tlmtest import migration
from tlmtest.case import CRAWL, MB, STEADY
from tlmtest.checkpoint import CheckpointCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.ram import FrozenRam
from tlmtest.vm import VmError, wait_until

SMALL_DISK = 24                 # MB


class Checkpoint(CheckpointCase):
    def test_guests(self):
        """All that is rewritten is left when the guest is paused."""
        for accel in ('tcg', 'kvm'):
            for mode in ('copy', 'write-protect'):
                with self.sub(accel=accel, mode=mode):
                    info = self.check(RomGuest(ws_mb=64), accel, mode=mode)
                    self.assert_kept(info, mode)
                    self.assertEqual(info['tlm']['stage'], 'done')
                    if accel == 'tcg':      # the other may hardly run here
                        self.assertGreater(
                            info['tlm']['checkpoint']['copied'], 32 * MB)

    def test_pass_in_vain(self):
        """The guest rewrites what the pass sends: that is written once, and not
        twice, if it need not be copied in the pause."""
        for mode, decision in (('write-protect', 'pass-wasted'),
                               ('copy', 'pass-ended')):
            with self.sub(mode=mode):
                guest = RomGuest(ws_mb=176, rate=25000)
                src = self.start_source(guest)
                path = self.path()
                # 100 MB/s are written, and a tenth can be saved
                migration.set_parameters(src, max_bandwidth=CRAWL)
                self.begin(src, f'file:{path}', gate=True, mode=mode)
                migration.wait_status(src, 'pre-switchover')
                frozen = FrozenRam(src)
                migration.set_parameters(src, max_bandwidth=0)
                src.qmp('migrate-continue', state='pre-switchover')
                info = migration.wait_status(src, 'completed')
                self.assertEqual(info['tlm']['decision'], decision)
                self.assert_kept(info, mode)
                self.assert_runs_on(guest, src)
                src.close()
                self.restore(guest, frozen, path)

    def test_slow_target(self):
        """The guest does not wait for it: its RAM is copied ahead."""
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        path = self.path()
        self.begin(src, f'file:{path}', gate=True, mode='write-protect')
        migration.wait_status(src, 'pre-switchover')
        frozen = FrozenRam(src)
        migration.set_parameters(src, max_bandwidth=MB)
        src.qmp('migrate-continue', state='pre-switchover')
        self.wait_stage(src, 'flush')
        # It writes to every page of its working set, and goes on
        guest.wait_scans(src, 2)
        self.assertEqual(
            src.qmp('query-migrate')['tlm']['stage'], 'flush')
        migration.set_parameters(src, max_bandwidth=0)
        info = migration.wait_status(src, 'completed')
        self.assert_kept(info, 'write-protect')
        self.assert_runs_on(guest, src)
        src.close()
        self.restore(guest, frozen, path)

    def test_shared_memory(self):
        """Others may write to it, and do not fault: it is copied."""
        for mode in ('copy', 'write-protect'):
            with self.sub(mode=mode):
                info = self.check(RomGuest(ws_mb=64, shared=True), mode=mode)
                kept = info['tlm']['checkpoint']
                self.assertEqual(kept['method'], 'copy')
                if mode == 'write-protect':
                    self.assertIn('shared', kept['note'])

    def test_linux(self):
        for mode in ('copy', 'write-protect'):
            with self.sub(mode=mode):
                info = self.check(LinuxGuest(mem_mb=384, ws=128), mode=mode)
                self.assert_kept(info, mode)

    def test_auto(self):
        """By how long the guest may be paused."""
        for limit_ms, method in ((300, 'copy'), (1, 'write-protect')):
            with self.sub(limit_ms=limit_ms):
                guest = RomGuest(ws_mb=64)
                src = self.start_source(guest)
                migration.set_parameters(src, downtime_limit=limit_ms)
                _, info = self.take(src, f'file:{self.path()}')
                self.assert_kept(info, method)

    def test_stages_and_events(self):
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        self.begin(src, f'file:{self.path()}')
        migration.wait_status(src, 'completed')
        src.pull_events()
        order = [e['data']['stage'] if e['event'] == 'MIGRATION_TLM_STAGE'
                 else e['event'] for e in src.events
                 if e['event'] in ('MIGRATION_TLM_STAGE', 'STOP', 'RESUME')]
        self.assertEqual(order, ['setup', 'live', 'STOP', 'stop', 'RESUME',
                                 'flush', 'done'])

    def test_small_buffer(self):
        """Then it is written in the pause, and says so."""
        info = self.check(RomGuest(ws_mb=64), buffer_size=MB)
        kept = info['tlm']['checkpoint']
        self.assertEqual(kept['method'], 'write')
        self.assertIn('more than the buffer may have', kept['note'])

    def test_low_cap(self):
        """It slows what is written, and nothing is left out."""
        guest = RomGuest(mem_mb=64, ws_mb=16, rate=STEADY)
        src = self.start_source(guest)
        path = self.path()
        migration.set_parameters(src, max_bandwidth=CRAWL)
        self.begin(src, f'file:{path}', gate=True)
        self.wait_stage(src, 'live')
        migration.set_parameters(src, max_bandwidth=MB)
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'pre-switchover')
        frozen = FrozenRam(src)
        src.qmp('migrate-continue', state='pre-switchover')
        self.wait_stage(src, 'flush')
        migration.set_parameters(src, max_bandwidth=0)
        migration.wait_status(src, 'completed')
        self.assert_runs_on(guest, src)
        self.restore(guest, frozen, path)

    def test_started_in_the_pause(self):
        """RAM would not be of one moment: no checkpoint, rather."""
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        self.begin(src, f'file:{self.path()}', gate=True)
        migration.wait_status(src, 'pre-switchover')
        src.qmp('cont')
        src.qmp('migrate-continue', state='pre-switchover')
        info = migration.wait_status(src, 'failed')
        self.assertIn('started in the pause', info['error-desc'])
        self.assert_runs_on(guest, src)

    def test_nobody_is_slowed(self):
        """What is left is copied: it need not become less, even where a
        migration would slow the guest for that."""
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=CRAWL, downtime_limit=1,
                                 tlm_converge='auto')
        self.begin(src, f'file:{self.path()}')
        info = migration.wait_status(src, 'completed')
        self.assertEqual(info['tlm']['decision'], 'pass-ended')
        self.assertLess(info['tlm']['guest']['lost-work'],
                        info['downtime'] + 1)
        self.assert_runs_on(guest, src)

    def test_paused_guest(self):
        """It stays paused, here and where it is restored."""
        guest = RomGuest(ws_mb=64, rate=STEADY)
        src = self.start_source(guest)
        src.qmp('stop')
        frozen = FrozenRam(src)
        path = self.path()
        self.begin(src, f'file:{path}')
        migration.wait_status(src, 'completed')
        self.assertEqual(src.status(), 'paused')
        src.qmp('cont')
        self.assert_guest_well(guest, src)
        src.close()
        self.restore(guest, frozen, path)

    def test_again_and_again(self):
        guest = RomGuest(ws_mb=64, pattern='hotcold')
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        path = self.path()
        for i in range(8):
            mode = ('copy', 'write-protect')[i % 2]
            frozen, info = self.take(src, f'file:{path}', mode=mode)
            self.assert_kept(info, mode)
            migration.wait_idle(src)
        self.restore(guest, frozen, path)
        self.assert_runs_on(guest, src)
        migration.set_capabilities(src, pause_before_switchover=False)
        self.migrate_again(guest, src)

    def test_to_a_qemu(self):
        """A stock QEMU that waits, with what it needs, is a standby."""
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, multifd=True)
        host, port = migration.listen(dst)
        frozen, _ = self.take(src, f'tcp:{host}:{port}')
        self.assert_runs_on(guest, src)
        self.finish(guest, frozen, dst)

    def test_cancel(self):
        for stage, mode in (('live', 'auto'), ('flush', 'copy'),
                            ('flush', 'write-protect')):
            with self.sub(stage=stage, mode=mode):
                # What is rewritten all the time is left for the flush
                guest = RomGuest(ws_mb=64, pattern='uniform', rate=STEADY) \
                    if stage == 'live' else RomGuest(ws_mb=64)
                src = self.start_source(guest)
                migration.set_parameters(src, max_bandwidth=CRAWL)
                self.begin(src, f'file:{self.path()}', mode=mode)
                self.wait_stage(src, stage)
                src.qmp('migrate_cancel')
                migration.wait_status(src, 'cancelled')
                self.assert_runs_on(guest, src)
                self.assert_as_before(src)
                self.migrate_again(guest, src)

    def test_receiver_dies(self):
        """The guest has gone on long since, and goes on."""
        guest = RomGuest(ws_mb=64)
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, multifd=True)
        host, port = migration.listen(dst)
        src = self.begin_slow_flush(guest, f'tcp:{host}:{port}')
        dst.kill()
        migration.wait_status(src, 'failed')
        self.assert_runs_on(guest, src)
        self.assert_as_before(src)
        self.migrate_again(guest, src)

    def test_stopped_while_it_is_written(self):
        """By the user: a checkpoint that fails does not start it again."""
        guest = RomGuest(ws_mb=64)
        src = self.begin_slow_flush(guest, f'file:{self.path()}')
        src.qmp('stop')
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        migration.wait_idle(src)
        self.assertEqual(src.status(), 'paused')
        src.qmp('cont')
        self.assert_guest_well(guest, src)

    def test_disk_full(self):
        place = self.place()
        mount = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={SMALL_DISK}m', 'tmpfs',
             place], capture_output=True, text=True, check=False)
        if mount.returncode:
            self.skipTest(f'no small disk: {mount.stderr.strip()}')
        self.addCleanup(subprocess.run, ['umount', place], check=True)
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        self.begin(src, f'file:{place}/vm')
        info = migration.wait_status(src, 'failed')
        self.assertRegex(info['error-desc'], 'No space left')
        self.assert_runs_on(guest, src)
        os.unlink(f'{place}/vm')
        self.migrate_again(guest, src)

    def test_refused(self):
        guest = RomGuest(ws_mb=64)
        src = self.begin_slow_flush(guest, f'file:{self.path()}')
        for command, arguments in (
                ('tlm-checkpoint', {'uri': f'file:{self.path()}'}),
                ('migrate', {'uri': f'file:{self.path()}'})):
            with self.assertRaisesRegex(VmError, 'in progress'):
                src.qmp(command, **arguments)
        src.qmp('migrate_cancel')
        self.assert_runs_on(guest, src)
        with self.assertRaisesRegex(VmError, 'nowhere'):
            src.qmp('tlm-checkpoint', uri='file:/nowhere/vm')
        with self.assertRaisesRegex(VmError, 'migration protocol'):
            src.qmp('tlm-checkpoint', uri='nonsense')
        self.assert_as_before(src)
        wait_until(lambda: src.status() == 'running', 10, 'it runs')
        self.migrate_again(guest, src)


if __name__ == '__main__':
    unittest.main()
