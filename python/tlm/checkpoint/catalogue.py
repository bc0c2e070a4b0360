# SPDX-License-Identifier: GPL-2.0-or-later
"""The checkpoints of a directory.

    NAME.part         QEMU writes it, or somebody was killed
    NAME.checkpoint   all of it is on the disk
    NAME.overlay      the same, of one that has a parent
    NAME.json         the manifest; a file without one does not exist
    .lock             whoever changes the directory holds it
"""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import time

from ..errors import MigrateError
from ..units import Bad, checkpoint_name
from . import durable, manifest

PART, FILE, MANIFEST, DRAFT = '.part', '.checkpoint', '.json', '.json.new'
OVERLAY = '.overlay'
LOCK = '.lock'


@dataclasses.dataclass(frozen=True)
class Entry:
    """A checkpoint; @problem: why it is none, None: nothing is known."""

    name: str
    manifest: dict | None = None
    problem: str | None = None

    @property
    def parent(self):
        """The name of the one that it needs; None: it is whole."""
        return (self.manifest or {}).get('parent')

    @property
    def age(self):
        """To sort by, the oldest first."""
        return (self.manifest or {}).get('created', ''), self.name


def _text(moment):
    return moment.isoformat(timespec='microseconds').replace('+00:00', 'Z')


@contextlib.contextmanager
def lock(directory, mode, busy, name=LOCK):
    """Raises MigrateError, @busy, if somebody else holds it.  @mode: of a lock
    that is new"""
    fd = os.open(os.path.join(directory, name),
                 os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MigrateError(busy) from None
        yield
    finally:
        os.close(fd)


class Catalogue:
    TOOL, WHAT = 'tlm checkpoint', 'checkpoint'

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        if not os.path.isdir(self.directory):
            raise MigrateError(f'{directory}: there is no such directory')

    def path(self, name, suffix=FILE):
        return os.path.join(self.directory, name + suffix)

    def file(self, entry):
        return self.path(entry.name, OVERLAY if entry.parent else FILE)

    def _named(self, suffix):
        for file in sorted(os.listdir(self.directory)):
            with contextlib.suppress(Bad):
                if file.endswith(suffix):
                    yield checkpoint_name(file.removesuffix(suffix))

    @contextlib.contextmanager
    def locked(self):
        """The only one who adds and removes."""
        with lock(self.directory, 0o644, f'{self.directory}: another '
                  f'"{self.TOOL}" is at work in it'):
            yield

    # What there is

    def entries(self):
        """All checkpoints, the oldest first, those with problems too."""
        return sorted((self._entry(name) for name in self._named(MANIFEST)),
                      key=lambda e: e.age)

    def _entry(self, name):
        try:
            content = manifest.read(self.path(name, MANIFEST))
            wanted = content['file']['size']
            size = os.stat(self.file(Entry(name, content))).st_size
        except MigrateError as e:
            return Entry(name, None, str(e))
        except OSError as e:
            return Entry(name, content, f'the file: {e.strerror}')
        if size != wanted:
            return Entry(name, content, f'the file has {size} bytes instead '
                         f'of {wanted}')
        return Entry(name, content, self._lost(content))

    def _lost(self, content):
        """Why it cannot be joined with its parent; None: it can."""
        parent = content.get('parent')
        if not parent:
            return None
        if not os.path.exists(self.path(parent, MANIFEST)):
            return f"its parent '{parent}' is not there"
        entry = self._entry(parent)
        if entry.problem:
            return f"its parent '{parent}': {entry.problem}"
        if entry.manifest.get('generation') != content['parent-generation']:
            return f"'{parent}' is not its parent any more"
        return None

    def get(self, name):
        """The entry, problem or not."""
        if name not in self._named(MANIFEST):
            raise MigrateError(f'{self.directory}: there is no {self.WHAT} '
                               f"'{name}'")
        return self._entry(name)

    def newest(self):
        good = [e for e in self.entries() if not e.problem]
        if not good:
            raise MigrateError(f'{self.directory}: there is no {self.WHAT}')
        return good[-1]

    def leftovers(self):
        """Files of checkpoints that do not exist."""
        needed = self._needed()
        return [name + suffix for suffix in (PART, FILE, OVERLAY)
                for name in self._named(suffix)
                if name + suffix not in needed] + \
            [file for file in sorted(os.listdir(self.directory))
             if file.startswith('.') and file.endswith(DRAFT)]

    def _needed(self):
        """Files of checkpoints; both of one whose manifest cannot be read."""
        found = set()
        for name in self._named(MANIFEST):
            content = self._entry(name).manifest
            found |= {name + FILE, name + OVERLAY} if content is None else {
                os.path.basename(self.file(Entry(name, content)))}
        return found

    # Changes: by who holds the lock

    @contextlib.contextmanager
    def draft(self, wanted=None):
        """(name, path that QEMU may write to); gone at the end, if nobody
        has add()ed it."""
        with self.locked():
            name = self.new_name(wanted)
            part = self.path(name, PART)
            # Of a save that was killed; its QEMU may still write to it
            durable.discard(part)
            try:
                yield name, part
            finally:
                durable.discard(part)

    def new_name(self, wanted=None):
        """@wanted, or one that says what time it is."""
        taken = set(self._named(MANIFEST))
        if wanted in taken:
            raise MigrateError(f"there is a {self.WHAT} '{wanted}' already")
        if wanted:
            return wanted
        now = name = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
        number = 1
        while name in taken:
            number += 1
            name = f'{now}-{number}'
        return name

    def now(self):
        """When what is new was made.  The newest one is the last one that
        prune() removes; so that is what it is, if the clock was set back,
        too."""
        told = _text(datetime.datetime.now(datetime.UTC))
        newest = max(map(self._created, self._named(MANIFEST)), default='')
        if told > newest:
            return told
        return _text(datetime.datetime.fromisoformat(newest) +
                     datetime.timedelta(microseconds=1))

    def _created(self, name):
        """Whether it is whole does not matter, so nobody is asked."""
        try:
            return manifest.read(self.path(name, MANIFEST),
                                 lambda content: None)['created']
        except (MigrateError, KeyError):
            return ''

    def add(self, name, content):
        """NAME.part becomes a checkpoint.  Returns the manifest."""
        durable.rename(self.path(name, PART),
                       self.file(Entry(name, content)))
        return manifest.write(self.path(name, MANIFEST), content)

    def remove(self, name):
        """The manifest first: without the file it would be a lie."""
        durable.discard(self.path(name, MANIFEST))
        durable.sync_directory(self.directory)
        for suffix in (FILE, OVERLAY):
            durable.discard(self.path(name, suffix))

    def old(self, keep):
        """Names of all but the newest @keep."""
        good = [e.name for e in self.entries() if not e.problem]
        return good[:max(0, len(good) - keep)]

    def remove_leftovers(self):
        """Returns names of files."""
        files = self.leftovers()
        for file in files:
            durable.discard(os.path.join(self.directory, file))
        return files
