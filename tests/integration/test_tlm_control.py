#!/usr/bin/python3
#
# What a user may ask for, and change, while a TLM migration runs
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import tempfile
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
        info = self.end(guest, src, dst, check)
        self.assertEqual(info['tlm']['bound']['time'], 500)
        # The user has said less of this link than it carries: in the end it
        # counts what has become of it
        self.assertEqual(info['tlm']['bound']['reachable'],
                         info['total-time'] <= 500)

    def test_bound_in_reach(self):
        guest = RomGuest(ws_mb=16)
        src, dst, check = self.begin(guest, tlm_time_bound=60000)
        tlm = self.end(guest, src, dst, check)['tlm']
        self.assertEqual(tlm['bound']['time'], 60000)
        src.pull_events()
        self.assertNotIn('MIGRATION_TLM_BOUND',
                         [e['event'] for e in src.events])

    def test_no_bound(self):
        guest = RomGuest(ws_mb=16)
        src, dst, check = self.begin(guest)
        tlm = self.end(guest, src, dst, check)['tlm']
        self.assertNotIn('bound', tlm)

    def test_without_multifd(self):
        """With 'tlm' left on: what is not a migration by multifd goes as
        ever, and says so; over a socket it is refused."""
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest)
        migration.set_capabilities(src, tlm=True)
        migration.set_parameters(src, max_bandwidth=0)
        with self.assertRaisesRegex(VmError, "requires capability 'multifd'"):
            migration.start(src, '127.0.0.1', 1)
        with tempfile.TemporaryDirectory(prefix='tlm-file-') as directory:
            path = os.path.join(directory, 'vm')
            migration.start_to_file(src, path)
            info = migration.wait_status(src, 'completed')
            self.assertNotIn('tlm', info)
            self.assertIn('it goes without TLM', src.messages())
            dst = self.start_destination(guest)
            migration.load_file(dst, path)
            self.finish(guest, src, dst)

    def test_cancel_with_tls(self):
        """No channel complains that it could not say goodbye: the user has
        cut it off."""
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=2000)
        self.addCleanup(guest.close)
        keys = tempfile.TemporaryDirectory(prefix='tlm-psk-')
        self.addCleanup(keys.cleanup)
        with open(os.path.join(keys.name, 'keys.psk'), 'w',
                  encoding='ascii') as f:
            f.write('qemu:' + 32 * 'ab' + '\n')

        def tls(endpoint):
            return ['-object', f'tls-creds-psk,id=tls0,endpoint={endpoint},'
                    f'dir={keys.name}']
        src = self.start_source(guest, extra=tls('client'))
        dst = self.start_vm('dst', self.dst_binary,
                            [*guest.args('tcg'), *tls('server'),
                             '-incoming', 'defer'])
        migration.set_parameters(dst, tls_creds='tls0')
        address, _ = self.connect(src, dst, channels=4, max_bandwidth=MB,
                                  tls_creds='tls0')
        migration.start(src, *address)
        migration.wait_ram_sent(src, 1)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        migration.wait_idle(src)
        self.assertNotIn('warning', src.messages())

    def test_post_copy_not_over(self):
        """A guest whose RAM is still on its way cannot go on already."""
        guest = RomGuest(ws_mb=128, pattern='hotcold', rate=2000)
        self.addCleanup(guest.close)
        src = self.start_vm('src', self.dst_binary, guest.args('tcg'))
        guest.wait_filled(src)
        dst = self.start_vm('dst', self.src_binary,
                            [*guest.args('tcg'), '-incoming', 'defer'])
        for vm in (src, dst):
            migration.set_capabilities(vm, postcopy_ram=True)
        migration.set_parameters(src, max_bandwidth=MB,
                                 max_postcopy_bandwidth=MB)
        migration.start(src, *migration.listen(dst))
        migration.wait_status(src, 'active')
        src.qmp('migrate-start-postcopy')
        migration.wait_status(src, 'postcopy-active')
        wait_until(lambda: dst.status() == 'running', 60, 'it runs there')
        # 'multifd' cannot be set there: it is not the first that is missing
        migration.set_capabilities(dst, postcopy_ram=False, tlm=True)
        with self.assertRaisesRegex(VmError, 'Post-copy still brings'):
            migration.start(dst, '127.0.0.1', 1)
        migration.set_parameters(src, max_postcopy_bandwidth=0)
        migration.wait_status(src, 'completed')
        self.assert_guest_well(guest, dst)

    def test_throttle_is_taken_back(self):
        """The user does not want convergence any more, in mid-pass (or after
        it, if the host is so busy that the guest, which makes up for what it
        has missed, dirties all that is unsent at once)."""
        guest = RomGuest(ws_mb=160, pattern='uniform', rate=BUSY)
        src, dst, check = self.begin(guest, tlm_converge='auto',
                                     downtime_limit=100)
        wait_until(lambda: self.live(src).get('guest', {'speed': 1})
                   ['speed'] < 0.5, 60,
                   'the guest is throttled')
        # slower, as two whole epochs are to come
        migration.set_parameters(src, tlm_converge='none', max_bandwidth=MB)
        wait_until(lambda: self.live(src)['guest']['speed'] == 1, 60,
                   'the guest runs at full speed')
        src.qmp('migrate-tlm-switchover')
        info = self.end(guest, src, dst, check)
        self.assertEqual(info['tlm']['decision'], 'switchover-requested')


if __name__ == '__main__':
    unittest.main()
