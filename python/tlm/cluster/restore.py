# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster restore: all are loaded before any runs."""

import concurrent.futures
import contextlib
import json
import signal
import sys
import time

from ..checkpoint import (chain, disks, drives, fresh, launch, newdomain,
                          serverdisks)
from ..checkpoint.catalogue import Entry
from ..checkpoint.fromfile import load
from ..checkpoint.records import Records
from ..errors import MigrateError, in_words
from ..figures import duration
from ..progress import Display
from ..qmp import Qmp
from ..units import Bad
from . import config, hosts, servers
from .look import all_problems
from .sets import Sets


class Waiting:
    """A QEMU that somebody has started, with -S -incoming defer.  @used:
    disks of the manifest"""

    dir = None                  # where servers could reach it by a socket

    def __init__(self, address, used, found_at=None):
        self.socket, self.used, self.qmp = address, used, None
        host = hosts.of_socket(address)
        self.elsewhere = hosts.Elsewhere(found_at or host) if host else None

    def __enter__(self):
        self.qmp = Qmp(self.socket)
        if self.qmp('query-status')['status'] != 'inmigrate':
            raise MigrateError(f'{self.socket}: this QEMU does not wait for a '
                               'checkpoint (-S -incoming defer)')
        bases = {disk['base'] for disk in self.used}
        for device in self.qmp('query-block'):
            medium = device.get('inserted')
            if medium and not medium['ro'] and medium['file'] in bases:
                raise MigrateError(
                    f"{self.socket}: this QEMU would write to "
                    f"{medium['file']}; start it anew: " +
                    '\n'.join(disks.how_to_restore(self.used)))
        return self

    def __exit__(self, *_):
        if self.qmp:
            self.qmp.close()

    @contextlib.contextmanager
    def opened(self, path):
        """Yields the URI of a file for QEMU."""
        yield f'file:{path}'

    def check(self, _patience=0):
        """Its end is seen by whoever has started it."""

    def resume(self):
        self.qmp('cont')

    def told(self):
        return {'qmp': self.socket}


class Loaded:
    """One VM of the set, from its QEMU's start on."""

    def __init__(self, sets, name, member, vm, allow_plain=False):
        self.vm, self.at = vm, member.get('server')
        self.allow_plain = allow_plain
        if self.at:
            self.entry = Entry(name, {'machine': member['machine'],
                                      'disks': member.get('disks', [])})
            self.records = serverdisks.Records(vm.name)
        else:
            self.catalogue = sets.of_member(member)
            self.entry = self.catalogue.get(name)
            self.records = Records(self.catalogue.directory)
        self.machine = self.entry.manifest['machine']
        self.used = self.entry.manifest.get('disks', [])
        bad = disks.problem(self.used)
        if bad:
            raise MigrateError(f'{vm.name}: {bad}')
        self.runs = self.machine['running']
        if not vm.waiting and not vm.domain:
            self.words, self.directory = (list(vm.command), None) \
                if vm.command else launch.recorded(self.machine)
        self.qemu = self.overlays = None

    def _qemu(self):
        if self.vm.waiting:
            return Waiting(self.vm.waiting, self.used, self.vm.address)
        self.overlays = fresh.Fresh(None, self.entry.name, (
            newdomain.emulator(self.machine),) if self.vm.domain else (
            self.words[0], *(self.machine['command'] or ())[:1]),
            self.records)
        if self.vm.domain:
            return hosts.Domain(self.vm.domain, self.vm.connect, self.machine,
                                self.used, self.overlays.make,
                                self.vm.address)
        line = drives.on(self.words, self.directory, self.used,
                         not self.vm.command, self.overlays.make)
        if not self.vm.command:
            launch.check_nobody_runs(line.words, line.changed)
        return launch.Qemu(line.words, self.directory)

    def _load(self):
        if self.at:
            servers.load(self.at, self.qemu, self.allow_plain)
            return
        with self._file() as path:
            load(self.qemu, path)

    def load(self):
        """In a thread."""
        try:
            qemu = self._qemu()
            qemu.__enter__()
            self.qemu = qemu
            self._load()
        except (MigrateError, OSError) as e:
            raise MigrateError(f'{self.vm.name}: {e}') from None

    @contextlib.contextmanager
    def _file(self):
        """Yields the path of a whole one."""
        if not self.entry.parent:
            yield self.catalogue.file(self.entry)
            return
        with self.catalogue.locked(), \
                chain.joined(self.catalogue, self.entry) as path:
            yield path

    def end(self, error):
        if self.qemu:
            self.qemu.__exit__(error)
        if self.overlays:
            self.overlays.__exit__(error)

    def told(self):
        return {'name': self.vm.name,
                'status': self.qemu.qmp('query-status')['status'],
                **({'disks': self.overlays.made} if self.overlays and
                   self.overlays.made else {}), **self.qemu.told()}


def _load_all(vms):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        loads = [pool.submit(vm.load) for vm in vms]
        try:
            done, _ = concurrent.futures.wait(
                loads, return_when=concurrent.futures.FIRST_EXCEPTION)
            for one in done:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _restore(sets, entry, args, configured):
    """Returns what there is to be told."""
    strange = set(configured) - {m['name'] for m in entry.manifest['members']}
    if strange:
        raise MigrateError(f'{entry.name} has no VM {min(strange)}')
    vms, error = [], True
    start = time.monotonic()
    try:
        for member in entry.manifest['members']:
            vm = configured.get(member['name']) or config.Vm(
                member['name'], domain=member.get('domain'),
                connect=member.get('connect'))
            vms.append(Loaded(sets, entry.name, member, vm,
                              args.allow_plain))
        _load_all(vms)
        loaded = time.monotonic()
        for vm in vms:
            if vm.runs and not args.paused:
                vm.qemu.resume()
        end = time.monotonic()
        told = [vm.told() for vm in vms]
        error = False
        return {'name': entry.name, 'vms': told,
                'load-ms': round(1000 * (loaded - start)),
                'run-ms': round(1000 * (end - loaded), 3)}
    finally:
        for vm in vms:
            vm.end(error)


def _text(done):
    yield f"Restored {done['name']}: loaded after " \
          f"{duration(done['load-ms'])}, all let run within " \
          f"{done['run-ms']:.1f} ms"
    for vm in done['vms']:
        where = f"domain {vm['domain']}" if 'domain' in vm else \
            f"QMP socket {vm['qmp']}"
        yield f"  {vm['name']:<12} {vm['status']}, {where}" + (
            f", process {vm['pid']}" if 'pid' in vm else '')
        for disk in vm.get('disks', ()):
            yield f'  {"disk":<12} {disk}'


def _interrupt(_signum, _frame):
    raise KeyboardInterrupt


@in_words
def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sets = Sets(args.dir)
        entry = sets.get(args.name)
        bad = all_problems(sets, entry, Display(sys.stderr)) \
            if args.verify else entry.problem
        if bad:
            raise MigrateError(f'{entry.name}: {bad}')
        configured = {vm.name: vm for vm in config.read(args.config)} \
            if args.config else {}
        done = _restore(sets, entry, args, configured)
    except Bad as e:
        parser.error(str(e))
    print(json.dumps(done, indent=2) if args.json
          else '\n'.join(_text(done)))
    return 0
