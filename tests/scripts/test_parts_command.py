#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints in parts at several memory servers, which are played here."""

import argparse
import contextlib
import io
import json
import unittest
from unittest import mock

from tlm import options, parser, units
from tlm.checkpoint import (encryption, fromparts, fromserver, place,
                            toserver, watch)
from tlm.checkpoint.receivers import Receivers, Unable
from tlm.errors import MigrateError
from tlm.memserver import client, look, sets
from tlm.memserver.commands import LIST, PRUNE, REMOVE, SHOW, VERIFY

A, B, C = ADDRESSES = [f'tcp:{host}:1' for host in 'abc']
SET, OTHER = 'set-1', 'set-2'
SOURCE = {'type': 'q35', 'qemu': '10.0.13', 'status': 'running',
          'command': ['qemu'], 'running': True, 'uuid': None}


def checkpoint(name='one', created=1, part=None, parts=2, of=SET, **more):
    """As a server shows it; @part: None for one that is not in parts."""
    return {'vm': 'vm1', 'name': name, 'created': f'2026-01-{created:02}T',
            'level': 'durable', 'in-memory': False, 'ram': 1 << 30,
            'allocated': 1 << 20, 'source': SOURCE,
            **({} if part is None else
               {'set': of, 'part': part, 'parts': parts, **more})}


class Played:
    """A server.  @dies: commands at which it is gone; @refuses: what it does
    not want, and why; @goes_on: the set that it is to commit"""

    def __init__(self, address, has=(), dies=(), refuses=None, goes_on=None):
        self.address, self.has, self.goes_on = address, list(has), goes_on
        self.dies, self.refuses, self.asked = dies, refuses or {}, []

    def __enter__(self):
        if 'connect' in self.dies:
            raise MigrateError(f'{self.address}: Connection refused')
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, command, _patience=0, /, **arguments):
        self.asked.append((command, arguments))
        if command in self.dies:
            raise MigrateError(f'{self.address}: the connection is lost')
        if command in self.refuses:
            raise client.Refused(f'{self.address}: {self.refuses[command]}')
        return getattr(self, '_' + command)(**arguments)

    def commands(self):
        return [command for command, _ in self.asked]

    def _announce(self, **_):
        return {'session': 7, 'uri': self.address.replace(':1', ':99')}

    def _status(self, **_):
        return {'state': 'failed'}

    _cancel = _wait = _status

    def _list(self, vm=None):
        found = [c for c in self.has if vm in (None, c['vm'])]
        if vm and not found:
            raise client.Refused(f"{self.address}: no '{vm}' is known here")
        return found

    def _show(self, vm, name):
        for c in self.has:
            if name in (None, c['name']):
                return c
        raise client.Refused(f"{self.address}: there is no '{name}'")

    _verify = _show

    def _remove(self, vm, name, set):
        there = self._show(vm, name)
        assert there.get('set') == set
        self.has.remove(there)

    def _whoami(self):
        return {'id': 'id of ' + self.address}

    def _outcome(self, set, head_id):
        assert head_id == self._whoami()['id']
        return {'outcome': 'pending' if set == self.goes_on else
                'committed' if (set, 0) in (
                    (c.get('set'), c.get('part')) for c in self.has)
                else 'none'}

    def _prune(self, vm, keep):
        removed, self.has = self.has[:-keep], self.has[-keep:]
        return [c['name'] for c in removed]


class Case(unittest.TestCase):
    def play(self, *servers):
        """The client meets these."""
        self.servers = {s.address: s for s in servers}
        patched = mock.patch.object(
            client, 'MemServer', lambda address, _tls=None:
            self.servers[address])
        patched.start()
        self.addCleanup(patched.stop)

    def play_whole(self):
        self.play(Played(A, [checkpoint(part=0)]),
                  Played(B, [checkpoint(part=1)]))


