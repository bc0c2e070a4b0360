# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration by virsh; sets and restores as its parent does."""

import json
import time

from .. import migration
from ..errors import MigrateError
from ..status import Status
from .bound import SharedBound
from .process import VirshMigrate
from .shell import Virsh

RETURN_S = 180              # how long to wait for a libvirtd that is gone,
RETRY_S = 0.2               # or a migration that has to end
DISK_LOOK_S = 0.25          # between two looks at disks that are copied


class Migration(migration.Migration):
    """@disks: a Disks, if libvirt copies some first, or None"""

    def __init__(self, domain, params, command, disks=None):
        super().__init__(domain, {'tlm': True}, params)
        self.domain = domain
        self.virsh = VirshMigrate(domain, command)
        self.disks = disks
        self.bound = SharedBound(domain)
        self.next_disk_look = 0
        self.before = None          # query-migrate of an earlier migration
        self.without_tlm = False

    def __enter__(self):
        self.before = Status(self.qmp('query-migrate'))
        if not self.before.final:
            raise MigrateError('QEMU migrates this domain already')
        before = self.qmp('query-migrate-parameters') if self.disks else {}
        if self.disks:
            wanted = {**before, **self.params}
            self.bound = SharedBound(self.domain,
                                     wanted.get('tlm-time-bound'),
                                     wanted.get('tlm-bound-action'))
        super().__enter__()
        if self.bound.ms:           # it will be changed in any case
            self.old_params['tlm-time-bound'] = before['tlm-time-bound']
        return self

    def start(self, _uri=None):
        self.bound.start()
        self.virsh.start()

    def poll(self):
        """What QEMU says of this migration; unlike the parent's this leaves
        it to libvirt to act."""
        try:
            status = Status(self.qmp('query-migrate'))
        except MigrateError:
            return self.status      # it may have gone: virsh will tell
        if status.answer != self.before.answer:
            if not self.status:
                self.domain.virsh.terminal.take()
            self.status = status
            self._settle_bound()
            self.without_tlm = self.without_tlm or status.without_tlm
        return self.status

    def watch_disks(self, display):
        """Called until QEMU's migration begins."""
        now = time.monotonic()
        if now < self.next_disk_look:
            return
        self.next_disk_look = now + DISK_LOOK_S
        try:
            jobs = self.qmp('query-block-jobs')
        except MigrateError:
            return
        details = self.bound.look()
        if self.disks.look(jobs, now):
            self.domain.virsh.terminal.take()
            display.show('disks', self.disks.percent(),
                         [*self.disks.details(), *details])

    def _settle_bound(self):
        """Once, when QEMU says when its migration has begun."""
        if not self.disks or self.disks.ended or \
                self.status.total_ms is None:
            return
        self.disks.ended = time.monotonic() - self.status.total_ms / 1000
        if not self.status.final:
            self.bound.settle(self.disks.ended)

    def to_be_cancelled(self):
        """By its bound, as long as that is not QEMU's business."""
        return self.bound.cancels() and not self.status

    def over(self):
        return self.virsh.over(bool(self.status))

    def cancel(self):
        """Before it has begun, or at its end, this has no effect: over()
        tells."""
        self.domain.abort_job()

    def __exit__(self, error, *_):
        """virsh may have ended, or be ended here, without the migration."""
        try:
            if self.virsh.runs():
                self.cancel()
                self.virsh.end()
            self._settle()
        except (MigrateError, KeyboardInterrupt) as e:
            name = Virsh.quote(self.domain.name)
            old = ''.join(f'\n    {k} was {json.dumps(v)}'
                          for k, v in self.old_params.items())
            raise MigrateError(
                f"{e or 'Interrupted'}\nThe migration may still run, and "
                f"capability 'tlm' be on. To undo that:\n"
                f'    virsh domjobabort {name}\n    virsh '
                f'qemu-monitor-command {name} --hmp migrate_set_capability '
                f'tlm off{old}') from None
        finally:
            self.virsh.end()
            self.domain.virsh.terminal.take()

    def _settle(self):
        """Wait until nothing of the migration is left.  A libvirtd that has
        crashed may come back."""
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                if self._settled():
                    return
                trouble = 'The migration does not end'
            except MigrateError as e:
                trouble = e
            if time.monotonic() > deadline:
                raise MigrateError(trouble)
            time.sleep(RETRY_S)

    def _settled(self):
        """After success the domain is gone, and its parameters with it;
        else the migration has to end before QEMU lets them be changed."""
        if self.domain.state() in (None, 'shut off', 'crashed'):
            return True
        status = Status(self.qmp('query-migrate'))
        if status.final and not (self.virsh.started() and self.domain.job()):
            self.old_caps['tlm'] = False    # nobody else migrates with it
            super().__exit__(None)
            return True
        if status.answer == self.before.answer or \
                status.status != 'completed':
            self.cancel()
        return False
