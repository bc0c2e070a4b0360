# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that is asked again and again while QEMU sends to it: a host that
is gone, or a server that hangs, breaks no connection of QEMU's for long."""

import time

from ..errors import MigrateError

ASK_S = 1
SILENT_S = 15


class Pulse:
    """Call it as the server, of its session.  @server: a client.MemServer;
    @session: a number"""

    def __init__(self, server, session):
        self.server, self.session = server, session
        self.address = server.address
        self._asked, self._waits = time.monotonic(), False
        self._lost = None               # why

    def __call__(self, command, patience=SILENT_S, /, **arguments):
        self.end()
        return self.server(command, patience, session=self.session,
                           **arguments)

    def end(self):
        """The server may be called directly afterwards."""
        if self._lost:
            raise MigrateError(self._lost)
        while self._waits:
            self._take(SILENT_S)

    def _take(self, patience):
        try:
            if self.server.answer(patience) is not None:
                self._waits = False
            elif time.monotonic() - self._asked > SILENT_S:
                raise MigrateError(f'{self.server.address}: it has not '
                                   f'answered for {SILENT_S} s')
        except MigrateError as e:
            self._lost = str(e)
            raise

    def beat(self):
        """Without waiting; raises MigrateError if it is silent."""
        if self._waits:
            self._take(0)
        elif time.monotonic() - self._asked > ASK_S:
            self.server.send('status', session=self.session)
            self._asked, self._waits = time.monotonic(), True
