# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint flatten."""

import json
import sys

from ..errors import MigrateError
from ..progress import Display
from . import chain
from .catalogue import Catalogue
from .signals import Interrupted, Signals
from .target import summed


def _flatten(args, display, check):
    catalogue = Catalogue(args.dir)
    with catalogue.locked():
        entry = catalogue.get(args.name) if args.name else catalogue.newest()
        if entry.problem:
            raise MigrateError(f'{entry.name}: {entry.problem}')
        if entry.parent:
            chain.flatten(catalogue, entry,
                          lambda path: summed(path, display, check), display,
                          check)
        return catalogue.get(entry.name).manifest


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    try:
        with Signals() as signals, Display(sys.stderr) as display:
            content = _flatten(args, display, signals.check)
    except (Interrupted, KeyboardInterrupt):
        return 130
    except (MigrateError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    print(json.dumps(content, indent=2) if args.json
          else f"{content['name']} is whole")
    return 0
