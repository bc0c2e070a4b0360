#!/usr/bin/python3
#
# Checkpoints into tlm-memserver, restored by a stock QEMU from its files
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import tempfile
import unittest

from tlmtest import env, migration
from tlmtest.case import STEADY, TlmCase
from tlmtest.guests import RomGuest
from tlmtest.memserver import BINARY, MemServer
from tlmtest.ram import FrozenRam
from tlmtest.vm import wait_until

STOCK_CAPS = {'multifd': True, 'return_path': True}


class MemServerCase(TlmCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not os.path.exists(BINARY):
            raise unittest.SkipTest(f'{BINARY} is missing')

    def server(self, prefix=(), **config):
        server = MemServer(config, prefix=prefix)
        self.addCleanup(server.close)
        return server

    def control(self, server):
        control = server.control()
        self.addCleanup(control.close)
        return control

    def stock_source(self, guest, caps=None, **params):
        """Its guest is stopped."""
        self.addCleanup(guest.close)
        src = self.start_vm('src', env.STOCK_QEMU, guest.args('tcg'))
        guest.wait_filled(src)
        src.qmp('stop')
        migration.set_capabilities(src, **{**STOCK_CAPS, **(caps or {})})
        migration.set_parameters(src, **{'max_bandwidth': 0, **params})
        return src

    def tlm_source(self, guest, **params):
        src = self.start_source(guest)
        migration.set_capabilities(src, return_path=True)
        migration.set_parameters(src, **{'max_bandwidth': 0, **params})
        return src

    def restore(self, guest, frozen, path):
        """By a stock QEMU; all RAM must be as it was."""
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        self.finish(guest, frozen, dst)
        dst.close()


class Store(MemServerCase):
    def store_stock(self, config=None, caps=None, params=None, **wish):
        guest = RomGuest(ws_mb=64)
        server = self.server(**(config or {}))
        control = self.control(server)
        src = self.stock_source(guest, caps, **(params or {}))
        session = control.announce(**wish)
        src.qmp('migrate', uri=session['uri'])
        migration.wait_status(src, 'completed')
        end = control.wait(session['session'])
        self.assertEqual(end['state'], 'done', end)
        self.restore(guest, FrozenRam(src), server.path('vm1', 'one'))
        return server, control

    def test_stock(self):
        server, control = self.store_stock()
        found, = control('list')
        self.assertEqual(found['level'], 'durable')
        control('verify', vm='vm1', name='one')
        self.assertEqual(os.listdir(server.dir + '/store/vm1').count(
            'one.part'), 0)

    def test_compressed(self):
        for method in ('zlib', 'zstd'):
            with self.sub(method=method):
                self.store_stock(params={'multifd_compression': method})

    def test_unix_socket(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-data-')
        self.addCleanup(directory.cleanup)
        self.store_stock({'data': {'socket-dir': directory.name}})
        self.assertEqual(os.listdir(directory.name), [])

    def test_channels(self):
        for channels in (1, 7):
            with self.sub(channels=channels):
                self.store_stock(params={'multifd_channels': channels},
                                 channels=channels)

    def test_no_return_path(self):
        """Possible, but both sides have to want it."""
        self.store_stock({'data': {'require-return-path': 'false'}},
                         {'return_path': False}, return_path=False)

    def test_tlm(self):
        """The guest runs on, and is not what is restored."""
        for level in ('durable', 'memory'):
            with self.sub(level=level):
                guest = RomGuest(ws_mb=64)
                server = self.server()
                control = self.control(server)
                src = self.tlm_source(guest)
                session = control.announce(level=level)
                migration.set_capabilities(src, pause_before_switchover=True,
                                           multifd=True)
                src.qmp('tlm-checkpoint', uri=session['uri'], gate_timeout=0)
                migration.wait_status(src, 'pre-switchover')
                frozen = FrozenRam(src)
                src.qmp('migrate-continue', state='pre-switchover')
                migration.wait_status(src, 'completed')
                self.assert_runs_on(guest, src)
                src.close()
                self.assertEqual(control.wait(session['session'])['state'],
                                 'done')
                if level == 'durable':
                    self.restore(guest, frozen, server.path('vm1', 'one'))

    def test_hold(self):
        """A stock source whose server holds it back stops no sooner."""
        guest = RomGuest(ws_mb=16, rate=STEADY)
        server = self.server()
        control = self.control(server)
        src = self.start_source(guest)
        migration.set_capabilities(src, switchover_ack=True, **STOCK_CAPS)
        migration.set_parameters(src, max_bandwidth=0, downtime_limit=2000)
        session = control.announce(hold=True)
        src.qmp('migrate', uri=session['uri'])
        wait_until(lambda: src.qmp('query-migrate').get('ram', {})
                   .get('dirty-sync-count', 0) > 5, 60, 'passes are made')
        self.assertEqual(src.status(), 'running')
        control('release', session=session['session'])
        migration.wait_status(src, 'completed')
        self.assertEqual(control.wait(session['session'])['state'], 'done')
        self.restore(guest, FrozenRam(src), server.path('vm1', 'one'))


if __name__ == '__main__':
    unittest.main()
