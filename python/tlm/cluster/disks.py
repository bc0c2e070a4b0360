# SPDX-License-Identifier: GPL-2.0-or-later
"""New overlays for the disks of a VM that is saved with others."""

import asyncio
import contextlib

from ..checkpoint import disks, overlays


class Disks:
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

    def _make(self, qmp, name, known, records):
        """In a thread."""
        new = overlays.Overlays(qmp, name, known, records)
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

    def identified(self):
        """For the manifest, after the cut."""
        return disks.identified(self.used)

    async def remove(self):
        """But for those that the guest goes on in."""
        if self.making:
            await asyncio.wait([self.making])
        if self.overlays:
            await self.channel.run(
                lambda _: self.overlays.__exit__(True))
