# Cases with a domain of an unmodified libvirt, of which checkpoints are saved
#
# SPDX-License-Identifier: GPL-2.0-or-later

import hashlib
import json
import os
import subprocess
import tempfile
import unittest

from . import env
from .guests import LinuxGuest
from .virt import Domain, Pair, missing_libvirt
from .vm import wait_until

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
IMAGES = os.path.join(env.BUILD, 'qemu')        # where qemu-img is
REQUESTS = 200                  # to the disk, of each thread


class DomainCase(unittest.TestCase):
    """All cases of a module share the hosts."""

    pair = None

    @classmethod
    def setUpClass(cls):
        if DomainCase.pair:
            return
        reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU) or \
            missing_libvirt()
        if reason:
            raise unittest.SkipTest(reason)
        DomainCase.pair = Pair()
        unittest.addModuleCleanup(cls.close_pair)

    @staticmethod
    def close_pair():
        DomainCase.pair.close()
        DomainCase.pair = None

    def setUp(self):
        self.host = self.pair.hosts[0]
        self.host.use_emulator(env.QEMU)
        directory = tempfile.TemporaryDirectory(prefix='tlm-checkpoints-')
        self.addCleanup(directory.cleanup)
        self.dir = directory.name

    def start(self, disk=0, **settings):
        guest = LinuxGuest(mem_mb=384, ws=64, vcpus=1, rate=20000, disk=disk)
        self.domain = Domain(self.pair, guest, **settings)
        self.addCleanup(self.domain.close)
        self.domain.start(self.host)
        self.guest, self.place = guest, self.domain.at[self.host]

    def words(self, command, *more):
        return self.host.command(TOOL, 'checkpoint', command, '--dir',
                                 self.dir, *more)

    def tool(self, command, *more):
        return subprocess.run(
            self.words(command, *more), text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=300, check=False,
            env={**os.environ, 'PATH': f"{IMAGES}:{os.environ['PATH']}"})

    def save(self, *more):
        run = self.tool('save', '--domain', 'guest', '--json', *more)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def restored(self, name, *more):
        """Returns what is told."""
        run = self.tool('restore', '--domain', 'guest', '--json', name, *more)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def files(self):
        return sorted(f for f in os.listdir(self.dir) if f != '.lock')

    def assert_well(self):
        """It writes on, and finds its memory as it has written it."""
        wait_until(lambda: self.host.domain_state('guest') == 'running', 60,
                   'libvirt says that it runs')
        self.guest.wait_alive(self.place)
        self.guest.wait_scans(self.place)

    def settings(self):
        return (self.host.qmp('guest', 'query-migrate-capabilities'),
                self.host.qmp('guest', 'query-migrate-parameters'),
                self.fdsets())

    def fdsets(self):
        """Those of ours: libvirt has some for itself."""
        return [s for s in self.host.qmp('guest', 'query-fdsets')
                if s['fdset-id'] > 1000]

    def end(self):
        self.host.virsh('destroy', 'guest')


class DisksCase(DomainCase):
    """The guest writes to its disk, reads it past its cache, and knows in RAM
    what must be there."""

    def start_with_disks(self):
        """vda, to which the guest writes, and vdb."""
        self.start(disk=4)
        self.image = self.domain.disk
        self.second = f'{self.image}.second'
        with open(self.second, 'wb') as f:
            f.truncate(16 << 20)
        self.host.virsh('attach-disk', 'guest', self.second, 'vdb', '--live',
                        '--config', '--targetbus', 'virtio')
        self.addCleanup(self.remove_images)
        self.assert_uses_disk()

    def remove_images(self):
        where, name = os.path.split(self.image)
        for file in os.listdir(where):
            if file.startswith(name):
                os.unlink(os.path.join(where, file))

    def assert_uses_disk(self):
        self.assert_well()
        done = self.guest.requests(self.place)
        wait_until(lambda: self.guest._ok(self.place) and self.guest.requests(
            self.place) > done + REQUESTS, 120, 'the guest uses its disk')

    def disks(self, *options):
        """What libvirt believes, by target."""
        lines = self.host.virsh('domblklist', 'guest', *options).splitlines()
        return dict(line.split() for line in lines[2:])

    def assert_on(self, vda, vdb):
        """libvirt, running and for the next start, and QEMU agree."""
        wanted = {'vda': vda, 'vdb': vdb}
        self.assertEqual(self.disks(), wanted)
        self.assertEqual(self.disks('--inactive'), wanted)
        self.assertEqual({d['inserted']['file'] for d in
                          self.host.qmp('guest', 'query-block')},
                         set(wanted.values()))

    def overlays(self, name):
        return [f'{image}.tlm-{name}.qcow2'
                for image in (self.image, self.second)]

    @staticmethod
    def content(path):
        with open(path, 'rb') as f:
            return hashlib.file_digest(f, 'sha256').hexdigest()

    def assert_restored_with_disks(self, saved, names):
        """In new overlays: the images of those that were @saved stay as they
        are."""
        bases = {d['base']: self.content(d['base'])
                 for one in saved for d in one['disks']}
        self.host.use_emulator(env.STOCK_QEMU)
        for name in names:
            told = self.restored(name)
            self.assertEqual(set(self.disks().values()), set(told['disks']))
            self.assert_uses_disk()
            self.end()
        self.assertEqual({b: self.content(b) for b in bases}, bases)
