# SPDX-License-Identifier: GPL-2.0-or-later
"""New overlays on the images of a checkpoint, for one restore: so that the
images stay as they are."""

import contextlib
import os
import sys
import tempfile

from . import durable, images
from .records import RESTORED


class Fresh:
    """To be used in a "with"; what was made is removed if that ends by an
    exception.  @directory: None for a new one beside the first image;
    @binaries: QEMUs that may have qemu-img beside them; @records: of the
    checkpoints' directory"""

    def __init__(self, directory, name, binaries, records):
        self.directory, self.name, self.records = directory, name, records
        self.binaries, self.made, self.own = binaries, [], False

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            self._remove()

    def make(self, disk):
        """On the image of a disk of the manifest; returns its path."""
        program = images.tool(*self.binaries)
        base = disk['base']
        if self.directory is None:
            self.directory = tempfile.mkdtemp(
                prefix=f'restored-{self.name}-', dir=os.path.dirname(base))
            self.own = True
        os.makedirs(self.directory, exist_ok=True)
        new = os.path.join(os.path.realpath(self.directory),
                           f'{len(self.made)}-{os.path.basename(base)}.qcow2')
        images.overlay(program, new, base, disk['format'])
        self.made.append(new)
        try:
            self.records.add(new, RESTORED)
        except OSError as e:
            # It may be a copy that can only be read
            print(f'{self.records.directory}: {e.strerror}. "tlm checkpoint '
                  f'commit" will not know that {new} lies on {base}',
                  file=sys.stderr)
        return new

    def _remove(self):
        for path in self.made:
            durable.discard(path)
            with contextlib.suppress(OSError):
                self.records.forget(path)
        if self.own:
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)
