#!/usr/bin/python3
#
# tlm checkpoint --server and tlm memserver: checkpoints of the tool in
# tlm-memserver, restored from there by stock QEMUs
#
# TLM_REPEAT: how often a server is killed at a random moment (default 1)
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from test_checkpoint_command import SLOW_WRITE, TOOL, Restored, end
from test_instant_restore import Started
from test_memserver import MemServerCase
from tlm.memserver.client import reachable
from tlmtest import env, migration
from tlmtest.guests import RomGuest
from tlmtest.vm import die_with_parent, wait_until

# Kills at random moments; the first is at once
REPEAT = int(os.environ.get('TLM_REPEAT', '1'))
SLOW_RESTORE = '20MB/s'
TCP = {'control': {'listen': 'tcp:127.0.0.1:0'}}


class ServerTool(MemServerCase):
    """The commands, and a source for them."""

    def setUp(self):
        self.guest = RomGuest(ws_mb=64)

    def source(self, stopped=False, extra=()):
        """With a monitor for the tool.  A stopped one can be compared."""
        self.qmp = os.path.join(self.guest.dir, 'tool-qmp')
        src = self.start_source(self.guest, extra=(
            *extra, '-qmp', f'unix:{self.qmp},server=on,wait=off'))
        if stopped:
            src.qmp('stop')
        return src

    @staticmethod
    def tool(*words):
        return subprocess.run([TOOL, *words], capture_output=True, text=True,
                              timeout=300, check=False)

    def saving(self, server, name, *more):
        return ('checkpoint', 'save', '--qmp', self.qmp, '--server', server,
                '--vm', 'vm1', '--name', name, *more)

    def save(self, server, name='one', *more):
        run = self.tool(*self.saving(server, name, '--json', *more))
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def memserver(self, command, server, *more):
        run = self.tool('memserver', command, '--server', server, '--json',
                        *more)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def names(self, server):
        return [c['name'] for c in self.memserver('list', server)[server]]

    def restore(self, server, *more):
        """By a stock QEMU; returns it and what the tool says."""
        dst = Restored('dst', env.STOCK_QEMU, self.guest.args('tcg'))
        self.addCleanup(dst.close)
        told = dst.restore([TOOL, 'checkpoint', 'restore', '--server', server,
                            *more])
        return dst, dict(told)

    def assert_no_capabilities(self, vm):
        self.assertEqual([c['capability'] for c in vm.qmp(
            'query-migrate-capabilities') if c['state']], [])

    def instantly(self, server, *more):
        """The tool under way, slowly, and the Vm, whose guest runs."""
        dst = Started('dst', env.STOCK_QEMU, self.guest.args('tcg'))
        self.addCleanup(dst.close)
        tool = subprocess.Popen(
            [TOOL, 'checkpoint', 'restore', '--server', server, '--instant',
             '--rate', SLOW_RESTORE, '--json', *more, 'one', '--',
             *dst.command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.addCleanup(tool.communicate)
        self.addCleanup(tool.kill)
        wait_until(lambda: os.path.exists(dst.qmp_path), 60, 'QEMU starts')
        dst.connect()
        wait_until(lambda: migration.status(dst) == 'postcopy-active', 60,
                   'the guest runs')
        return tool, dst

    def told(self, tool, status=0):
        out, messages = tool.communicate(timeout=180)
        self.assertEqual(tool.returncode, status, messages)
        told = json.loads(out)
        self.addCleanup(shutil.rmtree, os.path.dirname(told['qmp']))
        return told

    def assert_restored(self, tool, dst, servers=2):
        """@servers: so many at least"""
        told = self.told(tool)
        self.assertGreaterEqual(told['servers'], servers)
        self.assertEqual(told['status'], 'running')
        self.assert_guest_well(self.guest, dst)


class ServerCommand(ServerTool):
    # Saving

    def test_durable(self):
        """Saved while it runs, and started again as it was started."""
        server = self.server()
        src = self.source()
        before = src.qmp('query-migrate-parameters')
        content = self.save(server.address)
        self.assertEqual((content['level'], content['vm']),
                         ('durable', 'vm1'))
        self.assertTrue(os.path.exists(server.path('vm1', 'one')))
        self.assertEqual(src.qmp('query-migrate-parameters'), before)
        self.assert_no_capabilities(src)
        self.assert_runs_on(self.guest, src)
        shown = self.memserver('show', server.address)
        self.assertEqual(shown['source']['command'], src.command)
        self.assertEqual(self.names(server.address), ['one'])
        self.memserver('verify', server.address)
        src.kill()
        # What is known of it outlives the server
        server.kill()
        server.start()
        size = src.serial_size()
        run = self.tool('checkpoint', 'restore', '--server', server.address,
                        '--json', 'one')
        self.assertEqual(run.returncode, 0, run.stderr)
        self.addCleanup(end, json.loads(run.stdout))
        wait_until(lambda: src.serial_size() > size, 60, 'the guest runs')

    def test_text(self):
        server = self.server()
        self.source()
        run = self.tool(*self.saving(server.address, 'one', '--level',
                                     'memory'))
        self.assertRegex(run.stdout, r'server +unix:.*, as one of vm1\n'
                         r'  there .* of 256.0 MiB RAM, in its memory after')
        for command in ('list', 'show'):
            run = self.tool('memserver', command, '--server', server.address)
            self.assertRegex(run.stdout, r'one[^\n]*(.|\n)* memory', command)
        run = self.tool('memserver', 'verify', '--server', server.address)
        self.assertEqual(run.returncode, 1)
        self.assertIn('in memory only', run.stderr)
        self.tool(*self.saving(server.address, 'two'))
        run = self.tool('memserver', 'prune', '--server', server.address,
                        '--keep', '1')
        self.assertEqual(run.stdout, f'Removed one from {server.address}\n')

    def test_refused(self):
        """Before QEMU is told anything; the guest runs on."""
        small = self.server(store={'vm-memory': '64M'})
        memory_only = self.server(store={'dir': None})
        src = self.source()
        for server, more, why in (
                (small.address, (), 'quota'),
                (memory_only.address, (), 'no directory for level durable'),
                ('unix:/nowhere/x', (), 'No such file'),
                (small.address, ('--vm', 'a/b'), 'write a name'),
                (small.address, ('--dir', '/tmp'), 'either --dir or')):
            with self.subTest(why=why):
                run = self.tool(*self.saving(server, 'one', *more))
                self.assertNotEqual(run.returncode, 0)
                self.assertIn(why, run.stderr)
        self.assertEqual(migration.status(src), 'none')
        self.assert_runs_on(self.guest, src)

    def test_server_killed(self):
        """The guest runs on, and the last checkpoint is whole."""
        server = self.server()
        src = self.source()
        self.save(server.address, 'old')
        tool = subprocess.Popen(
            [TOOL, *self.saving(server.address, 'new', '--bandwidth',
                                SLOW_WRITE)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.addCleanup(tool.kill)
        wait_until(lambda: src.qmp('query-migrate').get('ram', {})
                   .get('transferred', 0) > 1 << 20, 60, 'it is being saved')
        server.kill()
        _, messages = tool.communicate(timeout=120)
        self.assertEqual(tool.returncode, 1, messages)
        self.assert_no_capabilities(src)
        self.assert_runs_on(self.guest, src)
        server.start()
        self.assertEqual(self.names(server.address), ['old'])
        self.memserver('verify', server.address)
        self.save(server.address, 'new')
        self.assertEqual(self.names(server.address), ['old', 'new'])

    def test_next_server(self):
        """One that cannot is followed by the next."""
        small = self.server(store={'vm-memory': '64M'})
        server = self.server()
        self.source()
        both = f'{small.address},{server.address}'
        self.assertEqual(self.save(both)['server'], server.address)
        self.assertEqual(self.memserver('show', both, '--vm', 'vm1')['name'],
                         'one')

    def test_incremental(self):
        """Increments on increments, after a restart of the server (which has
        forgotten) and of nothing; what is restored is the source's RAM."""
        server = self.server(store={'keep': 10})
        src = self.source()
        one = self.save(server.address, 'one', '--incremental')
        two = self.save(server.address, 'two', '--incremental')
        src.qmp('stop')
        three = self.save(server.address, 'three', '--incremental')
        self.assertEqual([c.get('since') for c in (one, two, three)],
                         [None, 'one', 'two'])
        for name, more in (('three', ()), ('three', ('--instant',))):
            dst, _ = self.restore(server.address, '--paused', name, *more)
            self.finish(self.guest, src, dst)
            dst.close()
        server.kill()
        server.start()
        four = self.save(server.address, 'four', '--incremental')
        self.assertNotIn('since', four)
        five = self.save(server.address, 'five', '--incremental')
        self.assertEqual(five['since'], 'four')
        self.assertLess(self.memserver('show', server.address, 'five')
                        ['own-pages'], 64)
        for name in ('one', 'two', 'three', 'four', 'five'):
            self.memserver('verify', server.address, name)
        dst, _ = self.restore(server.address, '--paused', 'five')
        self.finish(self.guest, src, dst)

    # Copies at several servers

    def assert_restored_from(self, server, src, *more):
        dst, _ = self.restore(server, '--paused', 'one', *more)
        self.finish(self.guest, src, dst)
        dst.close()

    def test_copies(self):
        """The loss of any one of two is survived, and that of both is told;
        RAM is that of the source, which stands still."""
        servers = self.server(), self.server(**TCP)
        both = ','.join(s.address for s in servers)
        src = self.source(stopped=True)
        content = self.save(both, 'one', '--copies', '2')
        self.assertEqual(content['copies'], [servers[1].address])
        for lost, more in zip(servers, ((), ('--instant',))):
            with self.subTest(lost=lost.address):
                lost.kill()
                self.assert_restored_from(both, src, *more)
                if lost == servers[0]:
                    lost.start()
        servers[0].kill()
        run = self.tool('checkpoint', 'restore', '--server', both, 'one',
                        '--', env.STOCK_QEMU)
        self.assertEqual(run.returncode, 1)
        for server in servers:
            self.assertIn(server.address.partition(':')[2], run.stderr)

    def test_copies_are_the_same(self):
        """One goes on where another one has been lost for good, at any
        moment."""
        for turn in range(REPEAT):
            with self.sub(turn=turn):
                self.guest = RomGuest(ws_mb=64)
                servers = self.server(store={'dir': None}), self.server(**TCP)
                both = ','.join(s.address for s in servers)
                src = self.source()
                self.save(both, 'one', '--copies', '2', '--level', 'memory')
                self.assert_runs_on(self.guest, src)
                src.close()
                tool, dst = self.instantly(both)
                time.sleep(random.uniform(0, turn / REPEAT))
                servers[0].kill()
                over = migration.status(dst) == 'completed'
                self.assert_restored(tool, dst, 1 if over else 2)

    def test_too_few_copies(self):
        """Others take over; when there are none, it is told, and what is
        there stays."""
        server, other = self.server(), self.server()
        small = self.server(store={'vm-memory': '64M'})
        src = self.source()
        content = self.save(','.join(s.address for s in (server, small, other)),
                            'one', '--copies', '2', '--level', 'memory')
        self.assertEqual(content['copies'], [other.address])
        run = self.tool(*self.saving(f'{server.address},{small.address}',
                                     'two', '--copies', '2'))
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, "has 'two', but only 0 of 1.*\n.*quota")
        self.assertEqual(self.names(server.address), ['one', 'two'])
        self.assertEqual(self.names(small.address), [])
        run = self.tool(*self.saving(server.address, 'x', '--copies', '2'))
        self.assertEqual(run.returncode, 2)
        self.assert_runs_on(self.guest, src)

    def test_cancelled(self):
        server = self.server()
        src = self.source()
        tool = subprocess.Popen(
            [TOOL, *self.saving(server.address, 'one', '--bandwidth',
                                SLOW_WRITE)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.addCleanup(tool.kill)
        wait_until(lambda: migration.status(src) == 'active', 60, 'it begins')
        tool.send_signal(signal.SIGINT)
        tool.communicate(timeout=120)
        self.assertEqual(tool.returncode, 130)
        self.assertEqual(self.names(server.address), [])
        self.assert_runs_on(self.guest, src)
        self.save(server.address)

    def test_tls(self):
        """Keys for control connection and data; nobody else comes in."""
        keys = tempfile.TemporaryDirectory(prefix='tlm-psk-')
        self.addCleanup(keys.cleanup)
        with open(f'{keys.name}/keys.psk', 'w', encoding='ascii') as f:
            f.write('alice:' + 32 * 'ab' + '\n')
        server = self.server(**TCP, tls={'credentials': 'psk',
                                         'dir': keys.name})
        src = self.source()
        run = self.tool(*self.saving(server.address, 'one'))
        self.assertEqual(run.returncode, 1)
        tls = ('--tls', 'psk', '--tls-dir', keys.name, '--tls-user', 'alice')
        self.save(server.address, 'one', *tls)
        self.assert_runs_on(self.guest, src)
        self.assertNotIn('tls-creds', str(src.qmp('qom-list',
                                                  path='/objects')))
        shown = self.memserver('show', server.address, *tls)
        self.assertEqual(shown['name'], 'one')

    def test_wildcard(self):
        """A server that listens everywhere is found as it was found."""
        for uri, address, wanted in (
                ('tcp:0.0.0.0:5', 'tcp:h:1', 'tcp:h:5'),
                ('tcp:[::]:5', 'tcp:[fe80::1]:1', 'tcp:[fe80::1]:5'),
                ('tcp:a:5', 'tcp:h:1', 'tcp:a:5'),
                ('unix:/x', 'tcp:h:1', 'unix:/x'),
                ('tcp:0.0.0.0:5', 'unix:/c', 'tcp:0.0.0.0:5')):
            self.assertEqual(reachable(uri, address), wanted)

    # Restoring

    def test_restore(self):
        """Whole and instantly, from memory and from the file, over Unix
        sockets and TCP: RAM is that of the source, which stands still."""
        uuid = ('-uuid', '7f5c9e8a-0d3b-4b8e-9d50-0c6f6f0b1a2c')
        args = self.guest.args
        self.guest.args = lambda accel: [*args(accel), *uuid]
        server, other = self.server(), self.server(**TCP,
                                                   store={'dir': None})
        src = self.source(stopped=True)
        self.save(server.address)
        self.save(other.address, 'one', '--level', 'memory')
        for address, more in ((server.address, ()),
                              (other.address, ('--channels', '3')),
                              (server.address, ('--instant',)),
                              (other.address, ('--instant',))):
            with self.subTest(server=address, options=more):
                dst, told = self.restore(address, '--paused', 'one', *more)
                self.assertEqual(told['status'], 'paused')
                self.assertNotIn('note', told)
                self.assert_no_capabilities(dst)
                self.finish(self.guest, src, dst)
                dst.close()

    def test_to_waiting_qemu(self):
        """From a server and from a file, which is the server's here."""
        server = self.server()
        src = self.source(stopped=True)
        self.save(server.address)
        directory = os.path.join(server.store, 'vm1')
        for place in (('--server', server.address), ('--dir', directory)):
            with self.subTest(place=place[0]):
                dst = self.start_destination(self.guest)
                migration.set_capabilities(dst, multifd=True)
                to = 'tcp:%s:%d' % migration.listen(dst)
                run = self.tool('checkpoint', 'restore', *place, '--to', to,
                                'one')
                self.assertEqual(run.returncode, 0, run.stderr)
                self.finish(self.guest, src, dst)
                dst.close()
        run = self.tool('checkpoint', 'restore', '--server', server.address,
                        '--to', 'tcp:127.0.0.1:1', 'one')
        self.assertEqual(run.returncode, 1)
        self.assertIn('connect', run.stderr)

    def test_instant_server_killed(self):
        """The same one goes on when it is there again."""
        for config in ({}, TCP):
            with self.sub(config=config):
                self.guest = RomGuest(ws_mb=64)
                server = self.server(**config)
                src = self.source()
                self.save(server.address)
                src.close()
                tool, dst = self.instantly(server.address)
                server.kill()
                server.groups['control']['listen'] = server.address
                server.start()
                self.assert_restored(tool, dst)

    def test_instant_no_server(self):
        """The guest waits, and what the tool says recovers it."""
        server = self.server()
        src = self.source()
        self.save(server.address)
        src.close()
        tool, dst = self.instantly(server.address)
        server.kill()
        told = self.told(tool, 1)
        self.assertEqual(told['status'], 'waits')
        server.start()
        uri = re.search(r'"uri": "(.*?)"', told['todo'])[1]
        dst.qmp('migrate-recover', uri=uri)
        path = os.path.dirname(server.binary)
        subprocess.run(told['todo'].splitlines()[-1], shell=True, check=True,
                       stdout=subprocess.DEVNULL,
                       env={**os.environ, 'PATH': f"{path}:{os.environ['PATH']}"})
        migration.wait_status(dst, 'completed')
        self.assert_guest_well(self.guest, dst)

    def test_instant_server_hangs(self):
        """Another one that has the same goes on."""
        server = self.server()
        src = self.source()
        self.save(server.address)
        src.close()
        other = self.server()
        other.kill()
        shutil.copytree(os.path.join(server.store, 'vm1'),
                        os.path.join(other.store, 'vm1'))
        other.start()
        tool, dst = self.instantly(f'{server.address},{other.address}')
        os.kill(server.process.pid, signal.SIGSTOP)
        self.assert_restored(tool, dst)
        os.kill(server.process.pid, signal.SIGCONT)


if __name__ == '__main__':
    unittest.main()