class Sets(Case):
    def test_best(self):
        """A set that is whole, before one that is newer."""
        old = [(A, checkpoint(part=0)), (B, checkpoint(part=1))]
        new = (C, checkpoint(part=1, created=5, of=OTHER))
        self.assertEqual(sets.best([new, *old]).id, SET)
        self.assertEqual(sets.best([new, *old]).addresses(), [A, B])
        self.assertEqual(sets.best([new]).missing(), [0])
        self.assertRaisesRegex(MigrateError, 'part 0 of 2 is at none',
                               sets.best([new]).addresses)
        self.assertIsNone(sets.best([(A, checkpoint())]))

    def test_parts_of_two_sets(self):
        """Under one name: they do not go together."""
        found = [(A, checkpoint(part=0)), (B, checkpoint(part=1, of=OTHER))]
        self.assertTrue(sets.best(found).missing())

    def test_prune(self):
        """A part whose others are missing takes nobody's place."""
        whole = [(A, checkpoint('old', 1, 0)), (B, checkpoint('old', 1, 1)),
                 (A, checkpoint('new', 3, 0, of=OTHER)),
                 (B, checkpoint('new', 3, 1, of=OTHER))]
        rest = (B, checkpoint('rest', 9, 1, of='set-3'))
        middle = (B, checkpoint('middle', 2, 1, of='set-4'))
        plain = (B, checkpoint('plain', 4))
        for found, keep, wanted in (
                (whole, 1, [(A, 'old'), (B, 'old')]),
                (whole, 2, []),
                ([*whole, rest], 1, [(A, 'old'), (B, 'old')]),
                ([*whole, rest], 2, []),
                ([*whole, middle], 1,
                 [(A, 'old'), (B, 'old'), (B, 'middle')]),
                ([*whole, middle], 2, []),
                ([*whole[2:], middle], 1, [(B, 'middle')]),
                ([*whole, plain], 2, [(A, 'old'), (B, 'old')]),
                ([rest], 1, [])):
            self.assertEqual([(a, c['name']) for a, c in
                              sets.to_prune(found, keep)], wanted)


class Announcing(Case):
    wish = {'vm': 'vm1', 'name': 'one', 'ram': 1 << 30, 'channels': 4,
            'source': SOURCE}

    def test_parts(self):
        self.play(*map(Played, ADDRESSES))
        with Receivers(ADDRESSES, None) as receivers:
            receivers.announce(**self.wish)
        head, *others = (self.servers[a].asked[-1] for a in ADDRESSES)
        self.assertEqual(head, ('announce', {
            **self.wish, 'set': receivers.set, 'part': 0, 'parts': 3}))
        for part, asked in enumerate(others, 1):
            self.assertEqual(asked, ('announce', {
                **self.wish, 'source': None,
                'set': receivers.set, 'part': part, 'parts': 3,
                'head': 'tcp:a:99', 'head_id': f'id of {A}'}))
        self.assertIsNone(receivers.uri)
        channels = receivers.arguments()['channels']
        self.assertEqual([c['channel-type'] for c in channels],
                         ['main', 'data', 'data', 'data'])
        self.assertEqual([c['addr']['host'] for c in channels],
                         ['a', 'a', 'b', 'c'])
        self.assertEqual(channels[0]['addr'], {
            'transport': 'socket', 'type': 'inet', 'host': 'a', 'port': '99'})

    def test_one(self):
        """Nothing of parts."""
        self.play(Played(A))
        with Receivers([A], None) as receivers:
            receivers.announce(**self.wish)
        self.assertEqual(self.servers[A].asked, [('announce', self.wish)])
        self.assertEqual((receivers.uri, receivers.arguments()),
                         ('tcp:a:99', {}))

    def test_refused(self):
        """At one of them: the others forget it, and it is told which."""
        self.play(Played(A), Played(B), Played(C, refuses={
            'announce': 'no room'}))
        with Receivers(ADDRESSES, None) as receivers, \
                self.assertRaisesRegex(Unable, 'tcp:c:1: no room') as caught:
            receivers.announce(**self.wish)
        self.assertEqual(caught.exception.addresses, [C])
        for address in A, B:
            self.assertIn('cancel', self.servers[address].commands())

    def test_lost(self):
        self.play(Played(A), Played(B, dies=('status',)))
        with Receivers([A, B], None) as receivers:
            receivers.announce(**self.wish)
            why, lost = receivers.give_up()
        self.assertEqual(lost, [B])
        self.assertRegex('\n'.join(why), 'tcp:b:1: the connection is lost')

    def test_wait(self):
        """For those that do not tell QEMU that they have it."""
        self.play(*map(Played, ADDRESSES))
        with Receivers(ADDRESSES, None) as receivers:
            receivers.announce(**self.wish)
            receivers.wait()
        self.assertEqual([self.servers[a].commands() for a in ADDRESSES], [
            ['whoami', 'announce'], *2 * [['announce', 'wait']]])

    def test_not_there(self):
        self.play(Played(A), Played(B, dies=('connect',)))
        with self.assertRaises(Unable) as caught, Receivers([A, B], None):
            pass
        self.assertEqual(caught.exception.addresses, [B])


