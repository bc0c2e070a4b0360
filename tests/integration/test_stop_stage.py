#!/usr/bin/python3
#
# What reaches the source from outside while the guest is stopped and the rest
# of its RAM is on the way: QEMU's main loop lives
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import socket
import subprocess
import tempfile
import unittest

from tlmtest import env, migration
from tlmtest.case import MB, STEADY, TlmCase
from tlmtest.guests import RomGuest
from tlmtest.link import ShapedLink
from tlmtest.vm import PATIENCE, wait_until


PATTERN = 0x5a


def tool(name):
    return os.path.join(env.BUILD, 'qemu', name)


class Gdb:
    """Somebody who debugs the guest: one packet at a time."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60 * PATIENCE)
        self.sock.connect(path)

    def close(self):
        self.sock.close()

    def go_on(self):
        """"continue"; its answer is the next stop"""
        self.sock.sendall(b'+$c#63')

    def wait_stop(self):
        data = b''
        while b'$T' not in data:
            data += self.sock.recv(4096)


class StopStage(TlmCase):
    def begin(self, extra=(), dst_extra=(), caps=None):
        """Returns in the stop stage, which takes seconds on this link."""
        reason = ShapedLink.missing()
        if reason:
            self.skipTest(reason)
        link = ShapedLink(rate=100)
        self.addCleanup(link.close)
        self.guest = guest = RomGuest(ws_mb=64, pattern='hotcold',
                                      rate=STEADY)
        self.src = src = self.start_source(guest, link=link, extra=extra)
        self.dst = dst = self.start_destination(guest, link=link,
                                                extra=dst_extra)
        migration.set_capabilities(src, events=True)
        self.address, _ = self.connect(src, dst, link=link, caps=caps,
                                       max_bandwidth=MB)
        return link

    def into_stop(self):
        migration.start(self.src, *self.address)
        self.wait_stage(self.src, 'live')
        self.src.qmp('migrate-tlm-switchover')
        self.wait_stage(self.src, 'stop')

    def disk(self):
        """Returns the image, and QEMU's arguments for a disk with it."""
        image = os.path.join(self.make_dir(), 'disk.qcow2')
        subprocess.run([tool('qemu-img'), 'create', '-q', '-f', 'qcow2',
                        image, '16M'], check=True)
        return image, ['-drive', f'if=none,id=d0,node-name=disk,format=qcow2,'
                       f'file={image}', '-device', 'virtio-blk-pci,drive=d0']

    def write(self, vm):
        """As an operator may, by QEMU's own monitor."""
        for command in (f'write -P {PATTERN} 0 64k', 'flush'):
            out = vm.qmp('human-monitor-command', **{
                'command-line': f'qemu-io d0 "{command}"'})
            self.assertEqual(out, '')

    def assert_written(self, image):
        """When no QEMU uses it any more."""
        out = subprocess.run(
            [tool('qemu-io'), '-f', 'qcow2', '-c', f'read -P {PATTERN} 0 64k',
             image], check=True, text=True, capture_output=True).stdout
        self.assertIn('read 65536/65536', out)
        self.assertNotIn('verification failed', out)

    def make_dir(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-stop-')
        self.addCleanup(directory.cleanup)
        return directory.name

    def test_images_are_still_active(self):
        """What an operator may do to a disk that is not inactive yet, and
        what QEMU would abort on if it were; the destination sees it."""
        for pause in (False, True):
            with self.sub(pause=pause):
                image, disk = self.disk()
                self.begin(disk, disk,
                           {'pause-before-switchover': pause})
                self.into_stop()
                self.write(self.src)
                self.src.qmp('block-dirty-bitmap-add', node='disk',
                             name='kept', persistent=True)
                self.assertEqual(migration.status(self.src), 'active')
                if pause:
                    migration.wait_status(self.src, 'pre-switchover')
                    self.src.qmp('migrate-continue', state='pre-switchover')
                migration.wait_status(self.src, 'completed')
                self.finish(self.guest, self.src, self.dst)
                nodes = self.dst.qmp('query-named-block-nodes', flat=True)
                bitmaps = [b['name'] for n in nodes
                           if n.get('node-name') == 'disk'
                           for b in n.get('dirty-bitmaps', [])]
                self.assertEqual(bitmaps, ['kept'])
                self.src.close()
                self.dst.close()
                self.assert_written(image)

    def test_snapshot_and_cancel(self):
        """The source goes on with the overlay that was made meanwhile."""
        _, disk = self.disk()
        self.begin(disk, disk)
        self.into_stop()
        overlay = os.path.join(self.make_dir(), 'overlay.qcow2')
        self.src.qmp('blockdev-snapshot-sync', **{
            'node-name': 'disk', 'snapshot-file': overlay,
            'snapshot-node-name': 'overlay'})
        self.src.qmp('migrate_cancel')
        migration.wait_status(self.src, 'cancelled')
        self.dst.close()
        self.assert_runs_on(self.guest, self.src)
        self.write(self.src)
        self.src.close()
        self.assert_written(overlay)

    def check_started(self, pause):
        """The guest is started behind the migration's back: it must not be
        handed over in two halves."""
        path = os.path.join(self.make_dir(), 'gdb')
        self.begin(['-chardev', f'socket,id=gdb,path={path},server=on,'
                    'wait=off', '-gdb', 'chardev:gdb'],
                   caps={'pause-before-switchover': pause})
        gdb = Gdb(path)
        self.addCleanup(gdb.close)
        wait_until(lambda: self.src.status() == 'paused', 30, 'gdb is there')
        gdb.go_on()
        wait_until(lambda: self.src.status() == 'running', 30, 'it goes on')
        self.into_stop()
        if pause:
            migration.wait_status(self.src, 'pre-switchover')
        gdb.wait_stop()
        gdb.go_on()
        wait_until(lambda: self.src.status() == 'running', 30, 'it goes on')
        if pause:
            self.src.qmp('migrate-continue', state='pre-switchover')
        info = migration.wait_status(self.src, 'failed')
        self.assertIn('started', info['error-desc'])
        self.dst.close()
        self.assert_runs_on(self.guest, self.src)

    def test_started_in_stage_stop(self):
        self.check_started(False)

    def test_started_in_pre_switchover(self):
        self.check_started(True)


if __name__ == '__main__':
    unittest.main()
