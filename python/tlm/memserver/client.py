# SPDX-License-Identifier: GPL-2.0-or-later
"""The control connection of a tlm-memserver, by the program of that name,
which knows its kinds of TLS."""

import dataclasses
import json
import os
import re
import select
import subprocess
import time

from ..errors import MigrateError
from ..programs import find

NAME, FOLDER = 'tlm-memserver', 'tools/memserver'
# A server that verifies a checkpoint reads all of it.
ANSWER_S = 600
READ = 1 << 16
WILDCARDS = ('0.0.0.0', '::')


@dataclasses.dataclass(frozen=True)
class Tls:
    """Credentials as QEMU has them in a directory."""

    kind: str
    directory: str
    user: str

    def words(self):
        return ['--tls', self.kind, '--tls-dir', self.directory,
                '--tls-user', self.user]

    def properties(self, endpoint='client'):
        """Of QEMU's object."""
        named = self.kind == 'psk' and endpoint == 'client'
        return {'qom-type': f'tls-creds-{self.kind}',
                'dir': os.path.abspath(self.directory), 'endpoint': endpoint,
                **({'username': self.user} if named else {})}


def tls_of(args):
    """What the options say; None: no TLS."""
    return Tls(args.tls, args.tls_dir, args.tls_user) if args.tls else None


def check(parser, args):
    """Wrong usage ends the program."""
    if bool(args.tls) != bool(args.tls_dir):
        parser.error('--tls and --tls-dir go together')
    if getattr(args, 'tls_hostname', None) and \
            (not args.tls or args.allow_plain):
        parser.error('--tls-hostname is for --tls without --allow-plain')


def host_of(address):
    """(host, port) of tcp:HOST:PORT; None: it is a Unix socket's."""
    found = re.fullmatch(r'tcp:(?:\[(.*)\]|(.*)):(\d+)', address)
    return (found[1] or found[2], int(found[3])) if found else None


def reachable(uri, address):
    """@uri, as a server told it that listens at @address: one that listens
    everywhere does not know by which name it was found."""
    told, known = host_of(uri), host_of(address)
    if not told or not known or told[0] not in WILDCARDS:
        return uri
    host = f'[{known[0]}]' if ':' in known[0] else known[0]
    return f'tcp:{host}:{told[1]}'


def senders(servers):
    """Who they are where they connect to another server by TLS: for
    "announce".  None: nobody but the client itself."""
    return [name for name in (s('whoami').get('server') for s in servers)
            if name] or None


class Refused(MigrateError):
    """What the server has answered."""


class MemServer:
    """Call it: server('list', vm=...).  @address: tcp:HOST:PORT, unix:PATH"""

    def __init__(self, address, tls=None):
        self.address, self._buffer, self.patience = address, b'', ANSWER_S
        over_tls = tls.words() if tls and host_of(address) else []
        try:
            self.process = subprocess.Popen(
                [find(NAME, FOLDER), '--control', address, *over_tls, 'pipe'],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True)
        except OSError as e:
            raise MigrateError(f'{e.filename}: {e.strerror}') from None
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.process.stdout.fileno()

    def send(self, command, **arguments):
        """The answer comes later."""
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()
                     if v is not None}
        line = json.dumps({'execute': command, 'arguments': arguments})
        try:
            self.process.stdin.write(line.encode() + b'\n')
            self.process.stdin.flush()
        except OSError:
            raise self._lost() from None

    def answer(self, patience=0):
        """Of the oldest command without one; None: there is none within
        @patience s."""
        end = time.monotonic() + patience
        while b'\n' not in self._buffer:
            left = max(0, end - time.monotonic())
            if not select.select([self], (), (), left)[0]:
                return None
            data = os.read(self.fileno(), READ)
            if not data:
                raise self._lost()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b'\n')
        try:
            reply = json.loads(line)
        except ValueError:
            raise MigrateError(f'{self.address}: this is no answer of a '
                               'memory server') from None
        if 'error' in reply:
            raise Refused(f"{self.address}: {reply['error']['desc']}")
        return reply['return']

    def __call__(self, command, patience=None, /, **arguments):
        self.send(command, **arguments)
        answer = self.answer(patience or self.patience)
        if answer is None:
            raise MigrateError(f'{self.address}: no answer to "{command}"')
        return answer

    def _lost(self):
        """It ends when it has lost the server, and says why."""
        self.process.wait()
        why = self.process.stderr.read().decode(errors='replace').strip()
        return MigrateError(why.removeprefix(f'{NAME}: ') or
                            f'{self.address}: the connection is lost')

    def close(self):
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdout, self.process.stderr):
            file.close()
        try:
            self.process.stdin.close()
        except OSError:
            pass                # what was not sent is not wanted any more
