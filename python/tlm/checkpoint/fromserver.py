# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint of a tlm-memserver, as what a QEMU is restored from."""

import contextlib
import json
import shlex
import socket
import time

from ..errors import MigrateError
from ..memserver import client
from ..memserver.look import the_only_vm
from .encryption import Encryption
from .fromfile import END_S, Load, until_loaded
from .server import HANGS_S, Failed, Telling

ASK_S = 0.05                    # how often it is asked how it goes
STOP_S = 0.5
LOOPBACK = socket.AF_INET, '127.0.0.1'


class Serving(Telling):
    """A restore that a server does; it connects to QEMU.  What goes wrong is
    told by ended().  @patience: how long it may be without an answer, in s"""

    def __init__(self, address, tls, wish, patience=float('inf')):
        super().__init__()
        self.address, self.patience = address, patience
        self._why = self._client = None
        self._waits, self._asked = True, time.monotonic()
        self._sent = self._refused = False
        try:
            self._client = client.MemServer(address, tls)
            self._client.send('restore', **wish)
            self._sent = True
        except MigrateError as e:
            self._why = str(e)

    def fileno(self):
        return self._client.fileno()

    def pump(self):
        """Takes what it has said, and asks again, without waiting."""
        if self.ended() is not None:
            return
        try:
            told = self._client.answer() if self._waits else None
            if told:
                self.take(told)
                self._waits = False
            elif self._waits and \
                    time.monotonic() - self._asked > self.patience:
                self._why = f'{self.address}: no answer for {self.patience} s'
            if not self._waits and time.monotonic() - self._asked > ASK_S:
                self._client.send('restore-status',
                                  restore=self.told['restore'])
                self._waits, self._asked = True, time.monotonic()
        except MigrateError as e:
            self._why = str(e)
            self._refused = isinstance(e, client.Refused) and not self.told

    def may_have_begun(self):
        """A server connects to QEMU before it says so."""
        return self._sent and not self._refused

    def ended(self):
        """None, '' (QEMU has got all), or why it has ended."""
        if self._why or self.told.get('state') == 'lost':
            return self._why or self.told.get('error') or 'it was lost'
        return '' if self.told.get('state') == 'ended' else None

    def kill(self):
        if not self._client:
            return
        with contextlib.suppress(MigrateError):
            if self.ended() is None and 'restore' in self.told:
                self._client.send('restore-stop', restore=self.told['restore'])
                self._client.answer(STOP_S)
        self._client.close()


def _own_address(host, port):
    """Of this host as @host sees it: (family, address)."""
    with contextlib.closing(socket.create_connection((host, port))) as s:
        return s.family, s.getsockname()[0]


def _free_port(family, own):
    with contextlib.closing(socket.socket(family)) as s:
        s.bind((own, 0))
        return s.getsockname()[1]


