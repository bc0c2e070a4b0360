# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a checkpoint goes, or comes from: a directory, or memory servers."""

from .. import units
from ..memserver import client
from ..memserver.parity import DURABLE, PROTECTED

# Options of "save" and "restore" that are for a directory alone
DIRECTORY_ONLY = ('verify',)
SERVER_ONLY = ('level', 'vm', 'tls', 'tls_dir', 'tls_hostname',
               'allow_plain', 'copies', 'parts', 'redundancy')


def check(parser, args):
    """Wrong usage ends the program."""
    if bool(args.dir) == bool(args.server):
        parser.error('give either --dir or --server')
    kind, wrong = ('--server', DIRECTORY_ONLY) if args.server else \
        ('--dir', SERVER_ONLY)
    for name in wrong:
        if getattr(args, name, None):
            parser.error(f"--{name.replace('_', '-')} is not for {kind}")
    client.check(parser, args)
    _check_parts(parser, args)
    wanted = getattr(args, 'copies', None) or 1
    if args.server and wanted > len(set(args.server)):
        parser.error(f'--copies {wanted} needs as many servers')


def _check_redundancy(parser, args):
    """How many servers keep parity."""
    redundancy = getattr(args, 'redundancy', None)
    level = getattr(args, 'level', None) or DURABLE
    if redundancy and level not in (PROTECTED, DURABLE):
        parser.error(f'--redundancy is for --level {PROTECTED} or {DURABLE}')
    if not redundancy and level != PROTECTED:
        return 0
    args.redundancy = redundancy or 1
    args.parts = args.parts or units.ALL
    return args.redundancy


def _check_parts(parser, args):
    """Makes a number of --parts."""
    others = _check_redundancy(parser, args)
    if not getattr(args, 'parts', None):
        return
    if len(set(args.server)) < len(args.server):
        parser.error('--parts: a server is there twice')
    if args.parts == units.ALL:
        args.parts = len(args.server) - others
    if args.parts + others > len(args.server):
        parser.error(f'--parts {args.parts} needs as many servers' +
                     (f', and {others} for parity' if others else ''))
    if others and not others < args.parts:
        parser.error(f'--redundancy {others} needs more parts than that, at '
                     f'servers of their own: say at least {2 * others + 1} '
                     'servers')
    if args.parts == 1:
        return
    if getattr(args, 'copies', None):
        parser.error('--copies is not for --parts: --level protected survives '
                     'the loss of servers')
