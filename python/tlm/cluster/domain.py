# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain of libvirt's as one of many VMs: virsh answers one question after
the other, in a thread, and tells of no events."""

import asyncio
import concurrent.futures
import functools

from .. import errors
from ..checkpoint import libvirt
from ..checkpoint.target import PassedFile
from ..errors import MigrateError
from ..virsh.domain import Domain
from ..virsh.shell import Virsh
from . import hosts
from .channel import Channel, Gone, in_time, noted

LIBVIRT = 'libvirt'


class DomainChannel:
    """As channel.Channel.  @vm: of config.py"""

    ask_s = 0.02                # instead of events; a guest may stand still

    def __init__(self, vm):
        self.vm, self.elsewhere = vm, None
        self.virsh = Virsh(vm.connect)
        self.qmp = Domain(self.virsh, vm.domain)
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.passed, self.closed = None, False
        self.lost = False       # what virsh says is told by its answers

    def _call(self, act, *arguments, **named):
        return noted(asyncio.get_running_loop().run_in_executor(
            self.thread, functools.partial(act, *arguments, **named)))

    def _open(self):
        """In the thread."""
        try:
            self.elsewhere = hosts.of_uri(libvirt.uri_of(self.virsh))
            self.qmp.check_runs()
        except FileNotFoundError:
            raise MigrateError('there is no virsh here (package '
                               'libvirt-clients)') from None
        except errors.Gone as e:
            raise Gone(str(e)) from None

    async def open(self):
        await in_time(self._call(self._open), 'virsh', LIBVIRT)
        return self

    async def check_pause(self):
        """Raises MigrateError if QEMU may not pause the guest by itself."""
        await in_time(self._call(hosts.check_locking, self.virsh,
                                 bool(self.vm.lock_manager)), 'virsh', LIBVIRT)

    def send(self, command, **arguments):
        """Returns a future: of the answer, or MigrateError."""
        return self._call(self.qmp, command, **arguments)

    async def __call__(self, command, **arguments):
        return await in_time(self.send(command, **arguments), command,
                             LIBVIRT)

    async def run(self, act):
        """@act(qmp), which waits for answers, in a thread."""
        return await self._call(act, self.qmp)

    async def describe(self, act):
        """The same for what is known of the VM."""
        return await self.run(lambda qmp: {**act(qmp), 'domain': qmp.xml()})

    async def target(self, path):
        """The URI by which QEMU writes to a file."""
        if self.elsewhere:
            return f'file:{path}'
        self.passed = PassedFile(path, self.qmp)
        await in_time(self._call(self.passed.__enter__), 'add-fd', LIBVIRT)
        return self.passed.uri

    async def forget_target(self):
        """QEMU has written it, or will not."""
        passed, self.passed = self.passed, None
        if passed:
            await in_time(self._call(passed.__exit__), 'remove-fd', LIBVIRT)

    def close(self):
        """Nobody waits for it any more, nor does the end of this program."""
        if not self.closed:
            self.closed = True
            self.virsh.give_up()
            self.thread.submit(self.virsh.close)
            self.thread.shutdown(wait=False)


def channel_of(vm, on_event=lambda event: None):
    return DomainChannel(vm) if vm.domain else Channel(vm.qmp, on_event)
