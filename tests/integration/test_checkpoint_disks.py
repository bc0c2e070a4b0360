#!/usr/bin/python3
#
# Checkpoints with disks: overlays are put on them in the pause, and the images
# below are of the same moment as RAM
#
# The guest writes blocks and reads them back, past its cache, and compares them
# with what it knows in RAM to have been written.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

from tlmtest import migration
from tlmtest.case import CRAWL
from tlmtest.disks import DisksCase, image_tool
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.vm import VmError, wait_until

THREADS = 4
REQUESTS = 200                  # of each thread, to be sure that it goes on
ROUNDS = 3


class Disks(DisksCase):
    """A Linux guest with a disk in an iothread."""

    def setUp(self):
        super().setUp()
        self.guest = LinuxGuest(mem_mb=256, ws=32, disk=THREADS)
        self.base = self.image('base.qcow2')

    def start(self, *more):
        src = self.start_source(self.guest,
                                extra=(*self.disk_args(self.base), *more))
        migration.set_parameters(src, max_bandwidth=0)
        self.wait_requests(src)
        return src

    def wait_requests(self, vm):
        done = self.guest.requests(vm)
        wait_until(lambda: self.guest._ok(vm) and
                   self.guest.requests(vm) > done + REQUESTS, 120,
                   f'{vm.name}: the guest uses its disk')

    def restore_pair(self, path, below, frozen=None):
        """On a fresh overlay, so that what is below stays as it is."""
        top = self.image('top.qcow2', backing=below)
        dst = self.start_destination(self.guest, extra=self.disk_args(top))
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        if frozen:
            self.finish(self.guest, frozen, dst)
        else:
            migration.wait_loaded(dst)
            dst.qmp('cont')
        return dst

    def test_journal(self):
        """Each checkpoint with its images: exactly what the guest knows of,
        whatever it has written since; and with later images it is not."""
        src = self.start()
        below = ['base.qcow2']
        taken = []
        for i in range(ROUNDS):
            name = f'overlay{i}'
            self.add_overlay(src, name)
            path = os.path.join(self.dir, f'vm{i}')
            frozen, info = self.take(
                src, f'file:{path}', mode=('copy', 'write-protect')[i % 2],
                disks=[{'node': self.top(src), 'overlay': name}])
            self.assertTrue(info['tlm']['checkpoint']['disks-switched'])
            self.assertIn('disks', info['tlm']['downtime'])
            self.assertEqual(self.top(src), name)
            taken.append((path, below[-1], frozen,
                          self.sha256(os.path.join(self.dir, below[-1]))))
            below.append(f'{name}.qcow2')
            migration.wait_idle(src)
            self.wait_requests(src)
        self.assert_runs_on(self.guest, src)
        src.close()
        # What blockdev-snapshot does not write into the files
        for overlay, backing in zip(below[1:], below):
            image_tool('rebase', '-u', '-F', 'qcow2',
                       '-b', os.path.join(self.dir, backing),
                       os.path.join(self.dir, overlay))
        for path, image, frozen, digest in taken[:1] + taken[-1:]:
            if image == 'base.qcow2':
                self.assertEqual(
                    self.sha256(os.path.join(self.dir, image)), digest)
            dst = self.restore_pair(path, image, frozen)
            self.wait_requests(dst)
            dst.close()
        # The test can tell: images that are newer than RAM
        dst = self.restore_pair(taken[0][0], below[-1])
        wait_until(lambda: 'TLM-GUEST-CORRUPT disk' in dst.serial(), 120,
                   'the guest sees that its disk is from another time')

    def test_written_in_the_pause(self):
        """Without memory for copies the order is the same."""
        src = self.start()
        self.add_overlay(src, 'overlay')
        path = os.path.join(self.dir, 'vm')
        self.begin(src, f'file:{path}', buffer_size=1 << 20,
                   disks=[{'node': 'disk0', 'overlay': 'overlay'}])
        info = migration.wait_status(src, 'completed')
        self.assertEqual(info['tlm']['checkpoint']['method'], 'write')
        self.wait_requests(src)
        src.close()
        dst = self.restore_pair(path, 'base.qcow2')
        self.wait_requests(dst)