class Choosing(unittest.TestCase):
    """Which servers get the parts."""

    def save(self, parts, *ends):
        """@ends: what the tries end with.  Returns the servers of each."""
        saver = toserver.ServerSaver(argparse.Namespace(
            server=ADDRESSES, parts=parts, level=None, bandwidth=None,
            bound=None, set=[]))
        tries = []

        def play(addresses, *_):
            tries.append(addresses)
            end = ends[len(tries) - 1]
            if end:
                raise end
            return {}
        with mock.patch.object(saver, '_save', play), \
                contextlib.suppress(MigrateError):
            saver.save('one', None, mock.Mock())
        return tries

    def test_next(self):
        lost = Unable('gone', [A])
        self.assertEqual(self.save(2, lost, None), [[A, B], [B, C]])
        self.assertEqual(self.save(3, lost), [ADDRESSES])
        self.assertEqual(self.save(2, MigrateError('QEMU does not want')),
                         [[A, B]])
        self.assertEqual(self.save(1, lost, MigrateError('no'), None),
                         [[A], [B], [C]])

    def channels(self, params, parts):
        asked = toserver.ServerSaver._channels(
            lambda _: {'multifd-channels': 2}, params, parts)
        return asked, params

    def test_channels(self):
        """Each part needs one; what the user has set stays."""
        self.assertEqual(self.channels({}, 1), (2, {}))
        self.assertEqual(self.channels({}, 3), (3, {'multifd-channels': 3}))
        given = {'multifd-channels': 4}
        self.assertEqual(self.channels(given, 3), (4, given))
        self.assertRaisesRegex(MigrateError, 'need 5', self.channels, given, 5)


class Usage(unittest.TestCase):
    def parse(self, *words):
        made = parser.of_command(options.COMMANDS['checkpoint save'])
        args = made.parse_args(['--qmp', '/x', *words])
        with contextlib.redirect_stderr(io.StringIO()) as err, \
                contextlib.suppress(SystemExit):
            place.check(made, args)
            return args.parts
        return err.getvalue()

    def test_protected(self):
        """Parts and parity are at servers of their own."""
        five = '--server', 'a:1,b:1,c:1,d:1,e:1', '--level', 'protected'
        self.assertEqual(self.parse(*five), 4)
        self.assertEqual(self.parse(*five, '--redundancy', '2'), 3)
        self.assertEqual(self.parse(*five, '--parts', '2'), 2)
        self.assertEqual(self.parse('--server', 'a:1,b:1,c:1', '--redundancy',
                                    '1'), 2)
        for words, why in (
                ((*five, '--redundancy', '3'), 'at least 7 servers'),
                ((*five, '--parts', '5'), 'and 1 for parity'),
                ((*five, '--parts', '1'), 'more parts'),
                (('--server', 'a:1,b:1,c:1', '--redundancy', '1', '--level',
                  'memory'), 'for --level protected'),
                (('--dir', '/x', '--level', 'protected'),
                 'is not for --dir')):
            self.assertIn(why, self.parse(*words))

    def test_parts(self):
        servers = '--server', 'a:1,b:1'
        self.assertEqual(self.parse(*servers, '--parts', 'all'), 2)
        self.assertEqual(self.parse(*servers, '--parts', '2'), 2)
        self.assertEqual(self.parse(*servers, '--parts', '2',
                                    '--incremental', '--disk', 'auto'), 2)
        self.assertEqual(self.parse(*servers, '--parts', '2', '--tls', 'psk',
                                    '--tls-dir', '/x'), 2)
        self.assertEqual(self.parse(*servers, '--parts', '1', '--copies',
                                    '2'), 1)
        for words, why in (
                ((*servers, '--parts', '3'), 'needs as many servers'),
                (('--server', 'a:1,a:1', '--parts', '2'), 'twice'),
                ((*servers, '--parts', '2', '--copies', '2'), '--copies'),
                (('--dir', '/x', '--parts', '2'), 'is not for --dir')):
            self.assertIn(why, self.parse(*words))
        self.assertRaises(units.Bad, units.parts, '0')


