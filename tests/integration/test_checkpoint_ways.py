#!/usr/bin/python3
#
# Checkpoints by other ways than a plain file: compressed, with TLS, capped,
# into a stock QEMU that waits; and what else is asked for meanwhile
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

from tlmtest import migration
from tlmtest.case import SLOW
from tlmtest.checkpoint import CheckpointCase
from tlmtest.guests import RomGuest
from tlmtest.virt import make_certificates
from tlmtest.vm import VmError

KEY = '00112233445566778899aabbccddeeff'


class Ways(CheckpointCase):
    def setUp(self):
        self.guest = RomGuest(ws_mb=64)

    def into_qemu(self, extra_src=(), extra_dst=(), mode='auto', **params):
        """A stock QEMU that waits, and keeps what it was sent."""
        src = self.start_source(self.guest, extra=extra_src)
        dst = self.start_destination(self.guest, extra=extra_dst)
        migration.set_capabilities(dst, multifd=True)
        for vm in (src, dst):
            migration.set_parameters(vm, **params)
        migration.set_parameters(src, max_bandwidth=0)
        host, port = migration.listen(dst)
        frozen, info = self.take(src, f'tcp:{host}:{port}', mode=mode)
        self.assert_runs_on(self.guest, src)
        self.assert_as_before(src)
        self.finish(self.guest, frozen, dst)
        return info

    def test_compression(self):
        for method in ('zlib', 'zstd'):
            for mode in ('copy', 'write-protect'):
                with self.sub(method=method, mode=mode):
                    self.guest = RomGuest(ws_mb=64)
                    info = self.into_qemu(mode=mode,
                                          multifd_compression=method)
                    self.assert_kept(info, mode)

    def test_tls(self):
        for mode in ('copy', 'write-protect'):
            with self.sub(mode=mode):
                self.guest = RomGuest(ws_mb=64)
                place = self.place()
                with open(os.path.join(place, 'keys.psk'), 'w') as f:
                    f.write(f'qemu:{KEY}\n')
                client, server = (
                    ('-object', f'tls-creds-psk,id=tls0,dir={place},'
                     f'endpoint={end}') for end in ('client', 'server'))
                info = self.into_qemu(client, server, mode, tls_creds='tls0')
                self.assert_kept(info, mode)

    def x509(self):
        """Arguments of the source and of the receiver, who both look at the
        certificate of the other."""
        place = self.place()
        make_certificates(place, {'host': '127.0.0.1'})
        return (('-object', f'tls-creds-x509,id=tls0,dir={place}/host,'
                 f'endpoint={end},verify-peer=on')
                for end in ('client', 'server'))

    def test_x509(self):
        for mode, method in (('copy', 'none'), ('write-protect', 'zstd')):
            with self.sub(mode=mode, method=method):
                self.guest = RomGuest(ws_mb=64)
                info = self.into_qemu(*self.x509(), mode, tls_creds='tls0',
                                      multifd_compression=method)
                self.assert_kept(info, mode)

    def test_x509_of_another(self):
        """What answers is not who was meant, or is known to nobody: nothing
        is sent to it, and the guest runs on."""
        for name, error in (
                ('elsewhere', 'does not match the hostname elsewhere'),
                ('', "hasn't got a known issuer")):
            with self.sub(name=name):
                client, server = self.x509()
                if not name:
                    client, _ = self.x509()
                self.guest = RomGuest(ws_mb=64)
                src = self.start_source(self.guest, extra=client)
                dst = self.start_destination(self.guest, extra=server)
                migration.set_capabilities(dst, multifd=True)
                migration.set_parameters(dst, tls_creds='tls0')
                migration.set_parameters(src, tls_creds='tls0',
                                         tls_hostname=name)
                host, port = migration.listen(dst)
                self.begin(src, f'tcp:{host}:{port}')
                info = migration.wait_status(src, 'failed')
                self.assertRegex(info['error-desc'], error)
                self.assert_runs_on(self.guest, src)
                self.assert_as_before(src)

    def assert_restores(self, path):
        dst = self.start_destination(self.guest)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        migration.wait_loaded(dst)
        dst.qmp('cont')
        self.assert_guest_well(self.guest, dst)

    def test_channels(self):
        """In place of a URI."""
        src = self.start_source(self.guest)
        path = self.path()
        migration.set_parameters(src, max_bandwidth=0)
        migration.set_capabilities(src, pause_before_switchover=False)
        src.qmp('tlm-checkpoint', sync=False, channels=[{
            'channel-type': 'main',
            'addr': {'transport': 'file', 'filename': path, 'offset': 0}}])
        migration.wait_status(src, 'completed')
        self.assert_runs_on(self.guest, src)
        self.assert_restores(path)

    def test_where_it_goes(self):
        src = self.start_source(self.guest)
        cpr = {'channel-type': 'cpr', 'addr': {
            'transport': 'file', 'filename': '/nowhere', 'offset': 0}}
        for arguments, error in (
                ({}, "Either 'uri' or 'channels'"),
                ({'uri': 'file:/nowhere/vm', 'channels': [cpr]},
                 "Either 'uri' or 'channels'"),
                ({'channels': [cpr]}, 'no main channel')):
            with self.assertRaisesRegex(VmError, error):
                src.qmp('tlm-checkpoint', **arguments)
        self.assert_as_before(src)
        self.assert_runs_on(self.guest, src)

    def test_time_bound(self):
        """It is kept, though the guest rewrites what it has."""
        src = self.start_source(self.guest)
        migration.set_parameters(src, max_bandwidth=SLOW, tlm_converge='auto',
                                 downtime_limit=1, tlm_time_bound=20000)
        self.begin(src, f'file:{self.path()}')
        info = migration.wait_status(src, 'completed')
        self.assertEqual(info['tlm']['bound']['time'], 20000)
        self.assert_runs_on(self.guest, src)

    def test_others_meanwhile(self):
        """What would take the dirty log or RAM from it is refused."""
        src = self.begin_slow_flush(self.guest, f'file:{self.path()}')
        self.assertIn('rror', src.hmp('savevm now'))
        with self.assertRaisesRegex(VmError, 'not allowed while migrating'):
            src.qmp('device_add', driver='virtio-rng-pci', id='rng')
        src.qmp('snapshot-save', job_id='job', tag='now', vmstate='none',
                devices=[])
        src.wait_event('JOB_STATUS_CHANGE', match=lambda data:
                       data['status'] == 'concluded')
        job, = src.qmp('query-jobs')
        self.assertIn('error', job)
        src.qmp('migrate_cancel')
        self.assert_runs_on(self.guest, src)
        self.migrate_again(self.guest, src)

    def test_guest_ends_while_it_is_written(self):
        """The checkpoint is of before: it is good."""
        for command in ('system_reset', 'stop'):
            with self.sub(command=command):
                self.guest = RomGuest(ws_mb=64)
                path = self.path()
                src = self.begin_slow_flush(self.guest, f'file:{path}')
                src.qmp(command)
                migration.set_parameters(src, max_bandwidth=0)
                migration.wait_status(src, 'completed')
                self.assert_restores(path)

    def test_migrate_afterwards(self):
        """Is a migration: the guest does not go on here."""
        src = self.start_source(self.guest)
        migration.set_parameters(src, max_bandwidth=0)
        self.begin(src, f'file:{self.path()}')
        migration.wait_status(src, 'completed')
        migration.wait_idle(src)
        self.migrate_again(self.guest, src)


if __name__ == '__main__':
    unittest.main()
