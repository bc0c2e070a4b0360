#!/usr/bin/python3
#
# tlm checkpoint standby and takeover: a paused stock QEMU has the newest
# checkpoint of a server, and runs when the source does not
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import types
import unittest

import test_checkpoint_command as checkpoint
import test_checkpoint_disk_command as disk_command
import test_memserver_command as command
from test_memserver import MemServerCase
from tlmtest import env
from tlmtest.vm import die_with_parent, wait_until


LATE = 5                        # times that a kill may be too late


class StandbyCase(MemServerCase):
    """self.qmp: of the source"""

    def begin(self, server, line):
        directory = tempfile.TemporaryDirectory(prefix='tlm-standby-')
        self.addCleanup(directory.cleanup)
        self.standby_dir = directory.name
        return self.begin_again(server, line)

    def begin_again(self, server, line):
        tool = subprocess.Popen(
            [command.TOOL, 'checkpoint', 'standby', '--dir', self.standby_dir,
             '--server', server.address, '--vm', 'vm1', '--', *line],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.addCleanup(tool.communicate)
        self.addCleanup(self.end_qemu)
        self.addCleanup(tool.kill)
        return tool

    def state(self):
        try:
            with open(os.path.join(self.standby_dir, 'standby.json'),
                      encoding='utf-8') as f:
                return json.load(f)
        except FileNotFoundError:
            return {}

    def end_qemu(self):
        state = self.state()
        if state:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state['pid'], signal.SIGKILL)
            shutil.rmtree(os.path.dirname(state['qmp']), ignore_errors=True)

    def to_be(self, *more):
        """The VM that takes over, of which there is the command line."""
        dst = checkpoint.Restored('dst', env.STOCK_QEMU,
                                  [*self.guest.args('tcg'), *more])
        self.addCleanup(dst.close)
        return dst

    def wait_ready(self, name):
        wait_until(lambda: self.state().get('name') == name and
                   'replaces' not in self.state(), 120, f'{name} is ready')
        return self.state()

    def save_to(self, server, name, *more):
        run = subprocess.run(
            [command.TOOL, 'checkpoint', 'save', '--qmp', self.qmp, '--server',
             server.address, '--vm', 'vm1', '--name', name, '--json', *more],
            capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def take_over(self, *more, code=0):
        run = subprocess.run(
            [command.TOOL, 'checkpoint', 'takeover', '--dir', self.standby_dir,
             '--json', *more], capture_output=True, text=True, timeout=300,
            check=False)
        self.assertEqual(run.returncode, code, run.stderr)
        return json.loads(run.stdout) if code == 0 else run.stderr

    @staticmethod
    def users_of(socket):
        """Processes with it in their command lines"""
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError), \
                    open(f'/proc/{pid}/cmdline', 'rb') as f:
                if socket.encode() in f.read():
                    found.append(pid)
        return found

    @staticmethod
    def is_gone(state):
        return not os.path.exists(f"/proc/{state['pid']}/fd/0")


