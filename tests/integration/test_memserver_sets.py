#!/usr/bin/python3
#
# One checkpoint in parts at several tlm-memservers: a set
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import os
import selectors
import signal
import socket
import struct
import threading
import unittest
import uuid

from test_memserver import MemServerCase
from tlm.checkpoint import mappedram
from tlm.checkpoint.receivers import Receivers
from tlmtest import migration
from tlmtest.fakesource import FakeSource, page
from tlmtest.guests import RomGuest
from tlmtest.memserver import Refused
from tlmtest.vm import VmError, wait_until

MAIN = 0x5145564d


def connect(uri):
    _, host, port = uri.split(':')
    return socket.create_connection((host, int(port)))


class Splitter:
    """Takes the connections of a source that knows one address only: its main
    stream goes to the head, channel i to part i mod n."""

    def __init__(self, uris):
        self.uris = uris
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.uri = 'tcp:127.0.0.1:%d' % self.listener.getsockname()[1]
        self.sockets = [self.listener]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.relay, args=(s,), daemon=True).start()

    def relay(self, source):
        try:
            first = source.recv(4, socket.MSG_WAITALL)
            part = 0
            if struct.unpack('>I', first)[0] != MAIN:
                first += source.recv(60, socket.MSG_WAITALL)
                part = first[24] % len(self.uris)
            server = connect(self.uris[part])
            self.sockets += [source, server]
            server.sendall(first)
            with selectors.DefaultSelector() as both:
                both.register(source, selectors.EVENT_READ, server)
                both.register(server, selectors.EVENT_READ, source)
                while both.get_map():
                    for key, _ in both.select():
                        data = key.fileobj.recv(1 << 20)
                        if data:
                            key.data.sendall(data)
                        else:
                            both.unregister(key.fileobj)
                            key.data.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            source.close()

    def close(self):
        for s in self.sockets:
            s.close()


class SetCase(MemServerCase):
    def servers(self, count, **config):
        """(server, control) of each"""
        found = []
        for _ in range(count):
            server = self.server(**config)
            found.append((server, self.control(server)))
        return found

    def announce_set(self, servers, channels=None, name='one', level='memory',
                     **more):
        """The sessions of a new set, the head's first."""
        wish = {'name': name, 'level': level, 'parts': len(servers),
                'channels': channels or len(servers),
                'set': str(uuid.uuid4()), **more}
        sessions = []
        for part, (_, control) in enumerate(servers):
            if part:
                wish['head'] = sessions[0]['uri']
            sessions.append(control.announce(part=part, **wish))
        return sessions

    def ends(self, servers, sessions):
        return [control.wait(session['session'])
                for (_, control), session in zip(servers, sessions)]

    def assert_done(self, servers, sessions):
        for end in self.ends(servers, sessions):
            self.assertEqual(end['state'], 'done', end)


class Stored(SetCase):
    """From a stock QEMU, and to one."""

    def store(self, servers, channels, level):
        guest = RomGuest(ws_mb=64)
        src = self.stock_source(guest, multifd_channels=channels)
        sessions = self.announce_set(servers, channels, level=level)
        splitter = Splitter([s['uri'] for s in sessions])
        self.addCleanup(splitter.close)
        src.qmp('migrate', uri=splitter.uri)
        migration.wait_status(src, 'completed')
        self.assert_done(servers, sessions)
        return guest, src, sessions[0]['set']

    def restore_set(self, servers, guest, src, channels, identity):
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, multifd=True)
        migration.set_parameters(dst, multifd_channels=channels)
        to = 'tcp:%s:%d' % migration.listen(dst)
        told = [control('restore', vm='vm1', to=to, whole=True,
                        channels=channels, set=identity)
                for _, control in servers]
        for (_, control), one in zip(servers, told):
            wait_until(lambda: control('restore-status',
                                       restore=one['restore'])['state'] in
                       ('ended', 'lost'), 60, 'the restore ends')
            self.assertEqual(control('restore-status', restore=one['restore'])
                             ['state'], 'ended')
        self.finish(guest, src, dst)
        dst.close()

    def check(self, parts, channels, level, restored_with):
        servers = self.servers(parts)
        guest, src, identity = self.store(servers, channels, level)
        for i, (_, control) in enumerate(servers):
            shown = control('show', vm='vm1')
            self.assertEqual((shown['set'], shown['part'], shown['parts']),
                             (identity, i, parts))
            self.assertGreater(shown['pages'], 1000)
            self.assertIn('tlm_memserver_parts 1\n', control('metrics'))
        for channels in restored_with:
            self.restore_set(servers, guest, src, channels, identity)
        return servers, guest, src, identity

    def test_memory(self):
        self.check(2, 2, 'memory', (2, 5))

    def test_durable(self):
        """Also after all servers have been restarted."""
        servers, guest, src, identity = self.check(3, 4, 'durable', (3,))
        restarted = []
        for server, control in servers:
            server.kill()
            control = self.control(server.start())
            restarted.append((server, control))
            control('verify', vm='vm1', name='one')
        self.restore_set(restarted, guest, src, 4, identity)


