# SPDX-License-Identifier: GPL-2.0-or-later
"""The terminal, which children need for passwords, and its loss."""

import contextlib
import os
import signal


class Terminal:
    """Children are in process groups of their own, so that Ctrl-C and the
    like do not hit them: the migration is to be cancelled in order.  What
    may ask for a password (ssh) is lent the terminal meanwhile."""

    def __init__(self):
        self.fd = None
        with contextlib.suppress(OSError):
            fd = os.open('/dev/tty', os.O_RDWR | os.O_CLOEXEC)
            if os.tcgetpgrp(fd) == os.getpgrp():
                self.fd = fd

    def lend(self, group):
        if self._give(group):
            os.killpg(group, signal.SIGCONT)    # it may have asked already

    def take(self):
        self._give(os.getpgrp())

    def _give(self, group):
        if self.fd is None:
            return False
        old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(self.fd, group)
            return True
        except OSError:             # the group has ended, or the terminal
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)


class Output:
    """Standard output or error whose reader may go away."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        with contextlib.suppress(OSError):
            self.stream.write(text)

    def flush(self):
        with contextlib.suppress(OSError):
            self.stream.flush()

    def isatty(self):
        return self.stream.isatty()
