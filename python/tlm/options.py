# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of subcommands and options.  The parsers of the command line
(parser.py), the completion and the manual pages are made from it."""

import dataclasses
from collections.abc import Callable, Mapping

from . import units

MIGRATE, ESTIMATE, VIRSH = 'migrate', 'estimate', 'virsh-migrate'


@dataclasses.dataclass(frozen=True)
class Command:
    name: str
    summary: str
    usage: str                      # behind the name
    text: str
    exits: tuple                    # (exit status, meaning)
    examples: tuple                 # (words behind the name, what they do)
    arguments: tuple = ()           # (name, meaning), each is given once


@dataclasses.dataclass(frozen=True)
class Old:
    """An option of a command's old name: how it is written there too, and
    the unit of a number without one."""

    flag: str = ''
    bare: str = ''


@dataclasses.dataclass(frozen=True)
class Option:
    """@parse: None for a switch.  @help may differ by subcommand."""

    name: str
    commands: tuple
    help: str | Mapping[str, str]
    parse: Callable | None = None
    metavar: str = ''
    choices: tuple = ()
    short: str = ''
    default: object = None
    many: bool = False
    required: tuple = ()            # subcommands that need it
    file: bool = False              # for the completion
    old: Mapping[str, Old] = dataclasses.field(default_factory=dict)

    @property
    def dest(self):
        return self.name.replace('-', '_')

    def help_for(self, command):
        return self.help if isinstance(self.help, str) else \
            self.help[command]

    def flags(self, old_name=None):
        """All spellings; the last one is what the user is told."""
        old = self.old.get(old_name, Old()).flag
        return [f for f in (self.short, f'--{self.name}', old) if f]

    def parser(self, old_name=None):
        """For one value, as text."""
        bare = self.old.get(old_name, Old()).bare
        return dataclasses.replace(self.parse, bare=bare) if bare else \
            self.parse

    @property
    def value(self):
        """The value in usage and help; '' for a switch."""
        return '|'.join(self.choices) if self.choices else self.metavar


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
)}

# Links to the command, from before it had subcommands
OLD_NAMES = {f'tlm-{name}': name for name in COMMANDS}
O_MIGRATE, O_ESTIMATE, O_VIRSH = OLD_NAMES

ALL = (MIGRATE, ESTIMATE, VIRSH)
MIGRATING = (MIGRATE, VIRSH)

OPTIONS = (
    Option('qmp', (MIGRATE, ESTIMATE), parse=str, metavar='SOCKET',
           required=(MIGRATE, ESTIMATE), file=True,
           help='QMP socket of the source that nobody else uses: a path, or '
           'HOST:PORT'),
    Option('connect', (VIRSH,), short='-c', parse=str, metavar='URI',
           help="libvirt's URI of the source, as for virsh"),
    Option('bound', ALL, parse=units.Duration(), metavar='TIME',
           help={MIGRATE: 'time bound of the whole migration; 0 is none',
                 ESTIMATE: "a time bound, instead of 'tlm-time-bound'; 0 is "
                 'none',
                 VIRSH: 'time bound of the whole migration, with the disks '
                 'that libvirt copies; 0 is none'},
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
    Option('bandwidth', ALL, parse=units.Bandwidth(), metavar='RATE',
           required=(ESTIMATE,),
           help={MIGRATE: 'cap while the guest runs; 0 is no cap',
                 ESTIMATE: 'what the link carries',
                 VIRSH: 'cap while the guest runs, rounded down to whole '
                 'MiB/s, which is what libvirt takes; 0 is no cap'},
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
    Option('set', MIGRATING, parse=units.setting, metavar='NAME=VALUE',
           many=True, help='any other migration parameter of QEMU, in its '
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
    Option('json', ALL,
           help={MIGRATE: "print the last answer of 'query-migrate' on "
                 'standard output, all else on standard error',
                 ESTIMATE: "print the answer of 'query-tlm-estimate'",
                 VIRSH: "print the last answer of 'query-migrate' on "
                 'standard output, all else on standard error'},
           old={O_VIRSH: Old('--tlm-json')}),
)


def of(command):
    """Options of a subcommand, in the order in which they are shown."""
    return [o for o in OPTIONS if command in o.commands]


def flag(name, old_name=None):
    """How an option is written in what is said to the user."""
    return next(o for o in OPTIONS if o.name == name).flags(old_name)[-1]


UNITS = (
    ('TIME', '20s, 500ms, 2min, 1h'),
    ('RATE', '10Gbit/s, 300MB/s, 1.5GiB/s: a small b is a bit, a capital B a '
     'byte; k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024'),
)
BARE = 'A number without a unit is refused, but for 0.'