def message(kind, payload=b''):
    return struct.pack('>HHI', kind, 0, len(payload)) + payload


class FakePeer:
    """A server of a set that is none; peer-proto.h has the messages."""

    LAYOUT, END, RANKS, RANKS_END, SUPERSEDED, SUPERSEDED_END, STORED, \
        COMMIT, ALIVE, FAILED = range(1, 11)

    def __init__(self, head, identity, part=1, parts=2, channels=2, level=0,
                 parent='', version=2):
        self.socket = connect(head)
        self.socket.settimeout(60)
        self.file = self.socket.makefile('rb')
        self.socket.sendall(
            struct.pack('>II', 0x544c4d50, version) + identity.encode() +
            parent.encode().ljust(36, b'\0') +
            struct.pack('>IIII', part, parts, channels, level))

    def send(self, kind, payload=b''):
        self.socket.sendall(message(kind, payload))

    def send_ranks(self, runs, block=0, first=0):
        self.send(self.RANKS, struct.pack('>IQ', block, first) +
                  b''.join(struct.pack('>II', *run) for run in runs))

    def hear(self):
        """The next message but for ALIVE: type and payload; None: the end."""
        while True:
            try:
                head = self.file.read(8)
            except ConnectionError:
                return None
            if len(head) < 8:
                return None
            kind, _, size = struct.unpack('>HHI', head)
            payload = self.file.read(size)
            if kind != self.ALIVE:
                return kind, payload

    def hear_until(self, kind):
        """The payload of the next one of this kind."""
        while (got := self.hear()) is not None:
            if got[0] == kind:
                return got[1]
        raise AssertionError(f'the head has gone before message {kind}')

    def close(self):
        self.file.close()
        self.socket.close()


class FakeHead:
    """Listens as the head of a set would."""

    def __init__(self, **more):
        self.listener = socket.create_server(('127.0.0.1', 0), **more)
        self.listener.settimeout(60)
        self.uri = 'tcp:127.0.0.1:%d' % self.listener.getsockname()[1]
        self.peer = None

    def accept(self):
        s, _ = self.listener.accept()
        s.settimeout(60)
        self.peer = s, s.makefile('rb')
        return self.peer[1].read(96)

    def send(self, kind, payload=b''):
        self.peer[0].sendall(message(kind, payload))

    def hear_until(self, kind):
        while True:
            found, _, size = struct.unpack('>HHI', self.peer[1].read(8))
            payload = self.peer[1].read(size)
            if found == kind:
                return payload

    def close(self):
        self.listener.close()
        for each in reversed(self.peer or ()):
            each.close()


class FakeCase(SetCase):
    """Sources that are no QEMU, with 64 pages and a channel for each part."""

    def source(self, sessions, channels=None, pages=64):
        uris = [s['uri'] for s in sessions]
        source = FakeSource(uris[0], pages, channels or len(uris), uris)
        self.addCleanup(source.close)
        return source

    def begin(self, parts=2, level='memory', **config):
        """servers, sessions, source: the first pages have been sent, and the
        servers are connected."""
        servers = self.servers(parts, **config)
        sessions = self.announce_set(servers, level=level)
        source = self.started(sessions)
        wait_until(lambda: servers[0][1](
            'status', session=sessions[0]['session'])['peers'] == parts - 1,
            60, 'the servers know each other')
        return servers, sessions, source

    def started(self, sessions):
        source = self.source(sessions)
        source.start()
        for i in range(len(sessions)):
            source.send(i, {i: page(f'page {i}')})
        return source

    def peer(self, session, **hello):
        peer = FakePeer(session['uri'], **{'identity': session['set'],
                                           **hello})
        self.addCleanup(peer.close)
        return peer

    def content(self, servers, name='one'):
        """[{page: content}] of the files of all parts"""
        found = []
        for server, _ in servers:
            with open(server.path('vm1', name), 'rb') as f:
                block, = mappedram.blocks(f.fileno())
                data = {}
                for i in range(64):
                    f.seek(block.pages_offset + i * 4096)
                    text = f.read(4096)
                    if any(text):
                        data[i] = text
            found.append(data)
        return found

    def assert_failed(self, servers, sessions, source, *why):
        """All have; nothing is left, and the next set with the same name is
        taken."""
        if source:
            self.assertIn(source.shut(), (1, None))
        for (server, control), session, part in zip(servers, sessions, why):
            if part is None:
                continue
            end = control.wait(session['session'])
            self.assertEqual(end['state'], 'failed', end)
            self.assertRegex(end['error'], part)
            self.assertEqual(control('list'), [])
            self.assertFalse(os.path.exists(server.path('vm1', 'one')))
            self.assertFalse(os.path.exists(server.path('vm1', 'one',
                                                        'json')))

    def assert_next_is_done(self, servers, level='memory'):
        sessions = self.announce_set(servers, level=level)
        source = self.source(sessions)
        source.start()
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)


