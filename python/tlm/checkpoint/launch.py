# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that a checkpoint is loaded into."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from ..errors import MigrateError
from ..qmp import Qmp
from .machine import words_of

ALONE = ('-S', '-daemonize')
WITH_VALUE = ('-incoming', '-loadvm')
# A file descriptor that whoever started QEMU had opened for it
PASSED = re.compile(r'(^|[,:=])(vhost|v)?fds?[=:]\d|/dev/fdset/|^-add-fd$')
POLL_S = 0.01
START_S = 60
MESSAGES = 10               # lines of QEMU's that the user is shown


def _plain(words):
    """Without what says how to begin, and would do so in another way."""
    kept, skip = [], False
    for word in words:
        option = word.replace('--', '-', 1) if word.startswith('--') else word
        if skip or option in (*ALONE, *WITH_VALUE):
            skip = not skip and option in WITH_VALUE
        else:
            kept.append(word)
    return kept


def _running(command, changed=()):
    """Who runs it, also if it was restored from it; None: nobody.
    @changed: indices of words that are not compared."""
    def bare(words):
        return [None if at in changed else word
                for at, word in enumerate(words[:len(command)])]
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            words = words_of(pid)
        except (OSError, UnicodeDecodeError):
            continue
        if bare(_plain(words)) == bare(command):
            return pid
    return None


def recorded(vm):
    """(words, directory) of the QEMU that was saved."""
    if not vm['command']:
        raise MigrateError('the command line of the QEMU that was saved is '
                           'not known: write one behind "--"')
    command = _plain(vm['command'])
    passed = next((w for w in command if PASSED.search(w)), None)
    if passed:
        raise MigrateError(f"the recorded command line has '{passed}', which "
                           'another program had opened for QEMU: write one '
                           'behind "--"')
    check_nobody_runs(command)
    return command, vm['directory']


def check_nobody_runs(command, changed=()):
    pid = _running(command, changed)
    if pid:
        raise MigrateError('a QEMU with the recorded command line runs '
                           f'(process {pid}), whose sockets and disks it '
                           'would take: end it, or write another command line '
                           'behind "--"')


class Qemu:
    """Started in a "with": killed if that ends by an exception.  @monitor:
    what its QMP socket is used by."""

    elsewhere = None                # it is on this host

    def __init__(self, command, directory=None, monitor=Qmp):
        self.monitor = monitor
        self.dir = tempfile.mkdtemp(prefix='tlm-restore-')
        self.socket = os.path.join(self.dir, 'qmp')
        self.log = os.path.join(self.dir, 'log')
        self.command = [*_plain(command), '-S', '-incoming', 'defer', '-qmp',
                        f'unix:{self.socket},server=on,wait=off']
        self.directory = directory
        self.process = self.qmp = None

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, error, *_):
        if error:
            self._end()
        else:
            self.qmp.close()

    def _start(self):
        with open(self.log, 'wb') as log:
            try:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, cwd=self.directory, start_new_session=True)
            except OSError as e:
                raise MigrateError(f'{e.filename}: {e.strerror}') from None
        deadline = time.monotonic() + START_S
        while self.qmp is None:
            self.check()
            try:
                self.qmp = self.monitor(self.socket)
            except MigrateError:
                # not there yet, or not yet listening
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)

    @contextlib.contextmanager
    def opened(self, path):
        """Yields the URI of a file for QEMU."""
        yield f'file:{path}'

    def resume(self):
        self.qmp('cont')

    def told(self):
        return {'pid': self.process.pid, 'qmp': self.socket, 'log': self.log}

    def check(self, patience=0):
        """Raises MigrateError if it has ended, or does in @patience s."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
            raise MigrateError(f'QEMU has ended: {self.messages()}')

    def messages(self):
        with open(self.log, errors='replace', encoding='utf-8') as f:
            lines = f.read().splitlines()[-MESSAGES:]
        return '\n  '.join(lines) or \
            f'status {self.process.returncode}, without a message'

    def _end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
