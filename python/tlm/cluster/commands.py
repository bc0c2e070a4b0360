# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands of "tlm cluster", for the table (options.py)."""

from ..checkpoint.commands import DONE_OR_NOT, NO_DISKS, WRONG_USAGE
from ..table import Command, Option

SAVE, LIST, SHOW, VERIFY, PRUNE, WATCH, RESTORE = CLUSTER = tuple(
    f'cluster {word}' for word in
    ('save', 'list', 'show', 'verify', 'prune', 'watch', 'restore'))
SAVING = (SAVE, WATCH)
CONFIGURED = (*SAVING, RESTORE)

# Options that nothing else has
OWN = (
    Option(
        'no-lock-manager', SAVING,
        help='libvirt of each domain on another host has no lock manager, '
        'which cannot be seen from here: lock_manager in its qemu.conf is not '
        'set, or "nop"'),
    Option(
        'buffer-packets', SAVING,
        help='let each VM go on at once, and hold the packets that it sends '
        'until all have stopped; a VM where that cannot be, because of vhost '
        'for instance, waits for the others. Only for VMs that reach each '
        'other by their network devices alone'),
)

VMS = ('[VM...]', 'NAME=SOCKET: what the VM is called in the set, and a QMP '
       'socket of it that nobody else uses (a path, or HOST:PORT); or '
       'NAME=domain:DOMAIN[@URI], a domain of libvirt\'s, of this host or, '
       'as virsh has its URI, of another: '
       'db=domain:postgres@qemu+ssh://hostb/system')
FILE = ('A file of --config has a table for each VM, as in\n\n'
        '[vm.db]\n\nqmp = "/run/db.qmp"\n\ndir = "/srv/db"\n\n'
        'where dir is the directory of its checkpoints (default: one of its '
        'name in DIR). QEMU writes there, and this command reads there: both '
        'must see the same files.')

CLUSTER_COMMANDS = (
    Command(
        SAVE, 'save several VMs as they were at one moment',
        '--dir DIR [OPTION...] NAME [VM...]',
        'Writes a checkpoint of each VM. The guests run on; each is paused '
        'from its stop until all have stopped and its own RAM that is left '
        'has been copied. As all of them stand still for a moment, none has '
        'received a message that another has not sent: connections between '
        'them go on when all are restored.\n\n'
        'The set is complete or not there: if a VM fails, all run on, and '
        'nothing of the set is left. If this command is killed, the VMs run '
        'on by themselves; "list" tells what was left over, and the next '
        '"save" or "prune" removes it. Ctrl-C cancels.\n\n'
        'With --server each checkpoint goes to one of these memory servers; '
        'DIR has the manifest of the set.\n\n'
        + FILE + '\n\n' + NO_DISKS,
        ((0, 'saved'), (1, 'failed or refused'), WRONG_USAGE,
         (130, 'cancelled by Ctrl-C')),
        (('--dir /srv/cluster monday web=/run/web.qmp db=/run/db.qmp',
          'Save two VMs.'),
         ('--dir /srv/cluster --config cluster.toml monday',
          'Save those of a file.')),
        (('NAME', 'what the set is called'), VMS)),
    Command(
        LIST, 'list the sets of a cluster', '--dir DIR [--json]',
        'Lists all sets, the oldest first, with what is wrong with them as far '
        'as it is seen without reading the files, and what was left over by a '
        'save that was killed.',
        DONE_OR_NOT, (('--dir /srv/cluster', 'List them.'),)),
    Command(
        SHOW, 'show what is known of a set', '--dir DIR [--json] [NAME]',
        'Shows what the manifest says of a set.', DONE_OR_NOT,
        (('--dir /srv/cluster monday', 'Show its VMs and their pauses.'),),
        (('[NAME]', 'the set (default: the newest)'),)),
    Command(
        VERIFY, 'compare sets with their checksums',
        '--dir DIR [--json] [NAME]',
        'Reads the files of sets and compares them with the checksums in the '
        'manifests.',
        ((0, 'all are as they were written'),
         (1, 'one is not, or cannot be read'), WRONG_USAGE,
         (130, 'ended by Ctrl-C')),
        (('--dir /srv/cluster', 'Verify all sets.'),),
        (('[NAME]', 'the set (default: all)'),)),
    Command(
        PRUNE, 'remove old sets', '--dir DIR --keep K [--json]',
        'Removes all but the K newest sets and those that they need, as they '
        'are incremental, and what was left over by a save that was killed: '
        'files, checkpoints that VMs hold, filters on their netdevs, and '
        'settings of migration in them. Sets that are not whole are told of, '
        'not counted and not removed.',
        DONE_OR_NOT, (('--dir /srv/cluster --keep 3', 'Keep three.'),)),
    Command(
        WATCH, 'save a cluster again and again',
        '--dir DIR --every TIME [OPTION...] [VM...]',
        'Saves as "tlm cluster save" does, at once and then after every TIME, '
        'until it gets SIGINT or SIGTERM. A set that fails is told of, and the '
        'next is tried all the same. With --incremental and --keep K, one '
        'in K sets is whole.\n\n' + NO_DISKS,
        ((0, 'ended by a signal; a set under way was given up'),
         (1, 'refused'), WRONG_USAGE, (130, 'a second signal came')),
        (('--dir /srv/cluster --config cluster.toml --every 10min --keep 3',
          'Have three, ten minutes apart.'),), (VMS,)),
    Command(
        RESTORE, 'start all VMs of a set',
        '--dir DIR [--config FILE] [OPTION...] NAME',
        'Starts a QEMU for each VM and loads its checkpoint. Only when all are '
        'loaded they are let run, as far as they ran when they were saved. If '
        'one fails, all are ended. A set that is not whole is refused.\n\n'
        'A domain of libvirt is started from its description. Any other QEMU '
        'gets the command line that it was saved with, as "tlm '
        'checkpoint restore" does, or the one of the file of --config:\n\n'
        '[vm.db]\n\ncommand = ["qemu-system-x86_64", "-m", "1G"]\n\n'
        'A QEMU that runs elsewhere is named by its QMP socket. It was started '
        'by you with -S -incoming defer, and sees the file of the checkpoint '
        'under the same name:\n\n[vm.web]\n\nwaiting = "hostb:4445"\n\n'
        'A domain is restored where it was saved, or at another libvirt:\n\n'
        '[vm.mail]\n\ndomain = "mail"\n\nconnect = '
        '"qemu+ssh://hostc/system"\n\n'
        'Memory servers connect to a QEMU on another host by the name that '
        'its URI or socket has, or by that of address = "HOST", or '
        '"HOST:PORT".\n\n'
        + NO_DISKS,
        ((0, 'restored'), (1, 'failed or refused'), WRONG_USAGE,
         (130, 'ended by Ctrl-C')),
        (('--dir /srv/cluster monday', 'Start all as they were started.'),),
        (('NAME', 'the set'),)),
)
