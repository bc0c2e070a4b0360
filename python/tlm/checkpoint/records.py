# SPDX-License-Identifier: GPL-2.0-or-later
"""The overlays that commands have made for the checkpoints of a directory, and
what is to be done about images of a merge that has ended.

    .overlays/HASH    an overlay's path, and whether "save" or "restore" made it
    .merge.json       images that a merge makes superfluous

A file each, which is written whole: nobody needs a lock to add one.  An
overlay is there before its record.  Without a record it is a file that nobody
uses, or somebody else's.
"""

import contextlib
import hashlib
import json
import os

from . import durable

DIRECTORY, MERGE = '.overlays', '.merge.json'
SAVED, RESTORED = 'save', 'restore'


class Records:
    """@directory: of the checkpoints."""

    def __init__(self, directory):
        self.directory = os.path.join(directory, DIRECTORY)
        self.merge = os.path.join(directory, MERGE)

    def _path(self, overlay):
        return os.path.join(self.directory, hashlib.sha256(
            os.fsencode(os.path.realpath(overlay))).hexdigest()[:32])

    def add(self, overlay, by):
        text = json.dumps({'overlay': os.path.realpath(overlay), 'by': by})
        while True:
            if not os.path.isdir(self.directory):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.directory, 0o700)
                durable.sync_directory(os.path.dirname(self.directory))
            try:
                return durable.write(self._path(overlay), text + '\n')
            except FileNotFoundError:
                if not os.path.isdir(os.path.dirname(self.directory)):
                    raise
                # Somebody has forgotten the last one just now

    def forget(self, overlay):
        """It is gone."""
        durable.discard(self._path(overlay))
        with contextlib.suppress(OSError):      # there are others
            os.rmdir(self.directory)

    def overlays(self):
        """{path: who has made it} of those that are there; the records of
        others are removed."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                path = os.path.join(self.directory, name)
                content = self._read(path)
                if content and os.path.exists(content['overlay']):
                    found[content['overlay']] = content['by']
                elif content:
                    durable.discard(path)
        return found

    @staticmethod
    def _read(path):
        """None: a draft."""
        try:
            with open(path, encoding='utf-8') as f:
                return json.load(f)
        except (FileNotFoundError, ValueError):
            return None

    def pending(self):
        """Of a merge that has not been brought to its end; None."""
        return self._read(self.merge)

    def begin_merge(self, content):
        durable.write(self.merge, json.dumps(content, indent=2) + '\n')

    def end_merge(self):
        durable.discard(self.merge)
        durable.sync_directory(os.path.dirname(self.merge))
