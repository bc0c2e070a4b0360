#!/usr/bin/python3
#
# TLM migrations that end by post-copy: all RAM of both sides is compared, and
# the guest checks its own.  QEMU 10.1 or later at both sides: the build that
# TLM_BUILD says, or else build-10.2 beside it.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import subprocess
import unittest

from tlmtest import env, migration
from tlmtest.case import CRAWL, MB, SLOW, STEADY, TlmCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.link import Loopback, ShapedLink
from tlmtest.vm import VmError, wait_until

POSTCOPY_SINCE = (10, 1)
# Slow enough to look at post-copy, and to cut it
SLOW_POSTCOPY = 8 * MB
# What a process has beside its guest's RAM, and malloc's caprices
RSS_SPREAD = 64 * MB


def version(binary):
    """(major, minor) of a QEMU; (0, 0): there is none."""
    try:
        text = subprocess.run([binary, '--version'], capture_output=True,
                              text=True, timeout=60).stdout
    except OSError:
        return 0, 0
    found = re.search(r'version (\d+)\.(\d+)', text)
    return tuple(map(int, found.groups())) if found else (0, 0)


def binaries():
    """(source, destination) that can do it, or a reason."""
    beside = os.path.join(env.ROOT, 'build-10.2')
    pairs = [(env.QEMU, env.STOCK_QEMU)]
    pairs += [tuple(os.path.join(beside, which, 'qemu-system-x86_64')
                    for which in ('qemu', 'stock'))]
    for pair in pairs:
        if all(version(binary) >= POSTCOPY_SINCE for binary in pair):
            return pair, None
    return pairs[0], ('multifd and post-copy go together from QEMU 10.1 on: '
                      'build one beside this, with its unpatched twin '
                      '(docs/building.md)')


(SOURCE, DESTINATION), NO_POSTCOPY = binaries()


def rss(vm):
    with open(f'/proc/{vm.pid}/status') as f:
        return int(re.search(r'VmRSS:\s+(\d+) kB', f.read()).group(1)) * 1024


@unittest.skipIf(NO_POSTCOPY, NO_POSTCOPY)
class PostcopyCase(TlmCase):
    src_binary = SOURCE
    dst_binary = DESTINATION
    caps = {'postcopy-ram': True}

    def begin(self, guest, preempt=False, accel='tcg', channels=2, extra=(),
              caps=None, dst=None, src=None, link=Loopback, **params):
        """A migration under way."""
        src = src or self.start_source(guest, accel, link, extra)
        dst = dst or self.start_destination(guest, accel, link, extra)
        migration.set_capabilities(src, events=True)
        params.setdefault('tlm_converge', 'postcopy')
        params.setdefault('max_bandwidth', SLOW)
        params.setdefault('downtime_limit', 50)
        address, _ = self.connect(
            src, dst, channels, link,
            caps={**self.caps, 'postcopy-preempt': preempt, **(caps or {})},
            **{name.replace('_', '-'): v for name, v in params.items()})
        migration.start(src, *address)
        return src, dst

    def complete(self, guest, src, dst):
        """It ends well; returns the last query-migrate."""
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)
        return info

    def assert_by_postcopy(self, src, info):
        tlm = info['tlm']
        wait_until(lambda: 'done' in self.stages(src), 30, 'it is done')
        self.assertEqual(self.stages(src)[-3:], ['device', 'postcopy', 'done'])
        self.assertNotIn('stop', self.stages(src))
        self.assertEqual(tlm['progress'], 100)
        post = tlm['postcopy']
        self.assertGreater(post['owed'], 0)
        self.assertEqual(post['remaining'], 0)
        self.assertGreater(post['downtime'], 0)
        self.assertGreaterEqual(tlm['ram']['stop'], post['owed'])
        down = tlm['downtime']
        self.assertLessEqual(abs(sum(down.values()) - post['downtime']), 2)
        # All of RAM has been sent, also what was never used
        self.assertEqual(tlm['ram']['skipped'], 0)
        self.assertGreaterEqual(
            tlm['ram']['mtx'] + tlm['ram']['dtx'] + tlm['ram']['stop'],
            info['ram']['total'])

    def whole(self, guest, **kwargs):
        src, dst = self.begin(guest, **kwargs)
        info = self.complete(guest, src, dst)
        self.assert_by_postcopy(src, info)
        return info


