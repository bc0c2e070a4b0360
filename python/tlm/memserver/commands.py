# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands of "tlm memserver", for the table (options.py)."""

from .. import units
from ..table import Command, Option

LIST, SHOW, VERIFY, PRUNE, REMOVE = MEMSERVER = tuple(
    f'memserver {word}' for word in ('list', 'show', 'verify', 'prune',
                                     'remove'))

USAGE = '--server ADDRESS [OPTION...]'
NAME = (('[NAME]', 'the checkpoint (default: the newest)'),)
EXITS = ((0, 'done'), (1, 'failed or refused'), (2, 'wrong usage'))

MEMSERVER_COMMANDS = (
    Command(
        LIST, 'list the checkpoints of memory servers', USAGE,
        'Lists the checkpoints that each server has and that the caller may '
        'see, the oldest first.', EXITS,
        (('--server backup:4400 --tls x509 --tls-dir /etc/pki/qemu',
          'List what is there.'),)),
    Command(
        SHOW, 'show what a memory server knows of a checkpoint',
        USAGE + ' [NAME]',
        'Shows level, size and machine of a checkpoint.', EXITS,
        (('--server unix:/run/tlm-memserver/control --vm vm1 monday',
          'Show one.'),), NAME),
    Command(
        VERIFY, "compare a memory server's file with its checksums",
        USAGE + ' [NAME]',
        'Lets the server read the file of a checkpoint of level durable and '
        'compare it with its checksums; or, of level protected, all parts in '
        'memory, with those of parity.',
        ((0, 'it is as it was written'), (1, 'it is not, or cannot be read'),
         (2, 'wrong usage')),
        (('--server backup:4400 --vm vm1', 'Verify the newest one.'),), NAME),
    Command(
        PRUNE, 'remove old checkpoints from memory servers',
        USAGE + ' --keep K',
        'Removes all but the K newest checkpoints of a VM from each server. '
        'Of checkpoints in parts, those count that are whole at these servers; '
        'parts that their head says it has not committed are removed.',
        EXITS, (('--server backup:4400 --vm vm1 --keep 3', 'Keep three.'),)),
    Command(
        REMOVE, 'remove a checkpoint from memory servers', USAGE + ' NAME',
        'Removes a checkpoint from each server that has it, or all its parts '
        'that these servers have.', EXITS,
        (('--server a:4400,b:4400 --vm vm1 monday', 'Remove one.'),),
        (('NAME', 'the checkpoint'),)),
)


def tls(commands):
    """Options of those that connect to servers."""
    return (
        Option('tls', commands, parse=str, choices=('x509', 'psk'),
               help='connect to servers by TLS, with credentials of this kind; '
               'a QEMU that is saved or restored uses the same ones'),
        Option('tls-dir', commands, parse=str, metavar='DIR', file=True,
               help="with --tls: the credentials, in files as QEMU's objects "
               'tls-creds-x509 and tls-creds-psk have them'),
        Option('tls-user', commands, parse=str, metavar='USER', default='qemu',
               help='with --tls psk: the name in keys.psk (default: qemu)'))


def several(commands):
    """Options of those that save to more than one server."""
    return (
        Option('copies', commands, parse=units.Count(least=1), metavar='N',
               help='with --server: how many of the servers shall have it, at '
               'this level, when it is saved (default: 1)'),
        Option('parts', commands, parse=units.parts, metavar='N|all',
               help='with --server: share the checkpoint among N of the '
               'servers, or all: each keeps a part, and all of them are '
               'needed to restore it (default: 1). With --level protected: '
               'all but those that keep parity (default: all)'),
        Option('redundancy', commands, parse=units.Count(least=1),
               metavar='N',
               help='with --level protected or durable: how many of the '
               'servers may be lost; so many others keep parity, in memory or '
               'on their disks (default: 1 for protected, none for durable)'))
