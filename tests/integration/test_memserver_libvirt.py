#!/usr/bin/python3
#
# tlm checkpoint --server of the domains of an unmodified libvirt
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

from tlmtest import domains, env
from tlmtest.memserver import BINARY, MemServer


class AtServer(domains.DisksCase):
    """A server at the domain's host."""

    def setUp(self):
        super().setUp()
        if not os.path.exists(BINARY):
            self.skipTest(f'{BINARY} is missing')
        self.servers = [self.another()]

    def another(self):
        server = MemServer({'store': {'keep': 10}},
                           prefix=self.host.command())
        self.addCleanup(server.close)
        return server

    def words(self, command, *more):
        return self.host.command(
            domains.TOOL, 'checkpoint', command, '--server',
            ','.join(s.address for s in self.servers), *more)

    def test_save_and_restore(self):
        """By a stock QEMU, as the domain that it was, from memory and after
        that was lost."""
        self.start()
        before = self.settings()
        content = self.save('--name', 'one')
        self.assertEqual(content['vm'], 'guest')
        self.assertEqual(self.settings(), before)
        self.assert_well()
        self.end()
        self.host.use_emulator(env.STOCK_QEMU)
        self.assertEqual(self.restored('one')['status'], 'running')
        self.assertEqual([c['capability'] for c in self.settings()[0]
                          if c['state']], ['events'])
        self.assert_well()
        self.end()
        self.assertEqual(self.restored('one', '--paused')['status'], 'paused')
        self.host.virsh('resume', 'guest')
        self.assert_well()

    def test_disks_by_libvirt(self):
        self.start_with_disks()
        one = self.save('--disk', 'virsh', '--name', 'one')
        self.assert_on(*self.overlays('one'))
        two = self.save('--disk', 'virsh', '--name', 'two')
        self.assertEqual([d['base'] for d in two['disks']],
                         self.overlays('one'))
        self.assert_uses_disk()
        self.end()
        self.assert_restored_with_disks((one, two), ('one', 'two'))

    def test_parts(self):
        """With its disk, also after the loss of a server."""
        self.servers += [self.another(), self.another()]
        self.start_with_disks()
        one = self.save('--disk', 'virsh', '--name', 'one', '--level',
                        'protected', '--incremental')
        self.assert_on(*self.overlays('one'))
        two = self.save('--disk', 'virsh', '--name', 'two', '--level',
                        'protected', '--incremental')
        self.assertEqual(two['since'], 'one')
        self.assert_uses_disk()
        self.end()
        self.servers[0].kill()
        self.assert_restored_with_disks((one, two), ('one', 'two'))

    def test_refused(self):
        """With the reason, and nothing has happened."""
        self.start()
        for more, why in ((('--disk', 'auto'), '--disk virsh is'),
                          (('--connect', self.host.uri),
                           "run this at the domain's host")):
            run = self.tool('save', '--domain', 'guest', *more)
            self.assertNotEqual(run.returncode, 0, run.stdout)
            self.assertIn(why, run.stderr)
        self.assert_well()


if __name__ == '__main__':
    unittest.main()
