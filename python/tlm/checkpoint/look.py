# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint list and show: what there is."""

import json

from ..errors import MigrateError, in_words
from ..figures import duration, size
from . import text
from .catalogue import Catalogue


def _row(entry):
    if entry.problem:
        return f'{entry.name}: {entry.problem}'
    content = entry.manifest
    return f"{entry.name:<20}  {content['created'][:19]}Z  " \
           f"{size(content['file']['allocated']):>8}  pause " \
           f"{duration(content['pause-us'] / 1000):>7}  was " \
           f"{content['machine']['status']}" + \
           (f', needs {entry.parent}' if entry.parent else '')


@in_words
def main_list(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    catalogue = Catalogue(args.dir)
    entries, left = catalogue.entries(), catalogue.leftovers()
    if args.json:
        print(json.dumps({'checkpoints': [
            {'name': e.name, 'problem': e.problem, 'manifest': e.manifest}
            for e in entries], 'left-over': left}, indent=2))
        return 0
    for entry in entries:
        print(_row(entry))
    for file in left:
        print(f'{file}: no checkpoint; it is being written, or was left over '
              '("prune" removes it)')
    return 0


@in_words
def main_show(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    catalogue = Catalogue(args.dir)
    entry = catalogue.get(args.name) if args.name else catalogue.newest()
    if not entry.manifest:
        raise MigrateError(f'{entry.name}: {entry.problem}')
    if args.json:
        print(json.dumps(entry.manifest, indent=2))
    else:
        print('\n'.join(text.shown(entry.manifest,
                                   catalogue.file(entry))))
        if entry.problem:
            print(f'  problem   {entry.problem}')
    return 0
