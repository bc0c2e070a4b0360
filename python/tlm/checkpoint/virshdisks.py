# SPDX-License-Identifier: GPL-2.0-or-later
"""Overlays that libvirt itself puts on the disks of a domain, while the guest
stands in the pause of a checkpoint ("--disk virsh").

libvirt must know the chain of each disk: QEMU may not change it alone.  So the
checkpoint's pause waits at the gate for "virsh snapshot-create-as --disk-only",
whose own transaction is all or nothing.  libvirt takes the domain for paused
then, does not start it, and is asked for nothing else meanwhile.
"""

import contextlib
import dataclasses
import os
import sys
import xml.etree.ElementTree as ET

from ..errors import MigrateError
from ..virsh.shell import Lost
from . import durable, images, overlays
from .newdomain import emulator
from .records import SAVED


@dataclasses.dataclass(frozen=True)
class Disk:
    """A disk as libvirt describes it."""

    target: str                     # vda
    alias: str                      # a part of its device's QOM path
    files: tuple                    # of the chain, from the top down

    @property
    def file(self):
        return self.files[0] if self.files else None


def _files(element):
    """Of a <disk> or <backingStore>, and those below it."""
    while element is not None:
        source = element.find('source')
        if source is None:
            return
        name = source.get('file')
        yield os.path.realpath(name) if name else None
        element = element.find('backingStore')


def described(text):
    """The disks of a running domain's description."""
    return [Disk(disk.find('target').get('dev'),
                 disk.find('alias').get('name'), tuple(_files(disk)))
            for disk in ET.fromstring(text).findall('devices/disk')]


def target_of(known, qdev, file):
    """libvirt's name of the disk that is QEMU's device @qdev."""
    disk = next((d for d in known if d.alias in (qdev or '').split('/')), None)
    if not disk:
        raise MigrateError(f'libvirt does not know of the disk {qdev or file} '
                           '(from <qemu:commandline>?), so it cannot put an '
                           'overlay on it')
    if disk.file != file:
        raise MigrateError(
            f'disk {disk.target} is on {file}, but libvirt believes that it '
            f'is on {disk.file}: somebody has put an overlay on it without '
            'libvirt, as "--disk NODE=OVERLAY" does. Let libvirt and QEMU '
            'agree first, by a shutdown and a start of the domain from the '
            'right image')
    return disk.target


def _quoted(path):
    """Within an option of virsh that has commas."""
    return path.replace(',', ',,')


class VirshOverlays(overlays.Made):
    """Images, made in a "with"; if that ends by an exception, those are
    removed that are not in use.  @domain: a virsh.domain.Domain"""

    pairs = ()                      # QEMU is not to switch them itself

    def __init__(self, domain, checkpoint, records):
        self.domain, self.checkpoint = domain, checkpoint
        self.records = records
        self.disks, self.others = [], []    # of the manifest; targets
        self.unsure = False         # whether libvirt still does something

    def _make(self):
        text = self.domain.live_xml()
        known = described(text)
        program = images.tool(emulator({'domain': text}))
        for found in overlays.found(self.domain, None):
            target = target_of(known, found.device, found.path)
            new = overlays.free_name(found.path, self.checkpoint)
            images.overlay(program, new, found.path, found.format, found.size)
            self.disks.append({
                'node': found.node, 'target': target, 'overlay-file': new,
                'base': found.path, 'below': list(found.below),
                'format': found.format})
            self.records.add(new, SAVED)
        mine = {disk['target'] for disk in self.disks}
        self.others = [d.target for d in known if d.target not in mine]
        for directory in {os.path.dirname(d['overlay-file'])
                          for d in self.disks}:
            durable.sync_directory(directory)

    def bases(self, _qmp, _directory):
        return self.disks

    def switch(self):
        """All of them, or none: with the guest at the gate."""
        words = [word for d in self.disks for word in (
            '--diskspec', f"{d['target']},snapshot=external,driver=qcow2,"
            f"file={_quoted(d['overlay-file'])}")]
        for target in self.others:
            words += ['--diskspec', f'{target},snapshot=no']
        self.unsure = True
        try:
            self.domain.virsh('snapshot-create-as', self.domain.name,
                              '--disk-only', '--no-metadata', '--atomic',
                              '--reuse-external', *words)
            self.unsure = False
        except Lost:
            raise
        except MigrateError as e:
            self.unsure = False     # libvirt has answered
            raise MigrateError('libvirt cannot put overlays on the disks: '
                               f'{e}') from None
        self._check()

    def _in_use(self):
        """Files that QEMU has open, of whatever node."""
        return {images.path(node['file'], None) for node in
                self.domain('query-named-block-nodes', flat=True)}

    def _check(self):
        known = {d.target: d.file for d in
                 described(self.domain.live_xml())}
        used = self._in_use()
        for disk in self.disks:
            new = disk['overlay-file']
            if known.get(disk['target']) != new or new not in used:
                raise MigrateError(
                    f"libvirt has not put {new} on disk {disk['target']}, "
                    'though it says so')

    def _remove(self):
        if not self.disks:
            return
        used = {disk['overlay-file'] for disk in self.disks}
        if not self.unsure:
            with contextlib.suppress(MigrateError, OSError, ValueError):
                used = self._in_use()
        for disk in self.disks:
            new = disk['overlay-file']
            if new in used:
                print(f"{new} was not removed: the guest goes on in it, or "
                      'libvirt does not answer and it may. "virsh blockcommit '
                      f"{self.domain.name} {disk['target']} --active --pivot "
                      '--shallow" undoes that', file=sys.stderr)
            else:
                durable.discard(new)
                self.records.forget(new)