class Looking(Case):
    def call(self, main, name, *words, vm=('--vm', 'vm1')):
        """(exit status, standard output, standard error)"""
        with contextlib.redirect_stdout(io.StringIO()) as out, \
                contextlib.redirect_stderr(io.StringIO()) as err:
            code = main(parser.of_command(options.COMMANDS[name]), [
                '--server', ','.join(self.servers), *vm, *words])
        return code, out.getvalue(), err.getvalue()

    def test_whole(self):
        self.play_whole()
        code, out, _ = self.call(look.main_list, LIST)
        self.assertRegex(out, '(?s)part 0 of 2.*part 1 of 2')
        self.assertNotIn('not whole', out)
        code, out, _ = self.call(look.main_show, SHOW, 'one')
        self.assertRegex(out, f'(?s)part 0 .*{A}.*part 1 .*{B}')
        code, out, _ = self.call(look.main_verify, VERIFY, 'one')
        self.assertEqual((code, out), (0, (
            f'part 0 of one of vm1 at {A}: good\n'
            f'part 1 of one of vm1 at {B}: good\n')))

    def test_server_without_it(self):
        """Is no reason to tell nothing of the others."""
        self.play(Played(C), Played(A, [checkpoint(part=0)]),
                  Played(B, [checkpoint(part=1)]))
        for main, name in ((look.main_list, LIST), (look.main_show, SHOW),
                           (look.main_verify, VERIFY)):
            for vm in ('--vm', 'vm1'), ():
                code, out, err = self.call(main, name, vm=vm)
                self.assertEqual((code, err), (0, ''), name)
                self.assertIn('one', out)
        code, out, err = self.call(look.main_list, LIST, vm=('--vm', 'vm2'))
        self.assertEqual((code, out), (1, ''))
        self.assertIn("there is no checkpoint of 'vm2'", err)

    def test_part_missing(self):
        self.play(Played(A, [checkpoint(part=1)]), Played(B))
        why = 'not whole: part 0 of 2'
        for main, name in ((look.main_list, LIST), (look.main_show, SHOW)):
            code, out, _ = self.call(main, name)
            self.assertIn(why, out)
        code, _, err = self.call(look.main_verify, VERIFY)
        self.assertEqual(code, 1)
        self.assertIn(why, err)
        self.assertNotIn('verify', self.servers[A].commands())

    def test_prune(self):
        self.play_whole()
        self.servers[A].has.append(checkpoint('new', 2, 0, of=OTHER))
        self.servers[B].has.append(checkpoint('new', 2, 1, of=OTHER))
        self.servers[B].has.append(checkpoint('rest', 3, 1, of='set-3'))
        code, out, _ = self.call(look.main_prune, PRUNE, '--keep', '1',
                                 '--json')
        self.assertEqual((code, json.loads(out)), (0, {A: ['one'],
                                                       B: ['one']}))
        self.assertEqual([c['name'] for c in self.servers[B].has],
                         ['new', 'rest'])

    def test_removed_as_wholes(self):
        """The head first: else it would promise a set that is not whole."""
        self.play(Played(A, [checkpoint(part=1)]),
                  Played(B, [checkpoint(part=0)], dies=('remove',)),
                  Played(C))
        code, _, err = self.call(look.main_remove, REMOVE, 'one')
        self.assertEqual((code, err.count('connection is lost')), (1, 1))
        self.assertTrue(self.servers[A].has)
        self.servers[B].dies = ()
        code, out, _ = self.call(look.main_remove, REMOVE, 'one')
        self.assertEqual(out, f'Removed one from {A}\nRemoved one from {B}\n')
        code, _, err = self.call(look.main_remove, REMOVE, 'one')
        self.assertIn("there is no checkpoint of 'vm1'", err)

    def test_prune_uncommitted(self):
        """However new they are."""
        self.play_whole()
        self.servers[B].has.append(checkpoint(
            'rest', 3, 1, of=OTHER, **{'head-id': f'id of {A}'}))
        code, out, _ = self.call(look.main_prune, PRUNE, '--keep', '1')
        self.assertEqual((code, out), (0, f'Removed rest from {B}\n'))

    def test_prune_without_sets(self):
        """By the server."""
        self.play(Played(A, [checkpoint(), checkpoint('new', 2)]))
        self.call(look.main_prune, PRUNE, '--keep', '1')
        self.assertIn('prune', self.servers[A].commands())


