# SPDX-License-Identifier: GPL-2.0-or-later
"""Notes on the overlays that were made for checkpoints at servers.

There is no directory of such checkpoints here, so the notes are beside the
images: DIRECTORY-OF-THE-IMAGE/.tlm-VM has what records.py says, and

    servers     who was asked to keep checkpoints with these disks, and as whom
    .lock       whoever puts overlays on the disks, or merges them, holds it
"""

import contextlib
import json
import os

from ..errors import MigrateError
from ..memserver import client
from . import blockjobs, durable, overlays, records, saver
from .catalogue import Entry, lock

PREFIX, SERVERS = '.tlm-', 'servers'


def names(addresses, tls):
    """Of servers, each with whom it takes the caller for."""
    return [' '.join([address, *(tls.words() if tls else ())])
            if client.host_of(address) else f'{address} uid {os.geteuid()}'
            for address in addresses]


def names_of(args):
    """Of the servers of the options."""
    return names(args.server, client.tls_of(args))


class Records:
    """What records.Records does.  @servers: names_of(); @directories: of the
    images that are there before; others are added."""

    def __init__(self, vm, servers=(), directories=()):
        self.vm, self.servers = vm, list(servers)
        self.places = {self._place(d) for d in directories}
        self.directory = f'{PREFIX}{vm} beside the image'

    def _place(self, directory):
        return os.path.join(os.path.realpath(directory), PREFIX + self.vm)

    def _of(self, path, make=False):
        place = self._place(os.path.dirname(path))
        if make and not os.path.isdir(place):
            os.mkdir(place, 0o700)
            durable.sync_directory(os.path.dirname(place))
        self.places.add(place)
        return records.Records(place)

    def _there(self):
        return [records.Records(p) for p in sorted(self.places)
                if os.path.isdir(p)]

    def _noted_servers(self, place):
        try:
            with open(os.path.join(place, SERVERS), encoding='utf-8') as f:
                return json.load(f)
        except FileNotFoundError:
            return []

    def add(self, overlay, by):
        notes = self._of(overlay, make=True)
        place = os.path.dirname(notes.directory)
        noted = self._noted_servers(place)
        if not set(self.servers) <= set(noted):
            durable.write(os.path.join(place, SERVERS), json.dumps(
                sorted({*noted, *self.servers}), indent=2) + '\n')
        notes.add(overlay, by)

    def forget(self, overlay):
        self._of(overlay).forget(overlay)

    def overlays(self):
        return {path: by for notes in self._there()
                for path, by in notes.overlays().items()}

    def pending(self):
        return next((found for notes in self._there()
                     if (found := notes.pending())), None)

    def begin_merge(self, content):
        self._of(content['into'], make=True).begin_merge(content)

    def end_merge(self):
        for notes in self._there():
            notes.end_merge()

    def check_servers(self):
        """Raises MigrateError if there may be checkpoints elsewhere."""
        for place in self.places:
            more = set(self._noted_servers(place)) - set(self.servers)
            if more:
                raise MigrateError(
                    'checkpoints with these disks were saved to '
                    f"{', '.join(sorted(more))}, too: name all servers with "
                    '--server, in the same way. If one is gone for good, '
                    f'remove it from {os.path.join(place, SERVERS)}')

    @contextlib.contextmanager
    def locked(self):
        """The only one who puts overlays on these disks, or merges them."""
        with contextlib.ExitStack() as stack:
            for place in sorted(self.places):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(place, 0o700)
                stack.enter_context(lock(
                    place, 0o600, f'{place}: another "tlm checkpoint" is at '
                    'work with these disks'))
            yield


def of(args, vm, called, directory):
    """Of a VM of source.py that runs.  @called: its name at the servers;
    @directory: where its QEMU was started, or None."""
    return of_running(vm.qmp, called, names_of(args), directory)


def of_running(qmp, called, servers, directory):
    """@servers: names()"""
    files = [f for chain in blockjobs.chains(qmp, directory)
             for f in chain.files if f]
    return Records(called, servers, map(os.path.dirname, files))


@contextlib.contextmanager
def overlays_for(args, vm, name, known, called):
    """As saver.overlays_for(), with notes beside the images."""
    if not args.disk:
        yield overlays.Named(())
        return
    notes = of(args, vm, called, known['directory'])
    with notes.locked(), \
            saver.overlays_for(args, vm.qmp, name, known, notes) as new:
        yield new


def entries(args, called):
    """Checkpoints at all of the servers, for those who want to know what
    disks they need."""
    found = []
    for address in args.server:
        with client.MemServer(address, client.tls_of(args)) as server:
            found += [Entry(c['name'], {'disks': server(
                'show', vm=called, name=c['name'])['source'].get('disks', [])})
                for c in server('list') if c['vm'] == called]
    return found
