# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of subcommands and options.  The parsers of the command line
(parser.py), the completion and the manual pages are made from it."""

from . import units
from .checkpoint.commands import (CHECKPOINT, CHECKPOINT_COMMANDS, COMMIT,
                                  FLATTEN, LIST, PRUNE, RESTORE, RUNNING, SAVE,
                                  SAVING, SHOW, STANDBY, STANDING_BY, TAKEOVER,
                                  VERIFY, WATCH)
from .cluster import commands as cluster
from .commands import ALL, ESTIMATE, MIGRATE, MIGRATING_COMMANDS, VIRSH
from .memserver import commands as memserver
from .table import Old, Option

COMMANDS = {c.name: c for c in (
    *MIGRATING_COMMANDS,
    *CHECKPOINT_COMMANDS, *cluster.CLUSTER_COMMANDS,
    *memserver.MEMSERVER_COMMANDS,
)}

# Links to the command, from before it had subcommands
OLD_NAMES = {f'tlm-{name}': name for name in ALL}
O_MIGRATE, O_ESTIMATE, O_VIRSH = OLD_NAMES

MIGRATING = (MIGRATE, VIRSH)
ONE_OR_MANY = (*SAVING, *cluster.SAVING)
WATCHING = (WATCH, cluster.WATCH)
PRUNING = (PRUNE, cluster.PRUNE, memserver.PRUNE)
RESTORING = (RESTORE, cluster.RESTORE)
DIRECTORIES = (*CHECKPOINT, *STANDING_BY, *cluster.CLUSTER)
AT_SERVERS = (*SAVING, RESTORE, COMMIT) # as well as in a directory
SERVERS = (*AT_SERVERS, STANDBY, *memserver.MEMSERVER)

OPTIONS = (
    Option('qmp', (MIGRATE, ESTIMATE, *RUNNING), parse=str, metavar='SOCKET',
           required=(MIGRATE, ESTIMATE), file=True,
           help='QMP socket of the source that nobody else uses: a path, or '
           'HOST:PORT'),
    Option('domain', (*RUNNING, RESTORE), parse=str, metavar='DOMAIN',
           help={**dict.fromkeys(RUNNING, "a domain of libvirt's, instead of "
                                 '--qmp'),
                 RESTORE: 'start it as a domain of libvirt\'s, of this name, '
                 'from the description that was saved'}),
    Option('connect', (VIRSH, *RUNNING, RESTORE, *cluster.SAVING), short='-c',
           parse=str, metavar='URI',
           help={VIRSH: "libvirt's URI of the source, as for virsh",
                 **dict.fromkeys(cluster.SAVING, "for domains without a URI "
                                 "of their own: libvirt's, as for virsh"),
                 **dict.fromkeys((*RUNNING, RESTORE), "for --domain: libvirt's "
                                 'URI of this host, as for virsh')}),
    Option('dir', DIRECTORIES, parse=str, metavar='DIR', file=True,
           required=tuple(c for c in DIRECTORIES if c not in AT_SERVERS),
           help={**dict.fromkeys(CHECKPOINT, 'where the checkpoints are, of '
                                 'this VM alone'),
                 **dict.fromkeys(STANDING_BY, 'where "standby" notes which '
                                 'QEMU is ready, of this VM alone'),
                 **dict.fromkeys(cluster.CLUSTER, 'where the sets are, of '
                                 'this cluster alone')}),
    Option('config', cluster.CONFIGURED, parse=str, metavar='FILE', file=True,
           help='a file of TOML with the VMs'),
    Option('server', (*SERVERS, *cluster.SAVING), parse=units.addresses,
           metavar='ADDRESS[,ADDRESS...]',
           required=(STANDBY, *memserver.MEMSERVER),
           help={**dict.fromkeys(SAVING, 'instead of --dir: control address of '
                                 'a tlm-memserver that takes the checkpoint: '
                                 'HOST:PORT, or unix:PATH. Of several, the '
                                 'first that can'),
                 **dict.fromkeys(cluster.SAVING, 'control addresses of '
                                 'memory servers that keep the checkpoints, '
                                 'HOST:PORT or unix:PATH: each VM begins with '
                                 'another of them. What the set is stays in '
                                 '--dir'),
                 COMMIT: 'instead of --dir: control addresses of all servers '
                 'that have checkpoints of the VM',
                 RESTORE: 'instead of --dir: control addresses of servers, '
                 'HOST:PORT or unix:PATH. If one fails that restores '
                 'instantly, the next one that has the checkpoint goes on',
                 **dict.fromkeys((STANDBY, *memserver.MEMSERVER), 'control '
                                 'addresses of servers: HOST:PORT, or '
                                 'unix:PATH')}),
    Option('vm', SERVERS, parse=units.checkpoint_name, metavar='VM',
           help={**dict.fromkeys(RUNNING, 'with --server: what the server '
                                 "calls the VM (default: QEMU's -name)"),
                 RESTORE: 'with --server: of which VM (default: the only one)',
                 **dict.fromkeys((STANDBY, *memserver.MEMSERVER), 'the VM '
                                 '(default: the only one)'),
                 memserver.LIST: 'the VM (default: all)'}),
    Option('level', SAVING, parse=str,
           choices=('memory', 'protected', 'durable'),
           help='with --server: what "saved" shall mean. memory: it is in the '
           "server's memory; protected: it is in parts in the memory of "
           'several, and survives the loss of some of them (see --redundancy); '
           "durable: it is on the server's disk (default: durable)"),
    *memserver.several(SAVING),
    *memserver.tls((*SERVERS, *cluster.SAVING)),
    Option('tls-hostname', (RESTORE, STANDBY), parse=str, metavar='NAME',
           help="with --tls: the name in the certificate of the QEMU that is "
           'restored, to which servers connect (default: the host of its '
           'address)'),
    Option('allow-plain', (*RESTORING, STANDBY),
           help={**dict.fromkeys((RESTORE, STANDBY), 'with --server: let '
                                 'servers send to the QEMU without TLS over a '
                                 'network that you trust'),
                 cluster.RESTORE: 'let memory servers send to QEMUs without '
                 'TLS over a network that you trust'}),
    Option('repair', (memserver.VERIFY,),
           help='of a checkpoint with parity: let servers that have it '
           'make parts again that are damaged'),
    Option('to', (RESTORE,), parse=units.address, metavar='URI',
           help='into a QEMU that waits there, with -incoming and capability '
           "'multifd': tcp:HOST:PORT or unix:PATH. Nothing is started here"),
    Option('uuid', (RESTORE,), parse=str, metavar='UUID',
           help='with --to: that of the QEMU, if it has one'),
    Option('name', (SAVE,), parse=units.checkpoint_name, metavar='NAME',
           help='what it is called (default: date and time, in UTC)'),
    Option('disk', ONE_OR_MANY, parse=units.disk, many=True,
           metavar='auto|virsh|NODE=OVERLAY',
           help={**dict.fromkeys(cluster.SAVING, 'auto: let the disks of all '
                                 'VMs go on in new overlays from the pause '
                                 'on, beside the image of each disk that is '
                                 'written to; of a domain by libvirt. virsh: '
                                 'the same, for domains alone'),
                 SAVE: 'let disks go on in overlays from the pause on. auto: '
                 'make one beside the image of each disk that is written to; '
                 'virsh: the same with --domain, by libvirt; '
                 'NODE=OVERLAY: for this block node, with a node that '
                 '"blockdev-add" has made, with "backing": null',
                 WATCH: 'for each checkpoint, let the disks go on in new '
                 'overlays: auto with --qmp, virsh with --domain'}),
    Option('disks-dir', (RESTORE, STANDBY), parse=str, metavar='DIR', file=True,
           help='where the new overlays go that a checkpoint with disks is '
           'restored on (default: a new directory beside the image)'),
    Option('incremental', ONE_OR_MANY,
           help={**dict.fromkeys(SAVING, 'write only what has changed since '
                                 'the newest checkpoint of DIR, if QEMU still '
                                 'knows it; and let QEMU note from now on '
                                 'what changes'),
                 **dict.fromkeys(cluster.SAVING, 'of each VM, write only what '
                                 'has changed since the set before, if its '
                                 'QEMU still knows it; and let QEMU note from '
                                 'now on what changes')}),
    Option('every', WATCHING, parse=units.Duration(least=1000),
           metavar='TIME', required=WATCHING,
           help='from the start of one checkpoint to that of the next'),
    Option('on-dead', (WATCH,), parse=str, metavar='COMMAND',
           help='what to start, by /bin/sh, when the VM is gone or does not '
           'answer, once. It gets TLM_SOURCE (gone, silent), TLM_WHY, '
           'TLM_CHECKPOINT (the last), TLM_VM and TLM_SERVER'),
    Option('fence', (TAKEOVER,), parse=str, metavar='COMMAND',
           help='by /bin/sh: it ends the VM, or its host, and ends with 0 when '
           'that is sure'),
    Option('source', (TAKEOVER,), parse=str, metavar='SOCKET', file=True,
           help='QMP socket of the VM that was saved, a path or HOST:PORT: if '
           'it answers, nothing is done'),
    Option('force', (TAKEOVER,),
           help='do not look whether the VM answers. Two of the same VM '
           'destroy its disks'),
    Option('keep', (*PRUNING, *WATCHING), parse=units.Count(least=1),
           metavar='K', required=PRUNING,
           help={**dict.fromkeys(PRUNING, 'how many of the newest stay'),
                 **dict.fromkeys(WATCHING, 'remove others than the K newest '
                                 'after each checkpoint (default: none)')}),
    Option('paused', (*RESTORING, TAKEOVER),
           help='do not let the guest run, whatever it did when it was '
           'saved'),
    Option('instant', (RESTORE,),
           help='let the guest run at once, and load its RAM meanwhile, what '
           'it needs first; see docs/instant-restore.md'),
    Option('rate', (RESTORE,), parse=units.Bandwidth(least=1), metavar='RATE',
           help='with --instant: limit for RAM that the guest has not asked '
           'for (default: none)'),
    Option('verify', RESTORING,
           help='read the files and compare their checksums first'),
    Option('bound', (*ALL, *ONE_OR_MANY), parse=units.Duration(), metavar='TIME',
           help={MIGRATE: 'time bound of the whole migration; 0 is none',
                 ESTIMATE: "a time bound, instead of 'tlm-time-bound'; 0 is "
                 'none',
                 VIRSH: 'time bound of the whole migration, with the disks '
                 'that libvirt copies; 0 is none',
                 **dict.fromkeys(ONE_OR_MANY, 'time bound of a checkpoint, '
                                 'without its checksums; 0 is none')},
           old={O_MIGRATE: Old(bare='ms'), O_ESTIMATE: Old(bare='ms'),
                O_VIRSH: Old('--tlm-bound', 's')}),
    Option('bound-action', MIGRATING, parse=str,
           choices=('complete', 'cancel', 'postcopy'),
           help='what to do about a bound that cannot be kept; postcopy: see '
           '--converge',
           old={O_VIRSH: Old('--tlm-bound-action')}),
    Option('converge', MIGRATING, parse=str,
           choices=('none', 'auto', 'postcopy'),
           help='what the live stage does after the pass over all RAM: end '
           '(none), or go on, and slow the guest, until the downtime limit '
           'can be kept (auto), or end by post-copy if the limit cannot be '
           'kept (postcopy: QEMU 10.1 or later and capability postcopy-ram '
           'at both sides; the guest is lost if a host fails meanwhile; not '
           'with virsh-migrate)',
           old={O_VIRSH: Old('--tlm-converge')}),
    Option('downtime', ALL, parse=units.Duration(), metavar='TIME',
           help={MIGRATE: 'downtime limit, the goal of --converge auto',
                 ESTIMATE: "instead of parameter 'downtime-limit'",
                 VIRSH: 'downtime limit, the goal of --converge auto'},
           old={O_MIGRATE: Old('--downtime-limit', 'ms'),
                O_ESTIMATE: Old('--downtime-limit', 'ms'),
                O_VIRSH: Old('--tlm-downtime', 'ms')}),
    Option('bandwidth', (*ALL, *ONE_OR_MANY), parse=units.Bandwidth(),
           metavar='RATE',
           required=(ESTIMATE,),
           help={MIGRATE: 'cap while the guest runs; 0 is no cap',
                 ESTIMATE: 'what the link carries',
                 VIRSH: 'cap while the guest runs, rounded down to whole '
                 'MiB/s, which is what libvirt takes; 0 is no cap',
                 **dict.fromkeys(SAVING, 'cap on what is written per second '
                                 '(default: none)'),
                 **dict.fromkeys(cluster.SAVING, 'cap on what each VM writes '
                                 'per second (default: none)')},
           old={O_MIGRATE: Old(bare='B/s'), O_ESTIMATE: Old(bare='B/s'),
                O_VIRSH: Old(bare='MiB/s')}),
    Option('window', (ESTIMATE, *cluster.SAVING),
           parse=units.Duration(least=1), metavar='TIME',
           help={ESTIMATE: 'how long to watch the guest (default: 1s)',
                 **dict.fromkeys(cluster.SAVING, 'how long it may take until '
                                 'all VMs have stopped, else the set is given '
                                 'up. A VM whose coordinator is dead goes on '
                                 'after twice this time (default: 500ms)')},
           old={O_ESTIMATE: Old(bare='ms')}),
    *cluster.OWN,
    Option('overcommit', MIGRATING, parse=units.steps, metavar='STEPS',
           help='put the vCPUs on fewer host CPUs: 0.5-(2) is two from half '
           'of the pass on',
           old={O_VIRSH: Old('--tlm-overcommit')}),
    Option('channels', (MIGRATE, RESTORE, STANDBY), parse=units.Count(least=1),
           metavar='N', default=2,
           help={MIGRATE: 'multifd channels (default: 2)',
                 STANDBY: 'multifd channels (default: 2)',
                 RESTORE: 'with --to or --server: multifd channels; those of '
                 'a QEMU that waits must be as many, and at least as many as '
                 'there are parts (default: 2)'}),
    Option('dtx-channels', (MIGRATE,), parse=units.Count(), metavar='N',
           help='how many of them carry dirty pages'),
    Option('mode', ONE_OR_MANY, parse=str,
           choices=('auto', 'copy', 'write-protect'),
           help='how the RAM is kept that is left when the guest is paused: '
           'copied in the pause, write-protected and copied after it, or (auto) '
           'protected where copying would take longer than the downtime limit '
           'of QEMU'),
    Option('buffer', ONE_OR_MANY, parse=units.Size(least=1), metavar='SIZE',
           help='limit of the memory for copies; if more is left when the '
           'guest is to be paused, it is written in the pause (default: what '
           'the host has)'),
    Option('set', (*MIGRATING, *ONE_OR_MANY), parse=units.setting,
           metavar='NAME=VALUE', many=True,
           help='any other migration parameter of QEMU, in its own unit',
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
    Option('json', (*ALL, *(c for c in DIRECTORIES if c != STANDBY),
                    *memserver.MEMSERVER),
           help={MIGRATE: "print the last answer of 'query-migrate' on "
                 'standard output, all else on standard error',
                 ESTIMATE: "print the answer of 'query-tlm-estimate'",
                 VIRSH: "print the last answer of 'query-migrate' on "
                 'standard output, all else on standard error',
                 **dict.fromkeys(ONE_OR_MANY, 'print the manifest on standard '
                                 'output, all else on standard error'),
                 **dict.fromkeys((SHOW, FLATTEN, cluster.SHOW),
                                 'print the manifest'),
                 **dict.fromkeys((LIST, VERIFY, COMMIT, *PRUNING, *RESTORING,
                                  cluster.LIST, cluster.VERIFY,
                                  TAKEOVER, *memserver.MEMSERVER),
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
