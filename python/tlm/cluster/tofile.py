# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM of a set whose checkpoint goes to a file."""

import contextlib
import os

from ..checkpoint import chain, checksums, durable, machine, manifest
from ..checkpoint.catalogue import (FILE, MANIFEST, OVERLAY, PART,
                                    Catalogue)
from ..checkpoint.records import Records
from ..checkpoint.target import check_space
from ..errors import Refused
from . import hosts
from .member import Member


class ToFile(Member):
    """@longest: how many checkpoints may need each other in a row; None: any
    number.  @left: names of what is left over, and will not stay."""

    def __init__(self, vm, cluster, params, longest=None, left=()):
        super().__init__(vm, params)
        self.longest, self.left = longest, left
        self.catalogue = Catalogue(vm.directory(cluster))
        self.part = self.parent = self.why_whole = None

    @contextlib.contextmanager
    def reserved(self, name):
        """Nobody else makes a checkpoint of this name."""
        with self.catalogue.locked():
            self.catalogue.new_name(name)
            yield

    def where(self, sets):
        """For the log."""
        return {'dir': sets.relative(self.catalogue.directory)}

    async def _check_target(self):
        if self.channel.elsewhere:
            await hosts.check_directory(self.channel,
                                        self.catalogue.directory)

    def _check_space(self, qmp):
        check_space(self.catalogue.directory, machine.space_needed(qmp))

    async def make_overlays(self, name):
        """Of its disks, if that was asked for."""
        if self.vm.disk:
            await self.disks.make(name, self.known, Records(
                self.catalogue.directory))

    async def _target(self, name):
        """The URI for QEMU."""
        self.part = self.catalogue.path(name, PART)
        # Of a save that was killed; its QEMU may still write to it
        durable.discard(self.part)
        return await self.channel.target(self.part)

    async def _forget_target(self):
        await self.channel.forget_target()

    async def _write(self, **arguments):
        """Incremental, if that was asked for and can be."""
        if not arguments.get('incremental'):
            await super()._write(**arguments)
            return
        self.parent, self.why_whole = chain.parent_of_next(
            self.catalogue, self.longest, self.left)
        asked = {'parent': self.parent.manifest['generation']} \
            if self.parent else {}
        try:
            await super()._write(**arguments, **asked)
        except Refused as e:
            # Not by this VM; and if that was not why, it is refused again
            self.parent, self.why_whole = None, str(e)
            del arguments['incremental']
            await super()._write(**arguments)

    def collect(self, name, more, going_on):
        """In a thread: checksums, and its manifest.  @going_on raises an
        exception to end it."""
        chain.place(self.catalogue, self.part, self.parent, self.content)
        if self.why_whole:
            self.content.setdefault('full-reason', self.why_whole)
        fd = os.open(self.part, os.O_RDONLY)
        try:
            stat = os.fstat(fd)
            sums = checksums.of_file(fd, stat.st_size,
                                     checksums.workers(), going_on)
        finally:
            os.close(fd)
        going_on()
        self.content = self.catalogue.add(name, {
            'name': name, **self.content, **more,
            'file': manifest.of_file(stat, sums)})

    def discard(self, name):
        """Nothing of it is left in its directory."""
        for suffix in (PART, MANIFEST, FILE, OVERLAY):
            durable.discard(self.catalogue.path(name, suffix))
        durable.sync_directory(self.catalogue.directory)

    def figures(self):
        return {'checksum': self.content['checksum'], **super().figures()}
