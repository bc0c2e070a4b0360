#!/usr/bin/python3
#
# Kills while memory servers make parity, or a part again: what was said
# to be saved is restored, all RAM compared; what was not leaves nothing
#
# TLM_REPEAT: how often (default 1)
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import random
import re
import signal
import subprocess
import tempfile
import unittest
import uuid

from test_checkpoint_command import TOOL, end
from test_memserver_protected import ProtectedCase, damage
from tlmtest import env
from tlmtest.case import MB
from tlmtest.link import ShapedLink
from tlmtest.memserver import BINARY, Control
from tlmtest.vm import die_with_parent, wait_until

REPEAT = int(os.environ.get('TLM_REPEAT', '1'))
DATA, PARITY = 3, 1
# Of the pages that a part of the guest's 64 MiB has, about
PAGES = 5000
TOOL_ITSELF = 'the tool'


@unittest.skipIf(ShapedLink.missing(), ShapedLink.missing())
class HostGone(ProtectedCase):
    def test_client(self):
        """No packet says that the client's host is gone."""
        link = ShapedLink()
        self.addCleanup(link.close)
        place = tempfile.TemporaryDirectory(prefix='tlm-control-')
        self.addCleanup(place.cleanup)
        here = f'unix:{place.name}/control'
        server = self.server(
            ('ip', 'netns', 'exec', link.dst_netns),
            control={'listen': f'{here};tcp:{link.address}:0'},
            data={'connect-timeout': 600}, tls={'allow-plain': 'true'})
        client = subprocess.Popen(
            ['ip', 'netns', 'exec', link.src_netns, BINARY, '--control',
             server.address, 'pipe'], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        client.stdin.write(json.dumps({'execute': 'announce', 'arguments': {
            'vm': 'vm1', 'name': 'one', 'ram': MB, 'parts': DATA, 'part': 0,
            'channels': DATA, 'set': str(uuid.uuid4()),
            'redundancy': PARITY}}) + '\n')
        client.stdin.flush()
        session = json.loads(client.stdout.readline())['return']['session']
        link.cut()
        control = Control(here)
        self.addCleanup(control.close)
        self.assertIn('has gone', control.wait(session, 120)['error'])


class Phase:
    """What a server that makes parity, or a part, says of that."""

    def __init__(self, control):
        self.control = control
        self.start = self.look()[1]

    def look(self):
        """(how many are being made, pages that were made)"""
        text = self.control('metrics')
        return tuple(int(re.search(rf'^tlm_memserver_parity_{name} (\d+)$',
                                   text, re.M)[1])
                     for name in ('jobs', 'pages_total'))

    def reached(self, pages, tool):
        """Waits until so many are made; False: it was over before."""
        begun = False
        while tool.poll() is None:
            jobs, made = self.look()
            begun = begun or jobs or made > self.start
            if begun and (not jobs or made - self.start >= pages):
                return bool(jobs)
        return False


class Kills(ProtectedCase):
    def setUp(self):
        super().setUp()
        self.hits = 0

    def under_way(self, *words):
        tool = subprocess.Popen(
            [TOOL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=die_with_parent)
        self.addCleanup(tool.communicate)
        self.addCleanup(tool.kill)
        return tool

    def kill_in_phase(self, tool, phase, victim, brake):
        """Kills @victim, at a random page.  @brake sends pages: as long as it
        is stopped the phase goes on.  Returns what the tool says."""
        in_phase = phase.reached(random.randrange(PAGES), tool)
        brake.process.send_signal(signal.SIGSTOP)
        try:
            self.hits += in_phase and phase.look()[0]
            (tool if victim == TOOL_ITSELF else victim).kill()
        finally:
            if brake.process.poll() is None:
                brake.process.send_signal(signal.SIGCONT)
        return tool.communicate(timeout=300)

    def repeated(self, once):
        """@once(n): n counts; until all were tried, and one was in time."""
        n, hits = 0, 0
        while n < REPEAT or not hits:
            self.assertLess(n, REPEAT + 10, 'no kill was in time')
            with self.sub(n=n):
                self.setUp()
                once(n)
                hits += self.hits
            n += 1
        print(f'# {n} kills, {hits} of them while it was being made')

    def building(self, n):
        servers = self.servers(DATA + PARITY)
        src = self.source(stopped=True)
        victim = random.choice([TOOL_ITSELF, *servers])
        brake = random.choice([s for s in servers[:DATA] if s is not victim])
        phase = Phase(self.control(servers[DATA]))
        level = ('durable', '--redundancy', str(PARITY)) if n % 2 else \
            ('protected',)
        tool = self.under_way(*self.saving(
            self.all(servers), 'one', '--level', *level))
        _, messages = self.kill_in_phase(tool, phase, victim, brake)
        if tool.returncode == 0:
            self.assert_restored(servers, src)
        else:
            left = [s for s in servers if s is not victim]
            wait_until(lambda: not any(
                self.control(s)('list') for s in left), 60,
                lambda: f'nothing is left: {messages}')
            if victim != TOOL_ITSELF:
                self.nothing_comes_back(servers, victim)
        src.close()

    def nothing_comes_back(self, servers, victim):
        """With the server that was killed; or it is known to be of no use."""
        victim.start()
        found = self.control(victim)('list')
        self.assertEqual([c['tentative'] for c in found],
                         ['abandoned' for _ in found])
        if found:
            self.memserver('prune', self.all(servers), '--keep', '1')
        self.assert_nothing_there(servers)

    def test_building(self):
        """The tool, the server that makes parity, or one that has a part."""
        self.repeated(self.building)

    def rebuilding(self, n):
        """Of 3 + 2, by "restore" or by "verify --repair"; one more server is
        lost, or the tool."""
        servers = self.servers(DATA + 2)
        src = self.source(stopped=True)
        self.protect(servers, 'one', '--redundancy', '2')
        victim = random.choice([TOOL_ITSELF, *servers[2:]])
        phase = Phase(self.control(servers[DATA]))
        if n % 2:
            damage(servers[0].process.pid)
            tool = self.under_way('memserver', 'verify', '--server',
                                  self.all(servers), 'one', '--repair')
        else:
            servers[0].kill()
            tool = self.under_way('checkpoint', 'restore', '--server',
                                  self.all(servers), '--paused', '--json',
                                  'one', '--', env.STOCK_QEMU,
                                  *self.guest.args('tcg'))
        out, _ = self.kill_in_phase(tool, phase, victim, servers[1])
        if n % 2 == 0 and tool.returncode == 0:
            end(json.loads(out))
        if n % 2:
            self.memserver('verify', self.all(servers), 'one', '--repair')
        self.assert_restored(servers, src)
        src.close()

    def test_rebuilding(self):
        self.repeated(self.rebuilding)


if __name__ == '__main__':
    unittest.main()
