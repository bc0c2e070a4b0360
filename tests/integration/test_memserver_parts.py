#!/usr/bin/python3
#
# Checkpoints in parts at several tlm-memservers, to which QEMU itself connects
# its channels, restored by stock QEMUs from all servers at once
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import shutil
import signal
import subprocess
import unittest
import uuid

from test_checkpoint_command import SLOW_WRITE, TOOL
from test_memserver import STOCK_CAPS
from test_memserver_command import TCP, ServerTool
from tlm.checkpoint.receivers import channel
from tlmtest import env, migration
from tlmtest.case import MB
from tlmtest.ram import FrozenRam
from tlmtest.vm import die_with_parent, wait_until

CHANNELS = 4


class PartsCase(ServerTool):
    def servers(self, count, **config):
        """Over Unix sockets and TCP."""
        return [self.server(**config, **(TCP if n % 2 else {}))
                for n in range(count)]

    @staticmethod
    def all(servers):
        return ','.join(s.address for s in servers)

    def announced(self, servers, **more):
        """By hand.  Returns the channels for QEMU, and a function that waits
        until all have it."""
        controls = [self.control(s) for s in servers]
        wish = {'set': str(uuid.uuid4()), 'parts': len(servers),
                'channels': CHANNELS, **more}
        sessions = []
        for part, control in enumerate(controls):
            sessions.append(control.announce(part=part, **wish))
            wish['head'] = sessions[0]['uri']
            if 'parent' in wish:
                control('confirm', session=sessions[-1]['session'],
                        incremental=True)

        def wait():
            for control, session in zip(controls, sessions):
                end = control.wait(session['session'])
                self.assertEqual(end['state'], 'done', end)
        return [channel('main', sessions[0]['uri']),
                *(channel('data', s['uri']) for s in sessions)], wait

    def assert_restored(self, servers, frozen, *more, name='one'):
        """By a stock QEMU; all RAM is as it was."""
        dst, _ = self.restore(self.all(servers), '--paused', name, *more)
        self.finish(self.guest, frozen, dst)
        dst.close()

    def assert_nothing_there(self, servers):
        for server in servers:
            self.assertEqual(self.names(server.address), [])


