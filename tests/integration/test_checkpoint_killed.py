#!/usr/bin/python3
#
# tlm checkpoint save --incremental --disk auto, killed: the command before its
# writes, QEMU in the middle of its own.  What was complete before is complete,
# and restored by a stock QEMU with RAM and disk as they were; or it is said
# that there is nothing.
#
# With TLM_REPEAT at each of these writes; else at some.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_checkpoint_command import Restored            # noqa: E402
from tlmtest import env, killed, migration, preload     # noqa: E402
from tlmtest.guests import RomGuest                     # noqa: E402
from tlmtest.vm import wait_until                       # noqa: E402
from tlmtest.writtendisk import WrittenDisk, command    # noqa: E402

POINTS = 1 << 20 if 'TLM_REPEAT' in os.environ else 3
NUMBER = struct.Struct('=q')
MANY = 1 << 40                      # writes, which are only counted


def some(number):
    """Of that many writes; the next save may have some less."""
    return range(number, 0, -max(1, number // POINTS))


class KilledSaves(WrittenDisk):
    def setUp(self):
        self.guest = RomGuest(mem_mb=64, ws_mb=8)
        self.addCleanup(self.guest.close)
        super().setUp()

    def machine(self):
        return self.guest.args('tcg')

    def start(self, image):
        super().start(image)
        self.guest.wait_filled(self.vm)
        self.guest.wait_alive(self.vm)

    def save(self, name):
        """After a write of the guest's; nobody may fail without a kill."""
        code, _, err = command(
            'save', '--dir', self.dir, '--qmp', self.qmp, '--name', name,
            '--incremental', '--disk', 'auto', '--json')
        if code:
            raise AssertionError(err)

    def prepare(self, name):
        self.write()
        self.at[name] = bytes(self.wanted)

    def names(self):
        return [c['name'] for c in self.tool('list')['checkpoints']]

    def left(self):
        return self.tool('list')['left-over']

    def assert_complete(self):
        """All that there are, and the newest is restored."""
        names = self.names()
        self.at = {name: self.at[name] for name in names}
        self.assertEqual(set(self.tool('verify').values()), {None})
        self.assert_checkpoints()
        disk = self.base(names[-1])
        dst = Restored('dst', env.STOCK_QEMU, [
            *self.machine(), '-drive',
            f"file={disk['base']},format={disk['format']},if=none,id=d",
            '-device', 'virtio-blk-pci,drive=d,id=disk'])
        self.addCleanup(dst.close)
        told = dict(dst.restore([
            os.path.join(env.ROOT, 'scripts/tlm'), 'checkpoint', 'restore',
            '--dir', self.dir, names[-1]]))
        self.assert_guest_well(self.guest, dst)
        dst.close()
        for overlay in told['disks']:
            os.unlink(overlay)
            os.rmdir(os.path.dirname(overlay))


class Command(KilledSaves):
    def test_command(self):
        """The next save does not mind what the last has left."""
        self.prepare('first')
        self.save('first')
        self.prepare('counted')
        points = some(killed.writes_of(lambda: self.save('counted')))
        good, kills = ['first', 'counted'], 0
        for number in points:
            name = f'k{number}'
            self.prepare(name)
            came = killed.at_write(number, lambda: self.save(name))
            kills += came
            self.end_in_qemu()
            with self.subTest(killed_at=number):
                # All of it was there, or nothing is
                good += [name] if not came or name in self.names() else []
                self.assertEqual(self.names(), good)
                self.assert_complete()
                self.assert_disk()
                self.assert_guest_well(self.guest, self.vm)
            self.prepare(f'after{number}')
            self.save(f'after{number}')
            good.append(f'after{number}')
            self.tool('prune', '--keep', '2')
            good = good[-2:]
            self.assertEqual(self.left(), [])
        self.assertGreaterEqual(kills, 2)
        self.assert_complete()

    def end_in_qemu(self):
        """It goes on with a save whose command is gone."""
        if migration.status(self.vm) not in ('none', *migration.FINAL):
            self.vm.qmp('migrate_cancel')
        wait_until(lambda: migration.status(self.vm) in
                   ('none', *migration.FINAL), 60, 'it has ended')
        migration.wait_idle(self.vm)


class Qemu(KilledSaves):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix='tlm-preload-')
        cls.addClassCleanup(directory.cleanup)
        cls.counter = os.path.join(directory.name, 'counter')
        library = preload.build(directory.name, 'die-at-write')
        cls.prefix = ['env', f'LD_PRELOAD={library}',
                      f'DIE_AT_WRITE={cls.counter}']

    def setUp(self):
        with open(self.counter, 'wb') as f:
            f.write(NUMBER.pack(0))
        super().setUp()

    def die_at(self, number):
        """Of QEMU's writes to the file of a checkpoint; 0: never."""
        with open(self.counter, 'r+b') as f:
            f.write(NUMBER.pack(number))

    def writes_of(self, name):
        self.prepare(name)
        self.die_at(MANY)
        self.save(name)
        with open(self.counter, 'rb') as f:
            number = MANY - NUMBER.unpack(f.read())[0]
        self.die_at(0)
        self.assertGreater(number, 3)
        return number

    def killed_at(self, number, name):
        """Returns the image that the guest can go on in; None: it has not
        come to that write, and the checkpoint is there."""
        top = self.chain()[0]
        self.prepare(name)
        self.die_at(number)
        try:
            self.save(name)
            self.die_at(0)
            return None
        except AssertionError as e:
            self.assertIn('closed the connection', str(e))
        self.vm.process.wait(60)
        self.vm.close()
        self.die_at(0)
        self.assertNotIn(name, self.names())
        return top

    def test_qemu(self):
        self.prepare('first')
        self.save('first')
        number, good = self.writes_of('counted'), ['first', 'counted']
        kills = 0
        for at in some(number):
            top = self.killed_at(at, f'k{at}')
            good += [] if top else [f'k{at}']
            with self.subTest(killed_at=at, of=number):
                self.assertEqual(self.names(), good)
                self.assert_complete()
            if top:
                kills += 1
                self.start(top)
                self.prepare(f'whole{at}')
                self.save(f'whole{at}')     # by a QEMU that knows no other
                good.append(f'whole{at}')
        self.assertGreaterEqual(kills, 2)
        self.tool('prune', '--keep', '1')
        self.assertEqual(self.left(), [])
        self.assert_complete()

    def test_nothing(self):
        """It is said that there is none."""
        number = self.writes_of('counted')
        self.remove('counted')
        self.vm.close()
        self.start(self.image)
        self.killed_at(number // 2, 'killed')
        self.assertEqual(self.names(), [])
        self.assertIn("there is no checkpoint 'killed'",
                      self.tool('restore', 'killed', code=1))
        self.assertIn('there is no checkpoint', self.tool('show', code=1))
        self.tool('prune', '--keep', '1')
        self.assertEqual(self.left(), [])


if __name__ == '__main__':
    unittest.main()
