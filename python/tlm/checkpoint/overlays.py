# SPDX-License-Identifier: GPL-2.0-or-later
"""Overlays for all disks of a VM that the guest writes to ("--disk auto")."""

import dataclasses
import os
import sys
import uuid

from ..errors import MigrateError
from . import disks, durable, images
from .records import SAVED

MARK = '.tlm-'
SUFFIX = '.qcow2'
USE_NODE = 'name overlays with --disk NODE=OVERLAY instead'


class NoDisk(MigrateError):
    """The VM has none that it writes to."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A disk that the guest writes to."""

    node: str
    device: str | None              # its QOM path
    path: str                       # of its image
    format: str
    size: int
    below: tuple                    # paths of the images below


def found(qmp, directory):
    """All disks that are written to."""
    result = []
    for device in qmp('query-block'):
        medium = device.get('inserted')
        if not medium or medium['ro']:
            continue
        what = device.get('qdev') or device['device'] or medium['node-name']
        file = images.path(medium['file'], directory)
        if medium.get('encrypted'):
            raise MigrateError(f'disk {what} is encrypted, and an overlay '
                               f'would not be: {USE_NODE}')
        if not file:
            raise MigrateError(
                f"disk {what} is on {medium['file']}, which is no file here "
                '(a network disk, a device, or a temporary file of '
                f'"-snapshot"): {USE_NODE}')
        if medium['drv'] not in images.FORMATS:
            raise MigrateError(f"disk {what} is on a node '{medium['drv']}', "
                               f'not on an image: {USE_NODE}')
        result.append(Found(
            medium['node-name'], device.get('qdev'), file,
            images.FORMATS[medium['drv']], medium['image']['virtual-size'],
            tuple(images.chain(medium['image'].get('backing-image'),
                               directory))))
    if not result:
        raise NoDisk('the VM has no disk that it writes to: leave out --disk')
    return result


def free_name(image, checkpoint):
    """Beside the image, which may itself have been made here."""
    directory, name = os.path.split(image)
    stem = name.partition(MARK)[0] if name.endswith(SUFFIX) else name
    start = os.path.join(directory, stem + MARK + checkpoint)
    number, path = 1, start + SUFFIX
    while os.path.lexists(path):
        number += 1
        path = f'{start}-{number}{SUFFIX}'
    return path


class Made:
    """Made in a "with"; if that ends by an exception, they are removed, but
    for those that the guest writes to."""

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, error, *_):
        if error:
            self._remove()


class Named:
    """Overlays that the user has made.  @pairs: (node, overlay)"""

    switch = None                   # QEMU does it

    def __init__(self, pairs):
        self.pairs = pairs

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def bases(self, qmp, directory):
        """For the manifest."""
        return disks.bases(qmp, self.pairs, directory)


class Overlays(Made, Named):
    """QEMU puts them on the disks."""

    def __init__(self, qmp, checkpoint, vm, records):
        super().__init__([])
        self.qmp, self.checkpoint, self.vm = qmp, checkpoint, vm
        self.records = records
        self.made = []              # (overlay or None, path)

    def _make(self):
        there = found(self.qmp, self.vm['directory'])
        program = images.tool(*(self.vm['command'] or ())[:1])
        for disk in there:
            path = free_name(disk.path, self.checkpoint)
            images.overlay(program, path, disk.path, disk.format, disk.size)
            self.made.append((None, path))
            self.records.add(path, SAVED)
            name = f'tlm-{uuid.uuid4().hex[:16]}'
            self.qmp('blockdev-add', driver='qcow2', node_name=name,
                     file={'driver': 'file', 'filename': path}, backing=None,
                     discard='unmap')
            self.made[-1] = (name, path)
            self.pairs.append((disk.node, name))
        for directory in {os.path.dirname(path) for _, path in self.made}:
            durable.sync_directory(directory)

    def _remove(self):
        """QEMU does not give up a node that a disk is on."""
        for node, path in self.made:
            try:
                if node:
                    self.qmp('blockdev-del', node_name=node)
            except (MigrateError, OSError, ValueError):
                print(f'{path} was not removed: the guest goes on in it, or '
                      'QEMU is gone and may have', file=sys.stderr)
            else:
                durable.discard(path)
                self.records.forget(path)
