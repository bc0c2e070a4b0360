# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint save."""

import json
import sys

from ..errors import MigrateError
from ..progress import Display
from . import place, source, text
from .catalogue import Catalogue
from .run import Cancelled
from .saver import Saver
from .signals import Interrupted, Signals
from .toserver import ServerSaver, saved


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    source.check(parser, args)
    place.check(parser, args)
    out = sys.stderr if args.json else sys.stdout
    try:
        saver = ServerSaver(args) if args.server else \
            Saver(Catalogue(args.dir), args)
        with Signals() as signals:
            # Nothing is sent in the pause, which predictions do not know
            content = saver.save(args.name, Display(out, downtime=False),
                                 signals)
    except Cancelled:
        print('The checkpoint was cancelled by another client; nothing is '
              'left of it', file=sys.stderr)
        return 3
    except Interrupted:
        print('Cancelled: the guest runs on, and nothing is left of the '
              'checkpoint', file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    except (MigrateError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    print('\n'.join(saved(content) if args.server else text.saved(
        content, saver.catalogue.path(content['name']))), file=out)
    if args.json:
        print(json.dumps(content, indent=2))
    return 0