class Complete(PostcopyCase):
    def test_kinds(self):
        for accel in ('tcg', 'kvm'):
            for preempt in (False, True):
                for pattern in ('seq', 'uniform'):
                    with self.sub(accel=accel, preempt=preempt,
                                  pattern=pattern):
                        info = self.whole(
                            RomGuest(ws_mb=96, pattern=pattern), accel=accel,
                            preempt=preempt)
                        self.assertEqual(info['tlm']['decision'],
                                         'too-long-to-stop')

    def test_many_channels_two_vcpus_q35(self):
        self.whole(RomGuest(ws_mb=96, vcpus=2, machine='q35'), channels=4,
                   preempt=True)

    def test_shared_memory(self):
        self.whole(RomGuest(ws_mb=96, shared=True))

    def test_linux(self):
        self.whole(LinuxGuest(ws=192), preempt=True)

    def test_pause_before_switchover(self):
        guest = RomGuest(ws_mb=96)
        src, dst = self.begin(guest, caps={'pause-before-switchover': True})
        migration.wait_status(src, 'pre-switchover')
        self.assertFalse(src.qmp('query-status')['running'])
        src.qmp('migrate-continue', state='pre-switchover')
        self.assert_by_postcopy(src, self.complete(guest, src, dst))

    def test_asked_for_in_the_pass(self):
        """What was never sent goes by post-copy, too."""
        guest = RomGuest(ws_mb=96, rate=STEADY)
        src, dst = self.begin(guest, max_bandwidth=CRAWL)
        migration.wait_ram_sent(src, 8)
        src.qmp('migrate-tlm-switchover')
        info = self.complete(guest, src, dst)
        self.assert_by_postcopy(src, info)
        self.assertLess(info['tlm']['ram']['passed'], info['ram']['total'])

    def test_bound(self):
        """A guest that rewrites all it has, and a cap at which nothing else
        keeps the bound than post-copy, which the cap does not slow."""
        guest = RomGuest(ws_mb=96)
        src, dst = self.begin(guest, tlm_converge='auto',
                              max_bandwidth=4 * MB, tlm_time_bound=10000,
                              tlm_bound_action='postcopy',
                              avail_switchover_bandwidth=20 * MB)
        info = self.complete(guest, src, dst)
        self.assert_by_postcopy(src, info)
        self.assertEqual(info['tlm']['decision'], 'bound-requires-postcopy')


class Other(PostcopyCase):
    """Post-copy is not what comes of it."""

    def test_fits(self):
        guest = RomGuest(ws_mb=96, rate=100)
        src, dst = self.begin(guest, downtime_limit=2000)
        info = self.complete(guest, src, dst)
        self.assertEqual(info['tlm']['decision'], 'fits')
        self.assertNotIn('postcopy', info['tlm'])
        self.assertIn('stop', self.stages(src))

    def test_never_asked_for(self):
        for converge in ('none', 'auto'):
            with self.sub(converge=converge):
                guest = RomGuest(ws_mb=64)
                src, dst = self.begin(guest, tlm_converge=converge)
                info = self.complete(guest, src, dst)
                self.assertNotIn('postcopy', info['tlm'])

    def test_refused_without_the_capability(self):
        for name in ('tlm-converge', 'tlm-bound-action'):
            with self.sub(name=name):
                guest = RomGuest(ws_mb=64)
                src = self.start_source(guest)
                migration.set_capabilities(src, multifd=True, tlm=True)
                src.qmp('migrate-set-parameters', **{name: 'postcopy'})
                with self.assertRaisesRegex(VmError, f"'{name}' set to "
                                            "'postcopy' requires .*"
                                            "'postcopy-ram'"):
                    migration.start(src, '127.0.0.1', 1)

    def test_cancelled_before_then_to_another_host(self):
        guest = RomGuest(ws_mb=96, rate=STEADY)
        src, _ = self.begin(guest, max_bandwidth=CRAWL)
        migration.wait_ram_sent(src, 8)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        self.assert_runs_on(guest, src)
        src, dst = self.begin(guest, src=src, dst=self.start_destination(
            guest, name='dst2'), downtime_limit=1)
        self.assert_by_postcopy(src, self.complete(guest, src, dst))


class Asked(PostcopyCase):
    """By migrate-start-postcopy."""

    def test_at_the_end_of_the_pass(self):
        guest = RomGuest(ws_mb=96)
        src, dst = self.begin(guest, tlm_converge='none', max_bandwidth=CRAWL)
        src.qmp('migrate-start-postcopy')
        info = self.complete(guest, src, dst)
        self.assert_by_postcopy(src, info)
        self.assertEqual(info['tlm']['ram']['passed'], info['ram']['total'])

    def test_twice_is_now(self):
        guest = RomGuest(ws_mb=96, rate=STEADY)
        src, dst = self.begin(guest, tlm_converge='none', max_bandwidth=MB)
        migration.wait_ram_sent(src, 2)
        src.qmp('migrate-start-postcopy')
        src.qmp('migrate-start-postcopy')
        info = self.complete(guest, src, dst)
        self.assert_by_postcopy(src, info)
        self.assertEqual(info['tlm']['decision'], 'switchover-requested')


