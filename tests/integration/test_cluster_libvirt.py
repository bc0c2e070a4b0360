#!/usr/bin/python3
#
# tlm cluster with a domain of an unmodified libvirt, beside a VM that is
# played
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import subprocess
import tempfile
import unittest

from tlmtest import env
from tlmtest.guests import LinuxGuest
from tlmtest.played import Cluster
from tlmtest.virt import Domain, Pair, missing_libvirt
from tlmtest.vm import wait_until

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
WINDOW = ('--window', '5s')

pair = None


def setUpModule():
    global pair
    reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU) or missing_libvirt()
    if reason:
        raise unittest.SkipTest(reason)
    pair = Pair()


def tearDownModule():
    if pair:
        pair.close()


class Domains(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-sets-')
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.host = pair.hosts[0]
        self.host.use_emulator(env.QEMU)
        self.guest = LinuxGuest(mem_mb=384, ws=64, vcpus=1, rate=20000)
        domain = Domain(pair, self.guest)
        self.addCleanup(domain.close)
        domain.start(self.host)
        self.place = domain.at[self.host]

    def tool(self, command, *more):
        return subprocess.run(
            self.host.command(TOOL, 'cluster', command, '--dir', self.dir,
                              *more), text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=300, check=False)

    def settings(self):
        return (self.host.qmp('guest', 'query-migrate-capabilities'),
                self.host.qmp('guest', 'query-migrate-parameters'),
                # libvirt has some for itself
                [s for s in self.host.qmp('guest', 'query-fdsets')
                 if s['fdset-id'] > 1000])

    def assert_well(self):
        wait_until(lambda: self.host.domain_state('guest') == 'running', 60,
                   'libvirt says that it runs')
        self.guest.wait_alive(self.place)
        self.guest.wait_scans(self.place)

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
