# SPDX-License-Identifier: GPL-2.0-or-later
"""One time bound for the disks that libvirt copies and for QEMU's memory."""

import contextlib
import sys
import time

from ..errors import MigrateError
from ..figures import duration

LEAST_MS = 1                # 0 would be no bound


class SharedBound:
    """libvirt copies disks first, which QEMU's migration, and so its time
    bound, knows nothing of.  While disks are copied, QEMU's is what is left
    of the bound; if that is nothing, the bound's action is taken."""

    def __init__(self, qmp, ms=None, action=None):
        """@ms: of both together; 0 or None: there is none."""
        self.qmp = qmp
        self.ms, self.action = ms, action
        self.began = None
        self.passed = False                 # while disks were copied

    def start(self):
        self.began = time.monotonic()

    def left(self, at):
        """In ms, at a time; it may be negative."""
        return round(self.ms - (at - self.began) * 1000)

    def _set(self, left):
        with contextlib.suppress(MigrateError):     # not there any more
            self.qmp('migrate-set-parameters',
                     tlm_time_bound=max(left, LEAST_MS))

    def look(self):
        """Called while disks are copied; details for the progress."""
        if not self.ms:
            return []
        left = self.left(time.monotonic())
        if left <= 0 and not self.passed:
            self.passed = True
            if self.action != 'cancel':
                print(f'The bound of {duration(self.ms)} has passed while '
                      'disks are copied. The guest runs on, and is stopped '
                      'when that is done. Ctrl-C cancels.', file=sys.stderr)
        self._set(left)
        return [f'bound in {duration(left)}' if left > 0 else 'bound passed']

    def settle(self, ended):
        """Once, when it is known when the disks were copied: up to a look
        after the bound was set last."""
        if self.ms:
            self._set(self.left(ended))

    def cancels(self):
        return self.passed and self.action == 'cancel'
