# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP for many at once: nobody waits for one of them alone."""

import asyncio
import collections
import json

from ..errors import MigrateError, Refused
from ..qmp import CONNECT_S, endpoint
from . import hosts

ANSWER_S = 20               # a QEMU that says nothing is taken for hung


class Gone(MigrateError):
    """Nobody listens there."""


def noted(answer):
    """A future that nobody has to look at: what becomes of it is seen
    elsewhere too."""
    answer.add_done_callback(lambda f: f.cancelled() or f.exception())
    return answer


async def in_time(answer, command, who='QEMU'):
    try:
        return await asyncio.wait_for(answer, ANSWER_S)
    except TimeoutError:
        raise MigrateError(f'{command}: no answer from {who}') from None


class Channel(asyncio.Protocol):
    """@on_event is called with each event, and with None when the connection
    is lost."""

    ask_s = 1                   # beside the events

    async def check_pause(self):
        """Nobody but QEMU knows of it."""

    def __init__(self, address, on_event=lambda event: None):
        self.address, self.on_event = address, on_event
        self.elsewhere = hosts.of_socket(address)
        self.lost = False
        self.transport = self.greeting = None
        self.received = b''
        self.asked = collections.deque()    # QEMU answers in this order

    async def open(self):
        loop = asyncio.get_running_loop()
        self.greeting = loop.create_future()
        host, port = endpoint(self.address)
        try:
            async with asyncio.timeout(CONNECT_S):
                if port:
                    await loop.create_connection(lambda: self, host, port)
                else:
                    await loop.create_unix_connection(lambda: self, host)
                await self.greeting
        except TimeoutError:
            self.close()
            raise MigrateError(f'{self.address}: no greeting; is another '
                               'client connected to this monitor?') from None
        except OSError as e:
            raise Gone(f'{self.address}: {e.strerror or e}') from None
        await self('qmp_capabilities')
        return self

    def send(self, command, **arguments):
        """Returns a future: of the answer, or MigrateError."""
        answer = noted(asyncio.get_running_loop().create_future())
        if self.lost:
            answer.set_exception(self._closed())
            return answer
        self.asked.append((command, answer))
        self.transport.write(json.dumps(
            {'execute': command, 'arguments': arguments}).encode() + b'\n')
        return answer

    async def __call__(self, command, **arguments):
        return await in_time(self.send(command, **arguments), command)

    async def run(self, act):
        """@act(qmp), which waits for answers, in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, act, Blocking(self, loop))

    describe = run

    async def target(self, path):
        """The URI by which QEMU writes to a file."""
        return f'file:{path}'

    async def forget_target(self):
        """QEMU has written it, or will not."""

    def close(self):
        if self.transport:
            self.transport.abort()

    def _closed(self):
        return MigrateError(f'{self.address}: QEMU has closed the connection')

    # asyncio's

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.lost = True
        for _, answer in self.asked:
            if not answer.done():
                answer.set_exception(self._closed())
        self.asked.clear()
        if not self.greeting.done():
            self.greeting.set_exception(self._closed())
        self.on_event(None)

    def data_received(self, data):
        *lines, self.received = (self.received + data).split(b'\n')
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError):
                self.transport.abort()      # this is not a QMP monitor
                return

    def _take(self, message):
        if 'event' in message:
            self.on_event(message)
        elif 'QMP' in message:
            if not self.greeting.done():
                self.greeting.set_result(True)
        else:
            command, answer = self.asked.popleft()
            if answer.done():
                return                      # nobody waits any more
            if 'error' in message:
                answer.set_exception(Refused(
                    f"{command}: {message['error']['desc']}"))
            else:
                answer.set_result(message['return'])


class Blocking:
    """The same for code that waits, in a thread of its own."""

    def __init__(self, channel, loop):
        self.channel, self.loop = channel, loop

    def __call__(self, command, **arguments):
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        return asyncio.run_coroutine_threadsafe(
            self.channel(command, **arguments), self.loop).result()

    @property
    def sock(self):
        return self.channel.transport.get_extra_info('socket')


async def together(coroutines):
    """All of them, of which there may be none; the first that fails ends the
    others."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]
    if not tasks:
        return []
    try:
        done, _ = await asyncio.wait(tasks,
                                     return_when=asyncio.FIRST_EXCEPTION)
        return [task.result() for task in tasks if task in done]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
