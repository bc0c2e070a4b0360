# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs of a set that are on other hosts than this command.

What is different there: files cannot be passed to QEMU, so it opens them
itself, by the path that this host has them at; a socket of this host, or its
loopback device, leads nowhere; libvirt's configuration cannot be read.
"""

import contextlib
import ipaddress
import os
import tempfile
import urllib.parse

from ..checkpoint import libvirt
from ..checkpoint.newdomain import NewDomain
from ..errors import MigrateError, Refused
from ..memserver import client
from ..qmp import endpoint

LOOPBACK_NAME = 'localhost'
ANY = '0.0.0.0'
SEEN = 'tlm-seen'               # a node of QEMU's


def _is_ip(host):
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _is_loopback(host):
    return ipaddress.ip_address(host).is_loopback if _is_ip(host) else \
        host == LOOPBACK_NAME


def of_socket(address):
    """The other host that a QMP socket is at; None: this one."""
    host, port = endpoint(address)
    return host.strip('[]') if port and not _is_loopback(host.strip('[]')) \
        else None


def of_uri(uri):
    """The other host that a libvirt is at; None: this one."""
    if libvirt.LOCAL.match(uri or ''):
        return None
    parts = urllib.parse.urlsplit(uri or '')
    if parts.scheme.partition('+')[0] != 'qemu' or not parts.hostname:
        raise MigrateError(f"{uri}: libvirt's URI does not say on which host "
                           'QEMU runs (qemu+ssh://HOST/system does)')
    return parts.hostname


def has_socket(uri):
    """Whose configuration is not known, though it is reached by a socket of
    this host."""
    return 'socket' in urllib.parse.parse_qs(
        urllib.parse.urlsplit(uri or '').query)


def check_locking(virsh, promised):
    """Raises MigrateError if a libvirt may have a lock manager.  @promised:
    the user has said that it has none."""
    uri = libvirt.uri_of(virsh)
    if of_uri(uri) is None and not has_socket(uri):
        libvirt.check(virsh)
    elif not promised:
        raise MigrateError(
            f'it cannot be seen from here whether libvirt at {uri} has a lock '
            "manager, which would give up the locks of the domain's disks "
            "in the pause. Look at its qemu.conf: if 'lock_manager' is not "
            'set there, or is "nop", say so by --no-lock-manager, or by '
            'lock-manager = "none" in the file of --config')


def check_reached(uri, host, address):
    """Raises MigrateError if a QEMU on @host cannot connect to @uri, which
    the server at @address has told."""
    told = client.host_of(uri)
    if host is None or told and not _is_loopback(told[0]):
        return
    raise MigrateError(
        f'{address}: it receives at {uri}, where a QEMU on {host} does not '
        "find it: let it listen at an address of the network (group 'data' of "
        'its configuration)')


async def check_directory(channel, directory):
    """Raises MigrateError if QEMU does not see the same directory as this
    command."""
    with tempfile.NamedTemporaryFile(prefix='.tlm-seen-',
                                     dir=directory) as marker:
        os.chmod(marker.fileno(), 0o644)
        with contextlib.suppress(Refused):      # of a command that was killed
            await channel('blockdev-del', **{'node-name': SEEN})
        try:
            await channel('blockdev-add', driver='file', filename=marker.name,
                          locking='off', **{'node-name': SEEN,
                                            'read-only': True})
        except Refused as e:
            raise MigrateError(
                f'{directory}: its QEMU does not see what this host has '
                f'there, or may not read it ({e}). A directory must be the '
                'same for all hosts; or use memory servers (--server)'
                ) from None
        await channel('blockdev-del', **{'node-name': SEEN})


class Elsewhere:
    """Where a QEMU on another host waits for a server.  @at: HOST or
    HOST:PORT, by which servers find it; without a port it takes one."""

    def __init__(self, at):
        host, self.port = (at, None) if _is_ip(at) else endpoint(at)
        self.host = host.strip('[]')

    @property
    def wait_at(self):
        """At the address, or where it has only a name, at all: a host may
        know itself by another one."""
        return self._uri(self.host if _is_ip(self.host) else ANY,
                         self.port or 0)

    @staticmethod
    def _uri(host, port):
        return f'tcp:[{host}]:{port}' if ':' in host else f'tcp:{host}:{port}'

    def found_at(self, qmp):
        """After QEMU has begun to wait."""
        sockets = qmp('query-migrate').get('socket-address', ())
        ports = [s['port'] for s in sockets if s.get('type') == 'inet']
        if not ports:
            raise MigrateError('QEMU does not say at which port it waits')
        return self._uri(self.host, ports[0])


class Domain(NewDomain):
    """As the one it is derived from, on whatever host.  @address: of
    Elsewhere, if it is not that of the URI"""

    host = None

    def __init__(self, name, uri, vm, disks=(), make=None, address=None):
        super().__init__(name, uri, vm, disks, make)
        self.address = address

    def check_place(self):
        self.host = of_uri(libvirt.uri_of(self.virsh))
        if self.host:
            self.elsewhere = Elsewhere(self.address or self.host)

    @contextlib.contextmanager
    def opened(self, path):
        """Yields the URI of a file for QEMU."""
        if not self.host:
            with super().opened(path) as uri:
                yield uri
            return
        yield f'file:{path}'
