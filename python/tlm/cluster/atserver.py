# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM of a set whose checkpoint goes to a memory server.

The server keeps it as soon as it has all of it, which QEMU hears by the return
path; it belongs to a set only when the set's manifest says so.  Its name is
the set's alone, and the log says it before QEMU is told to send.  So whoever
gives the set up, or recovers, can remove it.  No older one goes for it: sets
are removed as wholes.
"""

import asyncio
import contextlib

from ..checkpoint import copies, machine
from ..checkpoint.pulse import SILENT_S, Pulse
from ..checkpoint.toserver import CREDENTIALS
from ..errors import MigrateError, Refused
from ..memserver import client
from ..memserver.look import bytes_of
from . import hosts, servers
from .channel import noted
from .member import CAPS, Member
from .recover import TLS

HOSTNAME, CHANNELS = 'tls-hostname', 'multifd-channels'
ID_LENGTH, NAME_MAX = 36, 100   # a UUID's; a server's


def name_at_server(name, set_id):
    return f'{name[:NAME_MAX - ID_LENGTH - 1]}-{set_id}'


class AtServer(Member):
    """@addresses: of servers; the first that takes it gets it."""

    wanted = {**CAPS, 'multifd': True, 'return-path': True}

    def __init__(self, vm, addresses, tls, params):
        # What is to be put back; the values come with the server
        super().__init__(vm, {**params, **({TLS: '', HOSTNAME: ''} if tls
                                           else {})})
        self.addresses, self.tls = addresses, tls
        self.channels = self.ram = self.at = self.uri = None
        self.server = self.pulse = self.announcing = None
        self.has_credentials = False

    def reserved(self, _name):
        return contextlib.nullcontext()     # it has the set's id in it

    @staticmethod
    def where(_sets):
        return {}

    def _check_space(self, qmp):
        """The server does."""
        self.ram = sum(machine.ram_blocks(qmp))

    async def _read_settings(self):
        await super()._read_settings()
        self.channels = self.params.get(CHANNELS) or (await self.channel(
            'query-migrate-parameters'))[CHANNELS]

    async def announce(self, name, set_id):
        # Whoever gives up must not leave what comes to be only then
        self.announcing = noted(asyncio.ensure_future(asyncio.to_thread(
            self._announce, name_at_server(name, set_id))))
        await asyncio.shield(self.announcing)
        return self.at

    def _announce(self, name):
        failures = []
        for address in self.addresses:
            try:
                self._announce_at(address, name)
                return
            except MigrateError as e:
                failures.append(str(e))
        raise MigrateError('\n'.join(failures))

    def _announce_at(self, address, name):
        server = client.MemServer(address, self.tls)
        try:
            server.patience = SILENT_S
            session = server(
                'announce', vm=self.name, name=name, ram=self.ram,
                channels=self.channels, keep_all=True,
                source=copies.source(self.known))
            self._check_reached(server, session, address)
        except BaseException:
            server.close()
            raise
        self.server = server
        self.pulse = Pulse(server, session['session'])
        self.uri = client.reachable(session['uri'], address)
        self.at = {'address': address, 'vm': self.name, 'name': name,
                   'tls': servers.told_of_tls(self.tls),
                   'session': session['session']}

    def _check_reached(self, server, session, address):
        try:
            hosts.check_reached(client.reachable(session['uri'], address),
                                self.channel.elsewhere, address)
        except MigrateError:
            server('cancel', session=session['session'])
            raise

    async def _target(self, _name):
        """The URI for QEMU."""
        if self.tls:
            await self.channel('object-add', id=CREDENTIALS,
                               **self.tls.properties())
            self.has_credentials = True
            host = client.host_of(self.at['address'])
            self.params = {**self.params, TLS: CREDENTIALS,
                           HOSTNAME: host[0] if host else ''}
        return self.uri

    async def _forget_target(self):
        if self.has_credentials:
            with contextlib.suppress(Refused):
                await self.channel('object-del', id=CREDENTIALS)
            self.has_credentials = False

    async def look(self):
        if self.pulse and self.started:
            self.pulse.beat()       # a server that hangs breaks nothing
        return await super().look()

    async def why(self):
        """With what the server says of it."""
        pulse, self.pulse = self.pulse, None    # nobody else asks now
        why = await super().why()
        try:
            said = (await asyncio.to_thread(pulse, 'status')).get(
                'error') if pulse else None
        except MigrateError as e:
            said = str(e)
        return f"{why}\n{self.at['address']}: {said}" if said else why

    def collect(self, _name, more, going_on):
        """In a thread: what the server has."""
        self.pulse.end()
        shown = self.server('show', vm=self.at['vm'], name=self.at['name'])
        self._close()
        going_on()
        self.content = {**self.content, **more}
        self.at = {**{k: v for k, v in self.at.items() if k != 'session'},
                   'created': shown['created'], 'size': bytes_of(shown)}

    async def abort(self):
        if self.announcing:
            await asyncio.wait([self.announcing])
        # What its server does is seen by discard()
        self.pulse = None
        await super().abort()

    def discard(self, _name):
        """Nothing of it is left at its server."""
        self._close()
        if self.at:
            servers.clear(self.at)

    def _close(self):
        server, self.server, self.pulse = self.server, None, None
        if server:
            server.close()

    def figures(self):
        return {'server': self.at, 'machine': self.known, **super().figures()}
