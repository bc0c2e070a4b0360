# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint restore."""

import json
import signal
import sys
import time

from ..errors import MigrateError
from ..figures import duration
from ..migration import Migration
from . import launch
from .catalogue import Catalogue
from .verify import problem

CAPABILITIES = {'multifd': True, 'mapped-ram': True}
POLL_S = 0.005
END_S = 1


class _Load(Migration):
    """Into a QEMU that waits for it."""

    def start(self, uri):
        self.qmp('migrate-incoming', uri=uri)


def _load(qemu, path):
    """The capabilities are QEMU's for the load alone."""
    try:
        with _Load(qemu.qmp, CAPABILITIES, {}) as load:
            load.start(f'file:{path}')
            while not load.poll().status == 'completed':
                if load.over():
                    raise MigrateError(load.status.error)
                time.sleep(POLL_S)
            while qemu.qmp('query-status')['status'] == 'inmigrate':
                time.sleep(POLL_S)
    except MigrateError:
        qemu.check(END_S)       # it ends when it cannot load, and says why
        raise


def _restore(args, command):
    """Returns what there is to be told."""
    catalogue = Catalogue(args.dir)
    entry = catalogue.get(args.name)
    bad = problem(catalogue, entry) if args.verify else entry.problem
    if bad:
        raise MigrateError(f'{entry.name}: {bad}')
    vm = entry.manifest['machine']
    words, directory = (command, None) if command else launch.recorded(vm)
    run = vm['running'] and not args.paused

    start = time.monotonic()
    with launch.Qemu(words, directory) as qemu:
        started = time.monotonic()
        _load(qemu, catalogue.path(entry.name))
        if run:
            qemu.qmp('cont')
        end = time.monotonic()
        return {'name': entry.name, 'pid': qemu.process.pid,
                'status': qemu.qmp('query-status')['status'],
                'start-ms': round(1000 * (started - start)),
                'load-ms': round(1000 * (end - started)),
                'total-ms': round(1000 * (end - start)),
                'qmp': qemu.socket, 'log': qemu.log}


def _text(done):
    return (f"Restored {done['name']}: {done['status']} after "
            f"{duration(done['total-ms'])}",
            f"  start     {duration(done['start-ms']):>8}  until QEMU waited "
            'for the checkpoint',
            f"  load      {duration(done['load-ms']):>8}",
            f"  process   {done['pid']}, QMP socket {done['qmp']},",
            f"            messages in {done['log']}")


def _interrupt(_signum, _frame):
    raise KeyboardInterrupt


def main(parser, words):
    """Returns the exit status."""
    own, found, command = words, False, []
    if '--' in words:
        at = words.index('--')
        own, found, command = words[:at], True, words[at + 1:]
    args = parser.parse_args(own)
    if found and not command:
        parser.error('there is no command line behind "--"')
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
    return 0
