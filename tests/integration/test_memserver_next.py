#!/usr/bin/python3
#
# tlm checkpoint restore --server A,B: all of RAM is loaded first, A fails, and
# a new QEMU is restored from B
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import signal
import socket
import subprocess
import time
import unittest

from test_checkpoint_command import Restored
from test_memserver_command import TOOL, ServerTool
from tlmtest import env
from tlmtest.guests import RomGuest
from tlmtest.memserver import Refused
from tlmtest.vm import PATIENCE, die_with_parent, wait_until

# Of trials to kill a server in the middle
TRIALS = 20
# Says that it has been started, and waits
GATE = 'touch "$0.started"; while [ ! -e "$0.go" ]; do sleep 0.01; done; ' \
    'exec "$@"'


class Gated(Restored):
    """Its QEMU starts when it may."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gate = os.path.join(self.dir, 'gate')
        self.command = ['sh', '-c', GATE, self.gate, *self.command]

    def restore(self, tool_words, meanwhile):
        """@meanwhile: done when the tool has chosen a server"""
        def watched():
            wait_until(lambda: os.path.exists(f'{self.gate}.started'), 60,
                       'QEMU is started')
            meanwhile()
            with open(f'{self.gate}.go', 'w'):
                pass
        pid = os.fork()
        if not pid:
            try:
                watched()
                os._exit(0)
            except BaseException:
                os._exit(1)
        try:
            return super().restore(tool_words)
        finally:
            os.waitpid(pid, 0)


class NextServer(ServerTool):
    def two(self):
        """Servers that have the same, and their addresses."""
        servers = self.server(), self.server()
        both = ','.join(s.address for s in servers)
        self.save(both, 'one', '--copies', '2')
        return servers, both

    def words(self, both, *more):
        return [TOOL, 'checkpoint', 'restore', '--server', both, '--paused',
                *more, 'one']

    def test_before(self):
        """A is gone, or says nothing, when it shall begin."""
        for signum in (signal.SIGKILL, signal.SIGSTOP):
            with self.subTest(signal=signum):
                self.guest = RomGuest(ws_mb=64)
                src = self.source(stopped=True)
                servers, both = self.two()
                dst = Gated('dst', env.STOCK_QEMU, self.guest.args('tcg'))
                self.addCleanup(dst.close)
                told = dst.restore(
                    self.words(both),
                    lambda s=servers[0], n=signum: os.kill(s.process.pid, n))
                self.assertEqual((told['servers'], told['status']),
                                 (2, 'paused'))
                self.finish(self.guest, src, dst)
                src.close()

    def sent(self, server):
        """Bytes of the only restore; None: it has not begun."""
        try:
            return server('restore-status', restore=1)['sent']
        except Refused:
            return None

    def in_the_middle(self, servers):
        """The first one is killed; returns (status, messages, VM)."""
        both = ','.join(s.address for s in servers)
        for _ in range(TRIALS):
            control = servers[0].control()
            dst = Restored('dst', env.STOCK_QEMU, self.guest.args('tcg'))
            self.addCleanup(dst.close)
            tool = subprocess.Popen(
                [*self.words(both), '--json', '--', *dst.command],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=die_with_parent)
            while not self.sent(control) and tool.poll() is None:
                time.sleep(0)
            servers[0].kill()
            control.close()
            out, messages = tool.communicate(timeout=180)
            if tool.returncode:
                return tool.returncode, messages, None
            dst.told = json.loads(out)
            dst.connect()
            if dst.told.get('servers') == 2:
                return 0, messages, dst
            dst.close()
            servers[0].start()
        self.fail('no kill was in the middle')

    def test_in_the_middle(self):
        self.guest = RomGuest(ws_mb=192)
        src = self.source(stopped=True)
        servers, _ = self.two()
        status, messages, dst = self.in_the_middle(servers)
        self.assertEqual(status, 0, messages)
        self.finish(self.guest, src, dst)

    def test_another(self):
        """What only has the same name does not go on."""
        self.guest = RomGuest(ws_mb=192)
        src = self.source()
        servers = self.server(), self.server()
        self.save(servers[0].address)
        self.assert_runs_on(self.guest, src)
        self.save(servers[1].address)
        for _ in range(TRIALS):
            status, messages, dst = self.in_the_middle(servers)
            if status:
                break
            # It had not yet told the tool which one it sends: by its name
            # alone, the other one's will do
            dst.close()
            servers[0].start()
        self.assertEqual(status, 1)
        self.assertIn('this is another checkpoint', messages)

    def test_to_waiting_qemu(self):
        """It has a part, and cannot go on: it is said what to do."""
        self.source(stopped=True)
        servers, both = self.two()
        with socket.create_server(('127.0.0.1', 0)) as qemu:
            qemu.settimeout(60 * PATIENCE)
            tool = subprocess.Popen(
                [TOOL, 'checkpoint', 'restore', '--server', both, '--to',
                 'tcp:127.0.0.1:%d' % qemu.getsockname()[1], 'one'],
                stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
            with qemu.accept()[0] as s:
                self.assertEqual(s.recv(4), b'QEVM')
                servers[0].kill()
                _, messages = tool.communicate(timeout=180)
        self.assertEqual(tool.returncode, 1)
        self.assertIn('start it anew', messages)


if __name__ == '__main__':
    unittest.main()
