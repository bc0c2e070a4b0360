# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands of "tlm checkpoint", for the table (options.py)."""

from ..table import Command

SAVE, LIST, SHOW, VERIFY, PRUNE, WATCH, RESTORE = CHECKPOINT = tuple(
    f'checkpoint {word}' for word in
    ('save', 'list', 'show', 'verify', 'prune', 'watch', 'restore'))
SAVING = (SAVE, WATCH)

WRONG_USAGE = (2, 'wrong usage')
DONE_OR_NOT = ((0, 'done'), (1, 'failed or refused'), WRONG_USAGE)
NO_DISKS = 'Disks are not saved: see docs/checkpoint.md.'

CHECKPOINT_COMMANDS = (
    Command(
        SAVE, 'write RAM and devices of a running VM to a file',
        '--qmp SOCKET --dir DIR [OPTION...]',
        "Writes a checkpoint of a QEMU that has command 'tlm-checkpoint'. The "
        'guest runs on; it is paused for as long as it takes to copy the RAM '
        'that is still to be written then. An unpatched QEMU restores the '
        'file.\n\n'
        'Before the start there must be free space for all RAM of the guest. '
        'Migration parameters that are changed get their old values back. '
        'Ctrl-C cancels: the guest runs on, and nothing is left in DIR.\n\n'
        + NO_DISKS,
        ((0, 'saved'), (1, 'failed or refused'), WRONG_USAGE,
         (3, 'cancelled by another client'), (130, 'cancelled by Ctrl-C')),
        (('--qmp /run/vm1.qmp --dir /srv/vm1', 'Save, named by the time.'),
         ('--qmp /run/vm1.qmp --dir /srv/vm1 --name before-upgrade '
          '--bandwidth 300MB/s', 'Save, and leave the disk some bandwidth.'))),
    Command(
        LIST, 'list the checkpoints of a directory', '--dir DIR [--json]',
        'Lists all checkpoints, the oldest first, with what is wrong with '
        'them as far as it is seen without reading them, and what was left '
        'over by a save that was killed.',
        DONE_OR_NOT, (('--dir /srv/vm1', 'List them.'),)),
    Command(
        SHOW, 'show what is known of a checkpoint',
        '--dir DIR [--json] [NAME]',
        'Shows what the manifest says of a checkpoint.',
        DONE_OR_NOT,
        (('--dir /srv/vm1 --json before-upgrade', 'Print the manifest.'),),
        (('[NAME]', 'the checkpoint (default: the newest)'),)),
    Command(
        VERIFY, 'compare checkpoints with their checksums',
        '--dir DIR [--json] [NAME]',
        'Reads files of checkpoints and compares them with the checksums in '
        'the manifests. A single bit that has changed is found.',
        ((0, 'all are as they were written'),
         (1, 'one is not, or cannot be read'), WRONG_USAGE,
         (130, 'ended by Ctrl-C')),
        (('--dir /srv/vm1', 'Verify all checkpoints.'),),
        (('[NAME]', 'the checkpoint (default: all)'),)),
    Command(
        PRUNE, 'remove old checkpoints', '--dir DIR --keep K [--json]',
        'Removes all but the K newest checkpoints, and what was left over by '
        'a save that was killed. Checkpoints whose manifest cannot be read or '
        'whose file is not what it says are told of, not counted and not '
        'removed.',
        DONE_OR_NOT, (('--dir /srv/vm1 --keep 3', 'Keep three.'),)),
    Command(
        WATCH, 'write a checkpoint again and again',
        '--qmp SOCKET --dir DIR --every TIME [OPTION...]',
        'Saves as "tlm checkpoint save" does, at once and then after every '
        'TIME, until it gets SIGINT or SIGTERM. One that fails is told of, '
        'and the next is tried all the same. The QMP socket is free in '
        'between.\n\n' + NO_DISKS,
        ((0, 'ended by a signal; a checkpoint under way was cancelled'),
         (1, 'refused'), WRONG_USAGE, (130, 'a second signal came')),
        (('--qmp /run/vm1.qmp --dir /srv/vm1 --every 10min --keep 3',
          'Have three, ten minutes apart.'),)),
    Command(
        RESTORE, 'start a VM from a checkpoint',
        '--dir DIR [OPTION...] NAME [-- QEMU ARGUMENT...]',
        'Starts the QEMU command line behind "--", with "-S", "-incoming '
        'defer" and a QMP socket of its own, loads the checkpoint, and lets '
        'the guest run if it ran when it was saved. QEMU stays when the '
        'command has ended; if anything fails, QEMU is killed. It need not '
        'know of TLM.\n\n'
        'The command line must make the same machine: the same machine type, '
        'RAM, CPU and devices. Without one, that of the QEMU that was saved '
        'is used, if it is known, in the directory where it was started. It '
        'is refused while that QEMU runs, and if it names file descriptors '
        'that another program had opened for it. -S, -daemonize, '
        '-incoming and -loadvm are left out.\n\n' + NO_DISKS,
        ((0, 'restored'), (1, 'failed or refused'), WRONG_USAGE,
         (130, 'ended by Ctrl-C')),
        (('--dir /srv/vm1 before-upgrade', 'Start it as it was started.'),
         ('--dir /srv/vm1 --paused before-upgrade -- qemu-system-x86_64 '
          '-machine pc -m 1G -drive file=vm1-copy.qcow2',
          'Start it with a disk of its own, and let it stand.')),
        (('NAME', 'the checkpoint'),)),
)
