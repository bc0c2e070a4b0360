#!/usr/bin/python3
#
# Level "protected": checkpoints in parts with parity at other memory servers,
# which survive the loss of some of them, restored by stock QEMUs
#
# TLM_REPEAT: how often a server is killed at a random moment (default 1)
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import random
import re
import shutil
import threading
import unittest

from test_memserver_command import TCP
from test_memserver_parts import PartsCase
from tlmtest.vm import wait_until

PAGE = 4096
REPEAT = int(os.environ.get('TLM_REPEAT', '1'))


def damage(pid):
    """A byte of each page that a server has of its one VM, in what is the
    largest of its mappings.  (Of one page would not do: its slot may be free
    again, after the page came once more.)"""
    with open(f'/proc/{pid}/maps', encoding='ascii') as f:
        maps = [[int(x, 16) for x in re.match(r'(\w+)-(\w+)', line).groups()]
                for line in f if ' rw-p ' in line]
    start, end = max(maps, key=lambda m: m[1] - m[0])
    with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as f:
        for at in range(start, end, PAGE):
            f.seek(at)
            page = f.read(PAGE)
            if any(page):
                f.seek(at)
                f.write(bytes([page[0] ^ 1]))


class ProtectedCase(PartsCase):
    def servers(self, count, **config):
        """All of one kind: they have to reach each other."""
        return [self.server(**config) for _ in range(count)]

    def protect(self, servers, name, *more):
        return self.save(self.all(servers), name, '--level', 'protected',
                         *more)


