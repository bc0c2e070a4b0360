# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP connection for a supervisor: events, and out-of-band commands, which
QEMU executes even when its main loop waits for a page of RAM."""

import collections
import json
import select

from ..errors import MigrateError
from ..qmp import Qmp


class Monitor(Qmp):
    def __init__(self, address):
        self.events = collections.deque()       # not looked at yet
        self._buffer, self._replies, self._id = b'', {}, 0
        super().__init__(address)

    def fileno(self):
        return self.sock.fileno()

    def _read(self):
        while b'\n' not in self._buffer:
            data = self.sock.recv(1 << 16)
            if not data:
                raise MigrateError(f'{self.address}: QEMU has closed the '
                                   'connection')
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b'\n')
        try:
            return json.loads(line)
        except ValueError:
            raise MigrateError(f'{self.address}: this is not a QMP '
                               'monitor') from None

    def _sort(self, message):
        if 'event' in message:
            self.events.append(message)
        elif 'id' in message:
            self._replies[message['id']] = message

    def pump(self):
        """Takes what is there, without waiting."""
        try:
            while b'\n' in self._buffer or \
                    select.select([self.sock], (), (), 0)[0]:
                self._sort(self._read())
        except OSError as e:
            raise MigrateError(f'{self.address}: {e.strerror}') from None

    def _execute(self, kind, command, arguments):
        self._id += 1
        own = self._id
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        try:
            self.sock.sendall(json.dumps(
                {kind: command, 'arguments': arguments, 'id': own}).encode()
                + b'\n')
            while own not in self._replies:
                self._sort(self._read())
        except TimeoutError:
            raise MigrateError(f'{command}: no answer from QEMU') from None
        except OSError:
            raise MigrateError(f'{self.address}: QEMU has closed the '
                               'connection') from None
        reply = self._replies.pop(own)
        if 'error' in reply:
            raise MigrateError(f"{command}: {reply['error']['desc']}")
        return reply['return']

    def __call__(self, command, **arguments):
        if command == 'qmp_capabilities':
            arguments['enable'] = ['oob']
        return self._execute('execute', command, arguments)

    def now(self, command, **arguments):
        """Out of band."""
        return self._execute('exec-oob', command, arguments)
