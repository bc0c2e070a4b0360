# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a libvirt is here, and may have its domains paused by their QEMU."""

import os
import re

from ..errors import MigrateError

SYSTEM = '/etc/libvirt'
LOCAL = re.compile(r'qemu(\+unix)?:///(system|session)')
LOCKING = re.compile(r'^\s*lock_manager\s*=\s*["\'](?P<name>\w+)', re.M)


def _directory(kind):
    if kind == 'system':
        return SYSTEM
    return os.path.join(os.environ.get('XDG_CONFIG_HOME') or
                        os.path.expanduser('~/.config'), 'libvirt')


def uri_of(virsh):
    """Of the connection, as libvirt has it; None: not known."""
    return next(iter(re.findall(r'\S+:/\S*', virsh('uri'))[-1:]), None)


def check_local(virsh):
    """Raises MigrateError with the reason; "system" or "session"."""
    uri = uri_of(virsh)
    local = LOCAL.match(uri) if uri else None
    if not local:
        raise MigrateError(
            f"the file is passed to QEMU by libvirt's local socket, but the "
            f"connection is {uri or 'not known'}: run this at "
            "the domain's host, with --connect qemu:///system")
    return local[2]


def check(virsh):
    """The same, for one whose domains are to be paused."""
    check_locking(configuration(check_local(virsh)))


def configuration(kind):
    """The file of this host; @kind: of check_local()."""
    return os.path.join(_directory(kind), 'qemu.conf')


def check_locking(path):
    """At a pause that it has not asked for libvirt gives up the locks of the
    disks, and does not take them again when the guest goes on."""
    try:
        with open(path, encoding='utf-8') as f:
            found = LOCKING.search(f.read())
    except FileNotFoundError:
        return
    except PermissionError:
        raise MigrateError(
            f'{path} cannot be read, so it is not known whether libvirt has '
            'a lock manager: run this as the user that may read it') from None
    if found and found['name'] != 'nop':
        raise MigrateError(
            f"libvirt has a lock manager ('{found['name']}' in {path}). It "
            "would give up the locks of the domain's disks in the pause of "
            'a checkpoint, and not take them again, so that another host '
            'could start the domain. "virsh snapshot-create-as --live '
            '--memspec" is for such a domain')
