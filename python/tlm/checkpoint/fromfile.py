# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint's file, as what a QEMU is restored from.

Others like it (fromserver.py) have: check(), which raises MigrateError if
nobody can serve; serve(uri, **wish), which returns a Telling, and
serve_whole(); address(), where QEMU shall wait for one; encryption, which
begin()s and end()s; by_hand(), how a user would do it; load(), and another():
is it of use to try it again with another QEMU, after it has failed?; close().
"""

import os
import shlex
import time

from ..errors import MigrateError
from ..migration import Migration
from . import server
from .encryption import Encryption

CAPABILITIES = {'multifd': True, 'mapped-ram': True}
POLL_S = 0.005
END_S = 1


class Load(Migration):
    """Into a QEMU that waits for it."""

    def start(self, uri):
        self.qmp('migrate-incoming', uri=uri)

    def until_cleaned_up(self):
        pass                    # this is the destination


def until_loaded(qemu, load, check=lambda: None):
    """@check may raise an exception."""
    while not load.poll().status == 'completed':
        if load.over():
            raise MigrateError(load.status.error)
        check()
        time.sleep(POLL_S)
    while qemu.qmp('query-status')['status'] == 'inmigrate':
        time.sleep(POLL_S)


def load(qemu, path):
    """The capabilities are QEMU's for the load alone."""
    try:
        with qemu.opened(path) as uri, \
                Load(qemu.qmp, CAPABILITIES, {}) as loading:
            loading.start(uri)
            until_loaded(qemu, loading)
    except MigrateError:
        qemu.check(END_S)       # it ends when it cannot load, and says why
        raise


class FromFile:
    """It stays open for those who serve it: so it may be removed."""

    check = staticmethod(server.binary)

    def __init__(self, path, channels):
        self.path, self.channels = path, channels
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.encryption = Encryption()

    def close(self):
        os.close(self.fd)

    def load(self, qemu):
        load(qemu, self.path)

    @staticmethod
    def address(qemu, name):
        return f'unix:{qemu.dir}/{name}'

    @staticmethod
    def _words(uri, wish):
        words = ['--to', uri]
        for block, size in wish.get('page_sizes', {}).items():
            words += ['--page-size', f'{block}={size}']
        for name in ('rate', 'expect', 'channels', 'uuid'):
            if wish.get(name):
                words += [f'--{name}', str(wish[name])]
        return words + [f'--{name}' for name in ('resume', 'whole')
                        if wish.get(name)]

    def serve(self, uri, **wish):
        return server.Server(self.fd, self._words(uri, wish))

    def serve_whole(self, uri, **wish):
        return self.serve(uri, whole=True, channels=self.channels, **wish)

    @staticmethod
    def another():
        return False

    @staticmethod
    def told():
        """For the user, after load()."""
        return {}

    def by_hand(self, uri, **wish):
        return shlex.join(['tlm-serve-checkpoint', self.path,
                           *self._words(uri, wish)])
