# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint watch: one checkpoint after the other."""

import json
import sys
import time

from ..errors import MigrateError
from ..progress import Display
from . import text
from .catalogue import Catalogue
from .saver import Cancelled, Saver
from .signals import Interrupted, Signals

POLL_S = 0.1


class Watch:
    def __init__(self, catalogue, args, signals):
        self.catalogue, self.args, self.signals = catalogue, args, signals
        self.saver = Saver(catalogue, args)
        self.out = sys.stderr if args.json else sys.stdout

    def run(self):
        """Until Interrupted is raised."""
        every = self.args.every / 1000
        due = time.monotonic()
        while True:
            self._once()
            # One that took longer than that is followed by the next but one
            now = time.monotonic()
            due += every * max(1, -(-(now - due) // every))
            while time.monotonic() < due:
                self.signals.check()
                time.sleep(POLL_S)

    def _once(self):
        try:
            content = self.saver.save(
                None, Display(self.out, downtime=False), self.signals)
            self._say(f"Saved {content['name']}: {text.brief(content)}")
            if self.args.json:
                print(json.dumps(content), flush=True)
            if self.args.keep:
                self._prune()
        except Cancelled:
            self._fail('cancelled by another client')
        except (MigrateError, OSError) as e:
            self._fail(e)

    def _prune(self):
        with self.catalogue.locked():
            for name in self.catalogue.prune(self.args.keep):
                self._say(f'Removed {name}')

    def _say(self, what):
        print(what, file=self.out, flush=True)

    @staticmethod
    def _fail(why):
        print(f'Not saved: {why}', file=sys.stderr, flush=True)


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    try:
        with Signals() as signals:
            Watch(Catalogue(args.dir), args, signals).run()
    except Interrupted:
        return 0
    except KeyboardInterrupt:
        return 130
    except MigrateError as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
