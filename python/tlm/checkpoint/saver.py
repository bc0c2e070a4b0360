# SPDX-License-Identifier: GPL-2.0-or-later
"""One checkpoint, from free space to manifest."""

import datetime
import os
import time

from ..errors import MigrateError
from ..figures import memory
from ..migrate import run
from ..migration import Migration
from ..qmp import Qmp
from . import checksums, durable, machine, manifest
from .catalogue import PART


class Cancelled(Exception):
    """By another client of QEMU."""


class _Run(Migration):
    """As a migration, but for how it starts."""

    def __init__(self, qmp, params, arguments):
        super().__init__(qmp, {}, params)
        self.arguments = arguments

    def start(self, uri):
        self.qmp('tlm-checkpoint', uri=uri, **self.arguments)


class Saver:
    """@args: the options of "save" or "watch"."""

    def __init__(self, catalogue, args):
        self.catalogue, self.args = catalogue, args
        self.params = {'max-bandwidth': args.bandwidth or 0,
                       **({} if args.bound is None
                          else {'tlm-time-bound': args.bound}),
                       **dict(args.set)}

    def save(self, name, display, signals):
        """Returns the manifest; raises MigrateError, Cancelled, Interrupted.
        @name: None for one that says the time."""
        start = time.monotonic()
        with self.catalogue.locked():
            name = self.catalogue.new_name(name)
            part = self.catalogue.path(name, PART)
            # Of a save that was killed; its QEMU may still write to it
            durable.discard(part)
            try:
                content = self._write(part, display, signals)
                content['total-ms'] = round(1000 * (time.monotonic() - start))
                signals.check()
                return self.catalogue.add(name, {'name': name, **content})
            finally:
                durable.discard(part)

    def _write(self, part, display, signals):
        qmp = Qmp(self.args.qmp)
        try:
            if 'tlm-checkpoint' not in {
                    c['name'] for c in qmp('query-commands')}:
                raise MigrateError("this QEMU has no command 'tlm-checkpoint'"
                                   ': it is not the one with TLM')
            known = machine.describe(qmp)
            self._check_space(machine.space_needed(qmp))
            wanted = {'mode': self.args.mode, 'buffer-size': self.args.buffer}
            wanted = {k: v for k, v in wanted.items() if v is not None}
            with _Run(qmp, self.params, wanted) as migration, display:
                run(migration, f'file:{part}', display, lambda: signals.seen)
            status = migration.status
        finally:
            qmp.close()
        if status.status == 'cancelled':
            signals.check()
            raise Cancelled
        if status.status != 'completed':
            raise MigrateError(f'QEMU could not save: {status.error}')
        return {'created': datetime.datetime.now(datetime.UTC).isoformat(
                    timespec='microseconds').replace('+00:00', 'Z'),
                'machine': known, **self._figures(status),
                'file': self._file(part, display, signals)}

    def _check_space(self, needed):
        found = os.statvfs(self.catalogue.directory)
        free = found.f_bavail * found.f_frsize
        if free < needed:
            raise MigrateError(
                f'{self.catalogue.directory}: {memory(free)} are free; the '
                f'checkpoint may become {memory(needed)}')

    @staticmethod
    def _figures(status):
        parts = {name: us for name, us in status.tlm.downtime_parts() if us}
        return {'pause-us': sum(parts.values()), 'pause-parts-us': parts,
                'kept-by': status.tlm.checkpoint_method,
                'copied': status.tlm.copied_bytes,
                'note': status.tlm.checkpoint_note,
                'flushed-ms': status.total_ms}

    @staticmethod
    def _file(part, display, signals):
        def on_chunk(done, count):
            signals.check()
            display.show('checksums', 100 * done / count, [])

        try:
            fd = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            raise MigrateError(f'{part}: QEMU has written it, but it is not '
                               'here. Does QEMU see the same directory?') \
                from None
        try:
            stat = os.fstat(fd)
            with display:
                sums = checksums.of_file(fd, stat.st_size, on_chunk=on_chunk)
        finally:
            os.close(fd)
        return manifest.of_file(stat, sums)
