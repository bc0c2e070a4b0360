#!/usr/bin/python3
#
# tlm checkpoint commit: images of disks that no checkpoint needs are merged by
# QEMU, while the VM has its disk; refused; killed at its steps
#
# With TLM_REPEAT it is killed at each of them; else at some.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import os
import shutil
import subprocess
import unittest

from tlm.checkpoint.records import Records
from tlm.qmp import Qmp
from tlmtest import env, killed
from tlmtest.writtendisk import DISK, WrittenDisk

# From one step at which something is killed to the next
STRIDE = 1 if 'TLM_REPEAT' in os.environ else 4


class Commit(WrittenDisk):
    def test_commit(self):
        """The chain becomes short, whatever it is used for meanwhile; without
        a checkpoint, the guest is on its own image again."""
        self.history('abcdef')
        self.assertEqual(len(self.chain()), 7)
        self.assertEqual(self.commit()['merged'], [])
        self.remove('a', 'b', 'c', 'd')
        bases = self.bases()
        told = self.commit()
        self.assertEqual(told['merged'][0]['into'], self.image)
        self.assertEqual(len(told['removed']), 2)
        self.assertEqual(len(self.chain()), 7 - 2)
        self.assertEqual(len(self.files()), 7 - 2)
        self.assertEqual(set(told['kept']), set(bases))
        self.assertEqual(self.bases(), bases)
        self.assert_checkpoints()
        self.assert_disk()
        self.assertEqual(self.commit()['merged'], [])

        self.write()
        self.remove('e', 'f')
        told = self.commit()
        self.assertTrue(told['merged'][0]['active'])
        self.assertEqual(self.chain(), [self.image])
        self.assertEqual(self.files(), ['disk.img'])
        self.assert_disk()
        self.write()
        self.history('gh')
        self.assert_disk()
        self.assert_checkpoints()
        self.assertEqual([n['node-name'] for n in self.vm.qmp(
            'query-named-block-nodes', flat=True) if n['file'] and
            not os.path.exists(n['file'])], [])

    def restored(self, name):
        """Another VM that runs on the disk of a checkpoint."""
        line = [env.QEMU, '-machine', 'pc', '-m', '4M', '-display', 'none',
                '-nodefaults', '-L', env.FIRMWARE, '-serial', 'null', '-drive',
                f"file={self.base(name)['base']},format="
                f"{self.base(name)['format']},if=none,id=d", '-device',
                'virtio-blk-pci,drive=d,id=disk']
        told = self.tool('restore', name, '--', *line)
        self.addCleanup(shutil.rmtree, os.path.dirname(told['qmp']))
        self.addCleanup(os.kill, told['pid'], 9)
        # Until it has run, QEMU holds no locks for it
        Qmp(told['qmp'])('cont')
        return told['disks'][0]

    def test_restored(self):
        """What another VM lies on is not touched: by what is recorded, and by
        QEMU's locks."""
        self.history('abcde')
        new = self.restored('a')
        self.remove('a', 'b', 'c', 'd')
        told = self.commit()
        self.assertEqual(told['kept'][self.image], f'{new} lies on it')
        # It stays as it is, and what lies on it can still be merged
        self.assertEqual(len(self.chain()), 6 - 1)
        self.assert_checkpoints()
        self.assert_disk()
        shutil.rmtree(Records(self.dir).directory)
        for path in self.chain()[:-1]:
            Records(self.dir).add(path, 'save')
        self.write()
        self.remove('e')
        before = self.chain()
        err = self.commit(code=1)
        self.assertRegex(err, 'another process uses .*disk.img')
        self.assertEqual(self.chain(), before)
        self.assert_disk()

    def test_refused(self):
        self.history('ab')
        self.remove('a')
        with open(os.path.join(self.dir, 'b.json'), 'r+b') as f:
            f.truncate(10)
        before = self.chain()
        self.assertIn('not known which images it needs', self.commit(code=1))
        self.assertEqual(self.chain(), before)

    def test_error(self):
        """Of the file system, in the middle of it."""
        small = os.path.join(self.top, 'small')
        os.mkdir(small)
        mount = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={4 * DISK}', 'tmpfs',
             small], capture_output=True, text=True, check=False)
        if mount.returncode:
            self.skipTest(f'no small disk: {mount.stderr.strip()}')
        self.addCleanup(subprocess.run, ['umount', '-l', small], check=True)
        self.vm.close()
        self.image = os.path.join(small, 'disk.img')
        with open(self.image, 'wb') as f:
            f.truncate(DISK)
        self.start(self.image)
        self.history('a')
        self.remove('a')
        before = self.chain()
        with open(os.path.join(small, 'full'), 'wb', 0) as f, \
                contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))
        err = self.commit(code=1)
        self.assertIn('No space left', err)
        self.assertEqual(self.chain(), before)
        os.unlink(os.path.join(small, 'full'))
        self.assert_disk()
        self.commit()
        self.assertEqual(self.chain(), [self.image])
        self.assert_disk()


class Killed(WrittenDisk):
    """At steps that change a file: the command, or QEMU."""

    def each_step(self, prepare, check, qemu):
        number, came = 1 - STRIDE, True
        while came:
            number += STRIDE
            prepare()
            top = self.chain()[0]
            came = killed.at_write(number, self.commit,
                                   self.vm.pid if qemu else None)
            with self.subTest(killed_at=number):
                if qemu and came:
                    self.vm.process.wait(60)
                    self.vm.close()
                    self.start(top if os.path.exists(top) else self.image)
                self.assert_disk()
                self.assert_checkpoints()
                self.commit()
                check()
                self.assert_disk()
                self.assert_checkpoints()
                self.assertEqual(self.files(), sorted(map(
                    os.path.basename, self.chain())))
                self.assertIsNone(Records(self.dir).pending())
        self.assertGreater(number, 5)

    def one_left(self):
        """A checkpoint, and images that it does not need."""
        self.history('abcd' if not self.at else
                     [f'n{self.number}', f'm{self.number}'])
        self.remove(*list(self.at)[:-1])

    def none_left(self):
        self.history('xy')
        self.remove('x', 'y')

    def assert_short(self):
        self.assertLessEqual(len(self.chain()), 4)

    def assert_own_image(self):
        self.assertEqual(self.chain(), [self.image])

    def test_command(self):
        self.each_step(self.one_left, self.assert_short, False)

    def test_command_without_checkpoints(self):
        self.each_step(self.none_left, self.assert_own_image, False)

    def test_qemu(self):
        """It starts again on the image that the guest has written to."""
        self.each_step(self.one_left, self.assert_short, True)

    def test_qemu_without_checkpoints(self):
        self.each_step(self.none_left, self.assert_own_image, True)


if __name__ == '__main__':
    unittest.main()
