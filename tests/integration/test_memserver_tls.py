#!/usr/bin/python3
#
# tlm checkpoint --tls: servers send to QEMUs and to each other by TLS
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import shutil
import socket
import tempfile
import unittest

from test_memserver_command import TCP, ServerTool
from tlmtest import env, migration
from tlmtest.virt import make_certificates

COPIES = '--copies', '2'
PROTECTED = '--level', 'protected'
USER, OTHER = 'alice', 'other'
THREE = 'abc'                   # servers: two parts, and parity
ELSEWHERE = '192.0.2.1'         # in the certificate of OTHER


class Tls(ServerTool):
    """Two servers, a source, and their credentials."""

    def start(self, kind, credentials, stopped=True, how=COPIES, admins=None):
        """@credentials: directories of the servers.  Returns the servers'
        addresses; they have what the source has."""
        self.servers = [self.server(
            control={**TCP['control'], 'admins': admins},
            tls={'credentials': kind, 'dir': directory})
            for directory in credentials]
        addresses = [s.address for s in self.servers]
        self.src = self.source(stopped)
        if not how:
            return addresses
        self.save(','.join(addresses), 'one', *how, *self.tls)
        self.memserver('verify', ','.join(addresses), *self.tls)
        return addresses

    def keys(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-keys-')
        self.addCleanup(directory.cleanup)
        return directory.name

    def x509(self, servers='ab', **start):
        """The user's certificates: as a client, and as a QEMU that listens."""
        keys = self.keys()
        make_certificates(keys, {**dict.fromkeys((*servers, USER),
                                                 '127.0.0.1'),
                                 OTHER: ELSEWHERE})
        self.mine = os.path.join(keys, USER)
        self.other = os.path.join(keys, OTHER)
        self.tls = ('--tls', 'x509', '--tls-dir', self.mine)
        return self.start('x509', [os.path.join(keys, n) for n in servers],
                          **start)

    def psk(self, servers='ab', **start):
        keys = self.keys()
        with open(f'{keys}/keys.psk', 'w', encoding='ascii') as f:
            f.write(f'{USER}:{32 * "ab"}\nqemu:{32 * "cd"}\n')
        self.tls = ('--tls', 'psk', '--tls-dir', keys, '--tls-user', USER)
        return self.start('psk', [keys for _ in servers], **start)

    def has_all(self, server, *more):
        dst, told = self.restore(server, '--paused', 'one', *self.tls, *more)
        self.assertNotIn('note', told)
        self.assertFalse(dst.qmp('query-migrate-parameters')['tls-creds'])
        self.assertNotIn('tls-creds', str(dst.qmp('qom-list',
                                                  path='/objects')))
        self.finish(self.guest, self.src, dst)
        dst.close()

    def refused(self, why, *more):
        run = self.tool('checkpoint', 'restore', *self.tls, *more, 'one',
                        '--', env.STOCK_QEMU, *self.guest.args('tcg'))
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertRegex(run.stderr, why)

    def into_waiting_qemu(self, server):
        """It has credentials, so it takes nothing without TLS."""
        creds = ('-object', f'tls-creds-x509,id=tls0,endpoint=server,'
                 f'dir={self.mine}')
        for words, why in ((('--allow-plain',), 'connection|by peer'),
                           ((), None)):
            dst = self.start_destination(self.guest, extra=creds)
            migration.set_capabilities(dst, multifd=True)
            migration.set_parameters(dst, tls_creds='tls0')
            to = 'tcp:%s:%d' % migration.listen(dst)
            run = self.tool('checkpoint', 'restore', '--server', server,
                            *self.tls, *words, '--to', to, 'one')
            if why:
                self.assertEqual(run.returncode, 1)
                self.assertRegex(run.stderr, why)
            else:
                self.assertEqual(run.returncode, 0, run.stderr)
                self.finish(self.guest, self.src, dst)
            dst.close()

    def test_x509(self):
        """From the first server, and from the copy."""
        one, copy = self.x509()
        self.has_all(copy, '--instant')
        self.into_waiting_qemu(one)

    def test_psk(self):
        one, copy = self.psk()
        self.has_all(copy)
        self.has_all(one, '--instant')

    def test_parts(self):
        """By TLS, also between the servers."""
        servers = ','.join(self.x509(how=('--parts', 'all')))
        self.refused('TLS handshake.*(name|certificate)', '--server', servers,
                     '--tls-hostname', ELSEWHERE)
        self.has_all(servers, '--channels', '5')
        self.into_waiting_qemu(servers)

    # Pieces of parity

    def test_protected(self):
        """Each server in the admins of the others; any of them is lost."""
        names = ';'.join(f'x509:CN={n}' for n in THREE)
        for lost in range(3):
            with self.sub(lost=lost):
                self.setUp()
                servers = ','.join(self.x509(THREE, how=PROTECTED,
                                             admins=names))
                self.servers[lost].kill()
                self.has_all(servers)
                self.src.close()

    def test_protected_by_keys(self):
        servers = ','.join(self.psk(THREE, how=PROTECTED, admins='psk:qemu'))
        self.servers[0].kill()
        self.has_all(servers)

    def test_no_admin(self):
        """What to do is said, and nothing is left."""
        servers = self.x509(THREE, how=None)
        run = self.tool(*self.saving(','.join(servers), 'one', *PROTECTED,
                                     *self.tls))
        self.assertEqual(run.returncode, 1)
        self.assertIn(f'{servers[0]}: no virtual machine', run.stderr)
        self.assertIn("put 'x509:CN=c' into [control] admins", run.stderr)
        for address in servers:
            self.assertEqual(self.memserver('list', address, *self.tls),
                             {address: []})

    def test_server_killed(self):
        """The copy goes on, by TLS too."""
        addresses = self.x509(stopped=False)
        self.src.close()
        tool, dst = self.instantly(','.join(addresses), *self.tls)
        self.servers[0].kill()
        self.assert_restored(tool, dst)

    def test_refused(self):
        """A name that is not QEMU's, a QEMU without a certificate, and an
        address of another host without TLS."""
        one, _ = self.x509()
        for name in ('server-cert.pem', 'server-key.pem'):
            shutil.copy(f'{self.other}/{name}', self.mine)
        self.refused('TLS handshake.*(name|certificate)', '--server', one)
        self.refused('TLS handshake.*(name|certificate)', '--server', one,
                     '--instant')
        self.has_all(one, '--tls-hostname', ELSEWHERE)
        os.unlink(f'{self.mine}/server-key.pem')
        self.refused('server-key.pem is missing', '--server', one)
        run = self.servers[0].call(
            *self.tls, 'restore', 'vm=vm1', f'to=tcp:{ELSEWHERE}:1')
        self.assertIn('say tls=true', run.stderr)

    def test_silent_server(self):
        """It takes the connection, and is not waited for without end."""
        self.x509()
        with socket.create_server(('127.0.0.1', 0)) as silent:
            self.servers[0].address = \
                'tcp:127.0.0.1:%d' % silent.getsockname()[1]
            run = self.servers[0].call(*self.tls, 'list')
        self.assertEqual(run.returncode, 1)
        self.assertIn('the other side does not answer', run.stderr)


if __name__ == '__main__':
    unittest.main()
