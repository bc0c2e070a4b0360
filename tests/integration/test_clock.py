#!/usr/bin/python3
#
# What query-migrate says goes on by the clock, whoever is waited for, and is
# true at the end
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import signal
import time
import unittest

from tlmtest import migration
from tlmtest.case import CRAWL, MB, STEADY, TlmCase
from tlmtest.guests import RomGuest
from tlmtest.vm import wait_until

# ms; the guest below needs less by far, without a wait
BOUND = 3000


class Clock(TlmCase):
    def begin(self, caps=None, **params):
        self.guest = guest = RomGuest(ws_mb=32, pattern='hotcold',
                                      rate=STEADY)
        self.src = src = self.start_source(guest)
        self.dst = dst = self.start_destination(guest)
        migration.set_capabilities(src, events=True)
        address, _ = self.connect(src, dst, caps=caps, **params)
        migration.start(src, *address)
        return src

    def tlm(self):
        return self.src.qmp('query-migrate')['tlm']

    def assert_goes_on(self):
        """Time passes: the slack falls as fast, and work is lost if the guest
        is stopped."""
        start, first = time.monotonic(), self.tlm()
        time.sleep(1)
        now = self.tlm()
        ms = (time.monotonic() - start) * 1000
        slack = first['bound']['slack']
        self.assertLess(now['bound']['slack'], slack - 500)
        self.assertGreater(now['bound']['slack'], slack - ms - 500)
        self.assertGreater(now['prediction']['total'],
                           first['prediction']['total'] + 500)
        return first, now

    def assert_bound_passes(self):
        event = self.src.wait_event('MIGRATION_TLM_BOUND', 30)['data']
        self.assertEqual(event['bound'], BOUND)
        self.assertFalse(event['reachable'])
        self.assertGreaterEqual(event['smallest'], BOUND)
        tlm = self.tlm()
        self.assertFalse(tlm['bound']['reachable'])
        # 0 if this is asked in the very millisecond
        self.assertLessEqual(tlm['bound']['slack'], 0)

    def assert_end(self, kept):
        info = migration.wait_status(self.src, 'completed')
        self.finish(self.guest, self.src, self.dst)
        info = self.src.qmp('query-migrate')
        tlm = info['tlm']
        self.assertEqual(tlm['stage'], 'done')
        self.assertEqual(tlm['prediction']['eta'], 0)
        bound = tlm['bound']
        self.assertEqual(bound['slack'], bound['time'] - info['total-time'])
        self.assertEqual(bound['slack'] >= 0, kept)
        self.assertEqual(bound['reachable'], kept)
        self.assertEqual(sum(tlm['downtime'].values()),
                         info['downtime'] * 1000)
        return tlm

    def hold(self, **params):
        self.begin({'pause-before-switchover': True}, max_bandwidth=0,
                   tlm_time_bound=BOUND, **params)
        migration.wait_status(self.src, 'pre-switchover')

    def go_on(self):
        self.src.qmp('migrate-continue', state='pre-switchover')

    def test_held(self):
        """A manager takes longer than the bound."""
        self.hold()
        # The status comes a moment before
        wait_until(lambda: self.tlm()['stage'] != 'stop', 10, 'it is held')
        self.assertEqual(self.tlm()['stage'], 'pre-switchover')
        first, now = self.assert_goes_on()
        self.assertGreater(now['guest']['lost-work'],
                           first['guest']['lost-work'] + 500)
        self.assert_bound_passes()
        self.go_on()
        tlm = self.assert_end(False)
        self.assertGreater(tlm['downtime']['hold'], 1000000)

    def test_held_and_in_time(self):
        self.hold()
        migration.set_parameters(self.src, tlm_time_bound=120000)
        self.go_on()
        self.assert_end(True)

    def test_held_and_cancelled(self):
        """The user would rather have none than a late one."""
        self.hold(tlm_bound_action='cancel')
        info = migration.wait_status(self.src, 'failed')
        self.assertIn(f'{BOUND} ms has passed in pre-switchover',
                      info['error-desc'])
        self.assertEqual(info['tlm']['prediction']['eta'], 0)
        self.assertNotIn('slack', info['tlm']['bound'])
        self.dst.close()
        self.assert_runs_on(self.guest, self.src)
        migration.set_capabilities(self.src, pause_before_switchover=False)
        migration.set_parameters(self.src, tlm_time_bound=0)
        self.migrate_again(self.guest, self.src)

    def test_stalled(self):
        """Nothing is asked of the planner while the network stands still."""
        self.begin(max_bandwidth=CRAWL, tlm_time_bound=20000)
        migration.wait_ram_sent(self.src, 2)
        os.kill(self.dst.pid, signal.SIGSTOP)
        try:
            # The cap stays: without it nothing would be known of the link
            migration.set_parameters(self.src, tlm_time_bound=BOUND)
            migration.wait_stalled(self.src)
            self.assert_goes_on()
            self.assert_bound_passes()
            self.assertEqual(self.tlm()['stage'], 'live')
        finally:
            os.kill(self.dst.pid, signal.SIGCONT)
        self.assert_end(False)

    def test_kept(self):
        self.begin(max_bandwidth=0, tlm_time_bound=60000)
        self.assert_end(True)
        self.src.pull_events()
        self.assertNotIn('MIGRATION_TLM_BOUND',
                         [e['event'] for e in self.src.events])

    def test_cancelled(self):
        self.begin(max_bandwidth=CRAWL, tlm_time_bound=60000)
        wait_until(lambda: self.src.qmp('query-migrate').get('tlm', {})
                   .get('prediction', {}).get('eta'), 30, 'an ETA is shown')
        self.src.qmp('migrate_cancel')
        info = migration.wait_status(self.src, 'cancelled')
        wait_until(lambda: self.tlm()['stage'] == 'done', 30, 'it is done')
        info = self.src.qmp('query-migrate')
        self.assertEqual(info['tlm']['prediction']['eta'], 0)
        self.assertNotIn('slack', info['tlm']['bound'])

    def test_no_more_left_than_there_is(self):
        """libvirt and others compute progress from it."""
        self.guest = guest = RomGuest(ws_mb=128)
        self.src = src = self.start_source(guest)
        self.dst = dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, max_bandwidth=20 * MB,
                                  tlm_epoch=20)
        migration.start(src, *address)
        asked = 0
        while True:
            info = src.qmp('query-migrate')
            if info['status'] in migration.FINAL:
                break
            if 'ram' in info:
                asked += 1
                self.assertLessEqual(info['ram']['remaining'],
                                     info['ram']['total'])
        self.assertEqual(info['status'], 'completed')
        self.assertGreater(asked, 10)       # a busy host answers slowly
        self.finish(guest, src, dst)


if __name__ == '__main__':
    unittest.main()
