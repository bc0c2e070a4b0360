# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGINT and SIGTERM, when they must not break into an exchange with QEMU."""

import signal


class Interrupted(Exception):
    """The user does not want it any more."""


class Signals:
    """In a "with": the first is noted, the second raises KeyboardInterrupt."""

    ALL = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.seen = False
        self.old = {}

    def __enter__(self):
        self.old = {s: signal.signal(s, self._note) for s in self.ALL}
        return self

    def __exit__(self, *_):
        for signum, handler in self.old.items():
            signal.signal(signum, handler)

    def _note(self, _signum, _frame):
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def check(self):
        if self.seen:
            raise Interrupted
