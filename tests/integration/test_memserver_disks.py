#!/usr/bin/python3
#
# tlm checkpoint --server with disks: overlays that the command makes, and
# guests that are restored on new ones, so that each finds its disk as it was
#
# The guest writes blocks and reads them back, past its cache, and compares them
# with what it knows in RAM to have been written.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import subprocess
import unittest

from test_checkpoint_command import SLOW_WRITE
import test_checkpoint_disk_command as disk_command
from test_memserver import MemServerCase
from tlm.checkpoint.serverdisks import Records
from tlmtest import env, migration
from tlmtest.vm import die_with_parent, wait_until


class AtServer(MemServerCase, disk_command.Restored):
    """What test_checkpoint_disk_command.py does with a directory."""

    def setUp(self):
        super().setUp()
        self.servers = [self.server()]

    def place(self):
        return ('--server', ','.join(s.address for s in self.servers),
                '--vm', 'vm1')

    def tool(self, command, *more, code=0):
        run = subprocess.run(
            [disk_command.TOOL, 'checkpoint', command, *self.place(), *more],
            capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(run.returncode, code, run.stderr)
        return json.loads(run.stdout) if code == 0 else run.stderr

    def saved(self, src):
        """Returns its disk; the guest has gone on, and is gone."""
        disk, = self.save('one')['disks']
        self.wait_requests(src)
        src.kill()
        return disk

    def stock_line(self, src):
        return ('--', env.STOCK_QEMU, *src.command[1:])

    def test_instant(self):
        """From memory, by post-copy."""
        src = self.start(*self.raw_disk())
        self.saved(src)
        self.restored(src, '--instant', 'one', *self.stock_line(src))

    def test_servers_file(self):
        """As with any directory: what the server has written says it all."""
        src = self.start(*self.raw_disk())
        disk = self.saved(src)
        server, = self.servers
        server.kill()
        self.place = lambda: ('--dir', os.path.join(server.store, 'vm1'))
        self.assertEqual(self.tool('show', '--json')['disks'], [disk])
        self.restored(src, 'one', *self.stock_line(src))

    def test_copy_and_restart(self):
        """A copy at another server has the disks, too, also after a
        restart."""
        self.servers.append(self.server())
        src = self.start(*self.raw_disk())
        self.tool('save', '--qmp', self.qmp, '--disk', 'auto', '--name',
                  'one', '--copies', '2', '--json')
        self.wait_requests(src)
        src.kill()
        self.servers.pop(0).kill()
        self.servers[0].kill()
        self.servers[0].start()
        self.restored(src, 'one', *self.stock_line(src))

    def test_parts(self):
        """Whole, and after the loss of the head: a server with parity knows
        the disks, too."""
        self.servers += [self.server(), self.server()]
        src = self.start(*self.raw_disk())
        disk, = self.tool('save', '--qmp', self.qmp, '--disk', 'auto',
                          '--name', 'one', '--level', 'protected',
                          '--json')['disks']
        self.assertEqual(disk['base'], self.image)
        self.wait_requests(src)
        src.kill()
        content = self.content(self.image)
        self.restored(src, 'one', *self.stock_line(src))
        self.servers[0].kill()
        self.restored(src, 'one', *self.stock_line(src))
        self.assertEqual(self.content(self.image), content)
        os.utime(self.image, (0, 0))
        why = self.tool('restore', 'one', *self.stock_line(src), code=1)
        self.assertIn('has changed since', why)

    def test_image_changed(self):
        """It is not restored on an image that somebody has written to."""
        src = self.start(*self.raw_disk())
        disk = self.saved(src)
        os.utime(disk['base'], (0, 0))
        why = self.tool('restore', 'one', *self.stock_line(src), code=1)
        self.assertIn('has changed since', why)

    def test_unsure(self):
        """A line that names the image in a way that is not known."""
        src = self.start(*self.raw_disk())
        disk = self.saved(src)
        why = self.tool('restore', 'one', '--', env.STOCK_QEMU, '-readconfig',
                        disk['base'], code=1)
        self.assertIn('is not sure what the command line says', why)

    def test_server_killed(self):
        """After the pause: the guest goes on in the overlay, and the next
        server gets a checkpoint whose disk that overlay is."""
        self.servers.append(self.server())
        src = self.start(*self.raw_disk())
        tool = subprocess.Popen(
            [disk_command.TOOL, 'checkpoint', 'save', *self.place(), '--qmp',
             self.qmp, '--disk', 'auto', '--name', 'one', '--json',
             '--bandwidth', SLOW_WRITE], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.addCleanup(tool.kill)
        self.wait_stage(src, 'flush')
        self.servers[0].kill()
        migration.set_parameters(src, max_bandwidth=0)
        out, messages = tool.communicate(timeout=300)
        self.assertEqual(tool.returncode, 0, messages)
        self.assertIn('was not removed: the guest goes on in it', messages)
        disk, = json.loads(out)['disks']
        self.assertEqual(disk['below'], [self.image])
        self.servers.pop(0)
        self.wait_requests(src)
        self.assert_runs_on(self.guest, src)
        src.kill()
        self.restored(src, 'one', *self.stock_line(src))

    def test_cancelled(self):
        """Before the pause: neither overlay nor note is left."""
        src = self.start(*self.raw_disk())
        tool = subprocess.Popen(
            [disk_command.TOOL, 'checkpoint', 'save', *self.place(), '--qmp',
             self.qmp, '--disk', 'auto', '--bandwidth', SLOW_WRITE],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent)
        self.addCleanup(tool.kill)
        self.wait_stage(src, 'live')
        wait_until(lambda: len(self.notes()) == 1, 30, 'there is an overlay')
        tool.terminate()
        self.assertEqual(tool.wait(300), 130)
        self.assertEqual(self.files(), ['.tlm-vm1', 'disk.img'])
        self.assertEqual(self.notes(), {})
        self.assert_runs_on(self.guest, src)

    def notes(self):
        """{overlay: by whom}"""
        return Records('vm1', directories=[self.disks]).overlays()

    def test_watch(self):
        """With --keep neither checkpoints nor images become more and more; a
        server that may have checkpoints must be asked."""
        src = self.start(*self.raw_disk())
        tool = subprocess.Popen(
            [disk_command.TOOL, 'checkpoint', 'watch', *self.place(), '--qmp',
             self.qmp, '--disk', 'auto', '--every', '1s', '--keep', '1'],
            stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.addCleanup(tool.communicate)
        self.addCleanup(tool.kill)
        lines = iter(tool.stdout.readline, '')
        merged = [line for line, _ in zip(
            (line for line in lines if line.startswith('Merged ')), range(2))]
        self.assertIn(f'into {self.image}', merged[-1])
        tool.terminate()
        tool.communicate(timeout=180)
        self.assertEqual(tool.returncode, 0)
        images = [f for f in self.files() if not f.startswith('.')]
        self.assertLessEqual(len(images), disk_command.KEPT_IMAGES + 2)
        self.wait_requests(src)
        server, self.servers = self.servers, [self.server()]
        why = self.tool('commit', '--qmp', self.qmp, code=1)
        self.assertIn(server[0].address, why)
        self.servers = server
        self.assert_runs_on(self.guest, src)
        src.kill()
        control = server[0].control()
        name = control('list', vm='vm1')[-1]['name']
        control.close()
        self.restored(src, name, *self.stock_line(src))


if __name__ == '__main__':
    unittest.main()
