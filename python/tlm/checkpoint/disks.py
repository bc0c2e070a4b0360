# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that go on in an overlay from the moment of a checkpoint on.

What was there then is the image below the overlay, the base.  QEMU does not
write to it any more; if anybody else does, the checkpoint is spoilt.
"""

import os

from ..errors import MigrateError
from ..figures import size
from . import images


def bases(qmp, wanted, directory):
    """For the manifest, before the pause; @wanted: (node, overlay) pairs;
    @directory: where QEMU was started, or None."""
    if not wanted:
        return []
    nodes = {n['node-name']: n for n in qmp('query-named-block-nodes')}
    for name in (name for pair in wanted for name in pair):
        if name not in nodes:
            raise MigrateError(f"QEMU has no block node '{name}'")

    def file(node):
        return images.path(node['file'], directory) or node['file']
    return [{'node': node, 'overlay': overlay,
             'overlay-file': file(nodes[overlay]), 'base': file(nodes[node]),
             'below': list(images.chain(
                 nodes[node]['image'].get('backing-image'), directory)),
             'format': images.FORMATS.get(nodes[node]['drv'],
                                          nodes[node]['drv'])}
            for node, overlay in wanted]


def _identity(path):
    """None: it is not a file here."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return {'size': stat.st_size, 'mtime-ns': stat.st_mtime_ns,
            'inode': stat.st_ino}


def identified(disks):
    """The same, with what the bases are from now on."""
    return [{**disk, 'identity': _identity(disk['base'])} for disk in disks]


def problem(disks):
    """Why the disks are not those of the checkpoint; None: nothing is seen
    to be wrong."""
    for disk in disks:
        then, now = disk['identity'], _identity(disk['base'])
        if not then:
            continue                # it was no file: nobody can tell
        if not now:
            return f"the image {disk['base']} is not there"
        if now != then:
            return f"the image {disk['base']} has changed since (it had " \
                   f"{size(then['size'])})"
    return None


def how_to_restore(disks):
    """Lines for who has to write a command line."""
    return ['its disks must be new overlays, so that the images stay as they '
            'are:', *(f"  qemu-img create -f qcow2 -b {d['base']} -F "
                      f"{d['format']} NEW.qcow2" for d in disks)]
