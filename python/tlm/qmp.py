# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP connection to a running QEMU."""

import json
import os
import re
import socket

from .errors import MigrateError

CONNECT_S = 10
ANSWER_S = 60


class Qmp:
    """Call it: qmp('migrate', uri=...)."""

    def __init__(self, address):
        self.address = address
        m = re.fullmatch(r'(.*):(\d+)', address)
        try:
            if m and not os.path.exists(address):
                self.sock = socket.create_connection((m[1], int(m[2])),
                                                     CONNECT_S)
            else:
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.settimeout(CONNECT_S)
                self.sock.connect(address)
            self.file = self.sock.makefile('rb')
            # QEMU serves one client per socket; the next one just waits
            self._read()
        except TimeoutError:
            raise MigrateError(f'{address}: no greeting; is another client '
                               'connected to this monitor?') from None
        except OSError as e:
            raise MigrateError(f'{address}: {e.strerror or e}') from None
        self.sock.settimeout(ANSWER_S)
        self('qmp_capabilities')

    def _read(self):
        line = self.file.readline()
        if not line:
            raise MigrateError(f'{self.address}: QEMU has closed the '
                               'connection')
        try:
            return json.loads(line)
        except ValueError:
            raise MigrateError(f'{self.address}: this is not a QMP '
                               'monitor') from None

    def __call__(self, command, **arguments):
        # QMP names have hyphens, Python's keywords cannot
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        request = {'execute': command, 'arguments': arguments}
        try:
            self.sock.sendall(json.dumps(request).encode() + b'\n')
            reply = self._read()
            while 'event' in reply:
                reply = self._read()
        except TimeoutError:
            raise MigrateError(f'{command}: no answer from QEMU') from None
        except OSError:
            raise MigrateError(f'{self.address}: QEMU has closed the '
                               'connection') from None
        if 'error' in reply:
            raise MigrateError(f"{command}: {reply['error']['desc']}")
        return reply['return']

    def close(self):
        self.file.close()
        self.sock.close()
