#!/usr/bin/python3
#
# tlm-memserver when something goes wrong: what is there stays, and the source
# is told
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import gzip
import hashlib
import json
import os
import random
import socket
import subprocess
import tempfile
import unittest

from test_memserver import STOCK_CAPS, MemServerCase
from tlm.checkpoint import mappedram
from tlm.checkpoint.catalogue import Catalogue
from tlmtest import env, migration
from tlmtest.case import MB, PAGE
from tlmtest.fakesource import STATE, FakeSource, page
from tlmtest.guests import RomGuest
from tlmtest.memserver import Control, Refused, client_tls
from tlmtest.ram import FrozenRam
from tlmtest.virt import make_certificates
from tlmtest.vm import VmError, wait_until

# Of the recorded channel: its first bytes, a packet's, and the pages of the
# packets that are there whole.  Of the main stream: how often it flushes
INTRODUCTION, PACKET, RECORDED_PAGES, RECORDED_SYNCS = 64, 1344, 2, 3
# What is kept of each of so many shows beside stacks that the C library caches
SESSIONS, LEAST_STACK_KB = 40, 2048
RECORDED = os.path.join(env.ROOT, 'tests/unit/memserver')


class Fake(MemServerCase):
    """Sources that are no QEMU."""

    def source(self, session, **more):
        source = FakeSource(session['uri'], **more)
        self.addCleanup(source.close)
        return source

    def announce(self, control, **wish):
        return control.announce(**{'level': 'durable', **wish})

    def save(self, control, name, pages, parent=None, incremental=None):
        session = self.announce(control, name=name, **(
            {'parent': parent} if parent else {}))
        source = self.source(session)
        source.start()
        source.send(0, pages)
        source.end()
        if parent:
            control('confirm', session=session['session'],
                    incremental=incremental)
        self.assertEqual(source.shut(), 0)
        self.assertEqual(control.wait(session['session'])['state'], 'done')

    def content(self, server, name, pages=64):
        """{page: content} of those that are not zero."""
        path = server.path('vm1', name)
        with open(path, 'rb') as f:
            block, = mappedram.blocks(f.fileno())
            data = {}
            for i in range(pages):
                f.seek(block.pages_offset + i * 4096)
                found = f.read(4096)
                if any(found):
                    data[i] = found
        return data

    def assert_fails(self, control, session, source, part):
        self.assertIn(source.shut(), (1, None))
        end = control.wait(session['session'])
        self.assertEqual(end['state'], 'failed')
        self.assertRegex(end['error'], part)

    def test_generations(self):
        """An increment has what its parent had; a full one has not."""
        server = self.server(store={'keep': 10})
        control = self.control(server)
        one = {i: page(f'one {i}') for i in range(20)}
        two = {i: page(f'two {i}') for i in range(15, 25)}
        self.save(control, 'one', one)
        self.save(control, 'two', two, 'one', True)
        self.save(control, 'full', two, 'two', False)
        self.assertEqual(self.content(server, 'one'), one)
        self.assertEqual(self.content(server, 'two'), {**one, **two})
        self.assertEqual(self.content(server, 'full'), two)
        shown = control('show', vm='vm1', name='two')
        self.assertEqual(shown['parent'], 'one')
        self.assertNotIn('pages', shown)        # only the newest is in memory
        self.assertIsNone(control('show', vm='vm1', name='full')['parent'])
        # Each is whole, for "tlm checkpoint" too
        for entry in Catalogue(os.path.join(server.store, 'vm1')).entries():
            self.assertIsNone(entry.problem, entry.name)
        for name in ('one', 'two', 'full'):
            control('verify', vm='vm1', name=name)

    def test_identify(self):
        """Told once, and forgotten with what is in memory: an increment can
        only be to what is there."""
        server = self.server()
        control = self.control(server)
        self.save(control, 'one', {0: page('one')})
        named = {'vm': 'vm1', 'name': 'one'}
        for _ in range(2):
            control('identify', **named, identity='5c0f-1')
        with self.assertRaisesRegex(Refused, 'another identity'):
            control('identify', **named, identity='5c0f-2')
        with self.assertRaisesRegex(Refused, "'identity' must be a name"):
            control('identify', **named, identity='../x')
        with self.assertRaisesRegex(Refused, 'no virtual machine'):
            control('identify', vm='vm2', name='one', identity='5c0f-1')
        self.assertEqual(control('show', **named)['identity'], '5c0f-1')
        self.save(control, 'two', {0: page('two')})
        self.assertNotIn('identity', control('show', **named))
        with self.assertRaisesRegex(Refused, 'is not in memory'):
            self.announce(control, name='three', parent='one')

    def test_zero_and_again(self):
        server = self.server()
        control = self.control(server)
        session = self.announce(control)
        source = self.source(session)
        source.start()
        source.send(0, {i: page('old') for i in range(30)})
        source.part()
        source.send(1, {3: page('new')}, zero=range(10, 20))
        source.part()
        source.send(0, {12: page('back')})
        source.end()
        self.assertEqual(source.shut(), 0)
        wanted = {i: page('old') for i in range(30) if not 10 <= i < 20}
        self.assertEqual(self.content(server, 'one'),
                         {**wanted, 3: page('new'), 12: page('back')})

    def test_failed_increment(self):
        """It leaves its parent alone; the next one takes its name."""
        server = self.server()
        control = self.control(server)
        one = {i: page('one') for i in range(20)}
        self.save(control, 'one', one)
        for _ in range(3):
            session = self.announce(control, name='two', parent='one')
            source = self.source(session)
            source.start()
            source.send(0, {i: page('lost') for i in range(10)})
            source.close()
            self.assertEqual(control.wait(session['session'])['state'],
                             'failed')
        self.save(control, 'two', {0: page('two')}, 'one', True)
        self.assertEqual(self.content(server, 'one'), one)
        self.assertEqual(self.content(server, 'two'), {**one, 0: page('two')})

    def test_unconfirmed(self):
        server = self.server(data={'stall-timeout': 1})
        control = self.control(server)
        self.save(control, 'one', {0: page('one')})
        session = self.announce(control, name='two', parent='one')
        source = self.source(session)
        source.start()
        source.end()
        self.assert_fails(control, session, source, 'nobody has confirmed')

    def test_broken_protocol(self):
        def wait_metric(line):
            wait_until(lambda: f'{line}\n' in control('metrics'), 60, line)

        def other_block(s):
            s.channels[0].sendall(s.packet([1], block=b'other') + bytes(4096))

        def behind_the_end(s):
            s.send(0, {64: page('x')})

        def after_the_last_sync(s):
            s.end(b'')
            s.send(0, {1: page('x')})
            # One that is not read would not be missed
            wait_metric('received_pages_total 1')
            s.main.sendall(STATE)

        def more_syncs(s):
            for channel in s.channels:
                channel.sendall(3 * s.packet(sync=True))
            # With those of start(). They are counted when they are read, and
            # heeded before the next one is
            wait_metric(f'received_bytes_total {8 * PACKET}')
            s.end()

        def no_state(s):
            s.end(b'half of it')
            s.main.shutdown(socket.SHUT_WR)

        def no_multifd(s):
            s.main.sendall(b'\2\0\0\0\2' + (8).to_bytes(8, 'big'))

        for what, part in ((other_block, 'not known'),
                           (behind_the_end, 'behind the end'),
                           (after_the_last_sync, 'last SYNC|after the end'),
                           (more_syncs, 'more SYNCs'),
                           (no_state, 'end of the device state'),
                           (no_multifd, 'multifd must be on')):
            with self.sub(what=what.__name__):
                server = self.server()
                control = self.control(server)
                session = self.announce(control)
                source = self.source(session)
                source.start()
                what(source)
                self.assert_fails(control, session, source, part)
                self.assertEqual(control('list'), [])
                # Nothing is left of it.
                self.assertIn('memory_bytes 0\n', control('metrics'))

    def test_strangers(self):
        """Who connects and is no source does not harm one that is."""
        server = self.server()
        control = self.control(server)
        session = self.announce(control)
        _, host, port = session['uri'].split(':')
        for data in (b'GET / HTTP/1.0\r\n\r\n', b'', bytes(1000)):
            with socket.create_connection((host, int(port))) as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                try:
                    self.assertEqual(s.recv(10), b'')
                except ConnectionResetError:
                    pass
        self.assertIn('refused_connections_total 3\n', control('metrics'))
        source = self.source(session)
        source.start()
        source.end()
        self.assertEqual(source.shut(), 0)

    def recorded(self):
        """What a QEMU has sent: the main stream, and a channel whose end is
        made here, for the recorded one is cut."""
        with gzip.open(f'{RECORDED}/main.gz') as f:
            main = f.read()
        with gzip.open(f'{RECORDED}/channel-none.gz') as f:
            channel = f.read()
        whole = INTRODUCTION + 2 * PACKET + RECORDED_PAGES * PAGE
        sync = FakeSource.packet(sync=True)
        # The first of them is in it
        return main, channel[:whole] + (RECORDED_SYNCS - 1) * sync

    def replay(self, session, *streams):
        """Connections of their own, in this order."""
        _, host, port = session['uri'].split(':')
        found = []
        for stream in streams:
            s = socket.create_connection((host, int(port)))
            self.addCleanup(s.close)
            s.sendall(stream)
            found.append(s)
        return found

    def test_replayed(self):
        """A recorded stream, again, is a checkpoint of its own, and not the
        session's that it was recorded from."""
        main, channel = self.recorded()
        server = self.server()
        control = self.control(server)
        sums = set()
        for name in ('one', 'two'):
            session = self.announce(control, name=name, channels=1)
            self.replay(session, main, channel)
            end = control.wait(session['session'])
            self.assertEqual(end['state'], 'done', end)
            with open(server.path('vm1', name), 'rb') as f:
                sums.add(hashlib.sha256(f.read()).digest())
            with contextlib.suppress(ConnectionError):
                again, = self.replay(session, main)
                self.assertEqual(again.recv(1), b'')
        self.assertEqual(len(sums), 1)
        with self.assertRaisesRegex(Refused, "'one'"):
            self.announce(control, name='one')
        self.assertEqual([c['name'] for c in control('list')], ['one', 'two'])

    def test_replayed_into_another(self):
        """A second main stream is turned away; a second channel of the same
        number ends the session, for nobody can tell which is the source's."""
        main, channel = self.recorded()
        server = self.server()
        control = self.control(server)
        session = self.announce(control, channels=1)
        half = len(main) // 2
        first, = self.replay(session, main[:half])
        wait_until(lambda: control('status', session=session['session'])
                   ['state'] == 'receiving', 60, 'it is being received')
        self.replay(session, main)
        wait_until(lambda: 'refused_connections_total 1\n' in
                   control('metrics'), 60, 'it is refused')
        self.replay(session, channel)
        first.sendall(main[half:])
        end = control.wait(session['session'])
        self.assertEqual(end['state'], 'done', end)
        session = self.announce(control, name='two', channels=2)
        self.replay(session, main, channel, channel)
        end = control.wait(session['session'])
        self.assertEqual(end['state'], 'failed', end)
        self.assertIn('comes twice', end['error'])

    def test_truncated(self):
        """Any part of a recorded stream fails."""
        stream, _ = self.recorded()
        server = self.server()
        control = self.control(server)
        random.seed(1)
        for cut in [random.randrange(1, len(stream)) for _ in range(20)]:
            session = self.announce(control, channels=1)
            _, host, port = session['uri'].split(':')
            with socket.create_connection((host, int(port))) as s:
                s.sendall(stream[:cut])
                s.shutdown(socket.SHUT_WR)
                end = control.wait(session['session'])
                self.assertEqual(end['state'], 'failed', cut)
        self.assertEqual(control('list'), [])

    def test_stalled(self):
        server = self.server(data={'stall-timeout': 1, 'connect-timeout': 1})
        control = self.control(server)
        with self.subTest(when='not connected'):
            end = control.wait(self.announce(control)['session'])
            self.assertIn('not connected in time', end['error'])
        with self.subTest(when='connected'):
            session = self.announce(control)
            source = self.source(session)
            source.start()
            source.send(0, {1: page('x')})
            self.assert_fails(control, session, source, 'nothing for too long')
        with self.subTest(when='a channel is missing'):
            session = self.announce(control, channels=3)
            source = self.source(session)
            source.start()
            self.assert_fails(control, session, source, 'not connected in')
        self.save(control, 'one', {0: page('one')})

    def test_two_clients(self):
        """Two at once, each with a machine of its own."""
        server = self.server()
        first, second = self.control(server), self.control(server)
        a = self.announce(first, vm='a')
        b = self.announce(second, vm='b')
        with self.assertRaisesRegex(Refused, 'is being received'):
            self.announce(second, vm='a', name='two')
        sources = self.source(a), self.source(b)
        for source in sources:
            source.start()
        for source, text in zip(sources, 'ab'):
            source.send(0, {1: page(text)})
        for source in sources:
            source.end()
            self.assertEqual(source.shut(), 0)
        self.assertEqual({(c['vm'], c['name']) for c in first('list')},
                         {('a', 'one'), ('b', 'one')})

    def test_cancel(self):
        server = self.server()
        control = self.control(server)
        session = self.announce(control)
        source = self.source(session)
        source.start()
        control('cancel', session=session['session'])
        self.assert_fails(control, session, source, 'cancelled')
        self.assertEqual(server.stop(), 0)

    @staticmethod
    def held(server):
        """(open files, KiB of address space)"""
        process = f'/proc/{server.process.pid}'
        with open(f'{process}/status', encoding='ascii') as f:
            size = next(line.split()[1] for line in f
                        if line.startswith('VmSize:'))
        return len(os.listdir(f'{process}/fd')), int(size)

    def test_many_sessions(self):
        """The server keeps nothing of those that have ended: no file, no
        stack of a thread, no room for their pages."""
        # The C library's memory for each thread would hide the stacks
        server = self.server(prefix=('env', 'MALLOC_ARENA_MAX=1'))
        control = self.control(server)

        def several():
            for number in range(SESSIONS):
                if number % 4 == 0:
                    self.save(control, f'n{number}', {0: page('x')})
                    continue
                session = self.announce(control, name=f'n{number}')
                control('cancel', session=session['session'])
                control.wait(session['session'])
            control('prune', vm='vm1', keep=0)
        several()
        files, size = self.held(server)
        several()
        wait_until(lambda: self.held(server)[0] <= files, 60,
                   lambda: f'{files} files, then {self.held(server)[0]}')
        size += SESSIONS * LEAST_STACK_KB // 2
        wait_until(lambda: self.held(server)[1] < size, 60, lambda:
                   f'no more than {size} KiB: {self.held(server)[1]}')

    def test_control_lines(self):
        """Long, odd and many: the server goes on."""
        server = self.server()
        for line in (b'x' * 100000 + b'\n', b'\0\n', b'{"execute": "list"}\n',
                     b'[' * 60000 + b'\n'):
            control = Control(server.address)
            reply = control.raw(line)
            self.assertTrue('error' in reply or 'return' in reply)
            control.close()
        self.assertEqual(json.loads(server.call('list').stdout), [])
        self.assertEqual(server.call('list', 'vm=none').returncode, 1)
        self.assertEqual(server.call('list', 'vm').returncode, 1)


