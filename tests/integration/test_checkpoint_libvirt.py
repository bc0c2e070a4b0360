#!/usr/bin/python3
#
# tlm checkpoint of the domains of an unmodified libvirt
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import shutil
import signal
import subprocess
import unittest

from tlm.checkpoint import mappedram
from tlmtest import env
from tlmtest.domains import IMAGES, TOOL, DisksCase, DomainCase
from tlmtest.vm import wait_until

SLOW = '300kB/s'


class LibvirtCheckpoints(DomainCase):
    def test_save_and_restore(self):
        """By a stock QEMU, as the domain that it was; and once more what
        has been restored."""
        self.start()
        before = self.settings()
        content = self.save('--name', 'one')
        self.assertIn('<name>guest</name>', content['machine']['domain'])
        self.assertEqual(self.settings(), before)
        self.assert_well()
        run = self.tool('restore', '--domain', 'guest', 'one')
        self.assertEqual(run.returncode, 1)
        self.assertIn("domain 'guest' runs", run.stderr)
        self.save('--name', 'two')
        self.assertEqual(self.tool('verify').returncode, 0)
        for emulator, name in ((env.STOCK_QEMU, 'one'), (env.QEMU, 'two'),
                               (env.STOCK_QEMU, 'three')):
            self.host.virsh('destroy', 'guest')
            self.host.use_emulator(emulator)
            run = self.tool('restore', '--domain', 'guest', '--json', name)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(json.loads(run.stdout)['status'], 'running')
            self.assertEqual(self.fdsets(), [])
            self.assert_well()
            if name == 'two':
                self.save('--name', 'three')

    def test_restore_paused(self):
        self.start(persistent=False)
        self.save('--name', 'one')
        self.host.virsh('destroy', 'guest')
        run = self.tool('restore', '--domain', 'guest', '--paused', 'one')
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(self.host.domain_state('guest'), 'paused')
        self.host.virsh('resume', 'guest')
        self.assert_well()

    def test_restore_that_fails(self):
        """No domain is left."""
        self.start(persistent=False)
        content = self.save('--name', 'one')
        self.host.virsh('destroy', 'guest')
        with open(os.path.join(self.dir, 'one.checkpoint'), 'r+b') as f:
            end = mappedram.blocks(f.fileno())[-1].end
            f.seek(end)
            f.write(b'\xff' * (content['file']['size'] - end))
        run = self.tool('restore', '--domain', 'guest', 'one')
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIsNone(self.host.domain_state('guest'))
        run = self.tool('restore', '--domain', 'guest', '--verify', 'one')
        self.assertIn('not as it was written', run.stderr)

    def test_interrupted(self):
        self.start()
        before = self.settings()
        for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130)):
            p = self.host.popen(
                TOOL, 'checkpoint', 'save', '--dir', self.dir, '--domain',
                'guest', '--bandwidth', SLOW, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE)
            wait_until(lambda: self.host.qmp('guest', 'query-migrate').get(
                'status') == 'active', 60, 'it is under way')
            with open(f'/proc/{p.pid}/task/{p.pid}/children') as f:
                os.kill(int(f.read().split()[0]), signum)
            _, err = p.communicate(timeout=120)
            self.assertEqual(p.returncode, code, err)
            self.assertEqual(self.files(), [])
            self.assertEqual(self.settings(), before)
            self.assert_well()

    def test_tool_killed(self):
        """The next save gets rid of what was left in QEMU."""
        self.start()
        p = self.host.popen(
            TOOL, 'checkpoint', 'save', '--dir', self.dir, '--domain',
            'guest', '--bandwidth', SLOW, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        wait_until(lambda: self.host.qmp('guest', 'query-migrate').get(
            'status') == 'active', 60, 'it is under way')
        with open(f'/proc/{p.pid}/task/{p.pid}/children') as f:
            os.kill(int(f.read().split()[0]), signal.SIGKILL)
        p.wait()
        self.host.qmp('guest', 'migrate_cancel')
        wait_until(lambda: self.host.qmp('guest', 'query-migrate').get(
            'status') == 'cancelled', 60, 'it is cancelled')
        self.save('--name', 'one')
        self.assertEqual(self.fdsets(), [])
        self.assertEqual(self.tool('verify').returncode, 0)

    def test_lock_manager(self):
        self.start()
        conf = os.path.join(self.host.dir, 'etc/qemu.conf')
        with open(conf, 'a') as f:
            f.write('lock_manager = "lockd"\n')
        self.addCleanup(self.forget_lock_manager, conf)
        run = self.tool('save', '--domain', 'guest')
        self.assertEqual(run.returncode, 1)
        self.assertIn('has a lock manager', run.stderr)
        self.assertEqual(self.files(), [])

    @staticmethod
    def forget_lock_manager(conf):
        with open(conf) as f:
            text = f.read()
        with open(conf, 'w') as f:
            f.write(text.replace('lock_manager = "lockd"\n', ''))

    def test_unknown_domain(self):
        run = self.tool('save', '--domain', 'nobody')
        self.assertEqual(run.returncode, 1)
        self.assertIn('nobody', run.stderr)
        with contextlib.suppress(FileNotFoundError):
            self.assertEqual(self.files(), [])


class Disks(DisksCase):
    """Overlays by libvirt, in the pause."""

    def assert_refused(self):
        """Nothing has happened."""
        before = self.disks(), self.files()
        run = self.tool('save', '--domain', 'guest', '--disk', 'virsh',
                        '--name', 'refused')
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIn('libvirt cannot put overlays on the disks', run.stderr)
        self.assertNotIn('not removed', run.stderr)
        self.assertEqual((self.disks(), self.files()), before)
        self.assertEqual([f for f in os.listdir(os.path.dirname(self.image))
                          if 'refused' in f], [])
        self.assert_uses_disk()

    def test_disks(self):
        self.start_with_disks()
        one = self.save('--disk', 'virsh', '--name', 'one')
        self.assertEqual([d['base'] for d in one['disks']],
                         [self.image, self.second])
        self.assertIn('held', one['pause-parts-us'])
        self.assert_on(*self.overlays('one'))
        self.assert_uses_disk()

        # libvirt's own commands work on the chain as it is
        self.host.virsh('snapshot-create-as', 'guest', 'own', '--disk-only',
                        '--no-metadata', '--diskspec', 'vdb,snapshot=no')
        own = self.disks()['vda']
        self.host.virsh('blockcommit', 'guest', 'vda', '--active',
                        '--shallow', '--wait')
        self.assert_refused()       # while a job of libvirt's has the disk
        self.host.virsh('blockjob', 'guest', 'vda', '--pivot')
        os.unlink(own)
        self.assert_on(*self.overlays('one'))

        two = self.save('--disk', 'virsh', '--name', 'two')
        self.assertEqual([d['base'] for d in two['disks']],
                         self.overlays('one'))
        self.assert_uses_disk()
        self.end()
        self.assert_restored_with_disks((one, two), ('one', 'two', 'one'))

        # The domain itself goes on where it was
        self.host.virsh('start', 'guest')
        self.assert_on(*self.overlays('two'))

    def virsh_that(self, what):
        """A directory with a virsh that does what() before it is to put
        overlays on the disks; what: a line of the shell, $PPID is the tool."""
        path = os.path.join(self.dir, 'bin')
        os.mkdir(path)
        self.addCleanup(shutil.rmtree, path)
        with open(os.path.join(path, 'virsh'), 'w') as f:
            f.write('#!/bin/bash\n'
                    'while IFS= read -r line; do\n'
                    '  case $line in\n'
                    f'  *snapshot-create-as*) {what} ;;\n'
                    '  esac\n'
                    '  printf "%s\\n" "$line"\n'
                    f"done | {shutil.which('virsh')} \"$@\"\n")
            os.fchmod(f.fileno(), 0o755)
        return path

    def save_with(self, virsh):
        p = self.host.popen(
            'env', f"PATH={virsh}:{IMAGES}:{os.environ['PATH']}", TOOL,
            'checkpoint', 'save', '--domain', 'guest', '--dir', self.dir,
            '--disk', 'virsh', stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        _, err = p.communicate(timeout=300)
        return p.returncode, err

    def test_killed_at_the_gate(self):
        """The guest goes on by itself, and libvirt knows of all."""
        self.start_with_disks()
        before = self.disks()
        virsh = self.virsh_that('kill -9 $PPID; exit')
        self.save_with(virsh)
        self.assert_uses_disk()
        self.assertEqual(self.disks(), before)
        self.assertEqual(self.host.qmp('guest', 'query-migrate')['status'],
                         'failed')

    @unittest.skipUnless('TLM_REPEAT' in os.environ, 'takes long: TLM_REPEAT=1')
    def test_slow_libvirt(self):
        """Slower than the guest may be kept waiting: it goes on, and nothing
        is saved."""
        self.start_with_disks()
        code, err = self.save_with(self.virsh_that('sleep 12'))
        self.assertEqual(code, 1)
        self.assertIn("waited for 'migrate-continue' for 10000 ms", err)
        self.assertIn('was not removed', err)
        self.assert_on(*(path for path in self.disks().values()
                         if '.tlm-' in path))
        self.assert_uses_disk()
        self.commit()
        self.assert_on(self.image, self.second)
        self.assert_uses_disk()

    def commit(self):
        run = self.tool('commit', '--domain', 'guest', '--json')
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def test_commit(self):
        """By libvirt, which knows the chain afterwards."""
        self.start_with_disks()
        for name in ('one', 'two', 'three', 'four'):
            self.save('--disk', 'virsh', '--name', name)
            self.assert_uses_disk()
        self.tool('prune', '--keep', '1')
        told = self.commit()
        self.assertEqual({m['into'] for m in told['merged']},
                         {self.image, self.second})
        self.assertEqual(len(told['removed']), 2)
        self.assert_on(*self.overlays('four'))
        self.assert_uses_disk()
        self.save('--disk', 'virsh', '--name', 'five')
        self.save('--name', 'without-disks')
        self.tool('prune', '--keep', '1')
        self.commit()
        self.assert_on(self.image, self.second)
        self.assertEqual(sorted(
            f for f in os.listdir(os.path.dirname(self.image))
            if f.startswith('guest.img')), ['guest.img', 'guest.img.second'])
        self.assert_uses_disk()
        self.end()
        self.host.virsh('start', 'guest')
        self.assert_on(self.image, self.second)

    def test_behind_libvirts_back(self):
        """A chain that libvirt does not know is refused before the start."""
        self.start(disk=1)
        overlay = f'{self.domain.disk}.other'
        self.addCleanup(os.unlink, overlay)
        subprocess.run([f'{IMAGES}/qemu-img', 'create', '-q', '-f', 'qcow2',
                        overlay, '16M'], check=True)
        self.host.qmp('guest', 'blockdev-add', driver='qcow2',
                      node_name='other', backing=None,
                      file={'driver': 'file', 'filename': overlay})
        node, = (d['inserted']['node-name']
                 for d in self.host.qmp('guest', 'query-block'))
        self.host.qmp('guest', 'blockdev-snapshot', node=node,
                      overlay='other')
        run = self.tool('save', '--domain', 'guest', '--disk', 'virsh')
        self.assertEqual(run.returncode, 1)
        self.assertIn('libvirt believes that it is on', run.stderr)
        self.assertEqual(self.files(), [])
        self.assert_well()


if __name__ == '__main__':
    unittest.main()
