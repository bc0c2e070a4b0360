#!/usr/bin/python3
#
# tlm cluster with a domain of an unmodified libvirt, beside a VM that is
# played
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import subprocess
import unittest

from tlmtest import env
from tlmtest.domains import TOOL, DomainCase
from tlmtest.played import Cluster

WINDOW = ('--window', '5s')


class Domains(DomainCase):
    def setUp(self):
        super().setUp()
        self.start()

    def tool(self, command, *more):
        return subprocess.run(
            self.host.command(TOOL, 'cluster', command, '--dir', self.dir,
                              *more), text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=300, check=False)

    def test_save_and_restore(self):
        before = self.settings()
        run = self.tool('save', *WINDOW, '--json', 'one', 'd=domain:guest')
        self.assertEqual(run.returncode, 0, run.stderr)
        member, = json.loads(run.stdout)['members']
        self.assertEqual(member['domain'], 'guest')
        self.assertGreater(member['pause-us'], 0)
        self.assertEqual(self.settings(), before)
        self.assert_well()
        self.host.virsh('destroy', 'guest')
        self.host.use_emulator(env.STOCK_QEMU)
        run = self.tool('restore', '--verify', '--json', 'one')
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(json.loads(run.stdout)['vms'][0]['status'],
                         'running')
        self.assert_well()

    def test_with_another(self):
        """That fails, and that does not."""
        before = self.settings()
        with Cluster(self.dir, {'other': {'fails': 'gate'}}) as cluster:
            words = (*WINDOW, '--json', 'one', 'd=domain:guest',
                     f'o={self.dir}/other')
            run = self.tool('save', *words)
            self.assertEqual(run.returncode, 1)
            self.assertIn('o: the disk is on fire', run.stderr)
            self.assertEqual(self.settings(), before)
            self.assert_well()
            cluster.vms['other'].fails = None
            run = self.tool('save', *words)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(self.tool('verify').returncode, 0)
            self.assertEqual(self.settings(), before)
            self.assert_well()

    def test_no_such_domain(self):
        run = self.tool('save', 'one', 'd=domain:nobody')
        self.assertEqual(run.returncode, 1)
        self.assertIn('nobody', run.stderr)


if __name__ == '__main__':
    unittest.main()