class UnderWay(PostcopyCase):
    def slow(self, guest, preempt=False, link=Loopback):
        """In the middle of post-copy."""
        src, dst = self.begin(guest, preempt, link=link,
                              max_postcopy_bandwidth=SLOW_POSTCOPY)
        migration.wait_status(src, 'postcopy-active')
        return src, dst

    def test_progress_and_figures(self):
        guest = RomGuest(ws_mb=64)
        src, dst = self.slow(guest)
        progress, seen = [], []

        def look(info):
            if info['status'] == 'postcopy-active':
                progress.append(info['tlm']['progress'])
                seen.append(info['tlm'])
        info = migration.wait_status(src, 'completed', on_poll=look)
        self.finish(guest, src, dst)
        self.assert_by_postcopy(src, info)
        self.assertEqual(progress, sorted(progress))
        self.assertLess(progress[0], 100)
        first, last = seen[0]['postcopy'], seen[-1]['postcopy']
        self.assertEqual(first['owed'], last['owed'])
        self.assertGreater(first['remaining'], last['remaining'])
        self.assertGreater(seen[len(seen) // 2]['prediction']['eta'], 0)
        # Known from the start: nothing goes twice, and the cap is what binds
        for tlm in seen[:len(seen) // 2]:
            least = tlm['postcopy']['remaining'] / SLOW_POSTCOPY * 1000
            self.assertGreater(tlm['prediction']['eta'], least / 2)
        self.assertTrue(all(t['stage'] == 'postcopy' for t in seen))
        self.assertIn('tlm postcopy: ', src.hmp('info migrate'))

    def test_cancel_is_refused(self):
        guest = RomGuest(ws_mb=64)
        src, dst = self.slow(guest)
        with self.assertRaisesRegex(VmError, 'cannot cancel'):
            src.qmp('migrate_cancel')
        self.assert_by_postcopy(src, self.complete(guest, src, dst))

    def test_recovery(self):
        """Twice, as a network may fail twice."""
        for preempt in (False, True):
            with self.sub(preempt=preempt):
                guest = RomGuest(ws_mb=64)
                src, dst = self.slow(guest, preempt)
                for _ in range(2):
                    self.pause(src, dst)
                    self.recover(src, dst)
                self.assert_by_postcopy(src, self.complete(guest, src, dst))

    def test_network_cut(self):
        """Nobody is told; with the network back, it goes on; and again."""
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        for preempt in (False, True):
            with self.sub(preempt=preempt), ShapedLink() as link:
                guest = RomGuest(ws_mb=64)
                src, dst = self.slow(guest, preempt, link)
                left = self.remaining(src)
                for _ in range(2):
                    wait_until(lambda: self.remaining(src) < left, 60,
                               'more of it has been sent')
                    link.cut()
                    self.pause(src, dst)
                    left = self.remaining(src)
                    self.assertGreater(left, 0)
                    link.cut(False)
                    self.recover(src, dst, link)
                self.assert_by_postcopy(src, self.complete(guest, src, dst))
                src.close()
                dst.close()

    @staticmethod
    def remaining(src):
        return src.qmp('query-migrate')['tlm']['postcopy']['remaining']

    @staticmethod
    def pause(src, dst):
        src.qmp('migrate-pause')
        migration.wait_status(src, 'postcopy-paused')
        if migration.status(dst) != 'postcopy-paused':
            try:
                dst.qmp('migrate-pause')
            except VmError:
                pass                    # it has noticed by itself
        migration.wait_status(dst, 'postcopy-paused')

    @staticmethod
    def recover(src, dst, link=Loopback):
        dst.qmp('migrate-recover', uri=f'tcp:{link.address}:0')
        address = dst.qmp('query-migrate')['socket-address'][0]
        src.qmp('migrate', uri=f"tcp:{link.address}:{address['port']}",
                resume=True)
        migration.wait_status(src, 'postcopy-active')

    def test_unused_ram_stays_unused(self):
        guest = RomGuest(mem_mb=1024, ws_mb=32)
        src, dst = self.begin(guest, downtime_limit=1)
        info = migration.wait_status(src, 'completed')
        self.assert_by_postcopy(src, info)
        self.assertLess(rss(dst), rss(src) + RSS_SPREAD)
        self.finish(guest, src, dst)


if __name__ == '__main__':
    unittest.main(verbosity=2)
