# SPDX-License-Identifier: GPL-2.0-or-later
"""The process "virsh migrate", and how to tell that it hangs."""

import os
import signal
import subprocess
import time

from ..errors import MigrateError

LOOK_S = 1                  # between two looks at libvirt's job
IDLE_LOOKS = 10             # after which a job that has ended has ended
UNSEEN_LOOKS = 60           # ... and one that was never seen: the connection
                            # to the destination can take its time


class VirshMigrate:
    def __init__(self, domain, command):
        self.domain, self.command = domain, command
        self.process = None
        self.next_look = self.idle = 0
        self.seen = self.hung = False       # libvirt's job; virsh

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, process_group=0)
        self.domain.virsh.terminal.lend(self.process.pid)

    def started(self):
        return self.process is not None

    def runs(self):
        return self.started() and self.process.poll() is None

    def over(self, begun):
        """@begun: QEMU's migration has been seen"""
        if self.runs() and self._hangs(begun):
            self.end()
        return not self.runs()

    def end(self):
        if self.runs():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _hangs(self, begun):
        """virsh (9.0, 11.3) can miss that a migration has failed, if it has
        at once, and then waits forever."""
        if time.monotonic() < self.next_look:
            return False
        self.next_look = time.monotonic() + LOOK_S
        try:
            idle = not self.domain.job()
        except MigrateError:
            idle = False
        self.idle = self.idle + 1 if idle else 0
        self.seen = self.seen or not idle or begun
        self.hung = self.idle > (IDLE_LOOKS if self.seen else UNSEEN_LOOKS)
        return self.hung

    def result(self):
        """(exit status, what it has said), after its end"""
        return self.process.returncode, self.process.stdout.read().strip()
