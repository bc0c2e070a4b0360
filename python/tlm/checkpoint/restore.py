# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint restore."""

import contextlib
import json
import select
import signal
import sys
import time

from ..errors import MigrateError
from ..figures import duration
from ..progress import Display
from ..qmp import Qmp
from . import (chain, disks, drives, fresh, fromparts, launch, newdomain,
               place, serverdisks)
from .catalogue import Catalogue, Entry
from .fromfile import FromFile
from .instant import Instant
from .monitor import Monitor
from .records import Records
from .verify import problem

PUSH_POLL_S = 0.1


@contextlib.contextmanager
def _start(args, entry, command):
    """Yields the QEMU, or domain, and what there is to be told."""
    vm = entry.manifest['machine']
    used = entry.manifest.get('disks', [])
    records = Records(args.dir) if args.dir else \
        serverdisks.Records(vm['name'])
    if args.domain:
        binary = newdomain.emulator(vm)
        with fresh.Fresh(args.disks_dir, entry.name, [binary],
                         records) as overlays, \
                newdomain.NewDomain(args.domain, args.connect, vm, used,
                                    overlays.make) as qemu:
            yield qemu, {'disks': overlays.made} if overlays.made else {}
        return
    words, directory = (command, None) if command else launch.recorded(vm)
    binaries = (words[0], *(vm['command'] or ())[:1])
    with fresh.Fresh(args.disks_dir, entry.name, binaries,
                     records) as overlays:
        line = drives.on(words, directory, used, not command, overlays.make)
        if not command:
            launch.check_nobody_runs(line.words, line.changed)
        with launch.Qemu(line.words, directory,
                         Monitor if args.instant else Qmp) as qemu:
            yield qemu, {'disks': overlays.made} if overlays.made else {}


def _check_disks(args, command, entry):
    """Raises MigrateError if they are not those of the checkpoint, or nobody
    knows how to put them into QEMU."""
    used = entry.manifest.get('disks', [])
    bad = disks.problem(used)
    if not bad and used and not command and not args.domain and \
            not args.to and not entry.manifest['machine']['command']:
        bad = '\n'.join(['write a command line behind "--":',
                         *disks.how_to_restore(used)])
    if bad:
        raise MigrateError(f'{entry.name}: {bad}')


def _restore(args, command):
    """Returns what there is to be told."""
    if args.server:
        origin = fromparts.of(args)
        entry = Entry(origin.name, {'machine': origin.machine,
                                    'disks': origin.machine.get('disks', [])})
        _check_disks(args, command, entry)
        return _restored(args, command, entry, origin)
    catalogue = Catalogue(args.dir)
    entry = catalogue.get(args.name)
    bad = problem(catalogue, entry) if args.verify else entry.problem
    if bad:
        raise MigrateError(f'{entry.name}: {bad}')
    _check_disks(args, command, entry)
    if not entry.parent:
        return _from_file(args, command, entry, catalogue.file(entry))
    with catalogue.locked(), Display(sys.stderr) as display, \
            chain.joined(catalogue, entry, display) as path:
        return _from_file(args, command, entry, path)


def _from_file(args, command, entry, path):
    with contextlib.closing(FromFile(path, args.channels)) as origin:
        return _restored(args, command, entry, origin)


def _push(origin, to, uuid):
    """Returns (None, or why it has failed; whether QEMU may have a part)"""
    serving = origin.serve_whole(to, uuid=uuid)
    try:
        while (why := serving.ended()) is None:
            serving.pump()
            select.select([serving], (), (), PUSH_POLL_S)
    finally:
        serving.kill()
    return why, serving.may_have_begun()


def _pushed(args, entry, origin):
    """Into a QEMU that somebody else has started."""
    start = time.monotonic()
    origin.check()
    failures = []
    while True:
        why, begun = _push(origin, args.to, args.uuid)
        if not why:
            return {'name': entry.name, 'to': args.to, 'total-ms': _ms(start)}
        failures.append(why)
        if begun and origin.another():
            failures.append(f'The QEMU at {args.to} may have a part of it, and '
                            'cannot go on: start it anew, and give this '
                            'command again, without the server that has '
                            'failed')
        if begun or not origin.another():
            raise _failed(failures)


def _failed(failures):
    """Each reason once."""
    return MigrateError('\n'.join(dict.fromkeys(failures)))


