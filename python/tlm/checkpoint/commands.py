# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands of "tlm checkpoint", for the table (options.py)."""

from ..table import Command

(SAVE, LIST, SHOW, VERIFY, PRUNE, WATCH, RESTORE, FLATTEN,
 COMMIT) = CHECKPOINT = tuple(
    f'checkpoint {word}' for word in
    ('save', 'list', 'show', 'verify', 'prune', 'watch', 'restore',
     'flatten', 'commit'))
SAVING = (SAVE, WATCH)
RUNNING = (*SAVING, COMMIT)     # of a VM that runs

STANDBY, TAKEOVER = STANDING_BY = tuple(
    f'checkpoint {word}' for word in ('standby', 'takeover'))

WRONG_USAGE = (2, 'wrong usage')
DONE_OR_NOT = ((0, 'done'), (1, 'failed or refused'), WRONG_USAGE)
NO_DISKS = 'Disks are only kept with --disk: see docs/checkpoint.md.'

CHECKPOINT_COMMANDS = (
    Command(
        SAVE, 'write RAM and devices of a running VM to a file',
        '--qmp SOCKET|--domain DOMAIN --dir DIR|--server ADDRESS '
        '[OPTION...]',
        "Writes a checkpoint of a QEMU that has command 'tlm-checkpoint'. The "
        'guest runs on; it is paused for as long as it takes to copy the RAM '
        'that is still to be written then. An unpatched QEMU restores the '
        'file.\n\n'
        'With --server the checkpoint goes to a tlm-memserver, into its memory '
        'or onto its disk. "Saved" is said when it has the level that was '
        'asked for. If anything fails, the guest runs on, and the server has '
        'what it had before; see docs/memserver.md.\n\n'
        'Before the start there must be free space for all RAM of the guest. '
        'Migration parameters that are changed get their old values back. '
        'Ctrl-C cancels: the guest runs on, and nothing is left in DIR.\n\n'
        + NO_DISKS,
        ((0, 'saved'), (1, 'failed or refused'), WRONG_USAGE,
         (3, 'cancelled by another client'), (130, 'cancelled by Ctrl-C')),
        (('--qmp /run/vm1.qmp --dir /srv/vm1', 'Save, named by the time.'),
         ('--qmp /run/vm1.qmp --dir /srv/vm1 --name before-upgrade '
          '--bandwidth 300MB/s', 'Save, and leave the disk some bandwidth.'),
         ('--qmp /run/vm1.qmp --server backup:4400 --tls x509 --tls-dir '
          '/etc/pki/qemu', 'Save to another host.'),
         ('--qmp /run/vm1.qmp --server a:4400,b:4400 --parts all',
          'Share it among two servers.'),
         ('--qmp /run/vm1.qmp --dir /srv/vm1 --disk auto',
          'Keep the disks of that moment, too.'))),
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
        '--qmp SOCKET|--domain DOMAIN --dir DIR|--server ADDRESS --every '
        'TIME [OPTION...]',
        'Saves as "tlm checkpoint save" does, at once and then after every '
        'TIME, until it gets SIGINT or SIGTERM. One that fails is told of, '
        'and the next is tried all the same. The QMP socket is free in '
        'between.\n\n'
        'With --server it connects anew for each checkpoint. If a server '
        'fails or does not answer, the next one gets this checkpoint and '
        'those after it.\n\n'
        'That the VM is gone is told at once if its QMP socket is a Unix '
        "socket on which QEMU itself listens or if it is a domain, and else "
        'at the next checkpoint; that it does not answer, at the second that '
        'fails. Then the command of --on-dead is started, once. Nothing is '
        'ever started in place of the VM: see tlm-checkpoint-takeover(1).'
        '\n\n' + NO_DISKS,
        ((0, 'ended by a signal; a checkpoint under way was cancelled'),
         (1, 'refused'), WRONG_USAGE, (130, 'a second signal came')),
        (('--qmp /run/vm1.qmp --dir /srv/vm1 --every 10min --keep 3',
          'Have three, ten minutes apart.'),)),
    Command(
        RESTORE, 'start a VM from a checkpoint',
        '--dir DIR|--server ADDRESS [OPTION...] NAME [-- QEMU ARGUMENT...]',
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
        '-incoming and -loadvm are left out.\n\n'
        'If it was saved with --disk, each restore makes new overlays on the '
        'images of that moment, and the command line gets them instead of the '
        'files that it names. Where that is not sure, nothing is done.\n\n'
        'With --instant the guest runs some milliseconds after QEMU has '
        'started, however much RAM it has. A process, tlm-serve-checkpoint, '
        'sends the RAM meanwhile. This command watches it until all of it is '
        'there, and starts another one should it fail. QEMU needs '
        'userfaultfd; where it may not use it, all RAM is loaded first.\n\n'
        'With --server a tlm-memserver restores it: it connects to the QEMU, '
        'without encryption, at an address of this host and a free port. With '
        '--to the QEMU is one that waits already, here or elsewhere.\n\n'
        + NO_DISKS,
        ((0, 'restored'), (1, 'failed or refused'), WRONG_USAGE,
         (130, 'ended by Ctrl-C')),
        (('--dir /srv/vm1 before-upgrade', 'Start it as it was started.'),
         ('--dir /srv/vm1 --instant before-upgrade',
          'Let the guest run at once.'),
         ('--server backup:4400 --vm vm1 --instant before-upgrade',
          'Let it run here, from the memory of another host.'),
         ('--dir /srv/vm1 --paused before-upgrade -- qemu-system-x86_64 '
          '-machine pc -m 1G -drive file=vm1-copy.qcow2',
          'Start it with a disk of its own, and let it stand.')),
        (('NAME', 'the checkpoint'),)),
    Command(
        FLATTEN, 'make an incremental checkpoint whole',
        '--dir DIR [--json] [NAME]',
        'Joins a checkpoint that was saved with --incremental with those that '
        'it needs, to a file from which any QEMU starts the guest. It needs '
        'them no more; they stay. If the file system can share data between '
        'files (XFS, btrfs), "save" has done that already.',
        ((0, 'it is whole'), (1, 'failed or refused'), WRONG_USAGE,
         (130, 'ended by Ctrl-C; it is what it was')),
        (('--dir /srv/vm1', 'Make the newest one whole.'),),
        (('[NAME]', 'the checkpoint (default: the newest)'),)),
    Command(
        COMMIT, 'merge images of disks that no checkpoint needs',
        '--qmp SOCKET|--domain DOMAIN --dir DIR|--server ADDRESS [--json]',
        'Each checkpoint with --disk auto or --disk virsh puts an overlay on '
        'each disk. This command merges those images that no checkpoint of '
        'DIR needs any more, while the guest runs, and removes what it has '
        'merged. It does not touch the image of a checkpoint that there is, '
        'nor images below an overlay that was not made for DIR, nor those '
        'that a restored VM lies on; it says which stay, and why. With '
        '--server, all servers must answer that have checkpoints of the VM.'
        '\n\n'
        'With --domain libvirt does it, and knows the new chain. "watch '
        '--keep" with --disk does the same after each checkpoint.',
        ((0, 'done; there may have been nothing to do'),
         (1, 'failed or refused'), WRONG_USAGE,
         (130, 'ended by Ctrl-C; the disks are good')),
        (('--qmp /run/vm1.qmp --dir /srv/vm1', 'Merge what can be merged.'),)),
    Command(
        STANDBY, 'keep a paused QEMU ready that has the newest checkpoint',
        '--dir DIR --server ADDRESS [OPTION...] [-- QEMU ARGUMENT...]',
        'Runs on the host that is to take over, until it gets SIGINT or '
        'SIGTERM, which end the paused QEMU too. For each new checkpoint of '
        'the VM at the servers it starts the QEMU command line behind "--", or '
        'the recorded one, loads the checkpoint, and ends the QEMU that had '
        'the one before. The QEMU need not know of TLM. It stands still until '
        '"tlm checkpoint takeover" lets it run: this command never does.\n\n'
        + NO_DISKS,
        ((0, 'ended by a signal, or the VM was taken over'),
         (1, 'failed or refused'), WRONG_USAGE, (130, 'a second signal came')),
        (('--dir /run/vm1-standby --server unix:/run/tlm-memserver/control '
          '--vm vm1 -- qemu-system-x86_64 -machine pc -m 1G',
          'Keep one ready beside the server.'),)),
    Command(
        TAKEOVER, 'let the QEMU of "standby" run',
        '--dir DIR --fence COMMAND|--source SOCKET|--force [OPTION...]',
        'First the command of --fence must end with 0: it makes sure that the '
        'VM does not run any more. Then QMP socket --source must not answer, '
        'unless --force is given. Then the QEMU that is ready runs, as the VM '
        'was when its checkpoint was saved. Its "standby" ends, and need not '
        'be there. Nothing is done twice.',
        ((0, 'it runs'), (1, 'failed or refused'), WRONG_USAGE),
        (('--dir /run/vm1-standby --fence "ipmitool -H host1-bmc power off" '
          '--source host1:4444', 'Take over from another host.'),)),
)
