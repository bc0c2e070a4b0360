# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain of libvirt's as one of many VMs: virsh answers one question after
the other, in a thread, and tells of no events."""

import asyncio
import concurrent.futures
import functools

from ..checkpoint.source import ByLibvirt
from ..errors import MigrateError
from ..virsh.shell import Lost
from .channel import Channel, Gone, in_time, noted


class DomainChannel:
    """As channel.Channel."""

    ask_s = 0.02                # instead of events; a guest may stand still

    def __init__(self, name, uri):
        self.vm = ByLibvirt(name, uri)
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.passed, self.closed = None, False
        self.lost = False       # what virsh says is told by its answers

    def _call(self, act, *arguments, **named):
        return noted(asyncio.get_running_loop().run_in_executor(
            self.thread, functools.partial(act, *arguments, **named)))

    async def open(self):
        try:
            await in_time(self._call(self.vm.__enter__), 'virsh')
        except Lost:
            raise
        except MigrateError as e:
            raise Gone(str(e)) from None
        return self

    def send(self, command, **arguments):
        """Returns a future: of the answer, or MigrateError."""
        return self._call(self.vm.qmp, command, **arguments)

    async def __call__(self, command, **arguments):
        return await in_time(self.send(command, **arguments), command)

    async def describe(self, act):
        def with_xml():
            return {**act(self.vm.qmp), 'domain': self.vm.qmp.xml()}
        return await self._call(with_xml)

    async def target(self, path):
        """The URI by which QEMU writes to a file."""
        self.passed = self.vm.target(path)
        await in_time(self._call(self.passed.__enter__), 'add-fd')
        return self.passed.uri

    async def forget_target(self):
        """QEMU has written it, or will not."""
        passed, self.passed = self.passed, None
        if passed:
            await in_time(self._call(passed.__exit__), 'remove-fd')

    def close(self):
        if not self.closed:
            self.closed = True
            self.thread.submit(self.vm.__exit__)
            self.thread.shutdown(wait=False)


def channel_of(vm, on_event=lambda event: None):
    return DomainChannel(vm.domain, vm.connect) if vm.domain else \
        Channel(vm.qmp, on_event)
