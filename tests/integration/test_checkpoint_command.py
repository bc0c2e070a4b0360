#!/usr/bin/python3
#
# tlm checkpoint with whole virtual machines: saved by TLM, restored by a
# stock QEMU, and what comes in between
#
# TLM_REPEAT: how many one VM gets, one after the other (default 4; by hand:
# TLM_REPEAT=200).
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest

from tlmtest import env, migration
from tlmtest.case import CRAWL, TlmCase
from tlmtest.guests import RomGuest
from tlmtest.vm import Vm, wait_until

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
SMALL_DISK = 64                 # MB
REPEAT = int(os.environ.get('TLM_REPEAT', '4'))
SOME = 3                        # threads of QEMU's pool, which come and go
SLOW_WRITE = f'{CRAWL}B/s'


class Restored(Vm):
    """A QEMU that "tlm checkpoint restore" has started with the command line
    of a Vm, and that has outlived the tool."""

    told = None

    def restore(self, tool_words):
        """Returns what the tool says."""
        self.told = json.loads(subprocess.run(
            [*tool_words, '--json', '--', *self.command], check=True,
            stdout=subprocess.PIPE, text=True, timeout=180).stdout)
        self.connect()
        return self.told

    @property
    def pid(self):
        return self.told['pid']

    def alive(self):
        """False too once it is a zombie, which others have to reap."""
        try:
            os.readlink(f'/proc/{self.pid}/exe')
            return True
        except FileNotFoundError:
            return False

    def kill(self):
        if self.told:
            end(self.told)