class Faults(MemServerCase):
    """QEMU as the source."""

    def announce_to(self, control, src, **wish):
        session = control.announce(**wish)
        src.qmp('tlm-checkpoint', uri=session['uri'])
        return session

    def saved(self, control, src, **wish):
        session = self.announce_to(control, src, **wish)
        migration.wait_status(src, 'completed')
        self.assertEqual(control.wait(session['session'])['state'], 'done')
        migration.wait_idle(src)

    def assert_failed(self, guest, src):
        migration.wait_status(src, 'failed')
        self.assert_runs_on(guest, src)

    def multifd_source(self, guest, **params):
        src = self.tlm_source(guest, **params)
        migration.set_capabilities(src, multifd=True)
        return src

    def test_killed(self):
        """The guest runs on, the last checkpoint is there, the next comes."""
        guest = RomGuest(ws_mb=64)
        server = self.server(store={'keep': 20})
        src = self.multifd_source(guest)
        control = server.control()
        self.saved(control, src, name='first')
        for when in ('receiving', 'in the pause', 'writing'):
            with self.subTest(when=when):
                name = when.replace(' ', '-')
                migration.set_capabilities(
                    src, pause_before_switchover=when == 'in the pause')
                migration.set_parameters(
                    src, max_bandwidth=5 * MB if when == 'receiving' else 0)
                session = self.announce_to(control, src, name=name)
                if when == 'receiving':
                    wait_until(lambda: control(
                        'status', session=session['session'])['bytes'] > MB,
                        60, 'something has come')
                elif when == 'in the pause':
                    migration.wait_status(src, 'pre-switchover')
                else:
                    wait_until(lambda: control(
                        'status', session=session['session'])['state'] in
                        ('storing', 'done'), 60, 'it is written')
                server.kill()
                control.close()
                if when == 'in the pause':
                    src.qmp('migrate-continue', state='pre-switchover')
                end = migration.wait_status(src, ('failed', 'completed'))
                self.assert_runs_on(guest, src)
                server.start()
                control = server.control()
                names = [c['name'] for c in control('list')]
                # What QEMU was told is there; and only what is whole.
                self.assertIn('first', names)
                if end['status'] == 'completed':
                    self.assertIn(name, names)
                for found in names:
                    control('verify', vm='vm1', name=found)
                migration.set_capabilities(src, pause_before_switchover=False)
                migration.set_parameters(src, max_bandwidth=0)
                self.saved(control, src, name=f'after-{name}')
        control.close()

    def test_quota(self):
        """Of memory, by what is there and by what is announced."""
        guest = RomGuest(ws_mb=64)
        server = self.server(store={'vm-memory': '280M', 'keep': 0})
        control = self.control(server)
        src = self.multifd_source(guest)
        with self.assertRaisesRegex(Refused, 'the quota'):
            control.announce(ram=1 << 30)
        session = self.announce_to(control, src, ram=64 * MB)
        self.assert_failed(guest, src)
        self.assertIn('accepted are up to',
                      control.wait(session['session'])['error'])
        wish = {'ram': 280 * MB, 'level': 'memory'}
        count = 0
        while True:
            session = self.announce_to(control, src, name=f'n{count}', **wish)
            info = migration.wait_status(src, ('completed', 'failed'))
            migration.wait_idle(src)
            if info['status'] == 'failed':
                break
            count += 1
            self.assertLess(count, 10)
        self.assertGreater(count, 1)
        self.assertIn('is used up', control.wait(session['session'])['error'])
        self.assertEqual(len(control('list')), count)
        self.assert_runs_on(guest, src)
        control('prune', vm='vm1', keep=1)
        self.saved(control, src, name='again', **wish)

    def test_full_disk(self):
        place = tempfile.TemporaryDirectory(prefix='tlm-full-')
        self.addCleanup(place.cleanup)
        mount = ['unshare', '--mount', 'sh', '-c',
                 f'mount -t tmpfs -o size=120M none {place.name} && '
                 'exec "$@"', 'sh']
        if subprocess.run([*mount, 'true'], check=False,
                          capture_output=True).returncode:
            self.skipTest('no file system can be mounted here')
        guest = RomGuest(ws_mb=64)
        server = self.server(prefix=mount, store={'dir': place.name})
        control = self.control(server)
        src = self.multifd_source(guest)
        self.saved(control, src, name='first')
        session = self.announce_to(control, src, name='second')
        self.assert_failed(guest, src)
        self.assertIn('No space left',
                      control.wait(session['session'])['error'])
        self.assertEqual([c['name'] for c in control('list')], ['first'])
        control('verify', vm='vm1', name='first')
        control('prune', vm='vm1', keep=0)
        self.saved(control, src, name='second')

    def test_tls(self):
        """The right client stores; another one, and one whom nobody knows,
        do not."""
        keys = tempfile.TemporaryDirectory(prefix='tlm-keys-')
        other = tempfile.TemporaryDirectory(prefix='tlm-keys-')
        for directory in (keys, other):
            self.addCleanup(directory.cleanup)
        make_certificates(keys.name, dict.fromkeys(('host', 'alice', 'bob'),
                                                   '127.0.0.1'))
        make_certificates(other.name, {'eve': '127.0.0.1'})
        server = self.server(
            control={'listen': 'tcp:127.0.0.1:0'},
            tls={'credentials': 'x509', 'dir': f'{keys.name}/host'})
        guest = RomGuest(ws_mb=64)
        objects = []
        for name, place in (('alice', keys), ('bob', keys), ('eve', other)):
            objects += ['-object', f'tls-creds-x509,id={name},endpoint=client,'
                        f'dir={place.name}/{name}']
        src = self.start_source(guest, extra=objects)
        migration.set_capabilities(src, return_path=True, multifd=True)
        migration.set_parameters(src, max_bandwidth=0)
        alice = server.control(client_tls(f'{keys.name}/alice'))
        bob = server.control(client_tls(f'{keys.name}/bob'))
        with self.assertRaises(OSError):
            server.control(client_tls(f'{other.name}/eve'))('list')
        session = alice.announce()
        for name, ok in (('', False), ('eve', False), ('bob', False),
                         ('alice', True)):
            with self.subTest(name=name):
                migration.set_parameters(src, tls_creds=name)
                src.qmp('tlm-checkpoint', uri=session['uri'])
                migration.wait_status(src, 'completed' if ok else 'failed')
                self.assert_runs_on(guest, src)
        self.assertEqual(alice.wait(session['session'])['state'], 'done')
        self.assertEqual(len(alice('list')), 1)
        self.assertEqual(bob('list'), [])
        with self.assertRaisesRegex(Refused, 'no session'):
            bob('status', session=session['session'])
        with self.assertRaisesRegex(Refused, 'no virtual machine'):
            bob('prune', vm='vm1', keep=0)
        done = server.call('--tls', 'x509', '--tls-dir', f'{keys.name}/alice',
                           'verify', 'vm=vm1')
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_psk(self):
        keys = tempfile.TemporaryDirectory(prefix='tlm-psk-')
        self.addCleanup(keys.cleanup)
        with open(f'{keys.name}/keys.psk', 'w', encoding='ascii') as f:
            f.write('qemu:' + 32 * 'ab' + '\n')
        server = self.server(tls={'credentials': 'psk', 'dir': keys.name})
        control = self.control(server)
        guest = RomGuest(ws_mb=64)
        self.addCleanup(guest.close)
        src = self.start_vm('src', env.STOCK_QEMU, [
            *guest.args('tcg'), '-object', 'tls-creds-psk,id=tls0,'
            f'endpoint=client,dir={keys.name}'])
        guest.wait_filled(src)
        src.qmp('stop')
        migration.set_capabilities(src, **STOCK_CAPS)
        migration.set_parameters(src, max_bandwidth=0, tls_creds='tls0')
        session = control.announce()
        src.qmp('migrate', uri=session['uri'])
        migration.wait_status(src, 'completed')
        self.restore(guest, FrozenRam(src), server.path('vm1', 'one'))

    def test_not_safe(self):
        """Beyond this host only with TLS."""
        with self.assertRaisesRegex(VmError, 'others than this host'):
            self.server(data={'listen': 'tcp:0.0.0.0:0'})
        with self.assertRaisesRegex(VmError, 'no such option'):
            self.server(store={'memmory': '1G'})
        self.server(data={'listen': 'tcp:0.0.0.0:0'},
                    tls={'allow-plain': 'true'})


if __name__ == '__main__':
    unittest.main()
