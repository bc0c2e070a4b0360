# SPDX-License-Identifier: GPL-2.0-or-later
"""All members of a set have come to a point."""

import asyncio
import time

from ..errors import MigrateError
from .channel import together


# Less than LEASE_MS of checkpoint/run.py, and more than is noticed in QEMU
ASK_ALL_S = 10


class Barrier:
    """@there: has this member come?  @then is called at once when the last
    one has: what is to be done before it is known to have been too late."""

    def __init__(self, members, there, then=lambda: None):
        self.members, self.there, self.then = members, there, then
        self.missing = {m.name: m for m in members}
        self.met = None

    async def wait(self):
        """Raises MigrateError as soon as one fails, or cannot come."""
        self.met = asyncio.get_running_loop().create_future()
        for member in self.members:
            member.on_change = self._look
        asking = asyncio.create_task(self._ask())
        try:
            for member in self.members:
                self._look(member)
            await asyncio.wait((self.met, asking),
                               return_when=asyncio.FIRST_COMPLETED)
            if not self.met.done():
                asking.result()         # what it has found is wrong
            failed = self.met.result()
            if failed:
                raise MigrateError(f'{failed.name}: {await failed.why()}')
        finally:
            for member in self.members:
                member.on_change = None
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _look(self, member):
        if self.met.done():
            return
        if member.failed() or \
                member.name in self.missing and member.over(self.there):
            self.met.set_result(member)
            return
        if self.there(member):
            self.missing.pop(member.name, None)
        if not self.missing:
            self.then()
            self.met.set_result(None)

    async def _ask(self):
        """Those that have not come: do they live, and was an event lost?  And
        the others, so that their QEMUs know that somebody is there."""
        async def one(member):
            try:
                await member.look()
            except MigrateError as e:
                raise MigrateError(f'{member.name}: {e}') from None
        due = time.monotonic() + ASK_ALL_S
        while self.missing:
            await asyncio.sleep(min(m.channel.ask_s
                                    for m in self.missing.values()))
            asked = list(self.missing.values())
            if time.monotonic() >= due:
                asked, due = self.members, time.monotonic() + ASK_ALL_S
            await together(map(one, asked))
