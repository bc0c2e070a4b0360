# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint standby: a paused QEMU that has the newest checkpoint of a
memory server.

A QEMU that has loaded a checkpoint cannot load another one.  So for each new
one another QEMU is started and loaded; then it takes the place of the one
before, which is ended.  This never lets a guest run: "takeover" does.

    DIR/standby.json    the QEMU that is ready, and what it has
    DIR/.lock           whoever changes that holds it
"""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import signal
import sys
import time

from ..errors import MigrateError, in_words
from ..figures import duration
from ..memserver import client
from ..memserver.look import the_only_vm
from ..qmp import Qmp
from . import disks, drives, durable, fresh, launch, machine, serverdisks
from .fromserver import FromServer
from .signals import Interrupted, Signals

STATE, LOCK = 'standby.json', '.lock'
ASK_S = 0.5


class Place:
    """The directory of a standby."""

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        self.path = os.path.join(self.directory, STATE)

    @contextlib.contextmanager
    def locked(self):
        fd = os.open(os.path.join(self.directory, LOCK),
                     os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def read(self):
        """None: there is none."""
        try:
            with open(self.path, encoding='utf-8') as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def write(self, content):
        durable.write(self.path, json.dumps(content, indent=2) + '\n')

    def forget(self):
        durable.discard(self.path)


def age_ms(created):
    then = datetime.datetime.fromisoformat(created)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds() * 1000


def runs(state):
    """Is it still the process that was started?"""
    try:
        return f"unix:{state['qmp']},server=on,wait=off" in \
            machine.words_of(state['pid'])
    except (OSError, UnicodeDecodeError):
        return False


def end(state):
    """Of one that is not needed; nobody has written to its overlays."""
    if runs(state):
        fd = os.pidfd_open(state['pid'])
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            while runs(state):
                time.sleep(launch.POLL_S)
        finally:
            os.close(fd)
    notes = serverdisks.Records(state['vm'])
    for path in state['disks']:
        durable.discard(path)
        with contextlib.suppress(OSError):
            notes.forget(path)
    directory = os.path.dirname(state['qmp'])
    for name in ('qmp', 'log'):
        durable.discard(os.path.join(directory, name))
    with contextlib.suppress(OSError):
        os.rmdir(directory)


class Standby:
    """@args: of "standby"; @command: of QEMU"""

    def __init__(self, args, command):
        self.args, self.command = args, command
        self.place = Place(args.dir)
        self.bad = None         # what could not be loaded

    def newest(self):
        """Of all servers that answer."""
        found, failures = [], []
        for address in self.args.server:
            try:
                with client.MemServer(address,
                                      client.tls_of(self.args)) as server:
                    vm = self.args.vm or the_only_vm(server)
                    found.append(server('show', vm=vm))
            except MigrateError as e:
                failures.append(str(e))
        if not found:
            raise MigrateError('\n'.join(failures))
        return max(found, key=lambda shown: shown['created'])

    def _load(self, shown):
        """Returns the state of a QEMU that has it, and stands."""
        name = shown['name']
        if 'set' in shown:
            raise MigrateError(f"'{name}' is in parts, of which none can be "
                               'kept ready yet: see "tlm checkpoint restore"')
        args = argparse.Namespace(**{**vars(self.args), 'name': name,
                                     'to': None})
        origin = FromServer(args)
        used = origin.machine.get('disks', [])
        why = disks.problem(used)
        if why:
            raise MigrateError(f'{name}: {why}')
        words, directory = (self.command, None) if self.command else \
            launch.recorded(origin.machine)
        binaries = (words[0], *(origin.machine['command'] or ())[:1])
        with fresh.Fresh(self.args.disks_dir, name, binaries,
                         serverdisks.Records(origin.vm)) as overlays:
            line = drives.on(words, directory, used, not self.command,
                             overlays.make)
            with launch.Qemu(line.words, directory, Qmp) as qemu:
                origin.load(qemu)
                return {**qemu.told(), 'vm': origin.vm, 'name': name,
                        'created': shown['created'],
                        'running': origin.machine['running'],
                        'disks': overlays.made}

    def _replace(self, new):
        """False: somebody has taken over."""
        with self.place.locked():
            old = self.place.read()
            if old and 'taken' in old:
                end(new)
                return False
            self.place.write(new)
        if old:
            end(old)
        return True

    def turn(self):
        """Returns False at the end."""
        state = self.place.read()
        if state and 'taken' in state:
            return False
        shown = self.newest()
        wanted = [shown['name'], shown['created']]
        if wanted == self.bad or (state and runs(state) and wanted == [
                state['name'], state['created']]):
            return True
        start = time.monotonic()
        try:
            new = self._load(shown)
        except MigrateError:
            self.bad = wanted
            raise
        going_on = self._replace(new)
        if going_on:
            ms = 1000 * (time.monotonic() - start)
            self.say(f"Ready: {new['name']} of {new['vm']}, process "
                     f"{new['pid']}, after {duration(ms)}; the state is "
                     f"{duration(age_ms(new['created']))} old")
        return going_on

    @staticmethod
    def say(what):
        print(what, flush=True)

    def run(self, signals):
        """Until a signal, or until somebody takes over."""
        said = None
        while True:
            signals.check()
            try:
                if not self.turn():
                    self.say('The VM was taken over')
                    return
                said = None
            except (MigrateError, OSError) as e:
                if str(e) != said:
                    print(f'Not ready: {e}', file=sys.stderr, flush=True)
                said = str(e)
            time.sleep(ASK_S)


@in_words
def main(parser, words):
    """Returns the exit status."""
    own, command = words, []
    if '--' in words:
        at = words.index('--')
        own, command = words[:at], words[at + 1:]
    args = parser.parse_args(own)
    client.check(parser, args)
    os.makedirs(args.dir, exist_ok=True)
    place = Place(args.dir)
    old = place.read()
    if old and 'taken' in old:
        raise MigrateError(f"{place.path}: '{old['name']}' was taken over "
                           'from here. Remove this file to begin anew')
    with Signals() as signals:
        try:
            Standby(args, command).run(signals)
        except Interrupted:
            with place.locked():
                old = place.read()
                if old and 'taken' not in old:
                    place.forget()
                    end(old)
    return 0
