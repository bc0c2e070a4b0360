# SPDX-License-Identifier: GPL-2.0-or-later
"""New overlays for the disks of a VM that is saved with others."""

import asyncio
import contextlib

from ..checkpoint import disks, overlays, virshdisks
from ..units import VIRSH


class Disks:
    """Overlays that QEMU puts on the disks, in the pause."""

    NO_HOLD = None              # why packets cannot be held instead of the VM

    def __init__(self, channel):
        self.channel = channel
        self.overlays = self.making = None
        self.used = []              # as they are before the cut

    async def make(self, name, known, records):
        """@known: what is known of the VM; @records: of its overlays."""
        # Whoever gives up must not leave what comes to be only then
        self.making = asyncio.ensure_future(self.channel.run(
            lambda qmp: self._make(qmp, name, known, records)))
        await asyncio.shield(self.making)

    @staticmethod
    def _new(qmp, name, known, records):
        return overlays.Overlays(qmp, name, known, records)

    def _make(self, qmp, name, known, records):
        """In a thread."""
        new = self._new(qmp, name, known, records)
        with contextlib.suppress(overlays.NoDisk):
            new.__enter__()
            self.overlays = new
            self.used = new.bases(qmp, known['directory'])

    @property
    def pairs(self):
        """(node, overlay)"""
        return self.overlays.pairs if self.overlays else []

    @property
    def made(self):
        """(overlay, path)"""
        return self.overlays.made if self.overlays else []

    @property
    def switch(self):
        """In a thread, while the guest stands still; None: QEMU does it."""
        return self.overlays.switch if self.overlays else None

    def identified(self):
        """For the manifest, after the cut."""
        return disks.identified(self.used)

    async def remove(self):
        """But for those that the guest goes on in."""
        if self.making:
            await asyncio.wait([self.making])
        if self.overlays:
            await self.channel.run(lambda _: self.overlays.__exit__(True))


class ByLibvirt(Disks):
    """Overlays that libvirt puts on the disks of a domain, at the gate."""

    NO_HOLD = 'libvirt puts overlays on its disks, while it stands still'

    @staticmethod
    def _new(qmp, name, _known, records):
        return virshdisks.VirshOverlays(qmp, name, records)

    @property
    def made(self):
        """(None: QEMU has no node for it, path)"""
        return [(None, disk['overlay-file']) for disk in self.used]


def of(vm, channel):
    return ByLibvirt(channel) if vm.disk == VIRSH else Disks(channel)
