# SPDX-License-Identifier: GPL-2.0-or-later
"""What "list", "show" and "verify" print, of checkpoints and of sets of them.

Each returns the exit status.
"""

import json

from ..errors import MigrateError


def listed(kind, found, left, row, note, as_json):
    """@found: entries; @left: names of leftovers, of which @note is told."""
    if as_json:
        print(json.dumps({kind: [
            {'name': e.name, 'problem': e.problem, 'manifest': e.manifest}
            for e in found], 'left-over': left}, indent=2))
        return 0
    for entry in found:
        print(row(entry))
    for name in left:
        print(f'{name}: {note} ("prune" removes it)')
    return 0


def shown(entry, lines, as_json):
    """@lines: a function, what is told of it."""
    if not entry.manifest:
        raise MigrateError(f'{entry.name}: {entry.problem}')
    if as_json:
        print(json.dumps(entry.manifest, indent=2))
        return 0
    print('\n'.join(lines()))
    if entry.problem:
        print(f'  problem   {entry.problem}')
    return 0


def verified(entries, problem, as_json):
    """@problem: a function, what is wrong with an entry, or None."""
    found = {}
    for entry in entries:
        found[entry.name] = problem(entry)
        if not as_json:
            print(f"{entry.name}: {found[entry.name] or 'good'}", flush=True)
    if as_json:
        print(json.dumps(found, indent=2))
    return 1 if any(found.values()) else 0
