# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory servers that receive one checkpoint: one, or one for each part.

    with Receivers(addresses, tls) as receivers:
        receivers.announce(vm=..., name=..., ...)
        Checkpoint(qmp, receivers.uri, ..., receivers.arguments())
        receivers.beat()                        # again and again meanwhile
        receivers.give_up()                     # if that fails
"""

import contextlib
import uuid

from ..errors import MigrateError
from ..memserver import client, removal
from .pulse import SILENT_S, Pulse

ANSWER_S = 10                   # of a server that has just failed


class Unable(MigrateError):
    """Some of the servers could not: @addresses."""

    def __init__(self, why, addresses):
        super().__init__(why)
        self.addresses = addresses


def channel(kind, uri):
    """For "migrate".  @uri: tcp:HOST:PORT, unix:PATH"""
    at = client.host_of(uri)
    where = {'type': 'inet', 'host': at[0], 'port': str(at[1])} if at else \
        {'type': 'unix', 'path': uri.removeprefix('unix:')}
    return {'channel-type': kind, 'addr': {'transport': 'socket', **where}}


class Receivers:
    """@addresses: of the servers, that of the head first."""

    def __init__(self, addresses, tls):
        self.addresses, self.tls = addresses, tls
        self.set = str(uuid.uuid4()) if len(addresses) > 1 else None
        self.servers, self.uris, self._pulses = [], [], []
        self._head_id = None
        self._open = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as opened:
            for address in self.addresses:
                with self._blaming(address):
                    server = opened.enter_context(
                        client.MemServer(address, self.tls))
                server.patience = SILENT_S
                self.servers.append(server)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_):
        self._open.close()

    @staticmethod
    @contextlib.contextmanager
    def _blaming(address):
        try:
            yield
        except MigrateError as e:
            raise Unable(str(e), [address]) from None

    @property
    def head(self):
        return self.servers[0]

    @property
    def uri(self):
        """Of the one server; None: there are parts."""
        return None if self.set else self.uris[0]

    def arguments(self):
        """For QEMU, beside the URI."""
        return {'channels': [channel('main', self.uris[0]),
                             *(channel('data', u) for u in self.uris)]} \
            if self.set else {}

    def make_way(self, others, vm, name, protected=False):
        """For a checkpoint of this name; see removal.  @others: addresses of
        servers."""
        found = {}
        for server in self.servers:
            with self._blaming(server.address):
                found[server] = removal.named(server, vm, name)
        return removal.make_way(found, others, self.tls, vm, name, protected)

    def parent(self, vm):
        """What the head shows of the newest that an increment can build on;
        None.  All of it is in memory here, each part where it was."""
        newest = next((c for c in reversed(self.head('list')) if
                       c['vm'] == vm and c.get('identity')), None)
        if newest and all(self._has(server, part, newest)
                          for part, server in enumerate(self.servers)):
            return newest
        return None

    def _has(self, server, part, parent):
        with self._blaming(server.address):
            shown = [c for c in server('list') if
                     (c['vm'], c['name']) == (parent['vm'], parent['name'])]
        return any(c['in-memory'] and 'parity' not in c and
                   c.get('set') == parent.get('set') and
                   (c.get('part', 0), c.get('parts', 1)) ==
                   (part, len(self.servers)) for c in shown)

    def _of_set(self, part):
        """What is announced of a part, beside the checkpoint."""
        more = {'set': self.set, 'part': part, 'parts': len(self.servers)}
        if part:
            # The head has the machine
            more.update(head=self.uris[0], head_id=self._head_id, source=None)
        else:
            self._head_id = self.head('whoami').get('id')
            if self.tls:        # the other servers connect to it, too
                more['senders'] = client.senders(self.servers[1:])
        return more

    def announce(self, **wish):
        """At all of them, or at none."""
        try:
            for part, server in enumerate(self.servers):
                with self._blaming(server.address):
                    more = self._of_set(part) if self.set else {}
                    session = server('announce', **{**wish, **more})
                self._pulses.append(Pulse(server, session['session']))
                self.uris.append(client.reachable(session['uri'],
                                                  server.address))
        except BaseException:
            self.give_up()
            raise

    def confirm(self, **what):
        for pulse in self._pulses:
            with self._blaming(pulse.address):
                pulse('confirm', **what)

    def beat(self):
        """Raises Unable if one is silent."""
        for pulse in self._pulses:
            with self._blaming(pulse.address):
                pulse.beat()

    def end(self):
        """The servers may be called directly afterwards."""
        for pulse in self._pulses:
            with self._blaming(pulse.address):
                pulse.end()

    def wait(self):
        """QEMU hears from the head that all have it; the others show it a
        moment later."""
        for pulse in self._pulses[1:]:
            with self._blaming(pulse.address):
                pulse('wait', 2 * ANSWER_S, timeout_ms=1000 * ANSWER_S)

    def give_up(self):
        """Ends all sessions.  Returns (what the servers say, those that say
        nothing any more)."""
        why, lost = [], []
        for pulse in self._pulses:
            try:
                said = pulse('status', ANSWER_S).get('error')
                why += [f'{pulse.address}: {said}'] if said else []
                with contextlib.suppress(client.Refused):
                    pulse('cancel', ANSWER_S)
                pulse('wait', 2 * ANSWER_S, timeout_ms=1000 * ANSWER_S)
            except MigrateError as e:
                why.append(str(e))
                lost.append(pulse.address)
        return why, lost
