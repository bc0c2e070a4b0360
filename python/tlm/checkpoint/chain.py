# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints that have only what has changed since another one, their parent.

To be restored, they are joined with it.  Nothing is ever written to a file of
a checkpoint: a joined one is a new file.
"""

import contextlib
import os
import time

from ..errors import MigrateError
from ..figures import duration, rate
from . import clone, durable, mappedram
from .catalogue import OVERLAY, PART


def ancestry(catalogue, entry):
    """It and those that it needs, a whole one first."""
    found = [entry]
    while found[0].parent:
        found.insert(0, catalogue.get(found[0].parent))
    return found


def allocated(entry):
    return entry.manifest['file']['allocated']


def newest(catalogue, but=()):
    """The newest that an incremental one can build on; None.  @but: names of
    those that will not stay."""
    for entry in reversed(catalogue.entries()):
        if not entry.problem and entry.manifest.get('generation') and \
                entry.name not in but:
            return entry
    return None


def parent_of_next(catalogue, longest, but=()):
    """(entry or None, why there is none that could be).  @longest: how many
    may need each other in a row; None: any number."""
    parent = newest(catalogue, but)
    if parent and longest and len(ancestry(catalogue, parent)) >= longest:
        return None, f'{longest} in a row need each other'
    return parent, None


class Progress:
    """Of a join; @check may raise an exception to end it."""

    def __init__(self, display, name, total, check=lambda: None):
        self.display, self.name, self.check = display, name, check
        self.total, self.done = max(total, 1), 0
        self.start = time.monotonic()

    def __call__(self, num):
        self.check()
        self.done += num
        speed = self.done / max(time.monotonic() - self.start, 1e-6)
        left = max(self.total - self.done, 0) / speed
        if self.display:
            self.display.show(
                'join', min(100 * self.done / self.total, 100),
                [self.name, rate(speed), f'ETA {duration(1000 * left)}'])


def _opened(stack, path, flags, mode=0):
    fd = os.open(path, flags | os.O_CLOEXEC, mode)
    stack.callback(os.close, fd)
    return fd


def join(whole, overlays, target, only_shared=False,
         on_bytes=lambda num: None):
    """A new file @target, on the disk, of files' paths.  @only_shared: return
    False if that would be a copy of @whole."""
    with contextlib.ExitStack() as stack:
        source = _opened(stack, whole, os.O_RDONLY)
        fd = _opened(stack, target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if not clone.shared(source, fd):
            if only_shared:
                return False
            clone.copied(source, fd, on_bytes)
        try:
            for path in overlays:
                mappedram.apply(_opened(stack, path, os.O_RDONLY), fd,
                                on_bytes)
        except mappedram.FormatError as e:
            raise MigrateError(f'{path}: {e}') from None
        os.fsync(fd)
        return True


@contextlib.contextmanager
def joined(catalogue, entry, display=None, check=lambda: None, suffix=PART):
    """Yields the path of a whole file of @entry, which is gone at the end if
    nobody has renamed it: by who holds the lock."""
    first, *more = ancestry(catalogue, entry)
    path = catalogue.path(entry.name, suffix)
    durable.discard(path)
    progress = Progress(display, entry.name,
                        sum(map(allocated, (first, *more))), check)
    try:
        join(catalogue.file(first), [catalogue.file(e) for e in more], path,
             on_bytes=progress)
        yield path
    finally:
        durable.discard(path)


def place(catalogue, part, parent, content):
    """QEMU has written @part when it was asked for the changes since @parent,
    an entry or None; @content is what it says of it, for the manifest.  If
    the file system can share data, it becomes a whole file at once; else it
    needs its parent."""
    if content.get('parent-generation') is None:
        return
    if not parent or \
            parent.manifest['generation'] != content['parent-generation']:
        raise MigrateError('QEMU has saved the changes since another '
                           'checkpoint than the one that was asked for')
    content['parent'] = parent.name
    if parent.parent:
        return
    new = part + PART
    try:
        if join(catalogue.file(parent), [part], new, only_shared=True):
            os.rename(new, part)
            content['since'] = content.pop('parent')
            del content['parent-generation']
    finally:
        durable.discard(new)


def flatten(catalogue, entry, summed, display=None, check=lambda: None):
    """It needs its parent no more; the caller holds the lock.  Killed at any
    moment, it is the one or the other, and what is left over is no
    checkpoint's file.  @summed: what the manifest says of a path."""
    content = {k: v for k, v in entry.manifest.items() if k not in
               ('parent', 'parent-generation', 'checksum', 'format')}
    with joined(catalogue, entry, display, check) as path:
        content['file'] = summed(path)
        catalogue.add(entry.name, content)
    durable.discard(catalogue.path(entry.name, OVERLAY))


def in_need(catalogue, old):
    """Those that stay and whose parent is in @old, names."""
    return [e for e in catalogue.entries()
            if not e.problem and e.name not in old and e.parent in old]
