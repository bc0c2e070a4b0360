# SPDX-License-Identifier: GPL-2.0-or-later
"""The domain of libvirt's that a checkpoint is loaded into."""

import contextlib
import os
import tempfile
import xml.etree.ElementTree as ET

from ..errors import MigrateError
from ..virsh.domain import Domain
from ..virsh.shell import Virsh
from . import libvirt
from .target import READ_SET

QEMU = 'http://libvirt.org/schemas/domain/qemu/1.0'
COMMANDLINE, ARG = f'{{{QEMU}}}commandline', f'{{{QEMU}}}arg'
WAIT = ('-incoming', 'defer')


def _put_on(domain, wanted, make):
    """Each disk of @wanted, of a manifest, on what make(disk) returns."""
    for disk in wanted:
        users = [d for d in domain.findall('devices/disk')
                 if d.find('source') is not None and os.path.realpath(
                     d.find('source').get('file') or '') == disk['base']]
        if len(users) != 1:
            raise MigrateError(
                f"{disk['base']}, a disk of the checkpoint, is in "
                f'{len(users)} disks of the description of the domain instead '
                'of one: restore it with a command line')
        element, = users
        driver = element.find('driver')
        if driver is None:
            driver = ET.SubElement(element, 'driver', name='qemu')
        driver.set('type', 'qcow2')
        element.find('source').set('file', make(disk))
        # libvirt finds what is below in the new image
        for below in element.findall('backingStore'):
            element.remove(below)


def emulator(vm):
    """The QEMU of the domain that was saved; None: not known."""
    return ET.fromstring(vm['domain']).findtext('devices/emulator') \
        if vm.get('domain') else None


def waiting(text, name, disks=(), make=None):
    """The description @text, of a domain that waits for its state; see
    _put_on()."""
    ET.register_namespace('qemu', QEMU)
    domain = ET.fromstring(text)
    if domain.findtext('name') != name:
        raise MigrateError('the domain that was saved is '
                           f"'{domain.findtext('name')}', not '{name}'")
    _put_on(domain, disks, make)
    more = domain.find(COMMANDLINE)
    if more is None:
        more = ET.SubElement(domain, COMMANDLINE)
    args = more.findall(ARG)
    # It may have been saved after it was restored
    for first, second in zip(args, args[1:]):
        if (first.get('value'), second.get('value')) == WAIT:
            more.remove(first)
            more.remove(second)
    for word in WAIT:
        ET.SubElement(more, ARG, value=word)
    return ET.tostring(domain, encoding='unicode')


class NewDomain:
    """Created in a "with": destroyed if that ends by an exception.  @disks:
    of the manifest, which get what make(disk) returns."""

    dir = None                  # for sockets: its QEMU may not make one here
    elsewhere = None            # it is on this host

    def __init__(self, name, uri, vm, disks=(), make=None):
        if not vm.get('domain'):
            raise MigrateError('it was not saved with --domain, so libvirt\'s '
                               'description of the domain is not known')
        self.xml = waiting(vm['domain'], name, disks, make)
        self.virsh = Virsh(uri)
        self.qmp = Domain(self.virsh, name)
        self.created = False

    def __enter__(self):
        try:
            self.check_place()
            if self.qmp.state() not in (None, 'shut off', 'crashed'):
                raise MigrateError(f"domain '{self.qmp.name}' runs: end it "
                                   'first (virsh destroy)')
            with tempfile.NamedTemporaryFile('w', suffix='.xml') as f:
                f.write(self.xml)
                f.flush()
                self.virsh('create', f.name, '--paused')
            self.created = True
        except BaseException:
            self._end(True)
            raise
        return self

    def check_place(self):
        """Raises MigrateError if a file cannot come to its QEMU."""
        libvirt.check_local(self.virsh)

    def __exit__(self, error, *_):
        self._end(error)

    def _end(self, error):
        if error and self.created:
            with contextlib.suppress(MigrateError):
                self.virsh('destroy', self.qmp.name)
        self.virsh.close()

    @contextlib.contextmanager
    def opened(self, path):
        """Yields the URI of a file for QEMU."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.qmp.pass_fd(fd, READ_SET)
        finally:
            os.close(fd)
        yield f'file:/dev/fdset/{READ_SET}'
        self.qmp('remove-fd', fdset_id=READ_SET)

    def check(self, _patience=0):
        """Raises MigrateError if it has ended."""
        state = self.qmp.state()
        if state not in ('running', 'paused'):
            raise MigrateError(f"the domain is {state or 'gone'}: see its log "
                               'in /var/log/libvirt/qemu')

    def resume(self):
        self.virsh('resume', self.qmp.name)

    def told(self):
        return {'domain': self.qmp.name}