def end(told):
    """A QEMU that has been restored."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(told['pid'], signal.SIGKILL)
    shutil.rmtree(os.path.dirname(told['qmp']))
    told.clear()


class CheckpointCommand(TlmCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-checkpoints-')
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.guest = RomGuest(ws_mb=64)

    def start(self):
        """With a monitor for the tool beside that of the test."""
        self.qmp = os.path.join(self.guest.dir, 'tool-qmp')
        src = self.start_source(self.guest, extra=(
            '-qmp', f'unix:{self.qmp},server=on,wait=off'))
        return src

    def words(self, command, *more):
        return [TOOL, 'checkpoint', command, '--dir', self.dir, *more]

    def saving(self, command='save', *more):
        return self.words(command, '--qmp', self.qmp, *more)

    def tool(self, words):
        return subprocess.run(words, capture_output=True, text=True,
                              timeout=300, check=False)

    def files(self):
        return sorted(f for f in os.listdir(self.dir) if f != '.lock')

    def assert_nothing_left(self, src):
        self.assertEqual(self.files(), [])
        self.assertEqual(self.tool(self.words('list')).stdout, '')
        self.assert_runs_on(self.guest, src)

    def restore(self, *more):
        dst = Restored('dst', env.STOCK_QEMU, self.guest.args('tcg'))
        self.addCleanup(dst.close)
        return dst, dict(dst.restore(self.words('restore', *more)))

    def test_save_and_restore(self):
        src = self.start()
        before = src.qmp('query-migrate-parameters')
        run = self.tool(self.saving('save', '--name', 'one', '--json'))
        self.assertEqual(run.returncode, 0, run.stderr)
        content = json.loads(run.stdout)
        self.assertEqual(content['machine']['command'], src.command)
        self.assertEqual(content['machine']['directory'], os.getcwd())
        self.assertEqual(content['machine']['type'], 'pc-i440fx-10.0')
        self.assertGreaterEqual(content['copied'], 64 << 20)
        self.assertEqual(self.files(), ['one.checkpoint', 'one.json'])
        self.assertEqual(src.qmp('query-migrate-parameters'), before)
        self.assert_runs_on(self.guest, src)
        src.close()
        run = self.tool(self.words('verify'))
        self.assertEqual((run.stdout, run.returncode), ('one: good\n', 0))

        dst, told = self.restore('--verify', 'one')
        self.assertEqual(told['status'], 'running')
        self.assert_guest_well(self.guest, dst)
        caps = {c['capability'] for c in dst.qmp('query-migrate-capabilities')
                if c['state']}
        self.assertEqual(caps, set())
        dst.close()
        dst, told = self.restore('--paused', 'one')
        self.assertEqual((told['status'], dst.status()), ('paused',) * 2)
        dst.qmp('cont')
        self.assert_guest_well(self.guest, dst)

    def test_recorded_command_line(self):
        """Refused while it runs, good when it has ended."""
        src = self.start()
        self.tool(self.saving('save', '--name', 'one'))
        run = self.tool(self.words('restore', 'one'))
        self.assertEqual(run.returncode, 1)
        self.assertIn(f'process {src.pid}', run.stderr)
        self.assert_guest_well(self.guest, src)
        src.kill()
        size = src.serial_size()
        run = self.tool(self.words('restore', 'one', '--json'))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.addCleanup(end, json.loads(run.stdout))
        wait_until(lambda: src.serial_size() > size, 30,
                   'the guest goes on at the same serial port')
        with open(src.serial_path) as f:
            self.assertNotIn('\nE ', f.read())

    def test_paused_guest(self):
        src = self.start()
        src.qmp('stop')
        self.tool(self.saving('save', '--name', 'one'))
        self.assertEqual(src.status(), 'paused')
        dst, told = self.restore('one')
        self.assertEqual(told['status'], 'paused')
        dst.qmp('cont')
        self.assert_guest_well(self.guest, dst)

    def test_restore_that_fails(self):
        """Another machine: QEMU says why, and does not stay."""
        self.start()
        self.tool(self.saving('save', '--name', 'one'))
        marker = f'tlm-fails-{os.getpid()}'
        guest = RomGuest(mem_mb=128, ws_mb=16)
        self.addCleanup(guest.close)
        run = self.tool([*self.words('restore', 'one'), '--', env.STOCK_QEMU,
                         '-name', marker, '-nodefaults', '-display', 'none',
                         '-L', env.FIRMWARE, *guest.args('tcg')])
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, 'QEMU has ended: (.|\n)*load of migration '
                         'failed')
        left = subprocess.run(['pgrep', '-f', f'-name {marker}'],
                              capture_output=True, check=False)
        self.assertEqual(left.stdout, b'')

    def interrupt(self, src, stage, signum=signal.SIGINT):
        p = subprocess.Popen(self.saving('save', '--bandwidth', SLOW_WRITE),
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
        self.wait_stage(src, stage)
        p.send_signal(signum)
        _, err = p.communicate(timeout=180)
        return p.returncode, err

    def test_interrupted_in_the_flush(self):
        src = self.start()
        code, err = self.interrupt(src, 'flush')
        self.assertEqual(code, 130, err)
        self.assertIn('the guest runs on', err)
        self.assert_nothing_left(src)
        self.assertEqual(self.tool(self.saving()).returncode, 0)

    def test_tool_killed(self):
        """What is left is no checkpoint, is told of, and can be removed."""
        src = self.start()
        code, _ = self.interrupt(src, 'flush', signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        part, = self.files()
        self.assertIn(f'{part}: no checkpoint',
                      self.tool(self.words('list')).stdout)
        src.qmp('migrate_cancel')
        self.tool(self.words('prune', '--keep', '1'))
        self.assert_nothing_left(src)

    def test_qemu_killed(self):
        src = self.start()
        self.tool(self.saving('save', '--name', 'old'))
        src.pull_events()
        src.events.clear()
        p = subprocess.Popen(self.saving('save', '--bandwidth', SLOW_WRITE),
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
        self.wait_stage(src, 'flush')
        src.kill()
        _, err = p.communicate(timeout=180)
        self.assertEqual(p.returncode, 1)
        self.assertIn('closed the connection', err)
        self.assertEqual(self.files(), ['old.checkpoint', 'old.json'])
        dst, _ = self.restore('old')
        self.assert_guest_well(self.guest, dst)

    def test_watch(self):
        src = self.start()
        p = subprocess.Popen(
            self.saving('watch', '--every', '2s', '--keep', '2', '--json'),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        names = [json.loads(p.stdout.readline())['name'] for _ in range(3)]
        wait_until(lambda: len(self.files()) == 4, 30, 'the oldest is gone')
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, 0)
        # A fourth one may have been under way: it is gone, or is complete
        self.assertLessEqual(
            set(self.files()) & {f'{names[0]}.checkpoint'}, set())
        self.assertEqual(self.tool(self.words('verify')).returncode, 0)
        self.assert_runs_on(self.guest, src)
        dst, _ = self.restore(names[-1])
        self.assert_guest_well(self.guest, dst)

    def test_again_and_again(self):
        """What QEMU holds does not grow; each tenth one is restored."""
        src = self.start()
        held = []
        for i in range(REPEAT):
            mode = ('copy', 'write-protect')[i % 2]
            run = self.tool(self.saving('save', '--name', f'c{i}', '--mode',
                                        mode))
            self.assertEqual(run.returncode, 0, run.stderr)
            held.append([len(os.listdir(f'/proc/{src.pid}/{what}'))
                         for what in ('fd', 'task')])
            if i % 10 == 1:
                dst, _ = self.restore('--verify', f'c{i}')
                self.assert_guest_well(self.guest, dst)
                dst.close()
            self.tool(self.words('prune', '--keep', '1'))
        # The first one has started what is kept
        for what, first, last in zip(('files', 'threads'), held[1], held[-1]):
            self.assertLessEqual(last, first + SOME, what)
        self.assert_runs_on(self.guest, src)

    def small_disk(self):
        mount = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={SMALL_DISK}m', 'tmpfs',
             self.dir], capture_output=True, text=True, check=False)
        if mount.returncode:
            self.skipTest(f'no small disk: {mount.stderr.strip()}')
        self.addCleanup(subprocess.run, ['umount', self.dir], check=True)

    def test_too_little_space(self):
        self.small_disk()
        src = self.start()
        run = self.tool(self.saving())
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, r'64\.0 MiB are free; the checkpoint may '
                         r'become 27\d\.\d MiB')
        self.assertEqual(migration.status(src), 'none')
        self.assert_nothing_left(src)

    def test_disk_full(self):
        """Others have taken the space that was there before the start."""
        self.small_disk()
        subprocess.run(['mount', '-o', 'remount,size=1g', self.dir],
                       check=True)
        src = self.start()
        p = subprocess.Popen(self.saving('save', '--bandwidth', SLOW_WRITE),
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
        self.wait_stage(src, 'flush')
        subprocess.run(['mount', '-o', f'remount,size={SMALL_DISK}m',
                        self.dir], check=True)
        _, err = p.communicate(timeout=180)
        self.assertEqual(p.returncode, 1)
        self.assertIn('No space left', err)
        self.assert_nothing_left(src)


if __name__ == '__main__':
    unittest.main()
