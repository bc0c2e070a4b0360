# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster list, show, verify and prune."""

import asyncio
import json
import sys

from ..checkpoint import report
from ..checkpoint.verify import problem
from ..errors import in_words
from ..progress import Display
from . import servers, text
from .recover import recover
from .sets import Sets


def _of_sets(main):
    @in_words
    def wrapped(parser, words):
        args = parser.parse_args(words)
        return main(parser, args, Sets(args.dir))
    return wrapped


@_of_sets
def main_list(_parser, args, sets):
    """Returns the exit status."""
    return report.listed(
        'sets', sets.entries(), sets.leftovers(), text.row,
        'no set; it is being written or removed, or was left over', args.json)


@_of_sets
def main_show(_parser, args, sets):
    """Returns the exit status."""
    entry = sets.get(args.name) if args.name else sets.newest()
    return report.shown(entry, lambda: text.shown(entry.manifest), args.json)


def all_problems(sets, entry, display):
    """What is wrong with a set, after reading its files; None: nothing."""
    if entry.problem:
        return entry.problem
    for member in entry.manifest['members']:
        if 'server' in member:
            found = servers.problem(member['server'])
            if found:
                return f"{member['name']}: {found}"
            continue
        catalogue = sets.of_member(member)
        with display:
            found = problem(catalogue, catalogue.get(entry.name), display)
        if found:
            return f"{member['name']}: {found}"
    return None


@_of_sets
def main_verify(_parser, args, sets):
    """Returns the exit status."""
    display = Display(sys.stderr)
    return report.verified(
        [sets.get(args.name)] if args.name else sets.entries(),
        lambda entry: all_problems(sets, entry, display), args.json)


@_of_sets
def main_prune(parser, args, sets):
    """Returns the exit status."""
    with sets.locked():
        left, troubles = asyncio.run(recover(sets))
        bad = [e for e in sets.entries() if e.problem]
        removed, needed = sets.prune(args.keep)
    for entry in bad:
        print(f'{parser.prog}: {entry.name} is left as it is: '
              f'{entry.problem}', file=sys.stderr)
    for name in needed:
        print(f'{parser.prog}: {name} stays: a newer one has only what has '
              'changed since', file=sys.stderr)
    for name, why in troubles.items():
        print(f'{parser.prog}: {name}: what is left over could not be '
              f'removed: {why}', file=sys.stderr)
    if args.json:
        print(json.dumps({'sets': removed, 'left-over': left,
                          'needed': needed}, indent=2))
    else:
        for name in [*removed, *left]:
            print(f'Removed {name}')
    return 1 if troubles else 0