class Standby(StandbyCase, command.ServerTool):
    def test_ready_and_taken_over(self):
        """Each checkpoint in turn; its RAM is that of the source, which
        stands still.  Nothing runs before it is asked for."""
        server = self.server()
        src = self.source(stopped=True)
        dst = self.to_be()
        self.save_to(server, 'one')
        tool = self.begin(server, dst.command)
        one = self.wait_ready('one')
        self.save_to(server, 'two')
        two = self.wait_ready('two')
        wait_until(lambda: self.is_gone(one), 60, 'the first one has ended')
        # While the source answers: not without --force, fenced or not
        for more in (('--source', self.qmp),
                     ('--source', self.qmp, '--fence', 'true')):
            self.assertIn('the source answers', self.take_over(*more, code=1))
        self.assertIn('status 3', self.take_over('--fence', 'exit 3',
                                                 '--force', code=1))
        self.take_over(code=2)
        self.assertEqual(self.state(), two)
        told = self.take_over('--source', self.qmp, '--fence',
                              'true', '--force', '--paused')
        self.assertEqual((told['name'], told['status']), ('two', 'paused'))
        self.assertEqual(tool.wait(60), 0)
        self.assertIn('already', self.take_over('--force', code=1))
        dst.told = told
        dst.connect()
        self.finish(self.guest, src, dst)
        dst.close()

    def test_source_killed(self):
        """The guest goes on, with its memory as it has written it; that the
        standby was killed does not matter."""
        server = self.server()
        src = self.source()
        dst = self.to_be()
        self.save_to(server, 'one')
        tool = self.begin(server, dst.command)
        state = self.wait_ready('one')
        os.kill(tool.pid, signal.SIGKILL)
        tool.wait()
        self.assert_runs_on(self.guest, src)
        told = self.take_over('--source', self.qmp, '--fence',
                              f'kill -9 {src.process.pid}')
        self.assertEqual((told['pid'], told['status']),
                         (state['pid'], 'running'))
        self.assertGreater(told['age-ms'], 0)
        dst.told = told
        dst.connect()
        self.assert_guest_well(self.guest, dst)
        dst.close()

    def test_signal(self):
        """Nothing is left."""
        server = self.server()
        self.source()
        self.save_to(server, 'one')
        tool = self.begin(server, self.to_be().command)
        state = self.wait_ready('one')
        tool.terminate()
        self.assertEqual(tool.wait(60), 0)
        self.assertTrue(self.is_gone(state))
        self.assertEqual(sorted(os.listdir(self.standby_dir)),
                         ['.lock', '.standby'])

    def test_killed_in_mid_load(self):
        """The next one ends the QEMU that it finds, and its own."""
        server = self.server()
        self.source()
        dst, path = self.to_be(), None
        for number in range(LATE):
            self.save_to(server, str(number))
            tool = self.begin(server, dst.command)
            path = os.path.join(self.standby_dir, 'loading.json')
            while not os.path.exists(path) and tool.poll() is None:
                pass
            tool.kill()
            tool.wait()
            if os.path.exists(path) and not self.state():
                break               # else it was done before
            self.end_qemu()
        with open(path, encoding='utf-8') as f:
            left = json.load(f)
        again = self.begin_again(server, dst.command)
        self.wait_ready(str(number))
        wait_until(lambda: not os.path.exists(path), 60, 'it is noted')
        self.assertFalse(os.path.exists(os.path.dirname(left['qmp'])))
        self.assertEqual(self.users_of(left['qmp']), [])
        other = self.begin_again(server, dst.command)
        self.assertEqual(other.wait(60), 1)
        self.assertIn('another', other.stderr.read())
        again.terminate()
        self.assertEqual(again.wait(60), 0)

    def test_parts(self):
        """Nothing is started, and it says why."""
        both = types.SimpleNamespace(address=','.join(
            self.server().address for _ in range(2)))
        self.source()
        self.save_to(both, 'one', '--parts', '2')
        tool = self.begin(both, self.to_be().command)
        self.assertIn('is in parts', tool.stderr.readline())
        self.assertEqual(self.state(), {})


class Disks(StandbyCase, disk_command.DiskCommand):
    def test_disks(self):
        """The pair is of one moment: what the guest has written since is
        neither in RAM nor on the disk; overlays that nobody needs go."""
        server = self.server()
        disk = self.raw_disk()
        src = self.start(*disk)
        dst = self.to_be(*disk)
        self.begin(server, dst.command)
        made = []
        for name in ('one', 'two'):
            self.save_to(server, name, '--disk', 'auto')
            made.append(self.wait_ready(name)['disks'])
            self.wait_requests(src)
        wait_until(lambda: not os.path.exists(made[0][0]), 60,
                   'the first overlay is gone')
        src.kill()
        told = self.take_over('--source', self.qmp)
        self.assertEqual(told['disks'], made[1])
        dst.told = told
        dst.connect()
        self.wait_requests(dst)
        self.assert_guest_well(self.guest, dst)
        dst.close()


if __name__ == '__main__':
    unittest.main()