class Parts(PartsCase):
    # QEMU connects to each by itself

    def test_tlm_source(self):
        """Its guest rewrites memory, and runs on: what is restored is of the
        pause, whichever server has the newest of a page."""
        for count in (2, 3):
            with self.sub(servers=count):
                self.setUp()
                servers = self.servers(count)
                src = self.tlm_source(self.guest, multifd_channels=CHANNELS)
                channels, wait = self.announced(servers)
                migration.set_capabilities(src, pause_before_switchover=True,
                                           multifd=True)
                src.qmp('tlm-checkpoint', channels=channels,
                        gate_timeout=60_000)
                migration.wait_status(src, 'pre-switchover')
                frozen = FrozenRam(src)
                src.qmp('migrate-continue', state='pre-switchover')
                migration.wait_status(src, 'completed')
                wait()
                self.assert_runs_on(self.guest, src)
                src.close()
                self.assert_restored(servers, frozen, '--channels', '5')

    def test_increments(self):
        """The guest rewrites memory; each increment is that of its pause."""
        servers = self.servers(3, store={'keep': 5})
        src = self.tlm_source(self.guest, multifd_channels=CHANNELS)
        migration.set_capabilities(src, pause_before_switchover=True,
                                   multifd=True)
        frozen, parent = {}, None
        for name in 'one', 'two', 'three', 'four', 'five':
            channels, wait = self.announced(
                servers, name=name, level='memory',
                **({'parent': parent} if parent else {}))
            src.qmp('tlm-checkpoint', channels=channels, incremental=True,
                    gate_timeout=60_000,
                    **({'parent': src.qmp('query-migrate')['tlm']['checkpoint']
                        ['generation']} if parent else {}))
            migration.wait_status(src, 'pre-switchover')
            frozen[name] = FrozenRam(src)
            src.qmp('migrate-continue', state='pre-switchover')
            migration.wait_status(src, 'completed')
            told = src.qmp('query-migrate')['tlm']['checkpoint']
            self.assertEqual('parent' in told, parent is not None, told)
            wait()
            parent = name
        self.assert_runs_on(self.guest, src)
        src.close()
        for name, ram in frozen.items():
            self.assert_restored(servers, ram, name=name)

    def test_stock_source(self):
        """Capability tlm is off, as in a QEMU that had only the channels."""
        for count in (2, 3):
            with self.sub(servers=count):
                self.setUp()
                servers = self.servers(count)
                src = self.start_source(self.guest)
                migration.set_capabilities(src, tlm=False, **STOCK_CAPS)
                # Slower than the guest writes: no pass is the last one
                migration.set_parameters(src, max_bandwidth=100 * MB,
                                         downtime_limit=1,
                                         multifd_channels=CHANNELS)
                channels, wait = self.announced(servers)
                src.qmp('migrate', channels=channels)
                wait_until(lambda: src.qmp('query-migrate').get('ram', {})
                           .get('dirty-sync-count', 0) > 3, 60,
                           'pages are sent again')
                migration.set_parameters(src, max_bandwidth=0)
                src.qmp('stop')
                migration.wait_status(src, 'completed')
                wait()
                self.assert_restored(servers, FrozenRam(src))
                src.close()

    # By the command

    def test_command(self):
        """Whole and over again, from memory and from files; into a QEMU that
        waits, too."""
        servers = self.servers(3)
        src = self.source(stopped=True)
        content = self.save(self.all(servers), 'one', '--parts', 'all')
        self.assertEqual(content['parts'], [s.address for s in servers])
        self.assert_no_capabilities(src)
        self.assert_restored(servers, src)
        # In another order; what is on the disks is found again
        for server in servers:
            server.kill()
            server.start()
        servers.reverse()
        self.assert_restored(servers, src)
        shown = self.memserver('show', self.all(servers), 'one')
        self.assertEqual(shown['servers'], dict(zip(
            '210', (s.address for s in servers))))
        self.assertEqual(len(self.memserver('verify', self.all(servers))), 3)
        dst = self.start_destination(self.guest)
        migration.set_capabilities(dst, multifd=True)
        migration.set_parameters(dst, multifd_channels=CHANNELS)
        to = 'tcp:%s:%d' % migration.listen(dst)
        run = self.tool('checkpoint', 'restore', '--server',
                        self.all(servers), '--channels', str(CHANNELS),
                        '--to', to, 'one')
        self.assertEqual(run.returncode, 0, run.stderr)
        self.finish(self.guest, src, dst)

    def test_incremental(self):
        """Increments on increments; a server that has forgotten its part; the
        servers in another order; then on increments.  What is restored is
        the source's RAM."""
        servers = self.servers(3)
        src = self.source()

        def since(name, *more):
            return self.save(self.all(servers), name, '--parts', '3',
                             '--incremental', *more).get('since')
        self.assertIsNone(since('a'))
        self.assertEqual(since('b'), 'a')
        self.memserver('remove', self.all(servers), 'a')
        src.qmp('stop')
        self.assertEqual(since('c'), 'b')
        self.assert_restored(servers, src, name='c')
        servers[1].kill()
        servers[1].start()
        self.assertIsNone(since('d'))
        self.assertEqual(since('e'), 'd')
        self.assert_restored(servers, src, name='e')
        own = [self.memserver('show', s.address, 'e')['own-pages']
               for s in servers]
        self.assertLess(sum(own), 64)
        servers.reverse()
        self.assertIsNone(since('f'))
        self.assertEqual(since('g'), 'f')
        self.assert_restored(servers, src, name='g')

    def test_prune(self):
        servers = self.servers(2)
        self.source()
        for name in 'one', 'two':
            self.save(self.all(servers), name, '--parts', '2')
        removed = self.memserver('prune', self.all(servers), '--keep', '1')
        self.assertEqual(removed, {s.address: ['one'] for s in servers})
        self.memserver('verify', self.all(servers), 'two')

    def test_name_is_free_again(self):
        """If the server of part 0 says that it has none; if it is not there
        the part is removed by hand."""
        servers = self.servers(2)
        self.source()
        for _ in range(2):
            self.save(self.all(servers), 'one', '--parts', '2')
            self.memserver('verify', self.all(servers), 'one')
            self.control(servers[0])('remove', vm='vm1', name='one')
        servers[0].kill()
        run = self.tool(*self.saving(servers[1].address, 'one'))
        self.assertIn('tlm memserver remove', run.stderr)
        self.memserver('remove', servers[1].address, 'one')
        servers[0].start()
        self.assert_nothing_there(servers)

    def saving_slowly(self, src, servers, parts):
        tool = subprocess.Popen(
            [TOOL, *self.saving(self.all(servers), 'one', '--bandwidth',
                                SLOW_WRITE, '--parts', parts)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.addCleanup(tool.communicate)
        self.addCleanup(tool.kill)
        wait_until(lambda: src.qmp('query-migrate').get('ram', {})
                   .get('transferred', 0) > 1 << 20, 60, 'it is being saved')
        return tool

    def test_server_killed(self):
        """Any of them: the guest runs on, and nothing is left anywhere."""
        for lost in range(2):
            with self.sub(lost=lost):
                self.setUp()
                servers = self.servers(2)
                src = self.source()
                tool = self.saving_slowly(src, servers, 'all')
                servers[lost].kill()
                _, messages = tool.communicate(timeout=120)
                self.assertEqual(tool.returncode, 1, messages)
                self.assert_no_capabilities(src)
                self.assert_runs_on(self.guest, src)
                servers[lost].start()
                self.assert_nothing_there(servers)
                self.save(self.all(servers), 'one', '--parts', '2')
                src.close()

    def test_others_take_over(self):
        servers = self.servers(3)
        src = self.source()
        tool = self.saving_slowly(src, servers, '2')
        servers[1].kill()
        wait_until(lambda: migration.status(src) in ('failed', 'completed'),
                   60, 'the first try has failed')
        src.qmp('migrate-set-parameters', **{'max-bandwidth': 0})
        out, messages = tool.communicate(timeout=300)
        self.assertEqual(tool.returncode, 0, messages)
        self.assertIn(f'part 1    {servers[2].address}', out)
        self.assert_runs_on(self.guest, src)
        whole = [servers[0], servers[2]]
        self.assertEqual(len(self.memserver('verify', self.all(whole))), 2)

    def test_cancelled(self):
        servers = self.servers(2)
        src = self.source()
        tool = self.saving_slowly(src, servers, 'all')
        tool.send_signal(signal.SIGINT)
        tool.communicate(timeout=120)
        self.assertEqual(tool.returncode, 130)
        self.assert_runs_on(self.guest, src)
        self.assert_nothing_there(servers)

    def refused(self, servers, why):
        run = self.tool('checkpoint', 'restore', '--server',
                        self.all(servers), 'one', '--', env.STOCK_QEMU)
        self.assertEqual(run.returncode, 1)
        self.assertIn(why, run.stderr)

    def test_part_missing(self):
        """Or one of another set: nothing is started."""
        servers = self.servers(2)
        src = self.source()
        self.save(self.all(servers), 'one', '--parts', '2')
        src.close()
        for n, server in enumerate(servers):
            self.refused([servers[1 - n]], f'part {n} of 2')
            server.kill()
            self.refused(servers, f'part {n} of 2')
            server.start()
        shutil.rmtree(os.path.join(servers[1].store, 'vm1'))
        servers[1].kill()
        servers[1].start()
        self.refused(servers, 'part 1 of 2')
        run = self.tool('memserver', 'list', '--server', self.all(servers))
        self.assertIn("'one' of vm1 is not whole: part 1 of 2", run.stdout)


if __name__ == '__main__':
    unittest.main()
