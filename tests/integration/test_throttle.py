#!/usr/bin/python3
#
# What a throttled guest gets back, and when
#
# The guest counts its work.  Its rate under the throttle and after it is
# compared with its own rate before: the tests say nothing about how fast this
# machine is, and little about how busy.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import signal
import subprocess
import tempfile
import time
import unittest

from tlmtest import migration
from tlmtest.case import MB, SLOW, TlmCase
from tlmtest.guests import RomGuest
from tlmtest.link import Loopback, ShapedLink
from tlmtest.vm import wait_until

# What is left takes a minute at this cap
HELD = 4 * MB
# Of the rate before the migration
THROTTLED = 0.15
FULL = 0.3


class Throttled(TlmCase):
    def rate(self, seconds=1.0):
        """Pages/s that the guest has written to."""
        start, pages = time.monotonic(), self.guest.progress(self.src)['pages']
        time.sleep(seconds)
        now = self.guest.progress(self.src)['pages']
        return (now - pages) / (time.monotonic() - start)

    def speed(self):
        return self.rate() / self.before

    def wait_full_speed(self, timeout=10):
        wait_until(lambda: self.speed() >= FULL, timeout,
                   'the guest is as fast as before')

    def start_guest(self, accel='tcg', link=Loopback, **settings):
        self.guest = guest = RomGuest(ws_mb=192, **settings)
        self.src = self.start_source(guest, accel, link)
        # A scan of its memory counts for nothing: longer than one, and the
        # best of some
        self.before = max(self.rate() for _ in range(3))
        migration.set_capabilities(self.src, events=True)

    def begin(self, accel='tcg', channels=2, wire=False, link=Loopback,
              vcpus=1, kvmclock=False, **params):
        """Returns when the guest is throttled."""
        self.start_guest(accel, link, vcpus=vcpus, kvmclock=kvmclock)
        self.dst = self.start_destination(self.guest, accel, link)
        # What it dirties does not fit into 1 ms of this cap, whatever the
        # machine can do
        params.setdefault('max_bandwidth', SLOW)
        address, self.check = self.connect(
            self.src, self.dst, channels, link, wire, downtime_limit=1,
            tlm_converge='auto', **params)
        migration.start(self.src, *address)
        self.wait_throttled()

    def wait_throttled(self):
        def throttled():
            info = self.src.qmp('query-migrate')
            self.assertNotIn(info['status'], migration.FINAL)
            return 'tlm' in info and \
                info['tlm']['guest']['speed'] < THROTTLED / 2
        wait_until(throttled, 60, 'the guest is throttled')

    def assert_throttled(self):
        """... and the guest knows it.  Whatever this machine is busy with,
        the migration does not end before it has been looked at."""
        migration.set_parameters(self.src, max_bandwidth=HELD)
        wait_until(lambda: self.speed() < THROTTLED, 10,
                   'the guest is slower')
        self.assertEqual(migration.status(self.src), 'active')

    def check_after(self, act, status, accel='tcg', **params):
        self.begin(accel, **params)
        self.assert_throttled()
        act()
        migration.wait_status(self.src, status, timeout=30)
        self.wait_full_speed()
        self.dst.close()
        self.assert_runs_on(self.guest, self.src)
        self.wait_full_speed()
        migration.set_parameters(self.src, tlm_converge='none',
                                 downtime_limit=300)
        self.migrate_again(self.guest, self.src, accel,
                           params.get('channels', 2))

    def test_cancel(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                self.check_after(lambda: self.src.qmp('migrate_cancel'),
                                 'cancelled', accel)

    def test_destination_killed(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                self.check_after(lambda: self.dst.kill(), 'failed', accel)

    def test_channel_broken(self):
        """mtx's first, dtx's, and the main stream."""
        for which in (0, 3, 'main'):
            with self.sub(which=which):
                self.check_after(lambda: self.check.cut(which), 'failed',
                                 channels=4, wire=True)

    def test_cancel_while_stalled(self):
        def act():
            os.kill(self.dst.pid, signal.SIGSTOP)
            time.sleep(0.5)
            self.src.qmp('migrate_cancel')
        self.check_after(act, 'cancelled')

    def wait_lost(self, ms):
        """Wait until the guest has lost so much more time."""
        def lost():
            info = self.src.qmp('query-migrate')
            self.assertNotIn(info['status'], migration.FINAL)
            return info['tlm']['guest']['lost-work'] if 'tlm' in info else 0
        before = lost()
        wait_until(lambda: lost() >= before + ms, 60,
                   f'{ms} ms of the guest are lost')

    def test_long_pause_is_told(self):
        """Else Linux reports soft lockups, as of a CPU that hangs."""
        # So little that next to nothing is left of the guest's speed
        self.begin('kvm', vcpus=2, kvmclock=True, max_bandwidth=MB // 8)
        self.wait_lost(4000)
        self.src.qmp('migrate_cancel')
        migration.wait_status(self.src, 'cancelled', timeout=30)
        self.wait_full_speed()
        wait_until(lambda: all(self.guest.told_paused(self.src)), 10,
                   'each vCPU is told that it was paused')
        self.assert_runs_on(self.guest, self.src)

    def test_pulses_are_not_told(self):
        """The guest would not notice a hang of its own."""
        # The pass takes a minute: most pages are clean
        self.guest = guest = RomGuest(ws_mb=64, vcpus=2, rate=200,
                                      kvmclock=True)
        self.src = src = self.start_source(guest, 'kvm')
        self.dst = self.start_destination(guest, 'kvm')
        address, _ = self.connect(
            src, self.dst, max_bandwidth=MB, tlm_overcommit_method='throttle',
            tlm_overcommit=[{'progress': 0, 'cpus': 1}])
        migration.start(src, *address)
        self.wait_lost(3000)
        self.assertEqual(guest.told_paused(src), [False, False])
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled', timeout=30)
        self.assert_runs_on(guest, src)
        self.assertEqual(guest.told_paused(src), [False, False])

    def test_converge_off(self):
        """No longer wanted, while the migration goes on."""
        self.begin()
        self.assert_throttled()
        migration.set_parameters(self.src, tlm_converge='none',
                                 max_bandwidth=MB)
        # Unless it is over by then, which is as good
        wait_until(lambda: migration.status(self.src) != 'active' or
                   self.speed() >= FULL, 30, 'the guest is as fast as before')
        migration.set_parameters(self.src, max_bandwidth=SLOW)
        migration.wait_status(self.src, 'completed')
        self.finish(self.guest, self.src, self.dst)

    def check_stalled(self, stall, go_on):
        """
        Nothing gets through, and there is no time bound that would end the
        migration: a throttle serves nobody then.  Later the network is back,
        and the migration ends as if nothing had been.
        """
        self.assert_throttled()
        stall()
        try:
            self.wait_full_speed()
            # Not for a moment only
            for _ in range(3):
                self.assertGreater(self.rate(2), self.before / 10)
            self.assertEqual(migration.status(self.src), 'active')
        finally:
            go_on()
        # What was missed meanwhile may take long otherwise
        migration.set_parameters(self.src, max_bandwidth=0,
                                 downtime_limit=2000)
        info = migration.wait_status(self.src, 'completed')
        self.finish(self.guest, self.src, self.dst, self.check)
        report = None
        if self.check:
            self.src.close()
            report = self.check.report()
            self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info, report)

    def test_destination_stands_still(self):
        """Until buffers are full, all seems to be well: with TCG the guest
        fills them at once, even throttled."""
        self.begin(wire=True)
        self.check_stalled(lambda: os.kill(self.dst.pid, signal.SIGSTOP),
                           lambda: os.kill(self.dst.pid, signal.SIGCONT))

    def test_network_stalls(self):
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel), ShapedLink(2400) as link:
                # Not by WireCheck, which takes what it gets
                self.begin(accel, link=link)
                self.check_stalled(link.cut, lambda: link.cut(False))
                self.src.close()
                self.dst.close()

    def test_file_stalls(self):
        """Of a file the kernel does not tell what it has queued.  A frozen
        file system stands for a server that is gone."""
        where = self.file_system()
        self.start_guest()
        migration.set_capabilities(self.src, multifd=True, mapped_ram=True,
                                   **self.src_caps)
        migration.set_parameters(self.src, multifd_channels=2,
                                 max_bandwidth=SLOW, downtime_limit=1,
                                 tlm_converge='auto')
        path = os.path.join(where, 'vm')
        migration.start_to_file(self.src, path)
        self.wait_throttled()
        self.assert_throttled()
        subprocess.run(['fsfreeze', '--freeze', where], check=True)
        try:
            self.wait_full_speed()
            for _ in range(3):
                self.assertGreater(self.rate(2), self.before / 10)
            self.assertEqual(migration.status(self.src), 'active')
        finally:
            subprocess.run(['fsfreeze', '--unfreeze', where], check=True)
        migration.set_parameters(self.src, max_bandwidth=0,
                                 downtime_limit=2000)
        self.assert_tlm_info(migration.wait_status(self.src, 'completed'))
        dst = self.start_destination(self.guest)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        self.finish(self.guest, self.src, dst)
        self.src.close()
        dst.close()

    def file_system(self):
        """One of its own, that can be frozen."""
        directory = tempfile.TemporaryDirectory(prefix='tlm-fs-')
        self.addCleanup(directory.cleanup)
        image = os.path.join(directory.name, 'image')
        where = os.path.join(directory.name, 'mnt')
        os.mkdir(where)
        with open(image, 'wb') as f:
            f.truncate(1 << 30)
        subprocess.run(['mkfs.ext4', '-q', image], check=True)
        mount = subprocess.run(['mount', '-o', 'loop', image, where],
                               capture_output=True, text=True, check=False)
        if mount.returncode:
            self.skipTest(f'no loop devices: {mount.stderr.strip()}')
        self.addCleanup(subprocess.run, ['umount', '--lazy', where],
                        check=True)
        return where


if __name__ == '__main__':
    unittest.main()
