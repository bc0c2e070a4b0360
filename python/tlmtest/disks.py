# Base class of the tests of checkpoints with disks: images and overlays
#
# SPDX-License-Identifier: GPL-2.0-or-later

import hashlib
import os
import subprocess

from . import env
from .checkpoint import CheckpointCase

SIZE = '16M'


def image_tool(*words):
    subprocess.run([os.path.join(env.BUILD, 'qemu/qemu-img'), *words],
                   check=True, capture_output=True)


class DisksCase(CheckpointCase):
    def setUp(self):
        self.dir = self.place()

    def image(self, name, size=SIZE, backing=None):
        path = os.path.join(self.dir, name)
        more = ('-b', os.path.join(self.dir, backing), '-F', 'qcow2') \
            if backing else ()
        image_tool('create', '-q', '-f', 'qcow2', *more, path,
                   *(() if backing else (size,)))
        return path

    def disk_args(self, path, number=0):
        return ('-object', f'iothread,id=io{number}',
                '-blockdev', f'driver=file,node-name=file{number},'
                f'filename={path}',
                '-blockdev', f'driver=qcow2,node-name=disk{number},'
                f'file=file{number}',
                '-device', f'virtio-blk-pci,drive=disk{number},'
                f'iothread=io{number}')

    def add_overlay(self, src, name, size=SIZE):
        path = self.image(f'{name}.qcow2', size)
        src.qmp('blockdev-add', driver='qcow2', node_name=name,
                file={'driver': 'file', 'filename': path}, backing=None)
        return path

    @staticmethod
    def top(src, number=0):
        """The node that the guest's disk is on."""
        return src.qmp('query-block')[number]['inserted']['node-name']

    def sha256(self, path):
        with open(path, 'rb') as f:
            return hashlib.file_digest(f, 'sha256').hexdigest()
