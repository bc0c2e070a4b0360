# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm virsh-migrate: from the command line to the exit status."""

import json
import signal
import subprocess
import sys
import time

from .. import estimate, options
from ..errors import MigrateError
from ..figures import duration, size
from ..progress import Display
from ..report import report
from . import arguments, placer, shell, terminal
from .disks import Disks
from .domain import Domain
from .migration import Migration

POLL_S = 0.05
POLL_STOP_S = 0.005         # the end can be seen until libvirt ends QEMU
CANCEL_S = 1                # between two attempts to cancel
WITHOUT_TLM = "The migration was not by TLM: libvirt has turned capability " \
    "'tlm' off, as a libvirtd that knows it does for a virsh that does not"


def params_of(args):
    """Migration parameters that the options set."""
    named = {'tlm-time-bound': args.bound,
             'tlm-bound-action': args.bound_action,
             'tlm-converge': args.converge,
             'tlm-overcommit': args.overcommit,
             'downtime-limit': args.downtime}
    return {**{k: v for k, v in named.items() if v is not None},
            **dict(args.set)}


def run(migration, display, vcpus, interrupted):
    """From start to end; True if it was interrupted."""
    next_cancel = 0.0
    migration.start()
    while not migration.over():
        status = migration.poll()
        tlm = status.tlm
        if status:
            display.update(status)
            vcpus.place(tlm.overcommit_cpus or 0
                        if tlm and tlm.overcommit_by_event else 0)
        elif migration.disks:
            migration.watch_disks(display)
        if ((interrupted() or migration.without_tlm or
                migration.to_be_cancelled()) and
                time.monotonic() > next_cancel):
            migration.cancel()
            next_cancel = time.monotonic() + CANCEL_S
        time.sleep(POLL_STOP_S if tlm and tlm.stage == 'stop' else POLL_S)
    migration.poll()
    # virsh may have been hit by what has interrupted this program, and have
    # ended alone: __exit__() cancels
    return interrupted()


def dry_run(domain, args, given, params):
    """Returns the exit status."""
    rate = args.link or args.bandwidth
    if not rate:
        raise MigrateError('a dry run needs to know what the link carries: '
                           'give --link 10Gbit/s, for instance')
    estimate.check_source(domain)
    estimate.measure(domain, rate, None)
    answer = estimate.predict(domain, params.get('tlm-time-bound'),
                              params.get('downtime-limit'))
    if arguments.copies_disks(given):
        print('The disks, which are copied first, are not in the prediction',
              file=sys.stderr)
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        now = {**domain('query-migrate-parameters'), **params}
        print('\n'.join(estimate.report(answer, now, now['tlm-time-bound'],
                                        now['downtime-limit'])))
    return 0 if estimate.reachable(answer) else 3


def tell(migration, args, interrupted, out):
    """Say how it went; returns the exit status."""
    status, state = migration.status, migration.domain.state()
    code, said = migration.virsh.result()
    if migration.virsh.hung:
        print('virsh did not notice that its migration is over',
              file=sys.stderr)
        code = 0 if state in (None, 'shut off') else 1
    if args.json:
        print(json.dumps(status.answer, indent=2))
    if not code:
        tell_success(migration, out)
        return 0
    if migration.without_tlm:
        print(f'{WITHOUT_TLM}. It was cancelled', file=sys.stderr)
    if migration.to_be_cancelled():
        print(f'The time bound of {duration(migration.bound.ms)} has '
              'passed while disks were copied: '
              f'{size(migration.disks.left)} were left. Cancelled',
              file=sys.stderr)
    if said:
        print(said, file=sys.stderr)
    why = status.error
    if why and why not in said and status.status == 'failed':
        print(f'QEMU: {why}', file=sys.stderr)
    print(f'The domain at the source is {state}', file=out)
    if interrupted:
        return 130
    # libvirt cancels as well, when it has lost the destination
    return 3 if status.status == 'cancelled' and \
        not migration.without_tlm else 1


def tell_success(migration, out):
    status = migration.status
    if status.status == 'completed' and status.tlm:
        print('\n'.join(report(status)), file=out)
    else:
        print('Completed; QEMU ended before it told its figures', file=out)
    if migration.disks and migration.disks.ended:
        print('\n'.join(migration.disks.report(migration.bound,
                                               status.total_ms)), file=out)
    if migration.without_tlm:
        print(WITHOUT_TLM, file=sys.stderr)


def migrate(domain, args, given, params, out):
    """Returns the exit status."""
    vcpus = placer.choose(domain, params)
    migration = Migration(
        domain, params,
        [*domain.virsh.command, 'migrate', *arguments.words_of(given)],
        Disks() if arguments.copies_disks(given) else None)
    signals = []

    def on_interrupt(signum, _frame):
        signals.append(signum)
        # once more: do not wait for libvirt
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, on_interrupt)
    display = Display(out, params.get('tlm-converge') == 'auto')
    with migration, display:
        try:
            interrupted = run(migration, display, vcpus,
                              lambda: bool(signals))
        finally:
            vcpus.place(0)          # does not need libvirtd
    if vcpus.trouble:
        print(f'Over-commit: {vcpus.trouble}', file=sys.stderr)
    return tell(migration, args, interrupted, out)


def virsh_arguments(parser, args, rest, words):
    """Those of "virsh migrate", checked; ends the program if they are
    wrong."""
    old_name = parser.prog if parser.prog in options.OLD_NAMES else None
    try:
        # in front of argparse, which takes it for its own
        if '--' in words:
            raise ValueError("'--' is not needed: options can be anywhere")
        if args.link and not args.dry_run:
            link, dry_run = (options.flag(n, old_name)
                             for n in ('link', 'dry-run'))
            raise ValueError(f'{link} is for {dry_run} only: a migration '
                             'measures the link; --bandwidth caps it')
        if 'postcopy' in (args.converge, args.bound_action):
            raise ValueError(arguments.NO_POSTCOPY)
        known = arguments.known_options(shell.help_of_migrate())
        given = arguments.split(rest, known)
        arguments.check_mode(given, old_name)
        if args.bandwidth is not None:
            given['bandwidth'] = arguments.mib(args.bandwidth)
    except FileNotFoundError:
        parser.error('there is no virsh here (package libvirt-clients)')
    except subprocess.CalledProcessError as e:
        parser.error(f'"virsh help migrate": {e.stderr.strip() or e}')
    except ValueError as e:
        parser.error(str(e))
    given |= {'live': True, 'parallel': True}
    if 'tlm' in known:
        # a libvirt that knows the capability would turn it off
        given['tlm'] = True
    return given


def main(parser, words):
    """Returns the exit status."""
    sys.stdout = terminal.Output(sys.stdout)
    sys.stderr = terminal.Output(sys.stderr)
    args, rest = parser.parse_known_args(words)
    out = sys.stderr if args.json else sys.stdout
    given = virsh_arguments(parser, args, rest, words)
    virsh = shell.Virsh(args.connect)
    try:
        domain = Domain(virsh, given['domain'])
        domain.check_runs()
        params = params_of(args)
        if args.dry_run:
            return dry_run(domain, args, given, params)
        return migrate(domain, args, given, params, out)
    except MigrateError as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        virsh.close()
