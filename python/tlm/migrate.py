# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm migrate: migrate a running QEMU, by its QMP socket."""

import json
import signal
import sys
import time

from .errors import MigrateError
from .migration import Migration
from .progress import Display
from .qmp import Qmp
from .report import failure, report

POLL_S = 0.05
SOCKETS = 'tcp:', 'unix:'


def params_of(args):
    """Migration parameters that the options set; the demo has them too."""
    named = {'multifd-channels': args.channels,
             'tlm-time-bound': args.bound,
             'tlm-converge': args.converge,
             'tlm-dtx-channels': args.dtx_channels,
             'downtime-limit': args.downtime}
    return {**{k: v for k, v in named.items() if v is not None},
            **dict(args.set)}


def own_params(args):
    """Those that only "tlm migrate" has."""
    named = {'tlm-bound-action': args.bound_action,
             'tlm-overcommit': args.overcommit,
             'max-bandwidth': args.bandwidth}
    return {k: v for k, v in named.items() if v is not None}


def wants_postcopy(params):
    return 'postcopy' in (params.get('tlm-converge'),
                          params.get('tlm-bound-action'))


def capabilities(uri, params):
    """With a return path, "completed" means that the destination has the
    guest, and not that all was sent; a file cannot answer."""
    yield from ('multifd', 'tlm')
    if uri.startswith(SOCKETS):
        yield 'return-path'
    if wants_postcopy(params):
        yield 'postcopy-ram'


def run(migration, uri, display, interrupted, on_poll=lambda status: None):
    """The migration from start to end; True if it was interrupted."""
    cancelled = False
    migration.start(uri)
    while True:
        display.update(migration.poll())
        on_poll(migration.status)
        if migration.over():
            return cancelled
        # In post-copy QEMU cannot cancel: half of the guest is there
        if interrupted() and not cancelled and not migration.status.by_postcopy:
            migration.cancel()
            cancelled = True
        time.sleep(POLL_S)


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    params = {**own_params(args), **params_of(args)}
    caps = {name: True for name in capabilities(args.uri, params)}
    caps.update(dict.fromkeys(args.capability, True))
    out = sys.stderr if args.json else sys.stdout

    signals = []

    def on_interrupt(signum, _frame):
        signals.append(signum)
        # once more: do not wait for QEMU
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        migration = Migration(Qmp(args.qmp), caps, params)
        display = Display(out, args.converge == 'auto')
        # a signal must not break into an exchange with QEMU
        signal.signal(signal.SIGINT, on_interrupt)
        signal.signal(signal.SIGTERM, on_interrupt)
        with migration, display:
            interrupted = run(migration, args.uri, display,
                              lambda: bool(signals))
        guest = migration.qmp('query-status')['status']
    except MigrateError as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

    status = migration.status
    if status.status == 'completed':
        print('\n'.join(report(status)), file=out)
    else:
        print(f'{failure(status)}; the guest at the source is {guest}',
              file=out)
    if args.json:
        print(json.dumps(status.answer, indent=2))
    return {'completed': 0, 'failed': 1,
            'cancelled': 130 if interrupted else 3}[status.status]
