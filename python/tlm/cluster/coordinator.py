# SPDX-License-Identifier: GPL-2.0-or-later
"""One set: all VMs are stopped before any is resumed.

    prepare   all write RAM while their guests run, then hold
    cut       all stop, and wait at QEMU's gate
    release   when all have said that they stand still: all go on
    complete  all files are on the disk
    collect   checksums, and the members' manifests
    commit    the set's manifest

Where packets are held (packets.py), a VM goes on at once, and "release" lets
its packets out.

Every message that a guest has received before the cut was sent before it, as
there is a moment at which all of them stand still.  Those on the way are
lost, and TCP sends them again.

A failure before the commit leaves nothing of the set, and all VMs running.
If the coordinator dies, QEMU's gate-timeout lets them go on.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import time
import uuid

from ..checkpoint import durable
from ..checkpoint.catalogue import MANIFEST
from ..errors import MigrateError
from . import journal
from .barrier import Barrier
from .channel import together
from .sets import LOG

# A VM must get its release before QEMU gives up, or lets packets out, also one
# that was the first to stop, and all others took the whole window
GATE_WINDOWS = 2


def clock():
    """In s; it goes on while this host sleeps and the VMs' do not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Coordinator:
    """@window: in ms; @arguments: of command tlm-checkpoint; @show is told
    of each step; @hold: packets rather than VMs, until all have stopped."""

    def __init__(self, sets, members, window, arguments,
                 show=lambda step: None, hold=False):
        self.sets, self.members, self.show = sets, members, show
        self.window, self.hold = window, hold
        self.arguments = {'gate-timeout': GATE_WINDOWS * window, **arguments}
        self.id = str(uuid.uuid4())
        self.ended = self.committed = False
        self.at = {}                # when a step was done: s, monotonic

    async def save(self, name):
        """Returns the set's manifest; by who holds the locks."""
        log = journal.Journal(self.sets.path(name, LOG))
        try:
            await self._save(name, log)
            return self._commit(name, log)
        except BaseException as e:
            if self.committed:
                raise
            left = await self._abort(name, log)
            if left and isinstance(e, MigrateError):
                raise MigrateError(f"{e}\n{left}") from None
            raise
        finally:
            log.close()

    async def _save(self, name, log):
        self._step('connect')
        await self._all(lambda m: m.connect())
        log.begin(name=name, id=self.id, members=[
            self._told_of(m) for m in self.members])
        log.note('settings', of={m.name: m.old for m in self.members})
        if self.hold:
            self._step('hold')
            await self._all(lambda m: m.make_filters(
                1000 * GATE_WINDOWS * self.window))
        if any(m.vm.disk for m in self.members):
            self._step('disks')
            await self._all(lambda m: m.make_overlays(name))
            log.note('overlays', of={
                m.name: m.disks.made for m in self.members})
        self._step('prepare')
        places = await self._all(lambda m: m.announce(name, self.id))
        if any(places):
            log.note('announced', of={
                m.name: place for m, place in
                zip(self.members, places, strict=True) if place})
        await self._prepare(name)
        log.note('cut')
        self._step('cut')
        await self._cut()
        # Who says yes has stood still until then: since all did.  Another
        # client may have let one go on before.
        await self._all(lambda m: m.answered())
        log.note('released')
        self._step('complete')
        await self._all(lambda m: m.confirm())
        await Barrier(self.members, lambda m: m.state == 'completed').wait()
        await self._all(lambda m: m.end())
        log.note('collect')
        self._step('collect')
        await self._collect(name)
        log.note('commit')
        self._step('commit')

    def _step(self, step):
        self.at[step] = clock()
        self.show(step)

    async def _all(self, act):
        async def one(member):
            try:
                return await act(member)
            except (MigrateError, OSError) as e:
                raise MigrateError(f'{member.name}: {e}') from None
        return await together(map(one, self.members))

    async def _prepare(self, name):
        await self._all(lambda m: m.start(name, self.arguments))
        await Barrier(self.members, lambda m: m.stage == 'ready').wait()

    async def _cut(self):
        barrier = Barrier(self.members, lambda m: m.stands(), self._release)
        for member in self.members:
            member.cut()
        self.at['sent'] = clock()
        try:
            async with asyncio.timeout(self.window / 1000):
                await together((barrier.wait(),
                                self._all(lambda m: m.answered())))
            if self.at['stopped'] - self.at['cut'] > self.window / 1000:
                raise TimeoutError      # packets may have gone out
        except TimeoutError:
            raise MigrateError('not all VMs stood still within '
                               f'{self.window} ms: not '
                               f"{', '.join(barrier.missing)}") from None

    def _release(self):
        self.at['stopped'] = clock()
        for member in self.members:
            member.release()
        self.at['released'] = clock()

    async def _collect(self, name):
        more = {'created': self.sets.now(), 'set': self.id}

        def going_on(*_):
            if self.ended:
                raise MigrateError('the set was given up')

        with concurrent.futures.ThreadPoolExecutor(
                len(os.sched_getaffinity(0))) as pool:
            try:
                await self._all(lambda m: asyncio.wrap_future(pool.submit(
                    m.collect, name, more, going_on)))
            finally:
                self.ended = True
                pool.shutdown(cancel_futures=True)

    def _told_of(self, member):
        return {'name': member.name, **member.vm.speaks_by(),
                **member.where(self.sets)}

    def _commit(self, name, log):
        content = self.sets.add(name, {
            'name': name, 'id': self.id,
            'created': self.members[0].content['created'],
            'members': [{**self._told_of(m), **m.figures()}
                        for m in self.members], **self._figures()})
        self.committed = True
        with contextlib.suppress(OSError):
            log.remove()            # "list" knows better than to believe it
        return content

    def _figures(self):
        at = self.at

        def ms(start, end):
            return round(1000 * (at[end] - at[start]), 3)

        def skew(times):
            return max(times) - min(times) if times else 0
        stops = [m.stopped_us for m in self.members if m.stopped_us]
        resumes = [m.resumed_us for m in self.members if m.resumed_us]
        return {'ready-ms': ms('connect', 'cut'),
                'sent-ms': ms('cut', 'sent'),
                'stopped-ms': ms('cut', 'stopped'),
                'released-ms': ms('stopped', 'released'),
                'complete-ms': ms('connect', 'collect'),
                'total-ms': ms('connect', 'commit'),
                'stop-skew-us': skew(stops), 'resume-skew-us': skew(resumes)}

    def _discard(self, name):
        """A write that fails at its very end may leave it."""
        durable.discard(self.sets.path(name, MANIFEST))

    def _discard_all(self, name):
        """In a thread.  Returns what servers have said."""
        bad = []
        for member in self.members:
            try:
                member.discard(name)
            except MigrateError as e:
                bad.append(f'{member.name}: it is not known whether a '
                           f'checkpoint is left: {e}')
            except OSError:
                pass            # what is left is seen, and removed later
        return bad

    async def _abort(self, name, log):
        """Returns what could not be undone; None: all was."""
        self.show('abort')
        ends = await asyncio.gather(*(m.abort() for m in self.members),
                                    return_exceptions=True)
        bad = [f'{m.name}: it is not known whether it runs on: {end}'
               for m, end in zip(self.members, ends, strict=True)
               if isinstance(end, BaseException)]
        if not log.file:
            return None             # nothing had been begun
        with contextlib.suppress(OSError):
            self._discard(name)
        bad += await asyncio.to_thread(self._discard_all, name)
        with contextlib.suppress(OSError):
            if not bad:
                log.remove()
                return None
            log.note('aborted', of=bad)
        return '\n'.join([*bad, '"tlm cluster prune" tries again']) \
            if bad else None
