# SPDX-License-Identifier: GPL-2.0-or-later
"""The sets of a cluster: one checkpoint of each VM, all of one moment.

    NAME.json       the manifest; a set without one does not exist
    NAME.log        somebody saves or removes it, or was killed (journal.py)
    .lock           whoever changes the directory holds it
    VM/NAME.*       the checkpoint of a VM (checkpoint/catalogue.py); the
                    directory may be elsewhere

The manifest names the members with the checksum of their manifests, which
have those of the files; or with the memory servers that have their
checkpoints, and when these were made (servers.py).  So a set is whole, or is
told of as not whole.
"""

import contextlib
import os

from ..checkpoint import chain, durable, manifest
from ..checkpoint.catalogue import MANIFEST, PART, Catalogue, Entry
from ..errors import MigrateError
from . import journal, servers

LOG = '.log'


def _check(content):
    for member in content['members']:
        at = member.get('server')
        if not all(isinstance(value, str) for value in (
                [member['name'], *(at[key] for key in servers.NAMED)] if at
                else [member[key] for key in ('name', 'dir', 'checksum')])):
            raise ValueError('a member is not named')


class Sets(Catalogue):
    TOOL, WHAT = 'tlm cluster', 'set'
    seen = None                 # of servers, for one look at the sets

    def entries(self):
        self.seen = servers.Seen()
        return super().entries()

    def get(self, name):
        self.seen = servers.Seen()
        return super().get(name)

    def _entry(self, name):
        try:
            content = manifest.read(self.path(name, MANIFEST), _check)
        except MigrateError as e:
            return Entry(name, None, str(e))
        for member in content['members']:
            problem = self.missing(name, member)
            if problem:
                return Entry(name, content, f"not whole: {member['name']}: "
                             f'{problem}')
        return Entry(name, content)

    def of_member(self, member):
        """The catalogue where its checkpoints are, if they are files."""
        return Catalogue(os.path.join(self.directory, member['dir']))

    def missing(self, name, member):
        """Why a set does not have this member, as far as it is seen without
        reading files; None: it has."""
        if 'server' in member:
            self.seen = self.seen or servers.Seen()
            return self.seen.missing(member['server'])
        try:
            entry = self.of_member(member).get(name)
        except MigrateError as e:
            return str(e)
        if entry.problem:
            return entry.problem
        if entry.manifest['checksum'] != member['checksum']:
            return 'this checkpoint is not the one of the set'
        return None

    def relative(self, directory):
        """As the manifest has it: within the cluster's directory it can be
        moved with it."""
        path = os.path.relpath(directory, self.directory)
        return directory if path.startswith('..') else path

    def logs(self):
        return list(self._named(LOG))

    def leftovers(self):
        """Names of sets that do not exist, of which there may be files."""
        complete = set(self._named(MANIFEST))
        return [name for name in self.logs() if name not in complete]

    # Changes: by who holds the lock

    def make_directory(self, vm):
        """Of a VM, unless somebody has said where it is."""
        if not vm.dir:
            os.makedirs(vm.directory(self.directory), exist_ok=True)

    def new_name(self, wanted=None):
        if wanted in self.leftovers():
            raise MigrateError(f"'{wanted}' was left over, and could not be "
                               'removed ("tlm cluster prune" says why)')
        return super().new_name(wanted)

    def add(self, name, content):
        """All members are there: from now on the set is."""
        return manifest.write(self.path(name, MANIFEST), content)

    def prune(self, keep):
        """Leaves the newest @keep, and those that others need; returns names
        of those that are gone, and of those that are needed."""
        old = self.old(keep)
        needed = self._needed(set(old))
        gone = [name for name in old if name not in needed]
        # Children first: none is ever without its parent
        for name in reversed(gone):
            self.remove(name)
        return gone, [name for name in old if name in needed]

    def _needed(self, old):
        """Sets of @old that incremental checkpoints need which stay.  With
        the checkpoint of one VM all of a set stay, and what these need."""
        members = {os.path.join(self.directory, m['dir'])
                   for name in old for m in self._entry(name).manifest
                   ['members'] if 'dir' in m}
        catalogues = [Catalogue(d) for d in members if os.path.isdir(d)]
        entries = [(c, e) for c in catalogues for e in c.entries()
                   if not e.problem]
        needed = set()
        while True:
            found = {a.name for c, e in entries
                     if e.name not in old or e.name in needed
                     for a in chain.ancestry(c, e)} & old
            if found <= needed:
                return needed
            needed |= found

    def remove(self, name):
        """The set first, then its members."""
        content = self._entry(name).manifest
        if content is None:
            raise MigrateError(f'{name}: its manifest cannot be read')
        for member in content['members']:
            if 'dir' in member and \
                    os.path.isdir(os.path.join(self.directory,
                                               member['dir'])) \
                    and chain.in_need(self.of_member(member), {name}):
                raise MigrateError(
                    f"{name}: in {member['dir']} an incremental checkpoint "
                    'needs it')
        log = journal.Journal(self.path(name, LOG))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log.path)         # of a save that was killed at its end
        log.begin(name=name, id=content['id'], members=content['members'])
        durable.discard(self.path(name, MANIFEST))
        durable.sync_directory(self.directory)
        self.remove_members(name, content['id'], content['members'])
        log.remove()

    def remove_members(self, name, set_id, members):
        """What there is of them; only what belongs to this set."""
        for member in members:
            if 'server' in member:
                servers.clear(member['server'])
            if 'dir' not in member:
                continue            # none, or nobody was asked to keep one
            with contextlib.suppress(FileNotFoundError):
                self._remove_member(name, set_id, member)

    def _remove_member(self, name, set_id, member):
        directory = os.path.join(self.directory, member['dir'])
        if not os.path.isdir(directory):
            return
        catalogue = Catalogue(directory)
        with catalogue.locked():
            durable.discard(catalogue.path(name, PART))
            with contextlib.suppress(manifest.BadManifest):
                if manifest.read(catalogue.path(name, MANIFEST)).get(
                        'set') != set_id:
                    return              # somebody else's, of the same name
            catalogue.remove(name)
