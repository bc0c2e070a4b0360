# SPDX-License-Identifier: GPL-2.0-or-later
"""Which images of a disk can become one.

A disk's chain, from the top down: the image that the guest writes to, and
those below, each of which has what its overlay has not.  "save" puts an
overlay on the image that is the disk of the checkpoint, the base.  So:

1. The base of a checkpoint that there is is not touched at all.
2. An image may only be changed, or removed, if the overlay on it was made by a
   "save" of this directory: then 1 says all.  What lies below an overlay of
   somebody else's may be the base of a checkpoint that is not known here, or
   be shared with other VMs.
3. Nor is an image touched that anything else is known to lie on: an overlay of
   a "restore", or the chain of another VM.
4. Only overlays made by "save" are removed.

Images that may be touched, and lie on each other, are merged into the lowest.
The highest of them stays as it is: the name of the image below is written in
it, and the image above is not to be touched.  If the highest is the one that
the guest writes to, it is merged too, and the guest goes on in the lowest.
What anybody sees of the images above is the same, before, after and meanwhile.
"""

import dataclasses
import os
import struct

from ..errors import MigrateError
from . import images
from .records import SAVED

QCOW2 = struct.Struct('>4sIQI')     # magic, version, offset and size of a name
MAGIC = b'QFI\xfb'


@dataclasses.dataclass(frozen=True)
class Merge:
    """Images that become superfluous, from the top down; where their content
    goes; and the image above them, None: the guest writes to the first."""

    images: tuple
    into: str
    above: str | None


def backing(path):
    """The image below, as the overlay itself says; None: there is none here,
    or it is no qcow2 image."""
    with open(path, 'rb') as f:
        head = f.read(QCOW2.size)
        if len(head) < QCOW2.size:
            return None
        magic, _, offset, size = QCOW2.unpack(head)
        if magic != MAGIC or not offset:
            return None
        f.seek(offset)
        name = os.fsdecode(f.read(size))
    return images.path(name, os.path.dirname(path))


def pinned(chain, entries):
    """{path: the checkpoint that needs it as it is}"""
    found = {}
    for entry in entries:
        if entry.manifest is None:
            raise MigrateError(
                f'{entry.name}: {entry.problem}. It is not known which images '
                'it needs, so none is touched')
        for disk in entry.manifest.get('disks', ()):
            files = [disk['base']]
            if disk['base'] not in chain:
                files += disk.get('below', ())      # of another VM's chain
            found.update((file, entry.name) for file in files
                         if file in chain)
    return found


def others_on(chain, overlays):
    """{path: an overlay on it that is not of the chain}"""
    found = {}
    for path in overlays:
        if path not in chain:
            below = backing(path)
            if below in chain:
                found[below] = path
    return found


def why_not(at, chain, pins, others, overlays):
    """Why the image may not be touched; None: it may."""
    path = chain[at]
    if path is None:
        return 'it is no file here'
    if path in pins:
        return f"checkpoint '{pins[path]}' needs it"
    if path in others:
        return f'{others[path]} lies on it'
    above = path if at == 0 else chain[at - 1]
    if overlays.get(above) != SAVED:
        return 'the guest writes to it' if at == 0 else \
            f'{above}, which lies on it, was not made here'
    return None


def plan(chain, entries, overlays):
    """[Merge], from the top down, and {path: why it stays as it is}.
    @entries: all of the catalogue; @overlays: Records.overlays()"""
    pins, others = pinned(chain, entries), others_on(chain, overlays)
    reasons = [why_not(at, chain, pins, others, overlays)
               for at in range(len(chain))]
    merges, at = [], 0
    while at < len(chain):
        end = at
        while end < len(chain) and reasons[end] is None:
            end += 1
        if end > at:
            start = at if at == 0 else at + 1
            if end - start >= 2:
                merges.append(Merge(tuple(chain[start:end - 1]),
                                    chain[end - 1],
                                    chain[at] if start else None))
        at = end + 1
    return merges, {path: why for path, why in zip(chain, reasons)
                    if why and path}
