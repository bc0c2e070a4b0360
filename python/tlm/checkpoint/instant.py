# SPDX-License-Identifier: GPL-2.0-or-later
"""Instant restore: QEMU runs at once, and its RAM follows.

The server plays the source of a post-copy migration.  If it dies or hangs,
another one goes on: QEMU keeps the guest, and says which pages it has.
"""

import contextlib
import re
import select
import time

from ..errors import MigrateError
from .server import Failed

CAPABILITIES = ('postcopy-ram', 'events')
POLL_S = 0.1
END_S = 1
# Servers in a row that have sent nothing
TRIES = 5
UNITS = {'B': 1, 'KiB': 1 << 10, 'MiB': 1 << 20, 'GiB': 1 << 30}
PAGE = 4096


def _page_sizes(qmp):
    """{RAM block: page size}, where it is not that of a target page."""
    text = qmp('human-monitor-command', command_line='info ramblock')
    found = re.findall(r'^ *(.*?) +(\d+) ([KMG]?i?B) +0x', text, re.M)
    sizes = {name: int(n) * UNITS[unit] for name, n, unit in found}
    return {name: size for name, size in sizes.items() if size != PAGE}


class Instant:
    """@origin: see fromfile.py"""

    def __init__(self, qemu, origin, rate):
        self.qemu, self.qmp, self.rate = qemu, qemu.qmp, rate
        self.origin = origin
        self.server = self.ticket = None
        self.sizes, self.serial = {}, 0
        self.uri = None                 # where QEMU waited first
        self.servers = self.idle = 0    # in all; in a row without a page
        self.running_at = None          # s, as of time.monotonic()
        self.paused = False             # migrate-pause was said
        self.status = None              # the last that QEMU has told
        self.lost_at = None             # when this server was seen to be gone

    def prepare(self):
        """Raises MigrateError if QEMU cannot be restored in this way."""
        self.origin.check()
        self._capabilities(True)
        self.sizes = _page_sizes(self.qmp)

    def _capabilities(self, state):
        self.qmp('migrate-set-capabilities', capabilities=[
            {'capability': c, 'state': state} for c in CAPABILITIES])

    def _wish(self, resume):
        wish = {'page_sizes': self.sizes, 'rate': self.rate}
        if resume:
            wish.update(resume=True, expect=self.ticket)
        return wish

    def _address(self):
        """QEMU needs a new one for each server."""
        self.serial += 1
        return self.origin.address(self.qemu, f'restore-{self.serial}')

    def _serve(self, uri, resume):
        self.servers += 1
        self.paused, self.lost_at = False, None
        self.server = self.origin.serve(uri, **self._wish(resume))

    def _begin(self, run):
        uri = self.uri = self._address()
        self.origin.encryption.begin(self.qmp, uri)
        self.qmp('migrate-incoming', uri=uri)
        if run:
            self.qmp('cont')            # as soon as it can
        self._serve(uri, False)

    def _recover(self):
        """Returns False if there is no use."""
        self.server.kill()
        self.ticket = self.ticket or self.server.ticket
        self.idle = 0 if self.server.sent() else self.idle + 1
        if self.idle == TRIES:
            return False
        try:
            uri = self._address()
            self.qmp.now('migrate-recover', uri=uri)
            self._serve(uri, True)
        except MigrateError as e:       # the VM waits, and must not be ended
            self.server = Failed(str(e))
        return True

    def _what_to_do(self, why):
        uri = self.origin.address(self.qemu, 'recover')
        return (f'{why}\nThe VM waits for the rest of its RAM, and can be '
                "recovered at any time. In QEMU's monitor:\n  migrate-recover "
                f'{{"uri": "{uri}"}}\n'
                f'and then:\n  {self.origin.by_hand(uri, **self._wish(True))}')

    def _events(self):
        """Takes what QEMU has told.  Is the server lost?"""
        lost = False
        self.qmp.pump()
        while self.qmp.events:
            event = self.qmp.events.popleft()
            if event['event'] == 'RESUME' and self.running_at is None:
                self.running_at = time.monotonic()
            elif event['event'] == 'MIGRATION':
                self.status = event['data']['status']
                lost = self.status == 'postcopy-paused'
        return lost

    def _look(self, run):
        """True at the end; False if there is no use; None: go on."""
        self.server.pump()
        if self.running_at is None and not run and self.server.loaded():
            self.running_at = time.monotonic()
        lost = self._events()
        if self.status == 'completed':
            return True
        if self.status == 'failed':
            raise MigrateError(self.server.ended() or 'QEMU could not load '
                               'the checkpoint')
        return False if (lost or self._unnoticed()) and \
            not self._recover() else None

    def _unnoticed(self):
        """Is the server lost, and QEMU does not tell?  It tells that a
        connection is broken, but not that there is none."""
        why, now = self.server.ended(), time.monotonic()
        if why:
            self.lost_at = self.lost_at or now
            if now - self.lost_at < END_S:
                return False
            if self.status == 'postcopy-active' and not self.paused:
                # It cannot be asked any more, but may be there yet
                self._pause()
                return False
            if self.status and self.status.startswith('postcopy-'):
                return True
            self.qemu.check()
            raise MigrateError(why)
        if why is None and self.server.hangs() and not self.paused:
            self._pause()
        return False

    def _pause(self):
        """Breaks the connection with the server, if it is there."""
        self.paused = True
        with contextlib.suppress(MigrateError):
            self.qmp.now('migrate-pause')

    def run(self, run):
        """Until QEMU has all.  @run: let the guest run.  Returns None, or
        (how things are, what the user has to know)."""
        try:
            self._begin(run)
            while (end := self._look(run)) is None:
                select.select([self.qmp, *self._readable()], (), (), POLL_S)
        except KeyboardInterrupt:
            if not self.server or not self.server.loaded():
                raise
            return 'unsupervised', 'Ended by a signal. Its server goes on; ' \
                'if that fails, the VM waits.'
        except MigrateError:
            self._fail()
            raise
        if not end:
            return 'waits', self._what_to_do(
                f'{TRIES} servers in a row have failed')
        self._capabilities(False)
        self.origin.encryption.end(self.qmp, self.uri)
        return None

    def _readable(self):
        return [self.server] if self.server.ended() is None else []

    def _fail(self):
        if self.server:
            self.server.kill()
        self.qemu.check(END_S)          # it ends when it cannot load
