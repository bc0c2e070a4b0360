# Base class of tests that write to the disk of a VM themselves, and know what
# must be on it; and the commands of "tlm checkpoint" in this process
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tempfile

from tlm import __main__ as tlm_main
from tlm import options, parser

from . import env
from .case import TlmCase
from .vm import Vm

IMAGE_TOOL = os.path.join(env.BUILD, 'qemu/qemu-img')
DISK = 1 << 20
PIECE = 64 << 10                # what is written at a time


def command(name, *words):
    """In this process.  Returns (exit status, output, errors)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = tlm_main.MAIN[f'checkpoint {name}'](
            parser.of_command(options.COMMANDS[f'checkpoint {name}'], None),
            list(words))
    return code, out.getvalue(), err.getvalue()


class WrittenDisk(TlmCase):
    """A VM whose guest does not run, or does not use the disk: the test writes
    to it, between checkpoints."""

    prefix = ()                 # of QEMU's command line

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-commit-')
        self.addCleanup(directory.cleanup)
        self.top = directory.name
        self.dir, self.disks = (os.path.join(self.top, name)
                                for name in ('checkpoints', 'disks'))
        os.mkdir(self.dir)
        os.mkdir(self.disks)
        self.image = os.path.join(self.disks, 'disk.img')
        with open(self.image, 'wb') as f:
            f.truncate(DISK)
        self.wanted = bytearray(DISK)
        self.at = {}                # checkpoint: its disk
        self.number = 0
        self.start(self.image)

    def machine(self):
        return ['-machine', 'pc', '-m', '4M', '-S']

    def start(self, image):
        form = 'qcow2' if image.endswith('.qcow2') else 'raw'
        self.qmp = os.path.join(self.top, 'tool-qmp')
        self.vm = Vm('src', env.QEMU, [
            *self.machine(), '-drive',
            f'file={image},format={form},if=none,id=d', '-device',
            'virtio-blk-pci,drive=d,id=disk', '-qmp',
            f'unix:{self.qmp},server=on,wait=off'])
        self.vm.command[:0] = self.prefix
        self.addCleanup(self.vm.close)
        self.vm.start()

    def write(self, vm=None):
        """A pattern of its own, where others are already, and where not."""
        self.number += 1
        for piece in (0, self.number % (DISK // PIECE)):
            self.hmp(f'write -P {self.number} {piece * PIECE} {PIECE}', vm)
            if vm is None:
                self.wanted[piece * PIECE:(piece + 1) * PIECE] = \
                    bytes([self.number]) * PIECE
        self.hmp('flush', vm)       # else QEMU may have some of it alone

    def hmp(self, line, vm=None):
        vm = vm or self.vm
        said = vm.hmp(f'qemu-io -d /machine/peripheral/disk/virtio-backend '
                      f'"{line}"')
        self.assertNotIn('rror', said)
        return said

    def assert_disk(self):
        """What the guest sees."""
        for piece in range(DISK // PIECE):
            pattern = self.wanted[piece * PIECE]
            before = len(self.vm.messages())
            self.hmp(f'read -P {pattern} {piece * PIECE} {PIECE}')
            self.assertNotIn('verification failed',
                             self.vm.messages()[before:])

    def tool(self, name, *words, code=0):
        found, out, err = command(name, '--dir', self.dir, '--json', *words)
        self.assertEqual(found, code, out + err)
        return json.loads(out) if code == 0 else err

    def save(self, name, *disk):
        self.tool('save', '--qmp', self.qmp, '--name', name,
                  *(disk or ('--disk', 'auto')))
        if not disk:
            self.at[name] = bytes(self.wanted)

    def remove(self, *names):
        for name in names:
            os.unlink(os.path.join(self.dir, f'{name}.json'))
            os.unlink(os.path.join(self.dir, f'{name}.checkpoint'))
            del self.at[name]

    def history(self, names):
        for name in names:
            self.write()
            self.save(name)
        self.write()

    def commit(self, code=0):
        return self.tool('commit', '--qmp', self.qmp, code=code)

    def chain(self):
        image = self.vm.qmp('query-block')[0]['inserted']['image']
        found = []
        while image:
            found.append(image['filename'])
            image = image.get('backing-image')
        return found

    def files(self):
        return sorted(os.listdir(self.disks))

    def base(self, name):
        with open(os.path.join(self.dir, f'{name}.json')) as f:
            return json.load(f)['disks'][0]

    def bases(self):
        """Of the checkpoints that there are: nobody may touch them."""
        found = {}
        for name in self.at:
            path = self.base(name)['base']
            with open(path, 'rb') as f:
                found[path] = (hashlib.file_digest(f, 'sha256').hexdigest(),
                               os.stat(path).st_mtime_ns)
        return found

    def assert_checkpoints(self):
        """Each has its disk as it was."""
        for name, wanted in self.at.items():
            disk = self.base(name)
            out = os.path.join(self.top, 'seen')
            subprocess.run([IMAGE_TOOL, 'convert', '-U', '-f',
                            disk['format'], '-O', 'raw', disk['base'], out],
                           check=True)
            with open(out, 'rb') as f:
                self.assertTrue(f.read() == wanted, name)