class Merge(FakeCase):
    def test_newest(self):
        """Of data and zero pages, at one server and at another."""
        servers = self.servers(3, store={'keep': 10})
        sessions = self.announce_set(servers, 6, level='durable')
        source = self.source(sessions, 6)
        source.start()
        old = {i: page(f'old {i}') for i in range(40)}
        source.send(0, old)                             # at part 0
        source.part()
        source.send(1, {i: page(f'new {i}') for i in range(10)})
        source.send(5, {}, zero=range(10, 20))          # at part 2
        source.send(3, {20: page('same server')})       # at part 0
        source.send(4, {i: page(f'first {i}') for i in range(50, 60)})
        source.part()
        source.send(2, {i: page(f'last {i}') for i in range(5, 15)})
        source.send(1, {}, zero=range(55, 60))
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        zero, one, two = self.content(servers)
        self.assertEqual(zero, {20: page('same server'),
                                **{i: old[i] for i in range(21, 40)}})
        self.assertEqual(one, {**{i: page(f'new {i}') for i in range(5)},
                               **{i: page(f'first {i}')
                                  for i in range(50, 55)}})
        self.assertEqual(two, {i: page(f'last {i}') for i in range(5, 15)})
        for _, control in servers:
            control('verify', vm='vm1', name='one')

    def increment(self, servers, name, parent, incremental=True):
        """A session each; it is said to be an increment, or not."""
        sessions = self.announce_set(servers, level='durable', name=name,
                                     parent=parent)
        for (_, control), session in zip(servers, sessions):
            control('confirm', session=session['session'],
                    incremental=incremental)
        source = self.source(sessions)
        source.start()
        return sessions, source

    def parents(self, level='durable'):
        """Two servers with parts of 'one': pages 0 to 39."""
        servers = self.servers(2, store={'keep': 10})
        sessions = self.announce_set(servers, level=level)
        source = self.source(sessions)
        source.start()
        for part, first in enumerate((0, 20)):
            source.send(part, {i: page(f'old {i}')
                               for i in range(first, first + 20)})
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        return servers

    def test_increment(self):
        """What has come is newer than what a part has of the parent, at the
        same server and at the other, with data and as zero pages."""
        servers = self.parents()
        old = {i: page(f'old {i}') for i in range(40)}
        sessions, source = self.increment(servers, 'two', 'one')
        source.send(0, {0: page('same'), 20: page('other')}, zero=[1, 21])
        source.send(1, {2: page('other'), 22: page('same')}, zero=[3, 23])
        source.send(1, {50: page('first')})
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        two = [{0: page('same'), 20: page('other'),
                **{i: old[i] for i in range(4, 20)}},
               {2: page('other'), 22: page('same'), 50: page('first'),
                **{i: old[i] for i in range(24, 40)}}]
        self.assertEqual(self.content(servers, 'two'), two)
        # On it, and with a page that comes twice
        sessions, source = self.increment(servers, 'three', 'two')
        source.send(0, {30: page('early')})
        source.part()
        source.send(1, {30: page('late'), 0: page('moved')})
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        del two[0][0]
        two[1].update({30: page('late'), 0: page('moved')})
        self.assertEqual(self.content(servers, 'three'), two)
        # All has come: nothing is inherited
        sessions, source = self.increment(servers, 'four', 'three', False)
        source.send(0, {5: page('all')})
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        self.assertEqual(self.content(servers, 'four'),
                         [{5: page('all')}, {}])
        for _, control in servers:
            for name in 'one', 'two', 'three', 'four':
                control('verify', vm='vm1', name=name)

    def test_other_parent(self):
        """Pages that no server inherits would be zero."""
        servers = self.parents('memory')
        (_, head), (_, other) = servers
        identity = str(uuid.uuid4())
        with self.assertRaisesRegex(Refused, 'is part 0 of 2 here'):
            head.announce(name='two', parent='one')
        with self.assertRaisesRegex(Refused, 'is part 0 of 2 here'):
            head.announce(name='two', parent='one', set=identity, parts=3,
                          part=0, channels=3)
        with self.assertRaisesRegex(Refused, 'is part 1 of 2 here'):
            other.announce(name='two', parent='one', set=identity, parts=2,
                           part=0, channels=2)
        # Of the same name, and not of the same set
        again = self.announce_set(servers, name='again')
        source = self.source(again)
        source.start()
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, again)
        sessions = [head.announce(name='two', parent='one', part=0, parts=2,
                                  set=identity, channels=2)]
        sessions.append(other.announce(
            name='two', parent='again', part=1, parts=2, set=identity,
            channels=2, head=sessions[0]['uri']))
        end = other.wait(sessions[1]['session'])
        self.assertRegex(end['error'], 'is an increment to set .*, the head '
                         'to set ')
        head('cancel', session=sessions[0]['session'])

    def test_same_epoch(self):
        servers, sessions, source = self.begin()
        source.send(1, {0: page('again')})
        source.end()
        why = 'page 0 .*between the same two SYNCs'
        self.assert_failed(servers, sessions, source, why, why)
        self.assert_next_is_done(servers)

    def test_late_layout(self):
        """Pages of a part wait until the head knows what RAM there is."""
        servers = self.servers(2)
        sessions = self.announce_set(servers, level='durable')
        source = self.source(sessions)
        source.send(1, {7: page('early')})
        wait_until(lambda: servers[1][1]('status', session=sessions[1]
                                         ['session'])['bytes'] > 4096, 60,
                   'the page is there')
        source.start()
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        self.assertEqual(self.content(servers), [{}, {7: page('early')}])


