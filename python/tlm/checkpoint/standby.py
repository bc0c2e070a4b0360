# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint standby: a paused QEMU that has the newest checkpoint of a
memory server.

A QEMU that has loaded a checkpoint cannot load another one.  So for each new
one another QEMU is started and loaded; then it takes the place of the one
before, which is ended.  This never lets a guest run: "takeover" does.

    DIR/standby.json    the QEMU that is ready, and what it has
    DIR/loading.json    one that is being loaded
    DIR/.lock           whoever changes the first of them holds it
    DIR/.standby        "standby" holds it
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
from . import (catalogue, disks, drives, durable, fresh, launch, machine,
               serverdisks)
from .fromserver import FromServer
from .signals import Interrupted, Signals

STATE, LOADING = 'standby.json', 'loading.json'
LOCK, ALONE = '.lock', '.standby'
ASK_S = 0.5


class Place:
    """The directory of a standby."""

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        self.path = os.path.join(self.directory, STATE)
        self.loading = os.path.join(self.directory, LOADING)

    @contextlib.contextmanager
    def locked(self):
        fd = os.open(os.path.join(self.directory, LOCK),
                     os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def alone(self):
        """What is being loaded is this one's."""
        return catalogue.lock(
            self.directory, 0o600, f'{self.directory}: another "tlm '
            'checkpoint standby" is at work in it', ALONE)

    def read(self, path=None):
        """None: there is none."""
        try:
            with open(path or self.path, encoding='utf-8') as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def write(self, content, path=None):
        durable.write(path or self.path, json.dumps(content, indent=2) + '\n')

    def forget(self, path=None):
        durable.discard(path or self.path)


def age_ms(created):
    then = datetime.datetime.fromisoformat(created)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds() * 1000


def _is(pid, state):
    try:
        return f"unix:{state['qmp']},server=on,wait=off" in \
            machine.words_of(pid)
    except (OSError, UnicodeDecodeError):
        return False


def runs(state):
    """Is it still the process that was started?"""
    return _is(state['pid'], state)


def _kill(pid, state):
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            if _is(pid, state):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            while _is(pid, state):
                time.sleep(launch.POLL_S)
        finally:
            os.close(fd)


def end(state):
    """Of one that is not needed; nobody has written to its overlays.  One
    that was noted before it was started is found by its socket."""
    for pid in [state['pid']] if 'pid' in state else \
            [int(pid) for pid in os.listdir('/proc') if pid.isdigit()]:
        if _is(pid, state):
            _kill(pid, state)
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
            starting = launch.Qemu(line.words, directory, Qmp)
            self.place.write({'qmp': starting.socket, 'vm': origin.vm,
                              'disks': overlays.made}, self.place.loading)
            with starting as qemu:
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
            self.place.write({**new, 'replaces': old} if old else new)
        self._forget_old()
        return True

    def _forget_old(self):
        """The one that was ready before is not needed any more."""
        with self.place.locked():
            state = self.place.read()
            old = state.pop('replaces', None) if state else None
            if old:
                end(old)
                self.place.write(state)

    def tidy(self):
        """After one that was killed, or could not load."""
        state = self.place.read()
        left = self.place.read(self.place.loading)
        if left and left['qmp'] != (state or {}).get('qmp'):
            end(left)
        self.place.forget(self.place.loading)
        self._forget_old()

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
            self.tidy()
            raise
        going_on = self._replace(new)
        self.place.forget(self.place.loading)
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
    with Signals() as signals, place.alone():
        standby = Standby(args, command)
        standby.tidy()
        try:
            standby.run(signals)
        except Interrupted:
            standby.tidy()
            with place.locked():
                old = place.read()
                if old and 'taken' not in old:
                    place.forget()
                    end(old)
    return 0