class Refused(DisksCase):
    """A guest that does not use its two disks."""

    def setUp(self):
        super().setUp()
        self.guest = RomGuest(ws_mb=64)

    def start(self):
        src = self.start_source(self.guest, extra=(
            *self.disk_args(self.image('a.qcow2'), 0),
            *self.disk_args(self.image('b.qcow2'), 1)))
        migration.set_parameters(src, max_bandwidth=0)
        for name in ('over0', 'over1'):
            self.add_overlay(src, name)
        return src

    BOTH = [{'node': 'disk0', 'overlay': 'over0'},
            {'node': 'disk1', 'overlay': 'over1'}]

    def tops(self, src):
        return [self.top(src, n) for n in range(2)]

    def assert_unharmed(self, src, tops=('disk0', 'disk1')):
        self.assert_runs_on(self.guest, src)
        self.assertEqual(self.tops(src), list(tops))

    def begin_with(self, src, disks, **more):
        self.begin(src, f'file:{self.path()}', disks=disks, **more)

    def test_two_disks(self):
        src = self.start()
        self.begin_with(src, self.BOTH)
        info = migration.wait_status(src, 'completed')
        self.assertTrue(info['tlm']['checkpoint']['disks-switched'])
        self.assert_unharmed(src, ('over0', 'over1'))

    def test_no_disks(self):
        """Nothing is said of disks that nobody has named."""
        src = self.start()
        self.begin(src, f'file:{self.path()}')
        info = migration.wait_status(src, 'completed')
        self.assertNotIn('disks-switched', info['tlm']['checkpoint'])
        self.assertNotIn('disks', info['tlm']['downtime'])
        self.assert_unharmed(src)

    def test_before_the_start(self):
        src = self.start()
        self.add_overlay(src, 'small', '8M')
        for name in ('raw', 'plain'):
            path = os.path.join(self.dir, name)
            with open(path, 'wb') as f:
                f.truncate(16 << 20)
            src.qmp('blockdev-add', driver='file', node_name=name,
                    filename=path)
        image = self.image('backed.qcow2', backing='a.qcow2')
        src.qmp('blockdev-add', driver='qcow2', node_name='backed',
                file={'driver': 'file', 'filename': image}, backing='raw')
        for node, overlay, error in (
                ('nobody', 'over0', "no disk with the node name 'nobody'"),
                ('disk0', 'nothing', "no overlay with the node name 'nothing'"),
                ('disk0', 'disk1', "'disk1' is in use already"),
                ('disk0', 'raw', 'is in use already'),
                ('disk0', 'plain', 'a format without backing files'),
                ('disk0', 'backed', 'has a backing file already'),
                ('disk0', 'small', 'must be of the same size'),
                ('disk0', 'disk0', 'in use already')):
            with self.assertRaisesRegex(VmError, error):
                self.begin_with(src, [{'node': node, 'overlay': overlay}])
        for disks in ([self.BOTH[0], self.BOTH[0]],
                      [self.BOTH[0], {'node': 'disk1', 'overlay': 'over0'}]):
            with self.assertRaisesRegex(VmError, 'named twice'):
                self.begin_with(src, disks)
        self.assertEqual(migration.status(src), 'none')
        self.assert_as_before(src)
        self.assert_unharmed(src)

    def test_transaction_fails(self):
        """What was good before the start is not any more: none is switched."""
        src = self.start()
        migration.set_parameters(src, max_bandwidth=CRAWL)
        self.begin_with(src, self.BOTH, hold=True)
        self.wait_stage(src, 'live')
        src.qmp('blockdev-del', node_name='over1')
        src.qmp('migrate-tlm-switchover')
        info = migration.wait_status(src, 'failed')
        self.assertRegex(info['error-desc'],
                         "disks stay as they are: .*'over1'")
        self.assertFalse(info['tlm']['checkpoint']['disks-switched'])
        self.assert_unharmed(src)
        self.add_overlay(src, 'over2')
        self.begin_with(src, [self.BOTH[0],
                              {'node': 'disk1', 'overlay': 'over2'}])
        migration.set_parameters(src, max_bandwidth=0)
        migration.wait_status(src, 'completed')
        self.assert_unharmed(src, ('over0', 'over2'))

    def test_fails_after_the_switch(self):
        """The disks have gone on; the manager is told."""
        src = self.start()
        migration.set_parameters(src, max_bandwidth=CRAWL)
        self.begin_with(src, self.BOTH)
        self.wait_stage(src, 'flush')
        src.qmp('migrate_cancel')
        info = migration.wait_status(src, 'cancelled')
        self.assertTrue(info['tlm']['checkpoint']['disks-switched'])
        self.assertIn('disks stay on its overlays', src.messages())
        self.assert_unharmed(src, ('over0', 'over1'))

    def test_fails_before_the_switch(self):
        src = self.start()
        self.begin_with(src, self.BOTH, gate=True, gate_timeout=100)
        info = migration.wait_status(src, 'failed')
        self.assertFalse(info['tlm']['checkpoint']['disks-switched'])
        self.assert_unharmed(src)


if __name__ == '__main__':
    unittest.main()
