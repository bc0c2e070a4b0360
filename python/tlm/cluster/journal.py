# SPDX-License-Identifier: GPL-2.0-or-later
"""What a coordinator is about to do, on the disk before it does it.

    NAME.log    a line of JSON a step; removed once the set is complete, or
                nothing is left of it

So what a dead coordinator has left can be told of, and removed.
"""

import json
import os

from ..checkpoint import durable
from ..errors import MigrateError


class Journal:
    def __init__(self, path):
        self.path = path
        self.file = None

    def begin(self, **content):
        self.file = open(self.path, 'x', encoding='utf-8',
                         opener=lambda p, flags: os.open(p, flags, 0o600))
        self.note('begin', **content)
        durable.sync_directory(os.path.dirname(self.path))

    def note(self, step, **content):
        self.file.write(json.dumps({'step': step, **content}) + '\n')
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self):
        if self.file:
            self.file.close()

    def remove(self):
        self.close()
        durable.discard(self.path)
        durable.sync_directory(os.path.dirname(self.path))


def read(path):
    """(what it began with, {VM: old settings}, {VM: overlays of disks}); the
    last line may be one that was never finished.  What it began with says
    too at which servers there may be checkpoints."""
    begin, settings, overlays, servers = {}, {}, {}, {}
    try:
        with open(path, encoding='utf-8') as f:
            lines = f.read().split('\n')[:-1]
        for line in lines:
            entry = json.loads(line)
            if entry['step'] == 'begin':
                begin = entry
            elif entry['step'] == 'settings':
                settings = entry['of']
            elif entry['step'] == 'overlays':
                overlays = entry['of']
            elif entry['step'] == 'announced':
                servers = entry['of']
        for member in begin.get('members', ()):
            if member['name'] in servers:
                member['server'] = servers[member['name']]
    except (OSError, UnicodeDecodeError, ValueError, LookupError,
            TypeError) as e:
        raise MigrateError(f'{path}: it cannot be read: {e}') from None
    return begin, settings, overlays
