#!/usr/bin/python3
#
# What a user may ask for, and change, while a TLM migration runs
#
# SPDX-License-Identifier: GPL-2.0-or-later

import unittest

from tlmtest import migration
from tlmtest.case import MigrationCase
from tlmtest.guests import RomGuest
from tlmtest.vm import VmError, wait_until

MB = 1 << 20
CAP = 20 * MB
# Beyond what the cap carries: most of what is sent is dirty again at once
BUSY = 20000                    # pages/s


class Control(MigrationCase):
    src_caps = {'tlm': True}

    def begin(self, guest, **params):
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        address, check = self.connect(src, dst, wire=True, max_bandwidth=CAP,
                                      **params)
        migration.start(src, *address)
        return src, dst, check

    def end(self, guest, src, dst, check):
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)
        return info

    def live(self, src):
        """query-migrate, which must not say that the live stage is over."""
        info = src.qmp('query-migrate')
        self.assertIn(info['status'], ('setup', 'active'))
        tlm = info.get('tlm', {'stage': 'setup'})
        self.assertIn(tlm['stage'], ('setup', 'live'))
        return tlm

    def test_channels_are_fixed(self):
        guest = RomGuest(ws_mb=64, pattern='uniform', rate=2000)
        src, dst, check = self.begin(guest)
        migration.wait_ram_sent(src, 5)
        migration.set_parameters(src, max_bandwidth=MB)     # time for this
        for channels in (1, 3, 16):
            with self.assertRaisesRegex(VmError, 'multifd-channels'):
                migration.set_parameters(src, multifd_channels=channels)
        migration.set_parameters(src, multifd_channels=2, max_bandwidth=CAP)
        self.end(guest, src, dst, check)
        # and afterwards they are not
        migration.wait_idle(src)
        migration.set_parameters(src, multifd_channels=3)

    def test_bound_out_of_reach(self):
        """It is told by an event, with the smallest that can be kept."""
        guest = RomGuest(ws_mb=64)
        src, dst, check = self.begin(guest, avail_switchover_bandwidth=CAP,
                                     tlm_time_bound=500)
        told = src.wait_event('MIGRATION_TLM_BOUND')['data']
        self.assertEqual(told['bound'], 500)
        self.assertFalse(told['reachable'])
        self.assertGreater(told['smallest'], 64 * MB * 1000 / CAP / 2)
        tlm = self.end(guest, src, dst, check)['tlm']
        self.assertEqual(tlm['deadline'], 500)
        self.assertFalse(tlm['bound-reachable'])

    def test_bound_in_reach(self):
        guest = RomGuest(ws_mb=16)
        src, dst, check = self.begin(guest, tlm_time_bound=60000)
        tlm = self.end(guest, src, dst, check)['tlm']
        self.assertEqual(tlm['deadline'], 60000)
        src.pull_events()
        self.assertNotIn('MIGRATION_TLM_BOUND',
                         [e['event'] for e in src.events])

    def test_no_bound(self):
        guest = RomGuest(ws_mb=16)
        src, dst, check = self.begin(guest)
        tlm = self.end(guest, src, dst, check)['tlm']
        self.assertNotIn('deadline', tlm)
        self.assertNotIn('slack', tlm)

    def test_throttle_is_taken_back(self):
        """The user does not want convergence any more, in mid-pass."""
        guest = RomGuest(ws_mb=160, pattern='uniform', rate=BUSY)
        src, dst, check = self.begin(guest, tlm_converge='auto',
                                     downtime_limit=100)
        wait_until(lambda: self.live(src).get('guest-speed', 1) < 0.5, 60,
                   'the guest is throttled')
        self.assertGreater(self.live(src)['unsent-bytes'], 0)
        # slower, as two whole epochs are to come
        migration.set_parameters(src, tlm_converge='none', max_bandwidth=MB)
        wait_until(lambda: self.live(src)['guest-speed'] == 1, 60,
                   'the guest runs at full speed')
        src.qmp('migrate-tlm-switchover')
        self.end(guest, src, dst, check)


if __name__ == '__main__':
    unittest.main()
