# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS between memory servers and the QEMU that they restore.

Servers connect to QEMU.  So QEMU has the credentials of a TLS server, and each
memory server those of a client, which its configuration names.
"""

import contextlib
import os

from ..errors import MigrateError
from ..memserver import client

CREDENTIALS = 'tlm-restore'     # QEMU's object
FILES = {'x509': ('ca-cert.pem', 'server-cert.pem', 'server-key.pem'),
         'psk': ('keys.psk',)}


class Encryption:
    """@tls: a client.Tls, or None.  @hostname: in QEMU's certificate"""

    def __init__(self, tls=None, hostname=None, allow_plain=False):
        self.tls, self.hostname = tls, hostname
        self.allow_plain = allow_plain

    def wish(self, uri):
        """What a server is told beside the address @uri, where QEMU waits."""
        if not client.host_of(uri):
            return {}           # a Unix socket needs no TLS
        if self.allow_plain:
            return {'allow_plain': True}
        return {'tls': True, 'tls_hostname': self.hostname} if self.tls else {}

    def wanted(self, uri):
        return 'tls' in self.wish(uri)

    def check_files(self):
        """Raises MigrateError if a QEMU that is started would miss one."""
        if not self.tls or self.allow_plain:
            return
        for name in FILES[self.tls.kind]:
            path = os.path.join(self.tls.directory, name)
            if not os.path.exists(path):
                raise MigrateError(
                    f'{path} is missing: the servers connect to the QEMU that '
                    'is restored, which needs the credentials of a TLS '
                    'server. On a network that you trust, --allow-plain '
                    'restores without')

    def begin(self, qmp, uri):
        """QEMU is to expect TLS at @uri, and wherever it waits later."""
        if self.wanted(uri):
            qmp('object-add', id=CREDENTIALS, **self.tls.properties('server'))
            qmp('migrate-set-parameters', tls_creds=CREDENTIALS)

    def end(self, qmp, uri):
        if self.wanted(uri):
            qmp('migrate-set-parameters', tls_creds='')
            qmp('object-del', id=CREDENTIALS)

    @contextlib.contextmanager
    def of(self, qmp, uri):
        """For one load.  A QEMU that fails ends, and has no more to undo."""
        self.begin(qmp, uri)
        yield
        self.end(qmp, uri)
