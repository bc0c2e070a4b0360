# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP connection to a running QEMU."""

import errno
import json
import os
import re
import socket

from .errors import Gone, MigrateError, Refused, Silent

# The host is not there, or the network, or QEMU accepts no connections
SILENT = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN,
          errno.EAGAIN)
CONNECT_S = 10
ANSWER_S = 60


def endpoint(address):
    """(host, port), or (path, None) of a Unix socket."""
    m = re.fullmatch(r'(.*):(\d+)', address)
    return (m[1], int(m[2])) if m and not os.path.exists(address) else \
        (address, None)


def _kind(error):
    """What it says of QEMU that there is no connection."""
    if isinstance(error, (ConnectionError, FileNotFoundError)):
        return Gone
    return Silent if error.errno in SILENT else MigrateError


class Qmp:
    """Call it: qmp('migrate', uri=...)."""

    def __init__(self, address):
        self.address = address
        host, port = endpoint(address)
        try:
            if port:
                self.sock = socket.create_connection((host, port), CONNECT_S)
            else:
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.settimeout(CONNECT_S)
                self.sock.connect(host)
            self.file = self.sock.makefile('rb')
            # QEMU serves one client per socket; the next one just waits
            self._read()
        except TimeoutError:
            raise Silent(f'{address}: no greeting; is another client '
                         'connected to this monitor?') from None
        except OSError as e:
            raise _kind(e)(f'{address}: {e.strerror or e}') from None
        self.sock.settimeout(ANSWER_S)
        self('qmp_capabilities')

    def _read(self):
        line = self.file.readline()
        if not line:
            raise Gone(f'{self.address}: QEMU has closed the connection')
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
            raise Silent(f'{command}: no answer from QEMU') from None
        except OSError:
            raise Gone(f'{self.address}: QEMU has closed the '
                       'connection') from None
        if 'error' in reply:
            raise Refused(f"{command}: {reply['error']['desc']}")
        return reply['return']

    def close(self):
        self.file.close()
        self.sock.close()
