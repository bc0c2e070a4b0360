# SPDX-License-Identifier: GPL-2.0-or-later
"""A virsh that is asked many things over one connection."""

import os
import re
import select
import signal
import subprocess
import time

from ..errors import MigrateError, Silent
from .terminal import Terminal

ANSWER_S = 120              # libvirt itself gives up after 30
LOST = re.compile(
    r'(?i)failed to (re)?connect|unable to connect|disconnected|no valid '
    r'connection|connection (reset|refused)|end of file|broken pipe|cannot '
    r'(recv|write) data|client socket is closed')


class Lost(Silent):
    """libvirt, not the domain, is what does not answer."""


def plain_language():
    """The environment of a virsh whose output is parsed."""
    return {**{k: v for k, v in os.environ.items() if k != 'LANGUAGE'},
            'LC_ALL': 'C.UTF-8'}


def help_of_migrate():
    """What "virsh help migrate" prints.  Raises OSError if there is no
    virsh, and subprocess.CalledProcessError."""
    return subprocess.run(['virsh', 'help', 'migrate'], text=True,
                          capture_output=True, check=True,
                          env=plain_language()).stdout


def said(error):
    """What virsh has printed as errors, in one line."""
    return '; '.join(re.findall(r'^error: (.*)$', error, re.M))


class Virsh:
    """One virsh that executes commands one after the other, so that there
    is one connection, and one ssh, however often it is asked."""

    def __init__(self, uri):
        self.command = ['virsh', *(['-c', uri] if uri else [])]
        self.terminal = Terminal()
        self.process = None
        self.count = 0
        self.given_up = False

    def _start(self):
        self.process = subprocess.Popen(
            [*self.command, '--quiet'], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=dict(plain_language(), TERM='dumb', INPUTRC='/dev/null'),
            process_group=0)
        if self.given_up:
            self.give_up()       # while it was started
        self.terminal.lend(self.process.pid)

    def __call__(self, *words):
        """What the command prints; raises MigrateError with its message."""
        started = self.process is None or self.process.poll() is not None
        if self.given_up:
            raise Lost('virsh was ended')
        if started:
            self._start()
        self.count += 1
        # virsh may repeat what it reads: the mark must not be in there
        line = ' '.join(self.quote(w) for w in words) + \
            f'\necho "TLM""MARK{self.count}"\n'
        try:
            out, error = self._exchange(line.encode(),
                                        f'TLMMARK{self.count}'.encode())
        except BaseException:
            self.close()            # it may answer later, to something else
            raise
        finally:
            if started:
                self.terminal.take()
        message = said(error)
        if LOST.search(message):
            raise Lost(message)
        if message and not message.startswith('Reconnected'):
            raise MigrateError(message)
        return out

    @staticmethod
    def quote(word):
        return "'" + word.replace("'", "'\"'\"'") + "'"

    def _exchange(self, line, mark):
        p = self.process
        out = error = b''
        try:
            p.stdin.write(line)
            p.stdin.flush()
            deadline = time.monotonic() + ANSWER_S
            while mark not in out:
                left = deadline - time.monotonic()
                ready, _, _ = select.select([p.stdout, p.stderr], [], [],
                                            max(left, 0))
                if not ready:
                    raise Lost('no answer from libvirt')
                for f in ready:
                    data = os.read(f.fileno(), 65536)
                    if f is p.stderr:
                        error += data
                    elif data:
                        out += data
                    else:
                        raise BrokenPipeError
        except BrokenPipeError:
            error += p.stderr.read()
            error = error.decode(errors='replace')
            raise Lost(said(error) or error.strip() or
                       'virsh has ended') from None
        while select.select([p.stderr], [], [], 0)[0]:
            data = os.read(p.stderr.fileno(), 65536)
            if not data:
                break
            error += data
        return (out[:out.index(mark)].decode(errors='replace'),
                error.decode(errors='replace'))

    def give_up(self):
        """By any thread: who waits for an answer gets Lost, and nobody gets
        one from now on.  With what virsh has started to reach the host, which
        would keep its pipes open."""
        self.given_up = True
        process = self.process
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def close(self):
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None
