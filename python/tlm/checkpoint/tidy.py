# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint verify and prune: is all of it good, and still wanted?"""

import json
import sys

from ..errors import in_words
from ..progress import Display
from . import prune, report
from .catalogue import Catalogue
from .verify import problem


@in_words
def main_verify(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    display = Display(sys.stderr)
    catalogue = Catalogue(args.dir)

    def read(entry):
        with display:
            return problem(catalogue, entry, display)
    return report.verified(
        [catalogue.get(args.name)] if args.name else catalogue.entries(),
        read, args.json)


@in_words
def main_prune(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    catalogue = Catalogue(args.dir)
    with catalogue.locked():
        bad = [e for e in catalogue.entries() if e.problem]
        with Display(sys.stderr) as display:
            removed = prune.run(catalogue, args.keep, display)
        left = catalogue.remove_leftovers()
    for entry in bad:
        print(f'{parser.prog}: {entry.name} is left as it is: '
              f'{entry.problem}', file=sys.stderr)
    if args.json:
        print(json.dumps({'checkpoints': removed, 'left-over': left},
                         indent=2))
    else:
        for name in [*removed, *left]:
            print(f'Removed {name}')
    return 0
