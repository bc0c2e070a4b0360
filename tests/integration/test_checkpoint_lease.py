#!/usr/bin/python3
#
# Checkpoints whose client is gone: QEMU ends them by itself, whatever they
# wait for
#
# TLM_REPEAT: the coordinator of a cluster, too, which takes a minute
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import signal
import subprocess
import time
import unittest

import test_cluster_servers
import test_memserver
from tlm.cluster.member import LEASE_MS
from tlmtest import migration
from tlmtest.case import STEADY
from tlmtest.guests import RomGuest
from tlmtest.vm import PATIENCE, wait_until

# Short, and long enough for the test to ask in time until it shall not
TIMEOUT_MS = int(1_000 * PATIENCE)
# The client asks in time, on a host however busy
OFTEN_MS = int(5_000 * PATIENCE)


class Left(test_memserver.MemServerCase):
    def start(self):
        self.guest = RomGuest(ws_mb=64)
        src = self.tlm_source(self.guest)
        migration.set_capabilities(src, events=True)
        return src

    def assert_ended(self, src):
        """Nobody has asked meanwhile."""
        src.wait_event('MIGRATION', 60,
                       lambda data: data['status'] == 'cancelled')
        info = src.qmp('query-migrate')
        self.assertIn("its 'client-timeout'", info['error-desc'])
        self.assert_runs_on(self.guest, src)

    def test_held(self):
        src = self.start()
        server = self.server()
        control = self.control(server)
        src.qmp('tlm-checkpoint', uri=control.announce()['uri'], hold=True,
                client_timeout=TIMEOUT_MS)
        self.wait_stage(src, 'ready')
        self.assert_ended(src)
        self.assertEqual(control('list'), [])

    def test_server_hangs(self):
        """In the flush; the next one to it is good."""
        src = self.start()
        server = self.server()
        control = self.control(server)
        session = control.announce()
        src.qmp('tlm-checkpoint', uri=session['uri'], hold=True,
                client_timeout=TIMEOUT_MS)
        self.wait_stage(src, 'ready')
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            src.qmp('migrate-tlm-switchover')
            self.wait_stage(src, 'flush')
            pages = self.guest.progress(src)['pages']
            wait_until(lambda: self.guest.progress(src)['pages'] > pages, 60,
                       'the guest writes to its memory')
            self.assert_ended(src)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        control.wait(session['session'])
        session = control.announce(name='two')
        src.qmp('tlm-checkpoint', uri=session['uri'],
                client_timeout=OFTEN_MS)
        migration.wait_status(src, 'completed')
        self.assertEqual(control.wait(session['session'])['state'], 'done')

    def test_asked_for(self):
        """Then it is held for longer than that; and without a time-out the
        checkpoint before has left none."""
        src = self.start()
        control = self.control(self.server())
        src.qmp('tlm-checkpoint', uri=control.announce()['uri'], hold=True,
                client_timeout=OFTEN_MS)
        self.wait_stage(src, 'ready')
        start = time.monotonic()
        while time.monotonic() - start < OFTEN_MS / 1000 + 1:
            self.assertEqual(migration.status(src), 'active')
            time.sleep(0.1)
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'completed')
        self.assert_runs_on(self.guest, src)


@unittest.skipUnless('TLM_REPEAT' in os.environ, 'takes long: TLM_REPEAT=1')
class Coordinator(test_cluster_servers.ServersCase):
    def test_killed_while_a_server_hangs(self):
        """After the cut: all run on, and QEMU is free again by itself."""
        self.serve()
        self.cluster = self.nodes([RomGuest(ws_mb=64, rate=STEADY)
                                   for _ in range(2)])
        self.cluster.start()
        vm = self.cluster.vms[1]
        migration.set_capabilities(vm, events=True)
        p = subprocess.Popen(self.cluster.saving('save', *self.options,
                                                 '--bandwidth', '20MB/s',
                                                 'one'),
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        self.addCleanup(p.kill)
        self.wait_stage(vm, 'live')
        p.send_signal(signal.SIGSTOP)
        for each in self.cluster.vms:
            self.wait_stage(each, 'ready')
        os.kill(self.servers[1].process.pid, signal.SIGSTOP)
        try:
            p.send_signal(signal.SIGCONT)
            self.wait_stage(vm, 'flush')
            p.kill()
            p.wait()
            vm.wait_event('MIGRATION', 2 * LEASE_MS / 1000,
                          lambda data: data['status'] == 'cancelled')
        finally:
            os.kill(self.servers[1].process.pid, signal.SIGCONT)
        self.cluster.save('two', *self.options)
        for guest, each in zip(self.cluster.guests, self.cluster.vms,
                               strict=True):
            self.assert_runs_on(guest, each)
        self.assertEqual(self.there(), [{('vm0', 'two')}, {('vm1', 'two')}])


if __name__ == '__main__':
    unittest.main()
