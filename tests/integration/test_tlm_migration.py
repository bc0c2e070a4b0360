#!/usr/bin/python3
#
# TLM migrations of running guests to an unmodified QEMU
#
# TLM_REPEAT: how often the repeated migrations are run (default 2)
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import signal
import subprocess
import time
import unittest

from tlmtest import env, migration
from tlmtest.case import CRAWL, MB, SLOW, STEADY, TlmCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.link import ShapedLink
from tlmtest.vm import VmError, wait_until

PAGE = 4096
REPEAT = int(os.environ.get('TLM_REPEAT', '2'))


class Complete(TlmCase):
    """From start to end, RAM compared, wire checked, guest well."""

    def check(self, guest, accel='tcg', channels=2, wire=True, **kwargs):
        kwargs.setdefault('max_bandwidth', SLOW)
        info, report = self.migrate(guest, accel, channels, wire=wire,
                                    **kwargs)
        self.assert_tlm_info(info, report)
        return info, report

    def test_rom_tcg(self):
        info, report = self.check(RomGuest(ws_mb=64))
        # Unthrottled, it dirties all of its set in every epoch
        self.assertGreater(info['tlm']['ram']['stop'], 0)
        self.assertGreater(info['tlm']['ram']['mtx'], 0)
        self.assertGreater(report['syncs'], 1)

    def test_rom_kvm(self):
        self.check(RomGuest(ws_mb=64), 'kvm')

    def test_patterns(self):
        for accel in ('tcg', 'kvm'):
            for pattern in ('uniform', 'hotcold', 'window'):
                with self.sub(accel=accel, pattern=pattern):
                    self.check(RomGuest(ws_mb=64, pattern=pattern), accel)

    def test_stride_and_rate(self):
        # slow, scattered, and time for pages to settle: dtx's work
        info, _ = self.check(RomGuest(ws_mb=64, rate=1000, stride=17),
                             max_bandwidth=CRAWL)
        self.assertGreater(info['tlm']['ram']['dtx'], 0)

    def test_two_vcpus(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                self.check(RomGuest(ws_mb=64, vcpus=2, pattern='hotcold'),
                           accel)

    def test_channels(self):
        for channels in (3, 8, 16):
            with self.sub(channels=channels):
                self.check(RomGuest(ws_mb=64, pattern='hotcold'),
                           channels=channels)

    def test_dtx_channels(self):
        self.check(RomGuest(ws_mb=64, pattern='hotcold'), channels=4,
                   tlm_dtx_channels=3)

    def test_dtx_off(self):
        info, report = self.check(RomGuest(ws_mb=64, pattern='hotcold'),
                                  tlm_dtx=False)
        self.assertEqual(info['tlm']['ram']['dtx'], 0)
        self.assertGreater(info['tlm']['ram']['stop'], 0)
        self.assertGreater(report['pages'], 0)

    def test_epoch_lengths(self):
        for epoch in (20, 1000):
            with self.sub(epoch=epoch):
                self.check(RomGuest(ws_mb=64, pattern='hotcold'),
                           tlm_epoch=epoch)

    def test_uncapped(self):
        self.check(RomGuest(ws_mb=64), max_bandwidth=0)

    def test_q35(self):
        self.check(RomGuest(ws_mb=64, machine='q35'))

    def test_shared_memory(self):
        self.check(RomGuest(ws_mb=64, shared=True))

    def test_mostly_idle(self):
        self.check(RomGuest(mem_mb=1024, ws_mb=16, rate=100), max_bandwidth=0)

    def test_capabilities_libvirt_sets(self):
        guest = RomGuest(ws_mb=64, pattern='hotcold')
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        caps = {'return-path': True, 'pause-before-switchover': True,
                'late-block-activate': True, 'switchover-ack': True}
        address, check = self.connect(src, dst, wire=True, caps=caps,
                                      max_bandwidth=SLOW)
        migration.start(src, *address)
        migration.wait_status(src, 'pre-switchover')
        self.assertFalse(src.qmp('query-status')['running'])
        src.qmp('migrate-continue', state='pre-switchover')
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info, report)

    def test_compression(self):
        for method in ('zlib', 'zstd'):
            with self.sub(method=method):
                self._compressed(method)

    def _compressed(self, method):
        guest = RomGuest(ws_mb=64, pattern='hotcold')
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        address, check = self.connect(src, dst, wire=True, max_bandwidth=SLOW)
        try:
            for vm in (src, dst):
                migration.set_parameters(vm, multifd_compression=method)
        except VmError as e:
            self.skipTest(str(e))
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info, report)
        sent = [report['channels'][c] for c in report['channels']]
        self.assertLess(sum(c['bytes'] for c in sent),
                        sum(c['normal'] for c in sent) * PAGE)

    def test_linux(self):
        self.check(LinuxGuest(ws=256))

    def test_linux_patterns(self):
        for settings in ({'pattern': 'uniform', 'rate': 20000},
                         {'pattern': 'hotcold', 'hot': 5, 'words': 8},
                         {'pattern': 'seq', 'words': 512}):
            with self.sub(**settings):
                self.check(LinuxGuest(ws=128, **settings))

    def test_linux_again_and_again(self):
        """Race conditions have no other test than repetition."""
        for i in range(REPEAT):
            with self.sub(run=i):
                self.check(LinuxGuest(mem_mb=384, ws=192,
                                      pattern=('seq', 'hotcold')[i % 2]),
                           channels=(2, 4)[i // 2 % 2],
                           max_bandwidth=(SLOW, 0)[i // 4 % 2])
            # Or the guests of all runs would compete for the CPUs
            self.doCleanups()

    def test_rom_again_and_again(self):
        for i in range(REPEAT):
            with self.sub(run=i):
                self.check(RomGuest(ws_mb=96, vcpus=1 + i % 2,
                                    pattern=('seq', 'uniform', 'hotcold',
                                             'window')[i % 4], seed=i + 1),
                           accel=('tcg', 'kvm')[i // 2 % 2],
                           max_bandwidth=(SLOW, 0)[i // 4 % 2])
            self.doCleanups()


class Observed(TlmCase):
    """What can be seen while a migration runs."""

    def start(self, guest, channels=2, extra=(), **params):
        src = self.start_source(guest, extra=extra)
        dst = self.start_destination(guest)
        migration.set_capabilities(src, events=True)
        address, _ = self.connect(src, dst, channels, **params)
        migration.start(src, *address)
        return src, dst

    def test_stages_progress_threads(self):
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        src, dst = self.start(guest, max_bandwidth=CRAWL)
        progress, names = [], set()

        def look(info):
            if 'tlm' in info:
                progress.append(info['tlm']['progress'])
            names.update(t['name']
                         for t in src.qmp('query-migrationthreads'))
        migration.wait_status(src, 'completed', on_poll=look)
        self.finish(guest, src, dst)
        wait_until(lambda: 'done' in self.stages(src), 30, 'it is done')
        self.assertEqual(self.stages(src),
                         ['setup', 'live', 'stop', 'device', 'done'])
        self.assertGreater(len(progress), 3)
        self.assertEqual(progress, sorted(progress))
        self.assertLess(progress[0], 100)
        for name in ('mtx', 'dtx'):
            self.assertTrue(any(name in n for n in names), names)
        self.assertEqual(src.qmp('query-migrationthreads'), [])

    def test_guest_runs_in_the_live_stage(self):
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        # not to be over before the guest has been looked at
        src, dst = self.start(guest, max_bandwidth=MB)
        self.wait_stage(src, 'live')
        migration.wait_ram_sent(src, 2)
        guest.wait_alive(src)
        self.assertEqual(migration.status(src), 'active')
        self.assertIn('tlm', src.hmp('info migrate'))
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)

    def test_drained_before_the_device_state(self):
        """The channels' queues in the kernel are down to their last segment,
        or stuck."""
        guest = RomGuest(ws_mb=64)
        src, dst = self.start(guest, extra=('-trace', 'tlm_drain',
                                            '-trace', 'vmstate_save'))
        migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)
        with open(src.stderr_path) as f:
            text = f.read()
        drains = re.findall(r'tlm_drain .* (\d+) are left after (\d+) us', text)
        self.assertEqual(len(drains), 1, text)
        left, us = map(int, drains[0])
        self.assertTrue(left <= 2 * 65536 or us >= 50000, drains)
        self.assertLess(text.index('tlm_drain '), text.index('vmstate_save '))

    def test_switchover_at_once(self):
        """Without an epoch before it the stop stage sends everything.  The
        first decision may be quicker, so the test does this three times."""
        for run in range(3):
            with self.sub(run=run):
                guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
                src = self.start_source(guest)
                dst = self.start_destination(guest)
                migration.set_capabilities(src, events=True)
                address, check = self.connect(src, dst, wire=True,
                                              max_bandwidth=CRAWL)
                migration.start(src, *address)
                self.wait_stage(src, 'live')
                src.qmp('migrate-tlm-switchover')
                info = migration.wait_status(src, 'completed')
                self.finish(guest, src, dst, check)
                self.assert_tlm_info(info)

    def test_switchover_waits_for_the_ack(self):
        """
        With switchover-ack the destination has to say that it is ready.
        One that stands still has not, while all connections are there: the
        kernel makes them.  Little enough is sent to fit into its buffers.
        """
        for ack in (False, True):
            with self.sub(ack=ack):
                guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
                src = self.start_source(guest)
                dst = self.start_destination(guest)
                migration.set_capabilities(src, events=True)
                address, _ = self.connect(
                    src, dst, max_bandwidth=MB // 4,
                    caps={'return-path': True, 'switchover-ack': ack})
                os.kill(dst.pid, signal.SIGSTOP)
                try:
                    migration.start(src, *address)
                    self.wait_stage(src, 'live')
                    src.qmp('migrate-tlm-switchover')
                    if ack:
                        time.sleep(2)
                        guest.wait_alive(src)
                        self.assertEqual(self.stages(src), ['setup'])
                    else:
                        # This is what it would have done
                        self.wait_stage(src, 'stop')
                finally:
                    os.kill(dst.pid, signal.SIGCONT)
                if ack:
                    # The request is not forgotten
                    self.wait_stage(src, 'stop')
                info = migration.wait_status(src, 'completed')
                self.finish(guest, src, dst)
                self.assert_tlm_info(info)
                self.assertLess(info['tlm']['ram']['mtx'], 16 * MB)

    def test_switchover_command_needs_a_migration(self):
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest)
        with self.assertRaises(VmError):
            src.qmp('migrate-tlm-switchover')

    def test_bandwidth_cap(self):
        """Over any second of the live stage: at most 1.05 x the cap."""
        guest = RomGuest(ws_mb=128, pattern='hotcold', rate=20000)
        cap = 20 * MB
        src, dst = self.start(guest, 4, max_bandwidth=cap)
        samples = []            # not before, bytes, not after

        def sample():
            before = time.monotonic()
            info = src.qmp('query-migrate')
            if info.get('tlm', {}).get('stage') == 'live':
                samples.append((before, info['ram']['transferred'],
                                time.monotonic()))
            return info['status'] in migration.FINAL
        wait_until(sample, 120, 'the end of the migration')
        migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)
        self.assertGreater(samples[-1][0] - samples[0][2], 2)
        # When QEMU answered is known within bounds: the rate was no less
        rates = [(b1 - b0) / (t1 - t0)
                 for i, (t0, b0, _) in enumerate(samples)
                 for _, b1, t1 in samples[i + 1:]
                 if 1 <= t1 - t0 < 1.1]
        self.assertLessEqual(max(rates), 1.05 * cap)
        # ... and it is used
        self.assertGreater(max(rates), 0.8 * cap)


class Bound(TlmCase):
    """Hard bounds and hard throttling lose no page."""

    def test_bound_of_one_second(self):
        """The cap does not let it through in time: the rest has to go in
        the switchover, which is not capped."""
        for pattern in ('uniform', 'hotcold'):
            with self.sub(pattern=pattern):
                info, _ = self.migrate(RomGuest(ws_mb=160, pattern=pattern),
                                       max_bandwidth=128 * MB,
                                       tlm_time_bound=1000)
                self.assert_tlm_info(info)
                self.assertGreater(info['tlm']['ram']['stop'], 0)

    def test_reset_while_throttled(self):
        """A reset pauses and resumes the vCPUs as well, in its own way."""
        guest = RomGuest(ws_mb=192)
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        migration.set_capabilities(src, events=True)
        # What is hot does not fit in 1 ms: throttled from the pass on
        address, check = self.connect(src, dst, wire=True, downtime_limit=1,
                                      max_bandwidth=SLOW,
                                      tlm_converge='auto',
                                      tlm_time_bound=60000)
        migration.start(src, *address)
        self.wait_throttled(src)
        resets = 0
        while resets < 20 and migration.status(src) == 'active':
            src.qmp('system_reset')
            src.wait_event('RESET', 30)
            resets += 1
        self.assertGreater(resets, 0)
        migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)

    def wait_throttled(self, src):
        def throttled():
            info = src.qmp('query-migrate')
            self.assertNotIn(info['status'], migration.FINAL)
            return 'tlm' in info and info['tlm']['guest']['speed'] < 0.5
        wait_until(throttled, 60, 'the guest is throttled')


class Refused(TlmCase):
    """What does not go with TLM is said, in either order of setting."""

    def refused(self, words, caps=None, before=None, **params):
        """caps, params: set on the source, in this order; refused by one of
        these or when the migration starts."""
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, multifd=True)
        migration.set_parameters(dst, multifd_channels=2)
        address = migration.listen(dst)
        with self.assertRaisesRegex(VmError, '(?i)' + words):
            for name, state in {'multifd': True, **caps}.items():
                migration.set_capabilities(src, **{name: state})
            migration.set_parameters(src, **params)
            migration.start(src, *address)
            migration.wait_status(src, 'completed')
        self.assert_guest_well(guest, src)

    def test_one_channel(self):
        self.refused('multifd-channels', {'tlm': True}, multifd_channels=1)

    def test_no_multifd(self):
        self.refused('multifd', {'tlm': True, 'multifd': False})

    def test_no_channel_left_for_mtx(self):
        self.refused('tlm-dtx-channels', {'tlm': True}, multifd_channels=2,
                     tlm_dtx_channels=2)

    def test_legacy_zero_pages(self):
        self.refused('zero-page.*none.*9.0 or later', {'tlm': True},
                     zero_page_detection='legacy')

    def test_capabilities(self):
        for name in ('auto-converge', 'dirty-limit', 'background-snapshot',
                     'postcopy-ram', 'xbzrle', 'release-ram'):
            for caps in ({'tlm': True, name: True}, {name: True, 'tlm': True}):
                # stock refuses some of them beside multifd: tlm first then
                with self.sub(caps=list(caps)):
                    self.refused(f'tlm|{name}|multifd|postcopy|kvm|dirty',
                                 caps, multifd_channels=2)


