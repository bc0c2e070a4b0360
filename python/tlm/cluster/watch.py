# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster watch: one set after the other."""

import asyncio
import json
import sys
import time

from ..errors import MigrateError
from ..progress import Display
from ..units import Bad
from . import config, text
from .save import check, interrupted_by_sigterm, save
from .sets import Sets


class Watch:
    def __init__(self, sets, vms, args):
        self.sets, self.vms, self.args = sets, vms, args
        self.out = sys.stderr if args.json else sys.stdout

    async def run(self):
        """Until it is cancelled."""
        interrupted_by_sigterm()
        every = self.args.every / 1000
        due = time.monotonic()
        while True:
            await self._once()
            # One that took longer than that is followed by the next but one
            now = time.monotonic()
            due += every * max(1, -(-(now - due) // every))
            await asyncio.sleep(due - now)

    async def _once(self):
        try:
            # As long a chain as sets are kept: then the oldest ones can go
            content = await save(self.sets, self.vms, self.args, None,
                                 Display(self.out), self.args.keep)
            print(f"Saved {content['name']}: {text.brief(content)}",
                  file=self.out, flush=True)
            if self.args.json:
                print(json.dumps(content), flush=True)
        except (MigrateError, OSError) as e:
            print(f'Not saved: {e}', file=sys.stderr, flush=True)
            return
        try:
            if self.args.keep:
                self._prune()
        except (MigrateError, OSError) as e:
            print(f'Not removed: {e}', file=sys.stderr, flush=True)

    def _prune(self):
        with self.sets.locked():
            removed, _ = self.sets.prune(self.args.keep)
        for name in removed:
            print(f'Removed {name}', file=self.out, flush=True)


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    check(parser, args)
    try:
        asyncio.run(Watch(Sets(args.dir), config.to_save(args), args).run())
    except Bad as e:
        parser.error(str(e))
    except asyncio.CancelledError:
        return 0
    except KeyboardInterrupt:
        return 0
    except (MigrateError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
    return 1
