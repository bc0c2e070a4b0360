# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM of a set whose checkpoint goes to a memory server.

The server keeps it as soon as it has all of it, which QEMU hears by the return
path; it belongs to a set only when the set's manifest says so.  Its name is
the set's alone, and the log says it before QEMU is told to send.  So whoever
gives the set up, or recovers, can remove it.  No older one goes for it: sets
are removed as wholes.

An increment goes to the server that has the one before.  Each is whole there,
so sets do not need each other.  What is known since the cut alone, whether it
is one, and what its disks are, is told by confirm(): before that the server
commits nothing.
"""

import asyncio
import contextlib

from ..checkpoint import copies, machine, serverdisks
from ..checkpoint.pulse import SILENT_S, Pulse
from ..checkpoint.toserver import CREDENTIALS
from ..errors import MigrateError, Refused
from ..memserver import client
from ..memserver.look import bytes_of
from . import hosts, servers
from .channel import noted
from .member import CAPS, TIDY_S, Member
from .recover import TLS

HOSTNAME, CHANNELS = 'tls-hostname', 'multifd-channels'
ID_LENGTH, NAME_MAX = 36, 100   # a UUID's; a server's


def name_at_server(name, set_id):
    return f'{name[:NAME_MAX - ID_LENGTH - 1]}-{set_id}'


class AtServer(Member):
    """@addresses: of servers; the first that takes it gets it.
    @incremental: only what has changed since the newest that one has"""

    wanted = {**CAPS, 'multifd': True, 'return-path': True}

    def __init__(self, vm, addresses, tls, params, incremental=False):
        # What is to be put back; the values come with the server
        super().__init__(vm, {**params, **({TLS: '', HOSTNAME: ''} if tls
                                           else {})})
        self.addresses, self.tls = addresses, tls
        self.channels = self.ram = self.at = self.uri = None
        self.server = self.pulse = self.announcing = None
        self.has_credentials = False
        self.incremental, self.parents, self.parent = incremental, {}, None
        self.locks = contextlib.ExitStack()     # of its images
        self.confirming = False

    def reserved(self, _name):
        return self.locks       # the name is free: it has the set's id in it

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

    async def make_overlays(self, name):
        """Of its disks, if that was asked for."""
        if not self.vm.disk:
            return
        records = await self.channel.run(lambda qmp: serverdisks.of_running(
            qmp, self.name, serverdisks.names(self.addresses, self.tls),
            self.known['directory']))
        self.locks.enter_context(records.locked())
        await self.disks.make(name, self.known, records)

    async def announce(self, name, set_id):
        # Whoever gives up must not leave what comes to be only then
        self.announcing = noted(asyncio.ensure_future(asyncio.to_thread(
            self._announce, name_at_server(name, set_id))))
        await asyncio.shield(self.announcing)
        return self.at

    def _announce(self, name):
        failures = []
        for address in self._in_turn():
            try:
                self._announce_at(address, name)
                return
            except MigrateError as e:
                failures.append(str(e))
        raise MigrateError('\n'.join(failures))

    def _in_turn(self):
        """The servers; who has the newest that can be a parent comes first."""
        for address in self.addresses if self.incremental else ():
            with contextlib.suppress(MigrateError), \
                    client.MemServer(address, self.tls) as server:
                server.patience = SILENT_S
                self.parents.update({
                    address: c for c in server('list')
                    if c['vm'] == self.name and c.get('identity')})
        with_one = sorted(self.parents, reverse=True,
                          key=lambda a: self.parents[a]['created'])
        return [*with_one, *(a for a in self.addresses if a not in with_one)]

    def _announce_at(self, address, name):
        server = client.MemServer(address, self.tls)
        try:
            server.patience = SILENT_S
            self.parent = self.parents.get(address)
            self.confirming = bool(self.parent or self.disks.used)
            session = server(
                'announce', vm=self.name, name=name, ram=self.ram,
                channels=self.channels, keep_all=True,
                parent=self.parent and self.parent['name'],
                confirm=self.confirming or None,
                senders=[self.vm.sender] if self.vm.sender else None,
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

    async def _write(self, **arguments):
        """Incremental, if that was asked for and can be."""
        if not self.parent:
            await super()._write(**arguments)
            return
        try:
            await super()._write(**arguments, parent=self.parent['identity'])
        except Refused:
            # Not by this VM; and if that was not why, it is refused again
            self.parent = None
            del arguments['incremental']
            await super()._write(**arguments)

    def _is_known(self, tlm):
        """Since the cut."""
        if not tlm or self.parent and not tlm.parent and not tlm.full_reason:
            return False
        # If libvirt is to switch them, it has
        return not self.disks.pairs or tlm.disks_switched

    async def confirm(self):
        if not self.confirming:
            return
        while not self._is_known((await self.look()).tlm):
            if self.failed():
                raise MigrateError(await self.why())
            await asyncio.sleep(TIDY_S)
        tlm = (await self.look()).tlm
        if self.parent and tlm.parent != self.parent['identity']:
            self.parent = None
        await asyncio.to_thread(
            self.pulse, 'confirm', incremental=bool(self.parent),
            source=copies.source({**self.known,
                                  'disks': self.disks.identified()}))

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
        named = {'vm': self.at['vm'], 'name': self.at['name']}
        shown = self.server('show', **named)
        if self.content.get('generation'):
            self.server('identify', identity=self.content['generation'],
                        **named)
        self._close()
        going_on()
        since = {'since': self.parent['name'][:-ID_LENGTH - 1]} \
            if self.parent else {}
        self.content = {**self.content, **more, **since}
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
