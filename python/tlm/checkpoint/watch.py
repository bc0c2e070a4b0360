# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint watch: one checkpoint after the other."""

import contextlib
import json
import sys
import time

from ..errors import MigrateError
from ..figures import duration, size
from ..memserver import client, removal
from ..progress import Display
from ..units import AUTO, VIRSH
from . import commit, place, prune, source, text
from .catalogue import Catalogue
from .deadsource import Source
from .pulse import SILENT_S
from .run import Cancelled
from .saver import Saver
from .signals import Interrupted, Signals
from .toserver import ServerSaver

POLL_S = 0.1


class InDirectory:
    """Where the checkpoints of "watch" are."""

    def __init__(self, args):
        self.args, self.catalogue = args, Catalogue(args.dir)
        self.saver = Saver(self.catalogue, args)

    brief = staticmethod(text.brief)

    @staticmethod
    def known(content):
        """For the operator's command."""
        return {'TLM_CHECKPOINT': content['name']}

    def prune(self, out, check, _fail):
        with self.catalogue.locked():
            return prune.run(self.catalogue, self.args.keep, Display(out),
                             check)

    def commit(self, vm, display, check):
        return commit.of_directory(self.catalogue, vm, display, check)


def places(content):
    """The server that has it, or those that have its parts."""
    return ','.join(content.get('parts', [content['server']]))


class AtServers:
    """The same, of memory servers."""

    def __init__(self, args):
        self.args, self.saver, self.vm = args, ServerSaver(args), None

    @staticmethod
    def brief(content):
        return f"pause {duration(content['pause-us'] / 1000)}, " \
               f"{size(content['size'])} at {places(content)}" + (
                   f", only what has changed since {content['since']}"
                   if 'since' in content else '')

    def known(self, content):
        self.vm = content['vm']
        return {'TLM_CHECKPOINT': content['name'], 'TLM_VM': content['vm'],
                'TLM_SERVER': places(content)}

    def prune(self, _out, check, fail):
        """A server that is gone keeps what it has."""
        found = {}
        with contextlib.ExitStack() as opened:
            for address in self.args.server:
                check()
                try:
                    server = opened.enter_context(client.MemServer(
                        address, client.tls_of(self.args)))
                    server.patience = SILENT_S
                    found[server] = server('list', vm=self.vm)
                except client.Refused:
                    pass                # it has had nothing of this VM
                except MigrateError as e:
                    fail(e, 'Not pruned')
            try:
                removed = removal.prune(found, self.args.keep)
            except MigrateError as e:
                fail(e, 'Not pruned')
                return []
        return sorted({name for names in removed.values() for name in names})

    def commit(self, vm, display, check):
        return commit.of_servers(self.args, vm, display, check)


class Watch:
    def __init__(self, args, signals):
        self.args, self.signals = args, signals
        self.where = AtServers(args) if args.server else InDirectory(args)
        self.source = Source(args)
        self.out = sys.stderr if args.json else sys.stdout

    def run(self):
        """Until Interrupted is raised."""
        every = self.args.every / 1000
        due = time.monotonic()
        while True:
            self._once()
            # One that took longer than that is followed by the next but one
            now = time.monotonic()
            due += every * max(1, -(-(now - due) // every))
            while time.monotonic() < due:
                self.signals.check()
                time.sleep(POLL_S)
                if self.source.has_ended():
                    self.source.look()

    def _once(self):
        try:
            content = self.where.saver.save(
                None, Display(self.out, downtime=False), self.signals)
            self._say(f"Saved {content['name']}: {self.where.brief(content)}")
            if self.args.json:
                print(json.dumps(content), flush=True)
            self.source.saved(**self.where.known(content))
            if self.args.keep:
                self._prune()
                if self.args.disk:
                    self._commit()
        except Cancelled:
            self._fail('cancelled by another client')
        except (MigrateError, OSError) as e:
            self._fail(e)
            self.source.look()

    def _prune(self):
        for name in self.where.prune(self.out, self.signals.check,
                                     self._fail):
            self._say(f'Removed {name}')

    def _commit(self):
        """Else the chains of images would become longer with each turn."""
        try:
            with source.of(self.args) as vm:
                told = self.where.commit(vm, Display(self.out),
                                         self.signals.check)
        except (MigrateError, OSError) as e:
            self._fail(e, 'Not merged')
            return
        for one in told['merged']:
            self._say(commit.merged(one))

    def _say(self, what):
        print(what, file=self.out, flush=True)

    @staticmethod
    def _fail(why, what='Not saved'):
        print(f'{what}: {why}', file=sys.stderr, flush=True)


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    source.check(parser, args)
    place.check(parser, args)
    if any(disk not in (AUTO, VIRSH) for disk in args.disk):
        parser.error('each checkpoint needs overlays of its own: --disk auto '
                     'or --disk virsh')
    try:
        with Signals() as signals:
            Watch(args, signals).run()
    except Interrupted:
        return 0
    except KeyboardInterrupt:
        return 130
    except MigrateError as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