class Protected(ProtectedCase):
    def refused(self, servers, *why):
        run = self.tool('checkpoint', 'restore', '--server',
                        self.all(servers), 'one', '--', 'true')
        self.assertEqual(run.returncode, 1)
        for text in why:
            self.assertIn(text, run.stderr)

    def test_one_lost(self):
        """Each of four in turn, the head and the one with parity, too."""
        for lost in range(4):
            with self.sub(lost=lost):
                self.setUp()
                servers = self.servers(4, **(TCP if lost % 2 else {}))
                src = self.source(stopped=True)
                content = self.protect(servers, 'one')
                self.assertEqual(content['parts'],
                                 [s.address for s in servers[:3]])
                self.assertEqual(content['parity'], [servers[3].address])
                self.assertGreater(content['total-ms'],
                                   content['protected-ms'])
                servers[lost].kill()
                self.assert_restored(servers, src)
                src.close()

    def test_two_lost(self):
        """Of 3 + 2; whichever they are."""
        for lost in random.sample([(a, b) for b in range(5)
                                   for a in range(b)], min(10, 2 * REPEAT)):
            with self.sub(lost=lost):
                self.setUp()
                servers = self.servers(5)
                src = self.source(stopped=True)
                self.protect(servers, 'one', '--redundancy', '2')
                for n in lost:
                    servers[n].kill()
                self.assert_restored(servers, src)
                src.close()

    def test_durable(self):
        """All servers have crashed, and run again; what one of them had is
        gone.  What is made again is found after another crash."""
        servers = self.servers(4)
        src = self.source(stopped=True)
        self.save(self.all(servers), 'one', '--level', 'durable',
                  '--redundancy', '1')
        lost = random.randrange(3)
        for server in servers:
            server.kill()
        shutil.rmtree(os.path.join(servers[lost].store, 'vm1'))
        for server in servers:
            server.start()
        self.memserver('verify', self.all(servers), 'one', '--repair')
        for server in servers:
            server.kill()
        for n, server in enumerate(servers):
            if n != lost:
                server.start()
        self.assertEqual(sorted(self.names(servers[3].address)),
                         ['one', 'one.parity0'])
        self.assert_restored(servers, src)

    def test_too_many_lost(self):
        servers = self.servers(4)
        self.source(stopped=True)
        self.protect(servers, 'one')
        servers[0].kill()
        servers[1].kill()
        self.refused(servers, 'bring back', f'part 0 (it was at '
                     f'{servers[0].address})', servers[1].address)

    def test_list_and_remove(self):
        servers = self.servers(3)
        self.source(stopped=True)
        for name in 'one', 'two':
            self.protect(servers, name)
        shown = self.memserver('show', self.all(servers), 'one')
        self.assertEqual(shown['parity-at'], {'0': servers[2].address})
        self.memserver('prune', self.all(servers), '--keep', '1')
        self.assertEqual(self.names(servers[2].address), ['two.parity0'])
        self.memserver('remove', self.all(servers), 'two')
        self.assert_nothing_there(servers)

    def test_incremental(self):
        """Parity of what was inherited, and of what has come."""
        servers = self.servers(3)
        src = self.source()
        self.protect(servers, 'zero', '--incremental')
        src.qmp('stop')
        content = self.protect(servers, 'one', '--incremental')
        self.assertEqual(content['since'], 'zero')
        servers[1].kill()
        self.assert_restored(servers, src)

    def test_head_has_forgotten(self):
        """It runs again, and says that it knows of no such set: the others
        have what makes part 0 again, and are not pruned."""
        servers = self.servers(4)
        src = self.source(stopped=True)
        self.protect(servers, 'one')
        servers[0].kill()
        servers[0].start()
        self.assertEqual(self.memserver('prune', self.all(servers), '--keep',
                                        '1'), {s.address: [] for s in servers})
        self.assert_restored(servers, src)

    def test_no_parity(self):
        """It is not said to be saved, and nothing is left."""
        servers = self.servers(3)
        src = self.source()
        servers[2].kill()
        run = self.tool(*self.saving(self.all(servers), 'one', '--level',
                                     'protected'))
        self.assertEqual(run.returncode, 1)
        self.assertIn('0 of 1 servers have parity', run.stderr)
        self.assert_nothing_there(servers[:2])
        self.assert_runs_on(self.guest, src)

    def test_killed_at_random(self):
        """Any server, at any moment of a save: it is saved, or it is not and
        nothing is left; and what is saved is restored."""
        for n in range(REPEAT):
            lost, after = random.randrange(4), random.random() * (n and 2)
            with self.sub(lost=lost, after=after):
                self.setUp()
                servers = self.servers(4)
                src = self.source(stopped=True)
                killer = threading.Timer(after, servers[lost].kill)
                killer.start()
                run = self.tool(*self.saving(
                    self.all(servers), 'one', '--level', 'protected'))
                killer.join()
                if run.returncode:
                    self.assertEqual(run.returncode, 1, run.stderr)
                    self.assert_nothing_there(
                        [s for s in servers if s is not servers[lost]])
                else:
                    self.assert_restored(servers, src)
                src.close()

    def test_damaged(self):
        """A part has changed in its server's memory: it is not used to make
        another part."""
        servers = self.servers(3)
        src = self.source(stopped=True)
        self.protect(servers, 'one')
        damage(servers[1].process.pid)
        servers[0].kill()
        self.refused(servers, 'part 1 at its server is damaged')
        src.close()

    def test_lost_and_damaged(self):
        """Of 3 + 2: both are made again, and the damaged one is removed."""
        servers = self.servers(5)
        src = self.source(stopped=True)
        self.protect(servers, 'one', '--redundancy', '2')
        servers[0].kill()
        damage(servers[1].process.pid)
        self.assert_restored(servers, src)
        self.assertEqual(self.names(servers[1].address), [])
        src.close()

    def test_mended(self):
        """It is found, made again, and restored as it was."""
        servers = self.servers(3)
        src = self.source(stopped=True)
        self.protect(servers, 'one')
        self.memserver('verify', self.all(servers), 'one')
        damage(servers[1].process.pid)
        run = self.tool('memserver', 'verify', '--server', self.all(servers),
                        'one')
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, rf'[1-9]\d* pages of part 1 at '
                         + re.escape(servers[1].address))
        self.memserver('verify', self.all(servers), 'one', '--repair')
        self.assertEqual(self.names(servers[1].address), [])
        self.memserver('verify', self.all(servers), 'one')
        self.assert_restored(servers, src)
        src.close()

    def test_restored_again(self):
        """What was made again is a part as any other."""
        servers = self.servers(3)
        src = self.source(stopped=True)
        self.protect(servers, 'one')
        servers[0].kill()
        for _ in range(2):
            self.assert_restored(servers, src)
        wait_until(lambda: sorted(self.names(servers[2].address)) ==
                   ['one', 'one.parity0'], 10, 'the part is there')


if __name__ == '__main__':
    unittest.main()