class Interrupted(TlmCase):
    """The guest runs on at the source, and the next migration works."""

    def begin(self, guest, accel='tcg', channels=2, wire=False, link=None,
              **params):
        params.setdefault('max_bandwidth', CRAWL)
        extra = {'link': link} if link else {}
        src = self.start_source(guest, accel, **extra)
        dst = self.start_destination(guest, accel, **extra)
        migration.set_capabilities(src, events=True)
        address, check = self.connect(src, dst, channels, wire=wire, **extra,
                                      **params)
        migration.start(src, *address)
        return src, dst, check

    def test_cancel_live(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
                src, dst, _ = self.begin(guest, accel)
                migration.wait_ram_sent(src, 5)
                src.qmp('migrate_cancel')
                migration.wait_status(src, 'cancelled')
                dst.close()
                self.assert_runs_on(guest, src)
                self.migrate_again(guest, src, accel)

    def test_cancel_at_once(self):
        """While channels are being set up; a race, so more than once."""
        guest = RomGuest(ws_mb=64)
        src, dst, _ = self.begin(guest)
        for _ in range(10):
            src.qmp('migrate_cancel')
            migration.wait_status(src, 'cancelled', timeout=30)
            dst.close()
            dst = self.start_destination(guest)
            address, _ = self.connect(src, dst)
            migration.wait_idle(src)
            migration.start(src, *address)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled', timeout=30)
        dst.close()
        self.assert_runs_on(guest, src)
        self.migrate_again(guest, src)

    def test_cancel_many_times(self):
        guest = RomGuest(ws_mb=128, pattern='uniform', rate=STEADY)
        src, dst, _ = self.begin(guest)
        for megabytes in (1, 3, 9, 20):
            migration.wait_ram_sent(src, megabytes)
            src.qmp('migrate_cancel')
            migration.wait_status(src, 'cancelled')
            dst.close()
            dst = self.start_destination(guest)
            migration.start(src, *self.connect(src, dst)[0])
        migration.set_parameters(src, max_bandwidth=SLOW)
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)
        self.assert_tlm_info(info)

    def test_cancel_before_switchover(self):
        guest = RomGuest(ws_mb=64)
        src, dst, _ = self.begin(
            guest, caps={'pause-before-switchover': True}, max_bandwidth=SLOW)
        migration.wait_status(src, 'pre-switchover')
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        dst.close()
        self.assert_runs_on(guest, src)
        migration.set_capabilities(src, pause_before_switchover=False)
        self.migrate_again(guest, src)

    def test_cancel_and_tlm_off(self):
        """Stock migration after TLM, in one process."""
        guest = RomGuest(ws_mb=64, rate=STEADY)
        src, dst, _ = self.begin(guest)
        migration.wait_ram_sent(src, 5)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        dst.close()
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, max_bandwidth=0)
        migration.set_capabilities(src, tlm=False)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        self.assertNotIn('tlm', info)
        self.finish(guest, src, dst)

    def test_savevm_after_cancel(self):
        """query-migrate tells of savevm then; nothing of it is TLM's."""
        # Slower than the cap: something is left for mtx for long
        guest = RomGuest(ws_mb=16, rate=100)
        image = os.path.join(guest.dir, 'disk')
        subprocess.run([os.path.join(os.path.dirname(env.QEMU), 'qemu-img'),
                        'create', '-q', '-f', 'qcow2', image, '1G'],
                       check=True)
        src = self.start_source(guest, extra=(
            '-drive', f'if=none,id=disk,format=qcow2,file={image}'))
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, max_bandwidth=MB)
        migration.start(src, *address)
        migration.wait_ram_sent(src, 2)
        src.qmp('migrate_cancel')
        self.assertIn('tlm', migration.wait_status(src, 'cancelled'))
        migration.wait_idle(src)
        migration.set_capabilities(src, tlm=False, multifd=False)
        self.assertEqual(src.hmp('savevm one'), '')
        info = src.qmp('query-migrate')
        self.assertEqual(info['status'], 'completed')
        self.assertNotIn('tlm', info)
        self.assert_runs_on(guest, src)

    def test_destination_killed(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
                src, dst, _ = self.begin(guest, accel)
                migration.wait_ram_sent(src, 5)
                dst.kill()
                info = migration.wait_status(src, 'failed')
                self.assertTrue(info.get('error-desc'))
                self.assert_runs_on(guest, src)
                self.migrate_again(guest, src, accel)

    def test_destination_stops_reading(self):
        """All channels block: cancel must get through."""
        guest = RomGuest(ws_mb=128, pattern='hotcold', rate=STEADY)
        src, dst, _ = self.begin(guest)
        os.kill(dst.pid, signal.SIGSTOP)
        migration.set_parameters(src, max_bandwidth=0)
        migration.wait_stalled(src)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled', timeout=30)
        dst.close()
        self.assert_runs_on(guest, src)
        self.migrate_again(guest, src)

    def test_network_gone_and_bound_passed(self):
        """bound-action cancel: whoever waits for the network is woken up,
        in the middle of an epoch or of a multifd sync."""
        for epoch in (0, 20, 20):
            with self.sub(epoch=epoch):
                guest = RomGuest(ws_mb=128, pattern='hotcold', rate=STEADY)
                src, dst, _ = self.begin(guest, tlm_epoch=epoch,
                                         tlm_bound_action='cancel')
                migration.wait_ram_sent(src, 5)
                os.kill(dst.pid, signal.SIGSTOP)
                migration.set_parameters(src, max_bandwidth=0)
                migration.wait_stalled(src)
                # not before: a slow machine might not keep it either
                migration.set_parameters(src, tlm_time_bound=5000)
                info = migration.wait_status(src, 'failed', timeout=60)
                self.assertRegex(info['error-desc'],
                                 'time bound of 5000 ms (has passed, and '
                                 'nothing could be sent|cannot be kept)')
                dst.close()
                self.assert_runs_on(guest, src)
                migration.set_parameters(src, tlm_time_bound=0)
                self.migrate_again(guest, src)

    def _broken(self, which, channels=4):
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        src, dst, check = self.begin(guest, channels=channels, wire=True)
        migration.wait_ram_sent(src, 5)
        check.cut(which)
        info = migration.wait_status(src, 'failed', timeout=30)
        self.assertTrue(info.get('error-desc'))
        dst.close()
        self.assert_runs_on(guest, src)
        self.migrate_again(guest, src, channels=channels)

    def test_broken_first_channel(self):
        self._broken(0)

    def test_broken_last_channel(self):
        self._broken(3)

    def test_broken_main_channel(self):
        self._broken('main')

    def _in_stop_stage(self, act, status):
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        # What is left takes seconds on this link: time to act
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        with ShapedLink(rate=100) as link:
            src, dst, _ = self.begin(guest, link=link, max_bandwidth=MB)
            self.wait_stage(src, 'live')
            src.qmp('migrate-tlm-switchover')
            self.wait_stage(src, 'stop')
            act(src, dst)
            info = migration.wait_status(src, status, timeout=60)
            dst.close()
            self.assert_runs_on(guest, src)
            # The next one, in the same place
            link.set_rate(4000)
            dst = self.start_destination(guest, link=link, name='dst2')
            address, _ = self.connect(src, dst, link=link, max_bandwidth=0)
            migration.start(src, *address)
            migration.wait_status(src, 'completed')
            self.finish(guest, src, dst)
            src.close()
            dst.close()
        return info

    def test_cancel_in_stop_stage(self):
        self._in_stop_stage(lambda src, dst: src.qmp('migrate_cancel'),
                            'cancelled')

    def test_destination_killed_in_stop_stage(self):
        info = self._in_stop_stage(lambda src, dst: dst.kill(), 'failed')
        self.assertTrue(info.get('error-desc'))

    def test_device_writes_in_stop_stage(self):
        """What a device writes while the rest is sent goes again, by QEMU's
        own code, and is counted."""
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        with ShapedLink(rate=100) as link:
            src, qtest = self.start_source_with_qtest(guest, link)
            dst = self.start_destination(guest, link=link)
            # Behind all that the guest uses
            buffer, pages = 200 * MB, 8
            qtest.do('memset', buffer, pages * PAGE, 0x11)
            migration.set_capabilities(src, events=True)
            address, check = self.connect(src, dst, link=link, wire=True,
                                          max_bandwidth=MB)
            migration.start(src, *address)
            self.wait_stage(src, 'live')
            src.qmp('migrate-tlm-switchover')
            self.wait_stage(src, 'stop')
            wait_until(lambda: src.qmp('query-migrate')['tlm']['ram']['stop'],
                       30, 'the dirty log has been read')
            qtest.do('memset', buffer, pages * PAGE, 0x22)
            info = migration.wait_status(src, 'completed')
            self.finish(guest, src, dst, check)
            report = self.wire_report(src, check, 2)
            self.assert_tlm_info(info, report)
            self.assertGreaterEqual(report['pages_sent_again'], pages)


class Shaped(TlmCase):
    def test_guest_faster_than_link(self):
        """The demonstration: stock pre-copy would not end here."""
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        guest = LinuxGuest(ws=192, mem_mb=384)
        with ShapedLink(rate=800) as link:
            info, report = self.migrate(guest, link=link, wire=True)
        self.assert_tlm_info(info, report)


if __name__ == '__main__':
    unittest.main()
