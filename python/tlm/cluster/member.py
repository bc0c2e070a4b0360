# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM of a set that is being saved: it is started, held, stopped, released.

What QEMU says, by event or when asked, is in "state" and "stage"; whoever
waits for it is called by on_change.  Where its checkpoint goes is for those
that are derived from it (tofile.py, atserver.py).
"""

import asyncio
import contextlib

from ..checkpoint import machine, saver
from ..checkpoint.run import LEASE, LEASE_MS, figures
from ..errors import MigrateError, Refused
from ..status import FINAL, Status, stage_told, status_told
from .channel import Gone, in_time, noted
from . import disks, packets
from .domain import channel_of
from .recover import set_all, release

# Stages of a checkpoint whose guest has been stopped
STOPPED = ('stop', 'flush')
CAPS = {'events': True, 'pause-before-switchover': True}
# What the set's manifest repeats of a member's
TOLD = ('parent', 'since', 'full-reason', 'disks')
CONTINUE, AT_GATE = 'migrate-continue', {'state': 'pre-switchover'}
ABORT_S = 10                # for a member to say that it runs on
TIDY_S = 0.02


def microseconds(event):
    return event['timestamp']['seconds'] * 1_000_000 + \
        event['timestamp']['microseconds']


class Member:
    wanted = CAPS               # capabilities, for the time of the save

    def __init__(self, vm, params):
        self.name, self.vm = vm.name, vm
        self.params = params
        self.channel = channel_of(vm, self._told)
        self.on_change = None
        self.old = {}               # settings, as they were
        self.caps = {}              # all of them, as they are for the run
        self.known = self.content = None
        self.answers = []
        self.held = packets.Held(self.channel)
        self.disks = disks.of(vm, self.channel)
        self.started = False
        self._begin()

    def _begin(self):
        self.state, self.stage = 'none', None
        self.stopped_us = self.resumed_us = None

    def _told(self, event):
        """An event; None: the connection is lost."""
        if event:
            kind = event['event']
            self.state = status_told(event) or self.state
            self.stage = stage_told(event) or self.stage
            if kind == 'STOP':
                self.stopped_us = microseconds(event)
            elif kind == 'RESUME':
                self.resumed_us = microseconds(event)
        self._changed()

    def _changed(self):
        if self.on_change:
            self.on_change(self)

    async def look(self):
        status = Status(await self.channel('query-migrate'))
        self.state = status.status
        if status.tlm:
            self.stage = status.tlm.stage
        self._changed()
        return status

    def failed(self):
        """Its checkpoint cannot become one any more."""
        return self.channel.lost or \
            self.state in ('failed', 'cancelling', 'cancelled')

    def over(self, there):
        """Its checkpoint has ended, and did not come there."""
        return self.state == 'completed' and not there(self)

    async def why(self):
        """It has failed."""
        if self.channel.lost:
            return 'QEMU has closed the connection'
        error = (await self.look()).error
        return {'completed': 'its checkpoint did not wait for the others',
                'failed': error or 'its checkpoint has failed'}.get(
                    self.state, error or 'its checkpoint was cancelled by '
                    'another client')

    def stands(self):
        """It has stopped, and may have gone on if its packets are held."""
        if not self.held.names:
            return self.state == 'pre-switchover'
        return self.stage in STOPPED or self.state == 'completed'

    # The steps

    async def connect(self):
        await self.channel.open()
        await self.channel.check_pause()
        await self._check_target()
        self.known = await self.channel.describe(self._describe)
        if (await self.look()).status not in ('none', *FINAL):
            raise MigrateError('a migration is under way')
        await self._read_settings()

    def _describe(self, qmp):
        saver.check(qmp)
        self._check_space(qmp)
        return machine.describe(qmp)

    async def _check_target(self):
        """Raises MigrateError if it is not where QEMU would look for it."""

    def _check_space(self, qmp):
        """In a thread; raises MigrateError if there is too little of it."""
        raise NotImplementedError

    async def _read_settings(self):
        caps = {c['capability']: c['state'] for c in
                await self.channel('query-migrate-capabilities')}
        known = await self.channel('query-migrate-parameters')
        for name in self.params:
            if name not in known:
                raise MigrateError(f"this QEMU has no parameter '{name}'")
        self.old = {'caps': {c: caps.get(c, False) for c in
                             self.wanted},
                    'params': {p: known[p] for p in self.params}}
        self.caps = {**caps, **self.wanted}

    async def make_filters(self, interval_us):
        """So that it need not stand still until all do; if that can be."""
        if self.disks.NO_HOLD:
            self.held.why = self.disks.NO_HOLD
        else:
            await self.held.make(self.known['command'], interval_us)
        self.caps['pause-before-switchover'] = not self.held.names

    async def announce(self, _name, _set_id):
        """Returns what has to be known to remove the checkpoint, where that
        is not in a directory.  None: it is."""
        return None

    async def start(self, name, arguments):
        """It writes, until it is ready, and then holds."""
        uri = await self._target(name)
        await set_all(self.channel, {
            'caps': {c: self.caps[c] for c in self.wanted},
            'params': self.params})
        if self.disks.pairs:
            arguments = {**arguments, 'disks': [
                {'node': node, 'overlay': overlay}
                for node, overlay in self.disks.pairs]}
        if self.disks.switch:
            # It waits for libvirt, too
            arguments = {**arguments, 'gate-timeout': saver.GATE_TIMEOUT_MS +
                         arguments['gate-timeout']}
        self._begin()
        self.started = True
        await self._write(uri=uri, hold=True, **arguments)

    async def _write(self, **arguments):
        """QEMU ends it if this program does, whatever it waits for then."""
        try:
            await self.channel('tlm-checkpoint', **arguments,
                               **{LEASE: LEASE_MS})
        except Refused as e:
            if LEASE not in str(e):     # that is newer than this QEMU
                raise
            await self.channel('tlm-checkpoint', **arguments)

    def cut(self):
        self.answers = [
            *self.held.switch(packets.ON),
            self.channel.send('migrate-tlm-switchover')]

    def release(self):
        if self.held.names:
            self.answers = [*self.held.ask(), *self.held.switch(packets.OFF)]
        elif self.disks.switch:
            self.answers = [noted(asyncio.ensure_future(
                self.channel.run(self._switch)))]
        else:
            self.answers = [self.channel.send(CONTINUE, **AT_GATE)]

    def _switch(self, qmp):
        """In a thread: all stand still, and this one until its disks are on
        the overlays."""
        self.disks.switch()
        return qmp(CONTINUE, **AT_GATE)

    async def answered(self):
        """To cut() or release(): it was there, and did it."""
        try:
            said = await in_time(asyncio.gather(*self.answers), 'the cut')
            if packets.OFF in said:
                raise MigrateError('another client has let its packets out')
        except MigrateError:
            if self.failed():
                raise MigrateError(await self.why()) from None
            raise

    async def confirm(self):
        """Tells whoever keeps it what is known since the cut."""

    async def end(self):
        """It is complete: its figures, and its settings as they were."""
        status = await self.look()
        await self._idle()
        self.content = {'machine': self.known, **figures(status)}
        used = self.disks.identified()
        if used:
            self.content['disks'] = used
        await self._tidy()

    async def _tidy(self):
        """Its settings have their old values, and the socket is free."""
        await self.held.remove()
        if self.old:
            await set_all(self.channel, self.old)
        await self._forget_target()
        self.started, self.old = False, {}
        self.channel.close()

    async def _idle(self):
        """QEMU has put back the capabilities that it had set itself: done
        later it would undo what is set now."""
        while {c['capability']: c['state'] for c in await self.channel(
                'query-migrate-capabilities')} != self.caps:
            await asyncio.sleep(TIDY_S)

    async def abort(self):
        """Runs on, as it was; raises MigrateError if that is not known."""
        try:
            async with asyncio.timeout(ABORT_S):
                if not await self._undone() and self.old:
                    with contextlib.suppress(Gone):
                        await release(self.vm, self.old, self.disks.made,
                                      lambda _: self.started)
        except TimeoutError:
            raise MigrateError('no answer from QEMU') from None
        finally:
            self.channel.close()

    async def _undone(self):
        """False: the connection is lost."""
        try:
            if self.started and not self.channel.lost:
                await self._cancel()
            await self.disks.remove()
            await self._tidy()
        except MigrateError:
            if not self.channel.lost:
                raise
        return not self.channel.lost

    async def _cancel(self):
        with contextlib.suppress(MigrateError):
            await self.channel('migrate_cancel')
        while (await self.look()).status not in ('none', *FINAL):
            await asyncio.sleep(TIDY_S)
        await self._idle()

    def figures(self):
        """What the set's manifest says of it, but for where.  libvirt does
        not tell when the guest stopped; QEMU has counted for how long."""
        told = self.stopped_us and self.resumed_us
        return {'stopped-us': self.stopped_us, 'resumed-us': self.resumed_us,
                'pause-us': self.resumed_us - self.stopped_us if told else
                self.content['pause-us'] if self.known['running'] else 0,
                **({'gate': self.held.why} if self.held.why else {}),
                **{k: self.content[k] for k in TOLD if k in self.content}}