def _restored(args, command, entry, origin):
    if args.to:
        return _pushed(args, entry, origin)
    failures = []
    while True:
        try:
            return _by_new_qemu(args, command, entry, origin)
        except MigrateError as e:
            failures.append(str(e))
            if not origin.another():
                raise _failed(failures) from None


def _by_new_qemu(args, command, entry, origin):
    vm = entry.manifest['machine']
    run = vm['running'] and not args.paused

    start = time.monotonic()
    with _start(args, entry, command) as (qemu, on):
        started = time.monotonic()
        done = {'name': entry.name, 'start-ms': _ms(start, started),
                **(_instantly(qemu, origin, run, args.rate)
                   if args.instant else _whole(qemu, origin, run))}
        if 'todo' not in done:
            done['status'] = qemu.qmp('query-status')['status']
        return {**done, 'total-ms': _ms(start), **on, **qemu.told()}


def _ms(start, end=None):
    return round(1000 * ((end or time.monotonic()) - start))


def _whole(qemu, origin, run):
    start = time.monotonic()
    origin.load(qemu)
    if run:
        qemu.resume()
    return {'load-ms': _ms(start), **origin.told()}


def _instantly(qemu, origin, run, rate):
    """Or all of it first, where QEMU cannot do that."""
    start = time.monotonic()
    instant = Instant(qemu, origin, rate)
    try:
        instant.prepare()
    except MigrateError as e:
        return {**_whole(qemu, origin, run),
                'note': f'all of it was loaded first: {e}'}
    todo = instant.run(run)
    done = {'ready-ms': _ms(start, instant.running_at),
            'rest-ms': _ms(instant.running_at or start),
            'requests': instant.server.told.get('requests', 0),
            'servers': instant.servers}
    return {**done, **dict(zip(('status', 'todo'), todo or ()))}


def _lines(done):
    """(what, ms, meaning)"""
    yield 'start', done['start-ms'], '  until QEMU waited for the checkpoint'
    if 'load-ms' in done:
        yield 'load', done['load-ms'], ''
    else:
        yield 'ready', done['ready-ms'], '  until the guest could run'
        yield ('rest', done['rest-ms'], '  until all of RAM was there; the '
               f"guest asked for {done['requests']} pages of it")


def _text(done):
    if 'to' in done:
        yield f"Restored {done['name']} into {done['to']} in " \
              f"{duration(done['total-ms'])}"
        return
    yield (f"Restored {done['name']}: {done['status']} after "
           f"{duration(done['total-ms'] - done.get('rest-ms', 0))}")
    for what, ms, meaning in _lines(done):
        yield f'  {what:8}  {duration(ms):>8}{meaning}'
    if done.get('servers', 1) > 1:
        yield f"  servers   {done['servers']}: one took over from another"
    if 'domain' in done:
        yield f"  domain    {done['domain']}"
    else:
        yield f"  process   {done['pid']}, QMP socket {done['qmp']},"
        yield f"            messages in {done['log']}"
    for disk in done.get('disks', ()):
        yield f"  disk      {disk}"
    yield from (done[k] for k in ('note', 'todo') if k in done)


def _interrupt(_signum, _frame):
    raise KeyboardInterrupt


def main(parser, words):
    """Returns the exit status."""
    own, found, command = words, False, []
    if '--' in words:
        at = words.index('--')
        own, found, command = words[:at], True, words[at + 1:]
    args = parser.parse_args(own)
    place.check(parser, args)
    if args.to and (found or args.domain or args.instant or args.paused):
        parser.error('--to is for a QEMU that waits already, and gets all of '
                     'RAM first: leave out --domain, --instant, --paused and '
                     'a command line')
    if args.uuid and not args.to:
        parser.error('--uuid is for --to')
    if args.connect and not args.domain:
        parser.error('--connect is for --domain')
    if found and not command:
        parser.error('there is no command line behind "--"')
    if command and args.domain:
        parser.error('a domain has its command line from libvirt')
    if args.instant and args.domain:
        parser.error('libvirt has no way to restore instantly: leave out '
                     '--domain or --instant')
    if args.disks_dir and args.domain:
        parser.error('--disks-dir is not for --domain')
    if args.rate and not args.instant:
        parser.error('--rate is for --instant')
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        done = _restore(args, command)
    except KeyboardInterrupt:
        return 130
    except (MigrateError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    print(json.dumps(done, indent=2) if args.json
          else '\n'.join(_text(done)))
    return 1 if 'todo' in done else 0