class Ends:
    """A Serving."""

    def __init__(self, end=None):
        self.end, self.told, self.killed = end, {'restore': 1}, False

    def ended(self):
        return self.end

    def pump(self):
        pass

    def kill(self):
        self.killed = True


class Watching(Case):
    def prune(self, *servers):
        """Returns what "watch --keep 1" says that it has removed, and where
        it could not."""
        self.play(*servers)
        its = watch.AtServers(argparse.Namespace(
            server=list(self.servers), parts=2, level=None, bandwidth=None,
            bound=None, set=[], keep=1, tls=None))
        its.known({'name': 'new', 'vm': 'vm1', 'server': A, 'parts': [A, B]})
        failures = []
        removed = its.prune(None, lambda: None, lambda why, what:
                            failures.append(str(why)))
        return removed, failures

    def has(self, address):
        return [c['name'] for c in self.servers[address].has]

    def test_known(self):
        known = watch.AtServers.known(mock.Mock(), {
            'name': 'one', 'vm': 'vm1', 'server': A, 'parts': [A, B]})
        self.assertEqual(known['TLM_SERVER'], f'{A},{B}')

    def test_as_wholes(self):
        self.assertEqual(self.prune(
            Played(A, [checkpoint(part=0), checkpoint('new', 2, 1, of=OTHER)]),
            Played(B, [checkpoint(part=1), checkpoint('new', 2, 0, of=OTHER)]),
            Played(C, refuses={'list': 'no virtual machine'})), (['one'], []))
        self.assertEqual((self.has(A), self.has(B)), (['new'], ['new']))

    def test_server_gone(self):
        """What it has stays, and what takes its place is no reason to remove
        the last set that is whole."""
        parts = [checkpoint(part=0), checkpoint('new', 2, 0, of=OTHER)]
        removed, (why,) = self.prune(
            Played(A, parts), Played(B, [checkpoint(part=1)]),
            Played(C, dies=('list',)))
        self.assertEqual(removed, [])
        self.assertIn(C, why)
        self.assertEqual((self.has(A), self.has(B)), (['one', 'new'], ['one']))

    def test_half_removed(self):
        """The head is gone for now: nothing else is removed."""
        removed, (why,) = self.prune(
            Played(A, [checkpoint(part=1), checkpoint('new', 2, 1, of=OTHER)]),
            Played(B, [checkpoint(part=0), checkpoint('new', 2, 0, of=OTHER)],
                   dies=('remove',)))
        self.assertIn('lost', why)
        self.assertEqual(self.has(A), ['one', 'new'])


class MakingWay(Case):
    """For a checkpoint under the name of a part that was kept."""

    def make_way(self, *servers, others=(), head=A):
        """Returns what B, which has the part, has afterwards."""
        self.play(Played(B, [checkpoint(
            part=1, **({'head-id': f'id of {head}'} if head else {}))]),
            *servers)
        with Receivers([B], None) as receivers:
            receivers.make_way(others, 'vm1', 'one')
        return self.servers[B].has

    def test_never_committed(self):
        self.assertFalse(self.make_way(Played(A), others=[A]))

    def test_kept(self):
        for servers in ([Played(A, [checkpoint(part=0)])],      # committed
                        [Played(A, goes_on=SET)],
                        [Played(A, dies=('list',))],
                        [Played(A, refuses={'outcome': 'too old'})],
                        [Played(C)]):                           # another head
            others = [s.address for s in servers]
            self.assertTrue(self.make_way(*servers, others=others))
        self.assertTrue(self.make_way(Played(A), others=[A], head=None))

    def test_other_name(self):
        """What is not in the way is not asked about."""
        self.play(Played(A), Played(B, [checkpoint('two', part=1)]))
        with Receivers([B], None) as receivers:
            receivers.make_way([A], 'vm1', 'one')
        self.assertEqual(self.servers[A].commands(), [])
        self.assertEqual(self.servers[B].commands(), ['list'])