class FromServer:
    """@args: the options of "restore"; the first server that has it says what
    it is, each that has the same one can serve it.  A QEMU whose "elsewhere"
    is not None is on another host, which says where servers find it."""

    def __init__(self, args):
        self.servers, self.tls = args.server, client.tls_of(args)
        self.turn, self.channels = 0, args.channels
        self.wholes, self.ticket = 0, None      # tried; what has begun
        self.shown = self._show(args)
        self.vm, self.name = self.shown['vm'], self.shown['name']
        self.own = self._find_own()     # as TCP servers see it, or None
        self.encryption = Encryption(self.tls, args.tls_hostname,
                                     args.allow_plain)
        if self.own and not args.to:
            self.encryption.check_files()

    def _show(self, args):
        failures = []
        for self.turn, address in enumerate(self.servers):
            try:
                with client.MemServer(address, self.tls) as server:
                    return server('show', vm=args.vm or the_only_vm(server),
                                  name=args.name)
            except MigrateError as e:
                failures.append(str(e))
        raise MigrateError('\n'.join(failures))

    @property
    def machine(self):
        """As a manifest has it."""
        return self.shown['source']

    def check(self):
        pass                    # it has answered

    def close(self):
        pass

    def _find_own(self):
        """None: the servers that are there are of this host, and reach Unix
        sockets."""
        for host in filter(None, map(client.host_of, self.servers)):
            try:
                return _own_address(*host)
            except OSError:
                pass            # the one that has it may be another
        return None

    def address(self, qemu, name):
        if not self.own and qemu.dir:
            return f'unix:{qemu.dir}/{name}'
        family, own = self.own or LOOPBACK
        host = f'[{own}]' if ':' in own else own
        return f'tcp:{host}:{_free_port(family, own)}'

    def _next(self):
        """The servers in turn."""
        self.turn += 1
        return self.servers[(self.turn - 1) % len(self.servers)]

    def _serving(self, wish, *patience):
        """By the next server."""
        address = self._next()
        why = self._other_disks(address)
        return Failed(why) if why else Serving(address, self.tls, {
            'vm': self.vm, 'name': self.name, **wish}, *patience)

    def _other_disks(self, address):
        """Why its checkpoint, which may only have the same name, does not go
        with the disks that QEMU has got; None: it does."""
        disks = self.shown['source'].get('disks')
        if not disks:
            return None
        try:
            with client.MemServer(address, self.tls) as server:
                shown = server('show', vm=self.vm, name=self.name)
        except MigrateError as e:
            return str(e)
        return None if shown['source'].get('disks') == disks else \
            f"{address}: its '{self.name}' has other disks"

    def serve(self, uri, **wish):
        return self._serving({'to': uri, **self.encryption.wish(uri), **wish})

    def serve_whole(self, uri, **wish):
        """By the next server that has the same as the one before."""
        self.wholes += 1
        return self._serving({
            'to': uri, **self.encryption.wish(uri), 'whole': True,
            'channels': self.channels, 'expect': self.ticket, **wish}, HANGS_S)

    def another(self):
        """Is there a server that no whole restore has been tried from, after
        one has failed?"""
        return 0 < self.wholes < len(self.servers)

    def told(self):
        return {'servers': self.wholes} if self.wholes > 1 else {}

    def load(self, qemu):
        uri, serving = qemu.elsewhere.wait_at if qemu.elsewhere else \
            self.address(qemu, 'restore'), None
        try:
            with self.encryption.of(qemu.qmp, uri), \
                    Load(qemu.qmp, {'multifd': True},
                         {'multifd-channels': self.channels}) as loading:
                loading.start(uri)
                serving = self.serve_whole(
                    qemu.elsewhere.found_at(qemu.qmp) if qemu.elsewhere
                    else uri, uuid=qemu.qmp('query-uuid')['UUID'])
                until_loaded(qemu, loading, lambda: self._look(serving))
                serving.kill()
        except MigrateError as e:
            why = str(e)
            if serving:
                serving.pump()
                self.ticket = serving.ticket or self.ticket
                why = serving.ended() or why
                serving.kill()
            try:
                qemu.check(END_S)   # it ends when it cannot load
            except MigrateError as ended:
                why = f'{why}\n{ended}'
            raise MigrateError(why) from None
        except KeyboardInterrupt:
            if serving:
                serving.kill()
            raise

    @staticmethod
    def _look(serving):
        serving.pump()
        if serving.ended():
            raise MigrateError(serving.ended())

    def by_hand(self, uri, **wish):
        """For each server, one of which will do."""
        wish = {**self.encryption.wish(uri), **wish}
        line = json.dumps({'execute': 'restore', 'arguments': {
            'vm': self.vm, 'name': self.name, 'to': uri,
            **{k.replace('_', '-'): v for k, v in wish.items() if v}}})
        tls = self.tls.words() if self.tls else []
        return '\n  '.join(
            f'echo {shlex.quote(line)} | ' + shlex.join(
                [client.NAME, '--control', address, *tls, 'pipe'])
            for address in self.servers)
