# SPDX-License-Identifier: GPL-2.0-or-later
"""Which virtual machines a cluster has: from words, or from a file of TOML."""

import dataclasses
import os
import re
import tomllib

from ..errors import MigrateError
from ..units import AUTO, VIRSH, Bad, checkpoint_name


@dataclasses.dataclass(frozen=True)
class Vm:
    """@qmp, or @domain and @connect: the running one; @command, @waiting,
    @domain, @address: for a restore."""

    name: str
    qmp: str | None = None
    domain: str | None = None
    connect: str | None = None
    dir: str | None = None
    disk: str | None = None     # "auto", for a domain "virsh", or none
    command: tuple = ()
    waiting: str | None = None
    address: str | None = None  # HOST or HOST:PORT, where servers find QEMU
    lock_manager: str | None = None     # "none", or it is not known
    sender: str | None = None   # whom a server takes its QEMU for, by TLS

    def directory(self, cluster):
        """Where its checkpoints are."""
        return os.path.abspath(self.dir or os.path.join(cluster, self.name))

    def speaks_by(self):
        """As a log has it, and Vm() takes it."""
        return {key: getattr(self, key) for key in SPEAKS
                if getattr(self, key)}


DOMAIN = 'domain:'
SPEAKS = ('qmp', 'domain', 'connect')
LOCKS, NO_LOCKS = 'lock-manager', 'none'
TEXTS = (*SPEAKS, 'dir', 'disk', 'waiting', 'address', 'sender', LOCKS)
# A name of a domain can have an @, too
AT_URI = re.compile(r'(?P<domain>.+?)@(?P<uri>[a-z+]+://.*)')


def member(text, connect):
    """NAME=SOCKET or NAME=domain:DOMAIN[@URI], of the command line."""
    name, _, where = text.partition('=')
    domain = where.removeprefix(DOMAIN) if where.startswith(DOMAIN) else None
    if not where or domain == '':
        raise Bad(text, 'write NAME=SOCKET or NAME=domain:DOMAIN, as in '
                  'vm1=/run/vm1.qmp')
    at = AT_URI.fullmatch(domain or '')
    if at:
        domain, connect = at['domain'], at['uri']
    return Vm(checkpoint_name(name), **(
        {'domain': domain, 'connect': connect} if domain
        else {'qmp': where}))


def _from_table(name, table, base):
    if not isinstance(table, dict):
        raise MigrateError(f"'vm.{name}' is no table")
    for key, value in table.items():
        if key in TEXTS and isinstance(value, str) and value:
            continue
        if key == 'command' and isinstance(value, list) and value and \
                all(isinstance(word, str) for word in value):
            continue
        raise MigrateError(f"vm.{name}: '{key}' is not known" if key not in
                           (*TEXTS, 'command') else
                           f"vm.{name}: '{key}' has a value that it cannot "
                           'have')
    table = dict(table, command=tuple(table.get('command', ())))
    if 'dir' in table:
        table['dir'] = os.path.join(base, table['dir'])
    return Vm(checkpoint_name(name), **{
        key.replace('-', '_'): value for key, value in table.items()})


def read(path):
    """The VMs of a file:

        [vm.NAME]
        qmp = "SOCKET"              # or domain = "DOMAIN", connect = "URI"
        lock-manager = "none"
        dir = "DIRECTORY"
        disk = "auto"               # or, for a domain, "virsh"
        command = ["QEMU", "ARGUMENT", ...]
        waiting = "SOCKET"
        address = "HOST:PORT"
        sender = "x509:CN=HOST"
    """
    try:
        with open(path, 'rb') as f:
            content = tomllib.load(f)
        strange = [key for key in content if key != 'vm']
        if strange:
            raise MigrateError(f"'{strange[0]}' is not known")
        tables = content.get('vm', {})
        if not isinstance(tables, dict):
            raise MigrateError("'vm' is no table")
        return [_from_table(name, table, os.path.dirname(
            os.path.abspath(path))) for name, table in tables.items()]
    except OSError as e:
        raise MigrateError(f'{path}: {e.strerror}') from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, MigrateError,
            Bad) as e:
        raise MigrateError(f'{path}: {e}') from None


def _with_disks(vm, wanted):
    """@wanted: what the command line says of all VMs; None: nothing"""
    if VIRSH in (vm.disk, wanted) and not vm.domain:
        raise MigrateError(f"{vm.name}: 'virsh' is for the disks of domains, "
                           f"'{AUTO}' for those of all VMs")
    found = wanted or vm.disk
    if found not in (None, AUTO, VIRSH):
        raise MigrateError(f"{vm.name}: disk can only be '{AUTO}' or "
                           f"'{VIRSH}'")
    # Nobody else may put overlays on the disks of a domain
    return dataclasses.replace(vm, disk=VIRSH if found and vm.domain
                               else found)


def to_save(args):
    """The VMs of the command line and of --config, each once."""
    found = [*(read(args.config) if args.config else ()),
             *(member(text, args.connect) for text in args.vm)]
    if not found:
        raise MigrateError('name the VMs: NAME=SOCKET, or --config FILE')
    if len(args.disk) > 1 or not set(args.disk) <= {AUTO, VIRSH}:
        raise MigrateError('of disks, only --disk auto is for several VMs, '
                           'and --disk virsh for domains')
    found = [_with_disks(vm, next(iter(args.disk), None)) for vm in found]
    if args.no_lock_manager:
        found = [dataclasses.replace(vm, lock_manager=NO_LOCKS)
                 for vm in found]
    for vm in found:
        if args.server and vm.dir:
            raise MigrateError(f'{vm.name}: not with --server: leave out dir')
        if bool(vm.qmp) == bool(vm.domain):
            raise MigrateError(f'{vm.name}: name its QMP socket or its domain')
        if vm.lock_manager not in (None, NO_LOCKS):
            raise MigrateError(f"{vm.name}: {LOCKS} can only be '{NO_LOCKS}'")
    for what, values in (
            ('name', [vm.name for vm in found]),
            ('QMP socket', [vm.qmp for vm in found if vm.qmp]),
            ('domain', [' at '.join(filter(None, (vm.domain, vm.connect)))
                        for vm in found if vm.domain]),
            ('directory', [vm.directory('') for vm in found])):
        twice = [v for v in values if values.count(v) > 1] \
            if len(set(values)) < len(values) else ()
        if twice:
            raise MigrateError(f'two VMs have the {what} {twice[0]}')
    return found
