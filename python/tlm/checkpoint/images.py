# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of disks: where QEMU has them, and new ones on top of them."""

import json
import os
import shutil
import subprocess

from ..errors import MigrateError

TOOL = 'qemu-img'
# What the driver of a node means for who opens the image below an overlay
FORMATS = {'file': 'raw', **{name: name for name in (
    'raw', 'qcow2', 'qcow', 'qed', 'vdi', 'vhdx', 'vmdk', 'vpc')}}


def _filename(options):
    """Of a node's options, as QEMU's "json:" names have them."""
    if options.get('driver') == 'file' and 'filename' in options:
        return options['filename']
    if options.get('driver') == 'raw' and {'offset', 'size'} & set(options):
        return None                 # it is a part of the file
    below = options.get('file')
    return _filename(below) if isinstance(below, dict) else None


def path(name, directory):
    """The file of a node that QEMU calls @name; None: there is none here.
    @directory: where QEMU was started, or None."""
    if name.startswith('json:'):
        try:
            name = _filename(json.loads(name.removeprefix('json:')))
        except ValueError:
            return None
    if not name:
        return None
    name = os.path.join(directory or '', name.removeprefix('file:'))
    return os.path.realpath(name) if os.path.isfile(name) and \
        os.path.isabs(name) else None


def chain(image, directory):
    """Files of an ImageInfo, from the top down; None where there is none."""
    while image:
        yield path(image['filename'], directory)
        image = image.get('backing-image')


def tool(*binaries):
    """qemu-img of one of these QEMUs, or that on PATH."""
    for binary in binaries:
        found = binary and shutil.which(binary)
        beside = found and os.path.join(os.path.dirname(
            os.path.realpath(found)), TOOL)
        if beside and os.access(beside, os.X_OK):
            return beside
    found = shutil.which(TOOL)
    if not found:
        raise MigrateError('there is no qemu-img beside QEMU, nor on PATH '
                           '(package qemu-utils)')
    return found


def overlay(program, new, base, form, size=None):
    """Makes the image @new, which nobody has, on @base.  @size: of a base
    that is in use, so that nobody else may look at it."""
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        run = subprocess.run(
            [program, 'create', '-q', '-f', 'qcow2', '-b', base, '-F', form,
             *(('-u', new, str(size)) if size else (new,))],
            capture_output=True, text=True, check=False)
        if run.returncode:
            raise MigrateError(f'{new}: {run.stderr.strip()}')
        owner = os.stat(base)
        os.chmod(new, owner.st_mode & 0o777 | 0o600)
        if os.geteuid() == 0:
            os.chown(new, owner.st_uid, owner.st_gid)
    except BaseException:
        os.unlink(new)
        raise
