# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that restores a waiting QEMU from a checkpoint's file.

It is in a session of its own, and goes on when the tool has ended: a guest may
depend on it.
"""

import json
import os
import subprocess
import time

from ..errors import MigrateError
from ..programs import find

NAME, FOLDER = 'tlm-serve-checkpoint', 'tools/memserver/restore'
# It tells of itself 20 times a second; busy hosts are slow.
HANGS_S = 3


def binary():
    return find(NAME, FOLDER)


class Telling:
    """Whoever restores a QEMU tells again and again how it goes."""

    def __init__(self):
        self.told, self._beat = {}, (None, time.monotonic())
        self.ticket = None

    def take(self, told):
        self.ticket = told.get('ticket', self.ticket)
        if 'state' in told:
            self.told = told
            if told['beats'] != self._beat[0]:
                self._beat = (told['beats'], time.monotonic())

    def hangs(self):
        return time.monotonic() - self._beat[1] > HANGS_S

    def loaded(self):
        """The guest may run."""
        return bool(self.told.get('loaded-us'))

    def sent(self):
        return self.told.get('sent', 0)

    def may_have_begun(self):
        """QEMU may have a part of it."""
        return bool(self.ticket)


class Failed(Telling):
    """One that has not come to life."""

    def __init__(self, why):
        super().__init__()
        self.why = why

    def pump(self):
        pass

    def ended(self):
        return self.why

    def kill(self):
        pass


class Server(Telling):
    """@words: of the command line, but for the checkpoint: file @fd."""

    def __init__(self, fd, words):
        super().__init__()
        self._buffer = b''
        try:
            self.process = subprocess.Popen(
                [binary(), '--fd', str(fd), *words], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=(fd,), start_new_session=True)
        except OSError as e:
            raise MigrateError(f'{e.filename}: {e.strerror}') from None
        os.set_blocking(self.process.stdout.fileno(), False)

    def fileno(self):
        return self.process.stdout.fileno()

    def pump(self):
        """Takes what it has said, without waiting."""
        try:
            while data := os.read(self.fileno(), 1 << 16):
                self._buffer += data
        except BlockingIOError:
            pass
        *lines, self._buffer = self._buffer.split(b'\n')
        for told in map(json.loads, lines):
            self.take(told)

    def ended(self):
        """None, '' (QEMU has got all), or why it has ended."""
        if self.process.poll() is None:
            return None
        if not self.process.returncode:
            return ''
        return self.process.stderr.read().decode(errors='replace').strip() \
            or f'{NAME} ended with status {self.process.returncode}'

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.pump()
        self.process.stdout.close()
        self.process.stderr.close()
