# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster save."""

import asyncio
import contextlib
import json
import resource
import signal
import sys

from ..errors import MigrateError
from ..memserver import client
from ..progress import Display
from ..units import Bad, checkpoint_name
from . import config, text
from .atserver import AtServer
from .coordinator import Coordinator
from .recover import recover
from .sets import Sets
from .tofile import ToFile

# A socket and a lock each, or the pipes of virsh and of a program that speaks
# to a server; and what Python has
FILES_PER_VM, FILES = 8, 64
WINDOW_MS = 500


def _more_files(vms):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES + FILES_PER_VM * len(vms)
    if wanted > soft:
        if hard != resource.RLIM_INFINITY and wanted > hard:
            raise MigrateError(f'{len(vms)} VMs need {wanted} open files; the '
                               f'limit is {hard} (ulimit -Hn)')
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settings(args):
    params = {'max-bandwidth': args.bandwidth or 0,
              **({} if args.bound is None else {'tlm-time-bound': args.bound}),
              **dict(args.set)}
    wanted = {'mode': args.mode, 'buffer-size': args.buffer,
              'incremental': args.incremental or None}
    return params, {k: v for k, v in wanted.items() if v is not None}


def _members(sets, vms, args, params, longest, troubles):
    if args.server:
        # Each begins with another server
        tls, turns = client.tls_of(args), len(args.server)
        return [AtServer(vm, args.server[i % turns:] +
                         args.server[:i % turns], tls, params,
                         args.incremental)
                for i, vm in enumerate(vms)]
    for vm in vms:
        sets.make_directory(vm)
    return [ToFile(vm, sets.directory, params, longest, troubles)
            for vm in vms]


def check(parser, args):
    """Wrong usage ends the program."""
    if args.tls and not args.server:
        parser.error('--tls is for --server')
    client.check(parser, args)


async def save(sets, vms, args, name, display, longest=None):
    """Returns the set's manifest.  @name: None for one that says the time;
    @longest: as of Member."""
    _more_files(vms)
    params, arguments = _settings(args)
    with sets.locked(), contextlib.ExitStack() as locks:
        _, troubles = await recover(sets)
        for left, why in troubles.items():
            print(f'{left}: left over: {why}', file=sys.stderr)
        name = sets.new_name(name)
        members = _members(sets, vms, args, params, longest, troubles)
        for member in members:
            locks.enter_context(member.reserved(name))
        coordinator = Coordinator(
            sets, members, args.window or WINDOW_MS, arguments,
            lambda step: display.show(step, None, []), args.buffer_packets)
        with display:
            return await coordinator.save(name)


def interrupted_by_sigterm():
    """As by SIGINT; in what asyncio runs."""
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, asyncio.current_task().cancel)


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_intermixed_args(words)
    check(parser, args)
    out = sys.stderr if args.json else sys.stdout

    async def run():
        interrupted_by_sigterm()
        return await save(sets, vms, args, args.name, Display(out))

    try:
        checkpoint_name(args.name)
        vms = config.to_save(args)
        sets = Sets(args.dir)
        content = asyncio.run(run())
    except Bad as e:
        parser.error(str(e))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print('Cancelled: nothing is left of the set', file=sys.stderr)
        return 130
    except (MigrateError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    print('\n'.join(text.saved(content)), file=out)
    if args.json:
        print(json.dumps(content, indent=2))
    return 0
