# SPDX-License-Identifier: GPL-2.0-or-later
"""Where QEMU writes a checkpoint to.

A target is used in a "with", in which its @uri is good for QEMU.  It has
check_space(), which raises MigrateError, and collect(), which returns what the
manifest says of it after QEMU has completed.
"""

import os

from ..errors import MigrateError
from ..figures import memory
from . import checksums, manifest


# libvirt counts its own sets of file descriptors from 0
WRITE_SET, READ_SET = 0x544c4d00, 0x544c4d01


def check_space(directory, needed):
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise MigrateError(f'{directory}: {memory(free)} are free; the '
                           f'checkpoint may become {memory(needed)}')


class File:
    """QEMU opens it by itself, in the directory that this program sees."""

    def __init__(self, path):
        self.path = path
        self.uri = f'file:{path}'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def check_space(self, needed):
        check_space(os.path.dirname(self.path), needed)

    def collect(self, display, signals):
        if not os.path.exists(self.path):
            raise MigrateError(f'{self.path}: QEMU has written it, but it is '
                               'not here. Does QEMU see the same directory?')
        with display:
            return {'file': summed(self.path, display, signals.check)}


def summed(path, display=None, check=lambda: None):
    """What the manifest says of a file."""
    def on_chunk(percent, details):
        check()
        if display:
            display.show('checksums', percent, details)

    with open(path, 'rb') as f:
        stat = os.fstat(f.fileno())
        sums = checksums.of_file(f.fileno(), stat.st_size,
                                 checksums.workers(),
                                 checksums.Timed(on_chunk))
    return manifest.of_file(stat, sums)


class PassedFile(File):
    """This program opens it, and passes it to a QEMU that may not: by
    libvirt.  @domain: a virsh.domain.Domain"""

    def __init__(self, path, domain):
        super().__init__(path)
        self.domain = domain
        self.uri = f'file:/dev/fdset/{WRITE_SET}'

    def __enter__(self):
        self._remove()          # of a command that was killed
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL |
                     os.O_CLOEXEC, 0o600)
        try:
            self.domain.pass_fd(fd, WRITE_SET)
        finally:
            os.close(fd)
        return self

    def __exit__(self, *_):
        self._remove()

    def _remove(self):
        if any(s['fdset-id'] == WRITE_SET
               for s in self.domain('query-fdsets')):
            self.domain('remove-fd', fdset_id=WRITE_SET)
