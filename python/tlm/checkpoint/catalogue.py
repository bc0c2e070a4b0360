# SPDX-License-Identifier: GPL-2.0-or-later
"""The checkpoints of a directory.

    NAME.part         QEMU writes it, or somebody was killed
    NAME.checkpoint   all of it is on the disk
    NAME.json         the manifest; a file without one does not exist
    .lock             whoever changes the directory holds it
"""

import contextlib
import dataclasses
import fcntl
import os
import time

from ..errors import MigrateError
from ..units import Bad, checkpoint_name
from . import durable, manifest

PART, FILE, MANIFEST, DRAFT = '.part', '.checkpoint', '.json', '.json.new'
LOCK = '.lock'


@dataclasses.dataclass(frozen=True)
class Entry:
    """A checkpoint; @problem: why it is none, None: nothing is known."""

    name: str
    manifest: dict | None = None
    problem: str | None = None

    @property
    def age(self):
        """To sort by, the oldest first."""
        return (self.manifest or {}).get('created', ''), self.name


class Catalogue:
    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        if not os.path.isdir(self.directory):
            raise MigrateError(f'{directory}: there is no such directory')

    def path(self, name, suffix=FILE):
        return os.path.join(self.directory, name + suffix)

    def _named(self, suffix):
        for file in sorted(os.listdir(self.directory)):
            with contextlib.suppress(Bad):
                if file.endswith(suffix):
                    yield checkpoint_name(file.removesuffix(suffix))

    @contextlib.contextmanager
    def locked(self):
        """The only one who adds and removes."""
        fd = os.open(os.path.join(self.directory, LOCK),
                     os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MigrateError(f'{self.directory}: another "tlm '
                                   'checkpoint" is at work in it') from None
            yield
        finally:
            os.close(fd)

    # What there is

    def entries(self):
        """All checkpoints, the oldest first, those with problems too."""
        return sorted((self._entry(name) for name in self._named(MANIFEST)),
                      key=lambda e: e.age)

    def _entry(self, name):
        try:
            content = manifest.read(self.path(name, MANIFEST))
            wanted = content['file']['size']
            size = os.stat(self.path(name)).st_size
        except MigrateError as e:
            return Entry(name, None, str(e))
        except OSError as e:
            return Entry(name, content, f'the file: {e.strerror}')
        if size != wanted:
            return Entry(name, content, f'the file has {size} bytes instead '
                         f'of {wanted}')
        return Entry(name, content)

    def get(self, name):
        """The entry, problem or not."""
        if name not in self._named(MANIFEST):
            raise MigrateError(f'{self.directory}: there is no checkpoint '
                               f"'{name}'")
        return self._entry(name)

    def newest(self):
        good = [e for e in self.entries() if not e.problem]
        if not good:
            raise MigrateError(f'{self.directory}: there is no checkpoint')
        return good[-1]

    def leftovers(self):
        """Files of checkpoints that do not exist."""
        complete = set(self._named(MANIFEST))
        return [name + PART for name in self._named(PART)] + \
            [name + FILE for name in self._named(FILE)
             if name not in complete] + \
            [file for file in sorted(os.listdir(self.directory))
             if file.startswith('.') and file.endswith(DRAFT)]

    # Changes: by who holds the lock

    def new_name(self, wanted=None):
        """@wanted, or one that says what time it is."""
        taken = set(self._named(MANIFEST))
        if wanted in taken:
            raise MigrateError(f"there is a checkpoint '{wanted}' already")
        if wanted:
            return wanted
        now = name = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
        number = 1
        while name in taken:
            number += 1
            name = f'{now}-{number}'
        return name

    def add(self, name, content):
        """NAME.part becomes a checkpoint.  Returns the manifest."""
        durable.rename(self.path(name, PART), self.path(name))
        return manifest.write(self.path(name, MANIFEST), content)

    def remove(self, name):
        """The manifest first: without the file it would be a lie."""
        durable.discard(self.path(name, MANIFEST))
        durable.sync_directory(self.directory)
        durable.discard(self.path(name))

    def prune(self, keep):
        """Returns names of what has been removed."""
        good = [e.name for e in self.entries() if not e.problem]
        old = good[:max(0, len(good) - keep)]
        for name in old:
            self.remove(name)
        return old

    def remove_leftovers(self):
        """Returns names of files."""
        files = self.leftovers()
        for file in files:
            durable.discard(os.path.join(self.directory, file))
        return files