class Faults(FakeCase):
    def test_refused(self):
        (_, control), = self.servers(1)
        good = {'set': str(uuid.uuid4()), 'parts': 2, 'part': 0,
                'channels': 2}
        for bad, why in (({'parts': 17}, '2 to 16 parts'),
                         ({'parts': 1}, '2 to 16 parts'),
                         ({'part': 2}, '2 to 16 parts'),
                         ({'set': 'x'}, '2 to 16 parts'),
                         ({'channels': 1}, 'as many channels'),
                         ({'part': 1}, 'say head='),
                         ({'head': 'tcp:127.0.0.1:1'}, 'say no head='),
                         ({'head-id': str(uuid.uuid4())}, 'head-id is'),
                         ({'part': 1, 'head': 'file:/x'}, "'head' must be"),
                         ({'parent': 'zero'}, 'is not in memory'),
                         ({'part': 1, 'head': 'tcp:127.0.0.1:1',
                           'hold': True}, 'only part 0')):
            with self.assertRaisesRegex(Refused, why):
                control.announce(**{**good, **bad})

    def test_no_head(self):
        """Nobody listens; and somebody who has no such set."""
        servers = self.servers(2)
        _, control = servers[1]
        other = servers[0][1].announce(vm='vm2')
        for head, why in (('tcp:127.0.0.1:1', 'cannot connect'),
                          (other['uri'], 'not announced here')):
            session = control.announce(
                set=str(uuid.uuid4()), parts=2, part=1, channels=2, head=head)
            end = control.wait(session['session'])
            self.assertEqual(end['state'], 'failed')
            self.assertRegex(end['error'], why)

    def test_server_killed(self):
        for killed in (0, 1, 2):
            with self.sub(killed=killed):
                servers, sessions, source = self.begin(3)
                source.part()
                servers[killed][0].kill()
                if killed:
                    self.assertIn(source.shut(), (1, None))
                why = [f'part {killed} of the set: ' if killed else None,
                       *['head of the set at .*(closed|reset|part)'] * 2]
                why[killed] = None
                self.assert_failed(servers, sessions, None, *why)

    def test_server_stopped(self):
        """It neither answers nor closes its connection."""
        for stopped in (0, 1):
            with self.sub(stopped=stopped):
                servers, sessions, source = self.begin(
                    data={'stall-timeout': 2})
                servers[stopped][0].process.send_signal(signal.SIGSTOP)
                why = ['part 1 of the set: .*says nothing|for too long',
                       'head .*says nothing|for too long']
                why[stopped] = None
                self.assert_failed(servers, sessions,
                                   source if stopped else None, *why)

    def test_cancelled(self):
        for part in (0, 1):
            with self.sub(part=part):
                servers, sessions, source = self.begin()
                servers[part][1]('cancel', session=sessions[part]['session'])
                self.assert_failed(servers, sessions, source, 'cancelled',
                                   'cancelled')
                self.assert_next_is_done(servers)

    def test_quota(self):
        """Of one server is used up; the other has room."""
        servers = self.servers(2)
        small = self.server(store={'vm-memory': '2M', 'memory': '2M'})
        servers[1] = small, self.control(small)
        sessions = self.announce_set(servers, ram=4 << 20)
        source = self.source(sessions, pages=1024)
        source.start()
        for at in range(0, 640, 128):
            source.send(1, {i: page(str(i)) for i in range(at, at + 128)})
        self.assert_failed(servers, sessions, source, 'part 1 .*used up',
                           'used up')

    def test_disk_full(self):
        """One of the parts cannot be written: none is there."""
        servers = self.servers(2)
        for full in (0, 1):
            with self.subTest(full=full):
                server = self.server(store={'vm-disk': '2M'})
                servers[full] = server, self.control(server)
                sessions = self.announce_set(servers, level='durable')
                source = self.source(sessions, pages=1024)
                source.start()
                for at in range(0, 640, 128):
                    source.send(full, {i: page(str(i))
                                       for i in range(at, at + 128)})
                source.end()
                self.assert_failed(servers, sessions, source, 'quota',
                                   'quota')
                servers[full] = self.servers(1)[0]
                self.assert_next_is_done(servers, 'durable')
                for _, control in servers:
                    control('remove', vm='vm1', name='one')

    def test_wrong_channels(self):
        """Of another part, and the main stream of another."""
        for first in (struct.pack('>II16sB39s', 0x11223344, 1, b'', 0, b''),
                      struct.pack('>IIBI', MAIN, 3, 7, 2) + b'pc'):
            with self.subTest(first=first[:4]):
                servers = self.servers(2)
                sessions = self.announce_set(servers)
                # It listens until all is there
                s = connect(sessions[1]['uri'])
                self.addCleanup(s.close)
                source = self.started(sessions)
                s.sendall(first)
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(s.recv(1), b'')
                if first[3] == 0x44:
                    why = 'channel 0 comes, which is that of part 0'
                    self.assert_failed(servers, sessions, source, why, why)
                else:                   # a stranger, who is refused
                    source.end()
                    self.assertEqual(source.shut(), 0)
                    self.assert_done(servers, sessions)

    def test_strangers(self):
        """A second server of a part, and one that was announced otherwise:
        they are told, and the set does not mind."""
        servers = self.servers(3)
        wish = {'set': str(uuid.uuid4()), 'parts': 3, 'channels': 3,
                'level': 'memory'}
        sessions = []
        for part in (0, 1):
            sessions.append(servers[part][1].announce(
                part=part, **wish, **({'head': sessions[0]['uri']}
                                      if part else {})))
        wait_until(lambda: servers[0][1]('status', session=sessions[0]
                                         ['session'])['peers'] == 1, 60,
                   'part 1 is connected')
        for hello, why in (({}, b'part 1 of the set already'),
                           ({'part': 0}, b'not announced as'),
                           ({'parts': 4}, b'not announced as'),
                           ({'channels': 9}, b'not announced as'),
                           ({'level': 1}, b'not announced as'),
                           ({'identity': str(uuid.uuid4())},
                            b'not announced here')):
            peer = self.peer(sessions[0], **{'parts': 3, 'channels': 3,
                                             **hello})
            self.assertIn(why, peer.hear_until(FakePeer.FAILED))
            self.assertIsNone(peer.hear())
        sessions.append(servers[2][1].announce(part=2, **wish,
                                               head=sessions[0]['uri']))
        source = self.source(sessions)
        source.start()
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)

    def fake_part(self, level='memory'):
        """A head whose other part is the test; the end of RAM is told."""
        (server, control), = self.servers(1)
        session = control.announce(set=str(uuid.uuid4()), parts=2, part=0,
                                   channels=2, level=level)
        peer = self.peer(session, level=['memory', 'durable'].index(level))
        listener = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(listener.close)
        source = self.source([session, {
            'uri': 'tcp:127.0.0.1:%d' % listener.getsockname()[1]}])
        source.start()
        source.end()
        peer.hear_until(FakePeer.END)
        return [(server, control)], [session], source, peer

    def test_nonsense(self):
        """A server that breaks the protocol breaks the set."""
        runs = [(64, 1)]
        for say, why in (
                (lambda p: p.send(99), 'unknown type'),
                (lambda p: p.send(FakePeer.COMMIT), 'does not come now'),
                (lambda p: p.send(FakePeer.STORED), 'does not come now'),
                (lambda p: p.send(FakePeer.RANKS_END), 'too early'),
                (lambda p: p.send_ranks(runs, block=1), 'do not come next'),
                (lambda p: p.send_ranks(runs, first=1), 'do not come next'),
                (lambda p: p.send_ranks([(65, 1)]), 'do not come next'),
                (lambda p: p.send_ranks([(60, 1)]) or
                 p.send(FakePeer.RANKS_END), 'too early'),
                (lambda p: p.send_ranks(runs) or p.send_ranks(runs),
                 'do not come next'),
                (lambda p: p.send(FakePeer.FAILED, b'no more'), 'no more'),
                (lambda p: p.close(), 'closed')):
            with self.sub(why=why):
                servers, sessions, source, peer = self.fake_part()
                say(peer)
                self.assert_failed(servers, sessions, source,
                                   f'part 1 of the set: .*{why}')

    def test_other_version(self):
        servers = self.servers(1)
        session = servers[0][1].announce(set=str(uuid.uuid4()), part=0,
                                         parts=2, channels=2)
        peer = self.peer(session, version=1)
        self.assertRegex(peer.hear_until(FakePeer.FAILED).decode(),
                         'speaks version 1 .*, this one version 2')

    def test_ranks_before_end(self):
        (server, control), = self.servers(1)
        session = control.announce(set=str(uuid.uuid4()), parts=2, part=0,
                                   channels=2, level='memory')
        peer = self.peer(session)
        peer.send_ranks([(64, 1)])
        self.assert_failed([(server, control)], [session], None,
                           'before it was asked')

    def test_lost_before_it_is_stored(self):
        """The head does not commit; its file does not stay."""
        servers, sessions, source, peer = self.fake_part('durable')
        peer.send_ranks([(64, 0)])
        peer.send(FakePeer.RANKS_END)
        peer.hear_until(FakePeer.SUPERSEDED_END)
        wait_until(lambda: os.path.exists(servers[0][0].path('vm1', 'one')),
                   60, 'the file is written')
        self.assertEqual(servers[0][1]('status', session=sessions[0]
                                       ['session'])['state'], 'storing')
        self.assertFalse(os.path.exists(servers[0][0].path('vm1', 'one',
                                                           'json')))
        peer.close()
        self.assert_failed(servers, sessions, source,
                           'part 1 .*(closed|reset)')

    def test_committed(self):
        """When all have been stored, and not before."""
        servers, sessions, source, peer = self.fake_part()
        peer.send_ranks([(64, 0)])
        peer.send(FakePeer.RANKS_END)
        peer.hear_until(FakePeer.SUPERSEDED_END)
        self.assertEqual(servers[0][1]('list'), [])
        peer.send(FakePeer.STORED)
        peer.hear_until(FakePeer.COMMIT)
        self.assertEqual(source.shut(), 0)
        shown, = servers[0][1]('list')
        self.assertEqual((shown['part'], shown['parts']), (0, 2))

    def test_outcome(self):
        """What the head says of a set before it has committed, when it has,
        and when it has been removed."""
        servers, sessions, source, peer = self.fake_part('durable')
        (server, control), = servers
        wish = {'set': sessions[0]['set'], 'head-id': control('whoami')['id']}

        def outcome():
            return control('outcome', **wish)['outcome']
        self.assertEqual(outcome(), 'pending')
        peer.send_ranks([(64, 0)])
        peer.send(FakePeer.RANKS_END)
        peer.hear_until(FakePeer.SUPERSEDED_END)
        peer.send(FakePeer.STORED)
        self.assertIn(outcome(), ('pending', 'committed'))
        peer.hear_until(FakePeer.COMMIT)
        control.wait(sessions[0]['session'])
        self.assertEqual(outcome(), 'committed')
        server.kill()
        control = self.control(server.start())
        self.assertEqual(outcome(), 'committed')
        with self.assertRaisesRegex(Refused, 'not a matter of this server'):
            control('outcome', **{**wish, 'head-id': str(uuid.uuid4())})
        with self.assertRaisesRegex(Refused, 'no checkpoint .* in set'):
            control('remove', vm='vm1', name='one', set=str(uuid.uuid4()))
        control('remove', vm='vm1', name='one', set=wish['set'])
        self.assertEqual(outcome(), 'none')

    def test_never_committed(self):
        """A part that was kept goes before the next save of its name, if its
        head says so; else it stays."""
        for level in ('memory', 'durable'):
            for knows in (True, False):
                with self.sub(level=level, knows=knows):
                    asked = self.server()
                    head_id = self.control(asked)('whoami')['id'] if knows \
                        else str(uuid.uuid4())
                    servers, sessions, head = self.fake_head(level,
                                                             head_id=head_id)
                    server, control = servers[0]
                    self.send_part(sessions[0], head)
                    self.drop(head)
                    head.hear_until(FakePeer.STORED)
                    head.close()
                    control.wait(sessions[0]['session'])
                    if level == 'durable':
                        server.kill()
                        control = self.control(server.start())
                    with Receivers([server.address], None) as receivers:
                        receivers.make_way([asked.address], 'vm1', 'one')
                    self.assertEqual(len(control('list')), not knows)
                    control.close()

    def fake_head(self, level='memory', **more):
        """A part whose head is the test; it has the layout."""
        servers = self.servers(1)
        head = FakeHead()
        self.addCleanup(head.close)
        session = servers[0][1].announce(
            set=str(uuid.uuid4()), parts=2, part=1, channels=2, level=level,
            head=head.uri, **more)
        self.assertEqual(head.accept()[8:44].decode(), session['set'])
        head.send(FakePeer.LAYOUT, struct.pack('>IH', 2, 2) + b'pc' +
                  bytes(2) + b'\6pc.ram' + struct.pack('>Q', 64 << 12))
        return servers, [session], head

    def send_part(self, session, head):
        """All of the part's only channel, which is number 1"""
        s = connect(session['uri'])
        self.addCleanup(s.close)
        s.sendall(struct.pack('>II16sB39s', 0x11223344, 1, b'', 1, b'') +
                  FakeSource.packet([3]) + page('three') +
                  FakeSource.packet(sync=True))
        head.send(FakePeer.END, struct.pack('>Q', 1))
        self.assertEqual(head.hear_until(FakePeer.RANKS), struct.pack(
            '>IQ6I', 0, 0, 3, 0, 1, 2, 60, 0))
        head.hear_until(FakePeer.RANKS_END)

    def drop(self, head, bits=0):
        head.send(FakePeer.SUPERSEDED, struct.pack('>IQQ', 0, 0, bits))
        head.send(FakePeer.SUPERSEDED_END)

    def test_head_says_nonsense(self):
        one_sync = struct.pack('>Q', 1)
        for say, why in (
                (lambda h: h.send(FakePeer.STORED), 'does not come now'),
                (lambda h: h.send(FakePeer.LAYOUT), 'does not come now'),
                (lambda h: h.send(FakePeer.END), 'cut off'),
                (lambda h: h.send(FakePeer.END, one_sync) or self.drop(h),
                 'before it can know'),
                (lambda h: h.send(FakePeer.END, one_sync) or
                 h.send(FakePeer.SUPERSEDED_END), 'too early'),
                (lambda h: h.send(FakePeer.FAILED, b'why not'), 'why not')):
            with self.sub(why=why):
                servers, sessions, head = self.fake_head()
                say(head)
                self.assert_failed(servers, sessions, None,
                                   f'head of the set at .*{why}')

    def test_head_drops_too_much(self):
        for first, count in ((0, 2), (64, 1)):
            with self.sub(first=first):
                servers, sessions, head = self.fake_head()
                self.send_part(sessions[0], head)
                head.send(FakePeer.SUPERSEDED, struct.pack(
                    '>IQ', 0, first) + bytes(8 * count))
                self.assert_failed(servers, sessions, None, 'do not come next')

    def test_too_much_ram(self):
        servers = self.servers(1)
        head = FakeHead()
        self.addCleanup(head.close)
        session = servers[0][1].announce(
            set=str(uuid.uuid4()), parts=2, part=1, channels=2, ram=1 << 20,
            head=head.uri)
        head.accept()
        head.send(FakePeer.LAYOUT, struct.pack('>IH', 2, 2) + b'pc' +
                  bytes(2) + b'\6pc.ram' + struct.pack('>Q', 1 << 40))
        self.assert_failed(servers, [session], None, 'announced were 1048576')

    def test_fails_before_it_has_connected(self):
        """The head, which is slow to take the connection, hears why."""
        servers = self.servers(1)
        head = FakeHead(backlog=0)
        self.addCleanup(head.close)
        _, _, port = head.uri.split(':')
        with socket.create_connection(('127.0.0.1', int(port))):
            session = servers[0][1].announce(
                set=str(uuid.uuid4()), parts=2, part=1, channels=2,
                head=head.uri)
            s = connect(session['uri'])
            self.addCleanup(s.close)
            s.sendall(struct.pack('>II16sB39s', 0x11223344, 1, b'', 0, b''))
            wait_until(lambda: servers[0][1](
                'status', session=session['session'])['state'] == 'failed',
                60, 'the part has failed')
            head.listener.accept()[0].close()
        self.assertEqual(head.accept()[8:44].decode(), session['set'])
        why = 'channel 0 comes, which is that of part 0'
        self.assertIn(why, head.hear_until(FakePeer.FAILED).decode())
        self.assert_failed(servers, [session], None, why)

    def test_head_fails_after_stored(self):
        """Told so: nothing is left. Lost: it is kept, and can be removed."""
        for level in ('memory', 'durable'):
            for lost in (False, True):
                with self.sub(level=level, lost=lost):
                    servers, sessions, head = self.fake_head(level)
                    server, control = servers[0]
                    self.send_part(sessions[0], head)
                    self.drop(head)
                    head.hear_until(FakePeer.STORED)
                    self.assertEqual(control('list'), [])
                    if lost:
                        head.close()
                        end = control.wait(sessions[0]['session'])
                        self.assertEqual(end['state'], 'failed')
                        self.assertIn('the part is kept', end['error'])
                        shown, = control('list')
                        self.assertEqual((shown['part'], shown['set']),
                                         (1, sessions[0]['set']))
                        with self.assertRaisesRegex(Refused, 'remove it'):
                            control.announce()
                        control('remove', vm='vm1', name='one')
                        self.assertEqual(control('list'), [])
                    else:
                        head.send(FakePeer.FAILED, b'another part')
                        self.assert_failed(servers, sessions, None,
                                           'another part|has failed')

    def test_stored_is_there_after_a_crash(self):
        """Nobody knows whether the head has committed: it may have."""
        servers, sessions, head = self.fake_head('durable')
        server, _ = servers[0]
        self.send_part(sessions[0], head)
        self.drop(head, 1 << 3)
        head.hear_until(FakePeer.STORED)
        server.kill()
        shown, = self.control(server.start())('list')
        self.assertEqual((shown['part'], shown['parts'], shown['set']),
                         (1, 2, sessions[0]['set']))
        self.assertEqual(self.content(servers), [{}])

    def test_restored_together_only(self):
        """No server, and no QEMU, takes a part for a whole checkpoint."""
        servers, sessions, source = self.begin(level='durable')
        source.end()
        self.assertEqual(source.shut(), 0)
        self.assert_done(servers, sessions)
        identity = sessions[0]['set']
        for _, control in servers:
            for bad, why in (({}, f'set={identity}'),
                             ({'set': str(uuid.uuid4()), 'whole': True},
                              f'set={identity}'),
                             ({'set': identity}, 'whole=true'),
                             ({'set': identity, 'whole': True, 'channels': 1},
                              'so many channels')):
                with self.assertRaisesRegex(Refused, why):
                    control('restore', vm='vm1', to='tcp:127.0.0.1:1', **bad)

    def test_qemu_refuses_a_part(self):
        servers = self.servers(2)
        guest, _, _ = Stored.store(self, servers, 2, 'durable')
        for server, _ in servers:
            dst = self.start_destination(guest)
            migration.set_capabilities(dst, mapped_ram=True, multifd=True)
            with self.assertRaises(VmError):
                migration.load_file(dst, server.path('vm1', 'one'))
                migration.wait_loaded(dst)
            wait_until(lambda: 'tlm-part' in dst.messages(), 60,
                       'QEMU says why')
            dst.close()


if __name__ == '__main__':
    unittest.main()
