# SPDX-License-Identifier: GPL-2.0-or-later
"""One checkpoint that QEMU makes, step by step, for whoever makes several at
once:

    with Checkpoint(qmp, uri, params, arguments) as checkpoint:
        checkpoint.start()                      # live: the guest runs
        checkpoint.until(checkpoint.ready)      # with hold=True
        checkpoint.cut()                        # stop the guest now
        # With gate=True: it stands
        checkpoint.until(checkpoint.at_gate, pause=GATE_POLL_S)
        checkpoint.release()                    # keep RAM, let it run
        checkpoint.until(checkpoint.over)
    content = checkpoint.collect()              # for the manifest

None of the calls but until() waits.
"""

import contextlib
import time

from ..errors import MigrateError, Refused
from ..migration import Migration

POLL_S = 0.05
GATE_POLL_S = 0.002         # the guest stands still meanwhile
GATE = 'pause-before-switchover'
# Without a "query-migrate".  Long against a host that is busy
LEASE, LEASE_MS = 'client-timeout', 60_000


class Cancelled(Exception):
    """By another client of QEMU."""


def figures(status):
    """What is said of a checkpoint that is complete."""
    tlm = status.tlm
    parts = {name: us for name, us in tlm.downtime_parts() if us}
    chain = {'generation': tlm.generation, 'full-reason': tlm.full_reason,
             'parent-generation': tlm.parent}
    return {**{k: v for k, v in chain.items() if v},
            'pause-us': sum(parts.values()), 'pause-parts-us': parts,
            'kept-by': tlm.checkpoint_method, 'copied': tlm.copied_bytes,
            'note': tlm.checkpoint_note, 'flushed-ms': status.total_ms}


class Checkpoint(Migration):
    """@arguments: others of tlm-checkpoint, with "channels" if @uri is None;
    @gate: the guest stands still until release(); @caps: capabilities for its
    time."""

    def __init__(self, qmp, uri, params, arguments, gate=False, caps=()):
        super().__init__(qmp, {**dict.fromkeys(caps, True),
                               **({GATE: True} if gate else {})}, params)
        self.uri, self.arguments, self.gate = uri, arguments, gate

    def start(self, _uri=None):
        """QEMU ends it if this program does, whatever it waits for then."""
        where = {'uri': self.uri} if self.uri else {}
        try:
            self.qmp('tlm-checkpoint', **where, **self.arguments,
                     client_timeout=LEASE_MS)
        except Refused as e:
            if LEASE not in str(e):     # that is newer than this QEMU
                raise
            self.qmp('tlm-checkpoint', **where, **self.arguments)

    def poll(self):
        return self.look() if self.gate else super().poll()

    def until(self, what, on_poll=lambda status: None, pause=POLL_S):
        """Looks at QEMU until @what() or the end; @on_poll may raise an
        exception, after which cancel() and until(over) are due."""
        while True:
            on_poll(self.poll())
            if what() or self.over():
                return
            time.sleep(pause)

    def ready(self):
        return self.status.tlm is not None and \
            self.status.tlm.stage == 'ready'

    def cut(self):
        self.qmp('migrate-tlm-switchover')

    def at_gate(self):
        return self.status.status == 'pre-switchover'

    def release(self):
        self.qmp('migrate-continue', state='pre-switchover')

    def in_the_pause(self, what, on_poll=lambda status: None):
        """With hold and gate: does @what() while the guest stands still.  If
        that fails, the checkpoint is cancelled, and until(over) is due."""
        self.until(self.ready, on_poll)
        if self.over():
            return
        self.cut()
        self.until(self.at_gate, on_poll, GATE_POLL_S)
        if self.over():
            return
        try:
            what()
        except BaseException:
            # If QEMU cannot be told, its gate-timeout ends the pause
            with contextlib.suppress(MigrateError):
                self.cancel()
            raise
        try:
            self.release()
        except MigrateError:
            if self.poll().status == 'pre-switchover':
                raise
            # QEMU has given it up, and collect() says why

    def collect(self):
        """What QEMU says of it; raises MigrateError if it has failed."""
        status = self.status
        if status.status == 'cancelled':
            raise Cancelled
        if status.status != 'completed':
            raise MigrateError(f'QEMU could not save: {status.error}')
        return figures(status)