class Restoring(Case):
    def args(self, **more):
        return argparse.Namespace(**{
            'server': list(self.servers), 'vm': 'vm1', 'name': 'one',
            'channels': 2, 'instant': False, 'domain': None, 'to': None,
            'tls': None, 'tls_hostname': None, 'allow_plain': False, **more})

    def origin(self, **more):
        with mock.patch.object(fromparts.FromServer, '_find_own',
                               lambda _: None):
            return fromparts.of(self.args(**more))

    def test_parts(self):
        """All servers are told of the same set, and channels for each."""
        self.play(*(Played(a, [checkpoint(part=n, parts=3)])
                    for n, a in zip((2, 0, 1), ADDRESSES)))
        origin = self.origin()
        self.assertEqual(origin.channels, 3)
        with mock.patch.object(fromparts, 'Serving') as serving:
            origin.serve('unix:/x', whole=True, channels=3)
        self.assertEqual([c.args[0] for c in serving.call_args_list],
                         [B, C, A])
        for call in serving.call_args_list:
            self.assertEqual(call.args[2], {
                'vm': 'vm1', 'name': 'one', 'to': 'unix:/x', 'set': SET,
                'whole': True, 'channels': 3})

    def test_refused(self):
        """Before anybody is told to do anything."""
        self.play_whole()
        for more, why in (({'instant': True}, 'whole only'),
                          ({'to': 'tcp:x:1', 'channels': 1}, '--channels')):
            self.assertRaisesRegex(MigrateError, why, self.origin, **more)
        for has in ([], [checkpoint(part=1, of=OTHER)]):
            self.servers[B].has = has
            self.assertRaisesRegex(MigrateError, 'not whole: part',
                                   self.origin)
        self.assertEqual({c for s in self.servers.values()
                          for c in s.commands()}, {'show', 'list'})

    def test_not_in_parts(self):
        self.play(Played(A, [checkpoint()]))
        self.assertNotIsInstance(self.origin(), fromparts.FromParts)

    def test_one_fails(self):
        """Then all fail."""
        head, other = Ends(), Ends()
        together = fromparts.Together({A: lambda: head, B: lambda: other},
                                      False)
        self.assertIsNone(together.ended())
        head.end = ''
        self.assertIsNone(together.ended())
        other.end = ''
        self.assertEqual(together.ended(), '')
        head.end, other.end = None, 'disk on fire'
        self.assertEqual(together.ended(), f'{B}: disk on fire')
        together.kill()
        self.assertTrue(head.killed and other.killed)

    def test_head_first(self):
        """With TLS nobody else connects before it has."""
        head, other, started = Ends(), Ends(), []
        together = fromparts.Together(
            {A: lambda: head, B: lambda: started.append(B) or other}, True)
        for told in ({}, {'state': 'connecting'}, {'state': 'lost'}):
            head.told = told
            together.pump()
            self.assertEqual(started, [])
        head.end = ''               # it cannot have got all from this one
        self.assertIsNone(together.ended())
        head.told, head.end = {'state': 'serving'}, None
        for _ in range(2):
            together.pump()
            self.assertEqual(started, [B])
        head.end = other.end = ''
        self.assertEqual(together.ended(), '')


class OtherDisks(unittest.TestCase):
    def test_not_loaded(self):
        """A checkpoint of the same name at the next server."""
        shown = {'source': {'disks': ['one']}}
        its = fromserver.FromServer.__new__(fromserver.FromServer)
        its.shown, its.vm, its.name, its.tls = shown, 'vm', 'a', None
        its.encryption = encryption.Encryption()
        its.servers, its.turn = ['x:1'], 0
        for there, goes in (('one', True), ('two', False)):
            server = mock.MagicMock()
            server.return_value.__enter__.return_value.return_value = {
                'source': {'disks': [there]}}
            with mock.patch.object(fromserver.client, 'MemServer', server), \
                    mock.patch.object(fromserver, 'Serving') as serving:
                end = its.serve('unix:/x').ended()
            self.assertEqual(serving.called, goes)
            if not goes:
                self.assertIn('has other disks', end)


if __name__ == '__main__':
    unittest.main()
