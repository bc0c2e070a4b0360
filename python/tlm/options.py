# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of subcommands and options.  The parsers of the command line
(parser.py), the completion and the manual pages are made from it."""

from . import units
from .checkpoint.commands import (CHECKPOINT, CHECKPOINT_COMMANDS, LIST,
                                  PRUNE, RESTORE, SAVE, SAVING, SHOW, VERIFY,
                                  WATCH)
from .table import Command, Old, Option

MIGRATE, ESTIMATE, VIRSH = 'migrate', 'estimate', 'virsh-migrate'

COMMANDS = {c.name: c for c in (
    Command(
        MIGRATE, "migrate a running QEMU with capability 'tlm'",
        '--qmp SOCKET [OPTION...] URI',
        "Migrates a running QEMU with capability 'tlm', and shows how it "
        'goes. The destination must have '
        "capability 'multifd' on and the same 'multifd-channels'; it need "
        'not know of TLM.\n\n'
        'Capabilities and parameters that are changed for the migration get '
        'their old values back when it has ended, however it ends. Ctrl-C '
        'cancels it: the guest runs on at the source.',
        ((0, 'completed'), (1, 'failed or refused'), (2, 'wrong usage'),
         (3, 'cancelled by QEMU or by another client'),
         (130, 'cancelled by Ctrl-C')),
        (('--qmp /run/vm1.qmp --bandwidth 10Gbit/s --bound 20s '
          'tcp:192.0.2.20:4444', 'Migrate within 20 seconds.'),
         ('--qmp /run/vm1.qmp --bandwidth 0 --capability mapped-ram '
          'file:/srv/vm1.mig', 'Migrate to a file.')),
        (('URI', 'where the destination listens: tcp:HOST:PORT, unix:PATH, '
          'or file:PATH (with --capability mapped-ram)'),)),
    Command(
        ESTIMATE, 'say beforehand what a migration would take',
        '--qmp SOCKET --bandwidth RATE [OPTION...]',
        'Watches how the guest, which runs on, writes to its RAM, and '
        'predicts what a migration would take with the current migration '
        'parameters. Nothing is migrated, and no parameter is changed.',
        ((0, 'predicted'), (1, 'failed or refused'), (2, 'wrong usage'),
         (3, "predicted, and the time bound (--bound, or parameter "
          "'tlm-time-bound') cannot be kept")),
        (('--qmp /run/vm1.qmp --bandwidth 10Gbit/s --bound 20s',
          'Can the guest be migrated within 20 seconds?'),)),
    Command(
        VIRSH, "migrate a libvirt domain with capability 'tlm'",
        '[-c URI] [OPTION...] DOMAIN DESTURI [OPTION OF VIRSH...]',
        'Arguments are those of "virsh migrate", in any order, and the '
        'options below; --live and --parallel are added. libvirt need not '
        'know of TLM: the capability and its parameters are set in the '
        "source's QEMU, which must be the one with TLM, through \"virsh "
        'qemu-monitor-command", and have their old values again when the '
        'migration has ended, however it ends. The destination needs neither '
        'TLM nor this command.\n\n'
        'Ctrl-C cancels the migration: the domain runs on at the source.\n\n'
        'Needs virsh.',
        ((0, 'completed'), (1, 'failed or refused'), (2, 'wrong usage'),
         (3, 'cancelled by another client or by libvirt, or with --dry-run a '
          'bound that cannot be kept'), (130, 'cancelled by Ctrl-C')),
        (('--bound 20s --converge auto --p2p vm1 qemu+tls://hostb/system',
          'Migrate within 20 seconds, and slow the guest for that.'),
         ('--dry-run --link 10Gbit/s --bound 20s vm1 '
          'qemu+tls://hostb/system', 'Say beforehand whether that can be.'))),
    *CHECKPOINT_COMMANDS,
)}

ALL = (MIGRATE, ESTIMATE, VIRSH)
# Links to the command, from before it had subcommands
OLD_NAMES = {f'tlm-{name}': name for name in ALL}
O_MIGRATE, O_ESTIMATE, O_VIRSH = OLD_NAMES

MIGRATING = (MIGRATE, VIRSH)

OPTIONS = (
    Option('qmp', (MIGRATE, ESTIMATE, *SAVING), parse=str, metavar='SOCKET',
           required=(MIGRATE, ESTIMATE, *SAVING), file=True,
           help='QMP socket of the source that nobody else uses: a path, or '
           'HOST:PORT'),
    Option('connect', (VIRSH,), short='-c', parse=str, metavar='URI',
           help="libvirt's URI of the source, as for virsh"),
    Option('dir', CHECKPOINT, parse=str, metavar='DIR', required=CHECKPOINT,
           file=True, help="where the checkpoints are, of this VM alone"),
    Option('name', (SAVE,), parse=units.checkpoint_name, metavar='NAME',
           help='what it is called (default: date and time, in UTC)'),
    Option('every', (WATCH,), parse=units.Duration(least=1000),
           metavar='TIME', required=(WATCH,),
           help='from the start of one checkpoint to that of the next'),
    Option('keep', (PRUNE, WATCH), parse=units.Count(least=1), metavar='K',
           required=(PRUNE,),
           help={PRUNE: 'how many of the newest stay',
                 WATCH: 'remove others than the K newest after each '
                 'checkpoint (default: none)'}),
    Option('paused', (RESTORE,),
           help='do not let the guest run, whatever it did when it was '
           'saved'),
    Option('verify', (RESTORE,),
           help='read the file and compare its checksums first'),
    Option('bound', (*ALL, *SAVING), parse=units.Duration(), metavar='TIME',
           help={MIGRATE: 'time bound of the whole migration; 0 is none',
                 ESTIMATE: "a time bound, instead of 'tlm-time-bound'; 0 is "
                 'none',
                 VIRSH: 'time bound of the whole migration, with the disks '
                 'that libvirt copies; 0 is none',
                 **dict.fromkeys(SAVING, 'time bound of a checkpoint, without '
                                 'its checksums; 0 is none')},
           old={O_MIGRATE: Old(bare='ms'), O_ESTIMATE: Old(bare='ms'),
                O_VIRSH: Old('--tlm-bound', 's')}),
    Option('bound-action', MIGRATING, parse=str,
           choices=('complete', 'cancel'),
           help='what to do about a bound that cannot be kept',
           old={O_VIRSH: Old('--tlm-bound-action')}),
    Option('converge', MIGRATING, parse=str, choices=('none', 'auto'),
           help='what the live stage does after the pass over all RAM: end '
           '(none), or go on, and slow the guest, until the downtime limit '
           'can be kept (auto)',
           old={O_VIRSH: Old('--tlm-converge')}),
    Option('downtime', ALL, parse=units.Duration(), metavar='TIME',
           help={MIGRATE: 'downtime limit, the goal of --converge auto',
                 ESTIMATE: "instead of parameter 'downtime-limit'",
                 VIRSH: 'downtime limit, the goal of --converge auto'},
           old={O_MIGRATE: Old('--downtime-limit', 'ms'),
                O_ESTIMATE: Old('--downtime-limit', 'ms'),
                O_VIRSH: Old('--tlm-downtime', 'ms')}),
    Option('bandwidth', (*ALL, *SAVING), parse=units.Bandwidth(), metavar='RATE',
           required=(ESTIMATE,),
           help={MIGRATE: 'cap while the guest runs; 0 is no cap',
                 ESTIMATE: 'what the link carries',
                 VIRSH: 'cap while the guest runs, rounded down to whole '
                 'MiB/s, which is what libvirt takes; 0 is no cap',
                 **dict.fromkeys(SAVING, 'cap on what is written per second '
                                 '(default: none)')},
           old={O_MIGRATE: Old(bare='B/s'), O_ESTIMATE: Old(bare='B/s'),
                O_VIRSH: Old(bare='MiB/s')}),
    Option('window', (ESTIMATE,), parse=units.Duration(least=1),
           metavar='TIME', help='how long to watch the guest (default: 1s)',
           old={O_ESTIMATE: Old(bare='ms')}),
    Option('overcommit', MIGRATING, parse=units.steps, metavar='STEPS',
           help='put the vCPUs on fewer host CPUs: 0.5-(2) is two from half '
           'of the pass on',
           old={O_VIRSH: Old('--tlm-overcommit')}),
    Option('channels', (MIGRATE,), parse=units.Count(), metavar='N',
           default=2, help='multifd channels (default: 2)'),
    Option('dtx-channels', (MIGRATE,), parse=units.Count(), metavar='N',
           help='how many of them carry dirty pages'),
    Option('mode', SAVING, parse=str,
           choices=('auto', 'copy', 'write-protect'),
           help='how the RAM is kept that is left when the guest is paused: '
           'copied in the pause, write-protected and copied after it, or (auto) '
           'protected where copying would take longer than the downtime limit '
           'of QEMU'),
    Option('buffer', SAVING, parse=units.Size(least=1), metavar='SIZE',
           help='limit of the memory for copies; if more is left when the '
           'guest is to be paused, it is written in the pause (default: what '
           'the host has)'),
    Option('set', (*MIGRATING, *SAVING), parse=units.setting,
           metavar='NAME=VALUE', many=True, help='any other migration parameter of QEMU, in its '
           'own unit',
           old={O_VIRSH: Old('--tlm-set')}),
    Option('capability', (MIGRATE,), parse=str, metavar='NAME', many=True,
           help='another capability to turn on'),
    Option('dry-run', (VIRSH,),
           help='watch the guest and predict; nothing is migrated. Needs '
           '--link or --bandwidth',
           old={O_VIRSH: Old('--tlm-dry-run')}),
    Option('link', (VIRSH,), parse=units.Bandwidth(least=1), metavar='RATE',
           help='for --dry-run: what the link carries',
           old={O_VIRSH: Old('--tlm-link', 'B/s')}),
    Option('json', (*ALL, *CHECKPOINT),
           help={MIGRATE: "print the last answer of 'query-migrate' on "
                 'standard output, all else on standard error',
                 ESTIMATE: "print the answer of 'query-tlm-estimate'",
                 VIRSH: "print the last answer of 'query-migrate' on "
                 'standard output, all else on standard error',
                 **dict.fromkeys(SAVING, 'print the manifest on standard '
                                 'output, all else on standard error'),
                 SHOW: 'print the manifest',
                 **dict.fromkeys((LIST, VERIFY, PRUNE, RESTORE),
                                 'print the result as JSON')},
           old={O_VIRSH: Old('--tlm-json')}),
)


def of(command):
    """Options of a subcommand, in the order in which they are shown."""
    return [o for o in OPTIONS if command in o.commands]


def flag(name, old_name=None):
    """How an option is written in what is said to the user."""
    return next(o for o in OPTIONS if o.name == name).flags(old_name)[-1]


UNITS = (
    ('SIZE', '512MiB, 1.5GiB'),
    ('TIME', '20s, 500ms, 2min, 1h'),
    ('RATE', '10Gbit/s, 300MB/s, 1.5GiB/s: a small b is a bit, a capital B a '
     'byte; k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024'),
)
BARE = 'A number without a unit is refused, but for 0.'
