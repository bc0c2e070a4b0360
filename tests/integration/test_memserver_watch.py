#!/usr/bin/python3
#
# tlm checkpoint watch --server: checkpoints again and again, whatever becomes
# of the servers; and what is told when the VM is gone
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import signal
import subprocess
import tempfile
import unittest

import test_memserver_command as command
from tlmtest.vm import die_with_parent, wait_until


class Watch(command.ServerTool):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix='tlm-watch-')
        self.addCleanup(directory.cleanup)
        self.dir = directory.name

    def path(self, name):
        return os.path.join(self.dir, name)

    def read(self, name):
        with open(self.path(name), encoding='utf-8') as f:
            return f.read()

    def watch(self, servers, *more):
        with open(self.path('out'), 'wb') as out, \
                open(self.path('err'), 'wb') as err:
            tool = subprocess.Popen(
                [command.TOOL, 'checkpoint', 'watch', '--qmp', self.qmp,
                 '--vm', 'vm1', '--server', ','.join(s.address for s in servers),
                 '--every', '1s', '--json', *more], stdout=out, stderr=err,
                preexec_fn=die_with_parent)
        self.addCleanup(tool.wait)
        self.addCleanup(tool.kill)
        return tool

    def saved(self):
        """What is known of the checkpoints until now."""
        return [json.loads(line) for line in
                self.read('out').splitlines(keepends=True)
                if line.endswith('\n')]

    def wait_saved(self, number, what=lambda content: True):
        wait_until(lambda: len([c for c in self.saved() if what(c)]) >= number,
                   120, lambda: f"{number} are saved: {self.read('err')}")

    def end(self, tool):
        tool.terminate()
        self.assertEqual(tool.wait(120), 0)

    def test_incremental_and_keep(self):
        """All but the first are increments, and the last ones stay; the last
        is what the source was."""
        server = self.server(store={'keep': 10})
        src = self.source()
        tool = self.watch([server], '--incremental', '--keep', '2')
        self.wait_saved(3)
        src.qmp('stop')
        stopped = len(self.saved())
        self.wait_saved(stopped + 2)
        self.end(tool)
        first, *others = self.saved()
        self.assertNotIn('since', first)
        for one, next_one in zip(self.saved(), others):
            self.assertEqual(next_one['since'], one['name'])
        names = self.names(server.address)
        self.assertEqual(names[-2:], [c['name'] for c in self.saved()[-2:]])
        self.assertLessEqual(len(names), 3)     # the last was not yet pruned
        dst, _ = self.restore(server.address, '--paused', names[-1])
        self.finish(self.guest, src, dst)

    def test_server_killed(self):
        """The next one goes on; and the first one again when it is there and
        the second has been lost."""
        servers = [self.server(), self.server()]
        src = self.source()
        tool = self.watch(servers)
        for at, lost in enumerate(servers):
            self.wait_saved(2, lambda c: c['server'] == lost.address)
            lost.kill()
            if at:
                servers[0].start()
        self.wait_saved(4, lambda c: c['server'] == servers[0].address)
        self.end(tool)
        self.assertNotIn('The source is', self.read('err'))
        self.assert_runs_on(self.guest, src)
        src.kill()

    def test_parts(self):
        """Sets at two of three servers, of which one is lost and comes back:
        old sets go as wholes, there too."""
        servers = [self.server(store={'keep': 10}) for _ in range(3)]
        src = self.source()
        tool = self.watch(servers, '--parts', '2', '--keep', '2')
        lost, *others = servers
        self.wait_saved(2)
        lost.kill()
        self.wait_saved(3, lambda c: lost.address not in c['parts'])
        src.qmp('stop')
        lost.start()
        wait_until(lambda: not self.names(lost.address), 60,
                   lambda: f"what was kept there goes: {self.read('err')}")
        stopped = len(self.saved())
        self.wait_saved(stopped + 2)
        self.end(tool)
        last = [c['name'] for c in self.saved()]
        for server in others:
            there = self.names(server.address)
            self.assertLessEqual(len(there), 3)     # it may not be pruned yet
            self.assertEqual(there, last[-len(there):])
        everywhere = ','.join(s.address for s in servers)
        dst, _ = self.restore(everywhere, '--paused', last[-1])
        self.finish(self.guest, src, dst)

    def test_server_hangs(self):
        """While it receives: the guest is not kept from the next one."""
        servers = [self.server(), self.server()]
        src = self.source()
        tool = self.watch(servers, '--bandwidth', '20MB/s')
        wait_until(lambda: src.qmp('query-migrate').get('ram', {})
                   .get('transferred', 0) > 1 << 20, 60, 'it is being saved')
        os.kill(servers[0].process.pid, signal.SIGSTOP)
        self.wait_saved(1, lambda c: c['server'] == servers[1].address)
        self.end(tool)
        os.kill(servers[0].process.pid, signal.SIGCONT)
        self.assertEqual({c['server'] for c in self.saved()},
                         {servers[1].address})
        self.assert_no_capabilities(src)
        self.assert_runs_on(self.guest, src)

    def test_source_killed(self):
        """It is told once, and what is to be known of the last one."""
        server = self.server()
        src = self.source()
        words = 'TLM_SOURCE TLM_CHECKPOINT TLM_VM TLM_SERVER'.split()
        tool = self.watch([server], '--on-dead', 'echo ' + ' '.join(
            f'${word}' for word in words) + f" >> {self.path('told')}")
        self.wait_saved(2)
        src.kill()
        wait_until(lambda: os.path.exists(self.path('told')), 60,
                   'it is told')
        # There are more turns
        wait_until(lambda: self.read('err').count('Not saved') >= 3, 60,
                   'it is tried again')
        self.end(tool)
        last = self.saved()[-1]['name']
        self.assertEqual(self.read('told'),
                         f'gone {last} vm1 {server.address}\n')
        self.assertEqual(self.read('err').count('The source is gone'), 1)
        self.assertEqual(self.names(server.address)[-1], last)

    def test_source_hangs(self):
        """That is something else, and not told at once."""
        server = self.server()
        src = self.source()
        tool = self.watch([server], '--on-dead',
                          f"echo $TLM_SOURCE >> {self.path('told')}")
        self.wait_saved(1)
        os.kill(src.process.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, src.process.pid, signal.SIGCONT)
        wait_until(lambda: os.path.exists(self.path('told')), 300,
                   'it is told')
        self.assertEqual(self.read('told'), 'silent\n')
        done = len(self.saved())
        os.kill(src.process.pid, signal.SIGCONT)
        self.wait_saved(done + 1)
        self.assertIn('The source answers again', self.read('err'))
        self.end(tool)


if __name__ == '__main__':
    unittest.main()
