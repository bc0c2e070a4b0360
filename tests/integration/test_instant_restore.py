#!/usr/bin/python3
#
# Instant restore: a server plays the source of post-copy to a stock QEMU
#
# With -S the guest does not write, so all RAM can be compared with the source,
# which stands still: zero pages nobody asked for included.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import mmap
import os
import random
import re
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

from tlmtest import env, hugepages, instant, migration
from tlmtest.case import MB, PAGE, MigrationCase
from tlmtest.delay import Delay
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.hugepages import HugeGuest
from tlmtest.instant import Server, wait_for_server
from tlmtest.link import ShapedLink
from tlmtest.memserver import MemServer, Refused
from tlmtest.ram import compare_ram
from tlmtest.vm import Vm, die_with_parent, wait_until

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
REPEAT = int(os.environ.get('TLM_REPEAT', '1'))
ROUND_TRIP_S = 0.02
SLOW_ROUND_TRIP_S = 0.2
HUGE_RAM = ('--page-size', f'ram0={hugepages.SIZE_MB * MB}')


class InstantCase(MigrationCase):
    src_binary = env.STOCK_QEMU

    def place(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-instant-')
        self.addCleanup(directory.cleanup)
        return directory.name

    def save(self, guest, accel='tcg', extra=()):
        """Returns the source, stopped, and its checkpoint."""
        src = self.start_source(guest, accel, extra=extra)
        src.qmp('stop')
        path = os.path.join(self.place(), 'checkpoint')
        instant.save(src, path)
        return src, path

    def waiting(self, guest, accel='tcg', running=False, address='127.0.0.1',
                extra=()):
        """A QEMU that waits, and where."""
        self.need_accel(accel)
        dst = self.start_vm('dst', self.dst_binary, [
            *guest.args(accel), *extra, *([] if running else ['-S']),
            '-incoming', 'defer'])
        return dst, wait_for_server(dst, address)

    def serve(self, path, to, *options):
        server = Server(path, to, *options)
        self.addCleanup(server.close)
        return server

    def assert_served(self, server):
        status, told, messages = server.wait()
        self.assertEqual((status, told['state'], told['owed']),
                         (0, 'ended', 0), messages)
        return told

    def check(self, guest, accel='tcg', extra=(), address='127.0.0.1',
              options=()):
        """A whole restore, compared, and the guest's own check."""
        src, path = self.save(guest, accel, extra=extra)
        dst, to = self.waiting(guest, accel, address=address, extra=extra)
        told = self.assert_served(self.serve(path, to, *options))
        self.finish(guest, src, dst)
        return told


class Instant(InstantCase):
    def test_rom(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                self.check(RomGuest(ws_mb=64), accel)

    def test_unix(self):
        path = os.path.join(self.place(), 'socket')
        self.check(RomGuest(ws_mb=64), address=f'unix:{path}')

    def test_shared(self):
        self.check(RomGuest(ws_mb=64, shared=True))

    def test_huge_pages(self):
        """Each is loaded as a whole."""
        guest = HugeGuest(128, ws_mb=32)
        hugepages.reserve(self, 2 * guest.mem_mb)
        self.check(guest, options=HUGE_RAM)

    def test_linux(self):
        self.check(LinuxGuest(mem_mb=384, ws=128), extra=VIRTIO)

    def test_running(self):
        """The guest runs while pages are missing, and checks all of them."""
        for guest in (RomGuest(ws_mb=64), LinuxGuest(mem_mb=384, ws=128)):
            with self.sub(guest=guest.name):
                src, path = self.save(guest, extra=VIRTIO)
                src.close()
                dst, to = self.waiting(guest, running=True, extra=VIRTIO)
                told = self.assert_served(self.serve(path, to))
                self.assertGreater(told['requests'], 0)
                migration.wait_status(dst, 'completed')
                self.assert_guest_well(guest, dst)


class Whole(InstantCase):
    """All of RAM first, by multifd."""

    def restore(self, guest, channels, extra=(), options=()):
        src, path = self.save(guest, extra=extra)
        dst = self.start_destination(guest, extra=extra)
        migration.set_capabilities(dst, multifd=True)
        migration.set_parameters(dst, multifd_channels=channels)
        to = '%s:%d' % migration.listen(dst)
        status, _, messages = self.serve(
            path, f'tcp:{to}', '--whole', '--channels', str(channels),
            *options).wait()
        self.assertEqual(status, 0, messages)
        self.finish(guest, src, dst)

    def test_rom(self):
        for channels in (1, 3):
            with self.sub(channels=channels):
                self.restore(RomGuest(ws_mb=64), channels)

    def test_linux(self):
        uuid = '7f5c9e8a-0d3b-4b8e-9d50-0c6f6f0b1a2c'
        self.restore(LinuxGuest(mem_mb=384, ws=128), 2,
                     (*VIRTIO, '-uuid', uuid), ('--uuid', uuid))

    def test_refused(self):
        """QEMU has another machine: it says so, and so does the server."""
        guest = RomGuest(ws_mb=64)
        _, path = self.save(guest)
        dst = self.start_destination(RomGuest(mem_mb=128, ws_mb=64))
        migration.set_capabilities(dst, multifd=True)
        to = '%s:%d' % migration.listen(dst)
        status, _, messages = self.serve(path, f'tcp:{to}', '--whole').wait()
        self.assertEqual(status, 1)
        self.assertRegex(messages, 'QEMU|sending')


class Recovery(InstantCase):
    """Servers die and hang; another one, which knows nothing of the first,
    goes on."""

    def recover(self, dst, path, old, *options):
        """Another server at @path, in the place of @old, which is gone."""
        migration.wait_status(dst, 'postcopy-paused')
        address = f'unix:{self.place()}/recover'
        dst.qmp('migrate-recover', uri=address)
        return self.serve(path, address, '--resume', '--expect', old.ticket,
                          *options)

    def interrupted(self, guest, running, pages, signum=signal.SIGKILL,
                    options=()):
        """(source, file, destination, server) after it has got a signal, in
        the middle."""
        src, path = self.save(guest)
        dst, to = self.waiting(guest, running=running)
        server = self.serve(path, to, '--rate', str(20 * MB), *options)
        wait_until(lambda: server.last().get('sent', 0) > pages * PAGE, 60,
                   lambda: f'pages are sent: {server.last()}')
        server.kill(signum)
        return src, path, dst, server

    def paused(self, dst):
        """False: it had all of its RAM before the server was killed."""
        return wait_until(lambda: migration.status(dst) in (
            'postcopy-paused', 'completed') and migration.status(dst), 60,
            'QEMU sees that the server is gone') == 'postcopy-paused'

    def test_killed(self):
        for turn in range(REPEAT * 2):
            running = bool(turn % 2)
            with self.sub(turn=turn, running=running):
                guest = RomGuest(ws_mb=64)
                src, path, dst, server = self.interrupted(
                    guest, running, random.randrange(1, 8000))
                kills = random.randrange(3)
                while self.paused(dst):
                    server = self.recover(dst, path, server, *(
                        ('--rate', str(20 * MB)) if kills else ()))
                    if not kills:
                        told = self.assert_served(server)
                        self.assertGreater(told['there'], 0)
                        break
                    kills -= 1
                    server.wait_state('serving')
                    server.kill()
                if running:
                    migration.wait_status(dst, 'completed')
                    self.assert_guest_well(guest, dst)
                else:
                    self.finish(guest, src, dst)

    def test_killed_huge_pages(self):
        """Also in the middle of one, of which QEMU keeps nothing."""
        guest = HugeGuest(128, ws_mb=32)
        hugepages.reserve(self, 2 * guest.mem_mb)
        src, path, dst, server = self.interrupted(
            guest, False, random.randrange(1, 4000), options=HUGE_RAM)
        self.assert_served(self.recover(dst, path, server, *HUGE_RAM))
        self.finish(guest, src, dst)

    def test_other_generation(self):
        """It would be completed, with RAM of two moments: so it is refused."""
        guest = RomGuest(ws_mb=64)
        src, path, dst, server = self.interrupted(guest, False, 1000)
        other = RomGuest(ws_mb=64)
        _, other_path = self.save(other)
        status, _, messages = self.recover(dst, other_path, server).wait()
        self.assertEqual(status, 1)
        self.assertIn('another checkpoint', messages)
        self.assertEqual(migration.status(dst), 'postcopy-paused')
        self.assert_served(self.recover(dst, path, server))
        self.finish(guest, src, dst)

    def test_hung(self):
        guest = RomGuest(ws_mb=64)
        src, path, dst, server = self.interrupted(guest, False, 1000,
                                                  signal.SIGSTOP)
        dst.qmp('migrate-pause')
        self.assert_served(self.recover(dst, path, server))
        server.kill(signal.SIGCONT)     # it can do no harm any more
        self.assertEqual(server.wait()[0], 1)
        self.finish(guest, src, dst)

    def test_again(self):
        """Two VMs from one checkpoint, at once."""
        guest = RomGuest(ws_mb=64)
        src, path = self.save(guest)
        both = [self.waiting(guest) for _ in range(2)]
        for server in [self.serve(path, to) for _, to in both]:
            self.assert_served(server)
        for dst, _ in both:
            self.finish(guest, src, dst)

    def test_pages_left_out(self):
        """Negative control: the comparison sees what a server leaves out."""
        guest = RomGuest(ws_mb=64)
        src, path = self.save(guest)
        with open(path, 'r+b') as f, mmap.mmap(f.fileno(), 0) as data:
            head = data.find(b'\6pc.ram')
            bitmap, = struct.unpack_from('>Q', data, head + 7 + 8 + 4 + 8)
            at = bitmap + 1024          # pages from 32 MiB on
            self.assertEqual(data[at:at + 4], b'\xff' * 4)
            data[at:at + 4] = bytes(4)
        dst, to = self.waiting(guest)
        self.assert_served(self.serve(path, to))
        migration.wait_loaded(dst)
        result = compare_ram(src, dst)
        self.assertEqual((result.differing, result.problems), (32, []))

    def test_refused_files(self):
        """Before QEMU is told anything."""
        path = os.path.join(self.place(), 'file')
        with open(path, 'wb') as f:
            f.write(b'QEVM' + bytes(1000))
        status, _, messages = self.serve(path, 'unix:/nowhere').wait()
        self.assertEqual(status, 1)
        self.assertIn('not a checkpoint', messages)


class FarAway(InstantCase):
    def far(self, to, round_trip_s):
        """Where to connect, to be so far from @to."""
        path = Delay(('127.0.0.1', int(to.split(':')[-1])), round_trip_s / 2)
        self.addCleanup(path.close)
        return f'tcp:127.0.0.1:{path.port}'

    def test_round_trip(self):
        """Each request takes long, and so do all answers."""
        for running in (False, True):
            with self.sub(running=running):
                guest = RomGuest(ws_mb=64)
                src, path = self.save(guest)
                dst, to = self.waiting(guest, running=running)
                told = self.assert_served(self.serve(
                    path, self.far(to, ROUND_TRIP_S)))
                self.assertGreater(told['ended-us'], 1e6 * ROUND_TRIP_S)
                if running:
                    migration.wait_status(dst, 'completed')
                    self.assert_guest_well(guest, dst)
                else:
                    self.finish(guest, src, dst)

    def test_devices_are_the_last(self):
        """All data has come before QEMU has loaded the devices, which ask for
        pages one by one, zero pages too."""
        guest = LinuxGuest(mem_mb=384, ws=24)
        src, path = self.save(guest, extra=VIRTIO)
        src.close()
        dst, to = self.waiting(guest, running=True, extra=VIRTIO)
        self.assert_served(self.serve(path, self.far(to, SLOW_ROUND_TRIP_S)))
        migration.wait_status(dst, 'completed')
        self.assert_guest_well(guest, dst)


@unittest.skipIf(ShapedLink.missing(), ShapedLink.missing())
class SlowLink(InstantCase):
    def test_slow_link(self):
        """The guest runs long before its RAM is there."""
        link = ShapedLink(400)
        self.addCleanup(link.close)
        guest = RomGuest(ws_mb=128, rate=20000)
        src, path = self.save(guest)
        dst = self.start_vm('dst', self.dst_binary, [
            *guest.args('tcg'), '-incoming', 'defer'], link.dst_netns)
        server = Server(path, wait_for_server(dst, link.address),
                        netns=link.src_netns)
        self.addCleanup(server.close)
        wait_until(lambda: guest.beats(dst), 60, 'the guest runs')
        self.assertTrue(server.alive(), server.last())
        self.assert_served(server)
        migration.wait_status(dst, 'completed')
        self.assert_guest_well(guest, dst)


class FromMemory(InstantCase):
    """tlm-memserver restores what it has in memory, and no file of."""

    def stored(self):
        """(guest, source, control connection)"""
        guest = RomGuest(ws_mb=64)
        server = MemServer({'store': {'dir': None}})
        self.addCleanup(server.close)
        control = server.control()
        self.addCleanup(control.close)
        src = self.start_source(guest)
        src.qmp('stop')
        migration.set_capabilities(src, multifd=True, return_path=True)
        session = control.announce(level='memory')
        src.qmp('migrate', uri=session['uri'])
        migration.wait_status(src, 'completed')
        self.assertEqual(control.wait(session['session'])['state'], 'done')
        return guest, src, control

    def wait_end(self, control, told, state='ended'):
        number = told['restore']
        wait_until(lambda: control('restore-status', restore=number)['state']
                   in ('ended', 'lost'), 60, 'the restore ends')
        told = control('restore-status', restore=number)
        self.assertEqual(told['state'], state, told)
        return told

    def test_instant(self):
        """One is stopped, and another one goes on."""
        guest, src, control = self.stored()
        dst, to = self.waiting(guest)
        told = control('restore', vm='vm1', to=to, rate=20 * MB)
        wait_until(lambda: control('restore-status', restore=told['restore'])
                   ['sent'] > MB, 60, 'pages are sent')
        control('restore-stop', restore=told['restore'])
        self.wait_end(control, told, 'lost')
        migration.wait_status(dst, 'postcopy-paused')
        to = f'unix:{self.place()}/recover'
        dst.qmp('migrate-recover', uri=to)
        with self.assertRaisesRegex(Refused, 'another checkpoint'):
            control('restore', vm='vm1', to=to, resume=True,
                    expect=told['ticket'][:-1] + 'x')
        self.wait_end(control, control('restore', vm='vm1', to=to, resume=True,
                                       expect=told['ticket']))
        self.finish(guest, src, dst)

    def test_whole(self):
        guest, src, control = self.stored()
        dst = self.start_destination(guest)
        migration.set_capabilities(dst, multifd=True)
        to = 'tcp:%s:%d' % migration.listen(dst)
        self.wait_end(control, control('restore', vm='vm1', to=to, whole=True))
        self.finish(guest, src, dst)

    def test_refused(self):
        _, _, control = self.stored()
        for more, why in (
                ({'to': 'file:/tmp/x'}, "'to' must be"),
                ({'vm': 'vm2'}, 'vm2'),
                ({'page_sizes': {'no': 1}}, "no block 'no'"),
                ({'page_sizes': {'pc.ram': 3}}, 'cannot have pages'),
                ({'whole': True, 'channels': 0}, 'channels')):
            with self.assertRaisesRegex(Refused, why):
                control('restore', **{'vm': 'vm1', 'to': 'tcp:localhost:1',
                                      **more})
        with self.assertRaisesRegex(Refused, 'no restore 7'):
            control('restore-status', restore=7)
        told = control('restore', vm='vm1', to='tcp:127.0.0.1:1')
        self.assertIn('connect', self.wait_end(control, told, 'lost')['error'])


class Tool(InstantCase):
    """tlm checkpoint restore --instant."""

    src_binary = env.QEMU

    def saved(self):
        """The directory with a checkpoint, of a guest that ran."""
        self.guest = RomGuest(ws_mb=64)
        directory = self.place()
        qmp = os.path.join(directory, 'qmp')
        src = self.start_source(self.guest, extra=(
            '-qmp', f'unix:{qmp},server=on,wait=off'))
        subprocess.run([TOOL, 'checkpoint', 'save', '--qmp', qmp, '--dir',
                        directory, '--name', 'one'], check=True,
                       stdout=subprocess.DEVNULL)
        src.close()
        return directory

    def restore(self, directory, *options):
        """The tool under way, and the Vm that it starts."""
        dst = Started('dst', self.dst_binary, self.guest.args('tcg'))
        self.addCleanup(dst.close)
        tool = subprocess.Popen(
            [TOOL, 'checkpoint', 'restore', '--dir', directory, '--instant',
             '--json', *options, 'one', '--', *dst.command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.addCleanup(tool.communicate)
        self.addCleanup(tool.kill)
        return tool, dst

    def told(self, tool, status=0):
        out, messages = tool.communicate(timeout=180)
        self.assertEqual(tool.returncode, status, messages)
        told = json.loads(out)
        self.addCleanup(shutil.rmtree, os.path.dirname(told['qmp']))
        return told

    def wait_server(self, dst, not_this=None):
        """Returns the process that serves a guest that runs."""
        wait_until(lambda: os.path.exists(dst.qmp_path), 60, 'QEMU starts')
        if dst.monitor is None:
            dst.connect()

        def serves():
            return migration.status(dst) == 'postcopy-active' and [
                pid for pid in processes(os.path.basename(instant.SERVER),
                                         '/restore-') if pid != not_this]
        return wait_until(serves, 60, 'a server serves')[0]

    def assert_restored(self, dst, told, servers=1):
        self.assertEqual(told['status'], 'running', told)
        self.assertEqual(told.get('servers'), servers, told)
        if dst.monitor is None:
            dst.connect()
        caps = {c['capability'] for c in dst.qmp('query-migrate-capabilities')
                if c['state']}
        self.assertEqual(caps, set())
        self.assert_guest_well(self.guest, dst)

    def test_restore(self):
        directory = self.saved()
        tool, dst = self.restore(directory)
        self.assert_restored(dst, self.told(tool))

    def test_paused(self):
        directory = self.saved()
        tool, _ = self.restore(directory, '--paused')
        self.assertEqual(self.told(tool)['status'], 'paused')

    def test_killed_and_hung(self):
        directory = self.saved()
        tool, dst = self.restore(directory, '--rate', '20MB/s')
        first = self.wait_server(dst)
        os.unlink(os.path.join(directory, 'one.checkpoint'))
        os.kill(first, signal.SIGKILL)
        os.kill(self.wait_server(dst, first), signal.SIGSTOP)
        self.assert_restored(dst, self.told(tool), 3)

    def test_supervisor_killed(self):
        """The guest gets all of its RAM all the same."""
        directory = self.saved()
        tool, dst = self.restore(directory, '--rate', '20MB/s')
        self.wait_server(dst)
        tool.kill()
        migration.wait_status(dst, 'completed')
        self.assert_guest_well(self.guest, dst)

    def test_no_server(self):
        """The guest waits, and what the tool says recovers it."""
        directory = self.saved()
        tool, dst = self.restore(directory, '--paused', '--rate', '20MB/s')
        program = self.wait_server(dst)
        path = os.path.join(directory, 'one.checkpoint')
        # Its pages are cut off: whoever serves them fails
        size = os.path.getsize(path)
        with open(path, 'rb') as f:
            whole = f.read()
        os.truncate(path, size // 32)
        told = self.told(tool, 1)
        self.assertEqual(told['status'], 'waits')
        self.assertNotIn(program, processes(os.path.basename(instant.SERVER)))
        with open(path, 'r+b') as f:
            f.write(whole)
        uri = re.search(r'"uri": "(.*?)"', told['todo'])[1]
        dst.qmp('migrate-recover', uri=uri)
        words = shlex.split(told['todo'].splitlines()[-1])
        subprocess.run([instant.SERVER, *words[1:]], check=True,
                       stdout=subprocess.DEVNULL)
        migration.wait_loaded(dst)
        dst.qmp('cont')
        self.assert_guest_well(self.guest, dst)

    def test_not_possible(self):
        """Then all is loaded first, and it is said."""
        directory = self.saved()
        file = os.path.join(directory, 'ram')
        self.guest.args = lambda accel, args=self.guest.args: [
            *args(accel), '-object', 'memory-backend-file,id=pc.ram,'
            'x-use-canonical-path-for-ramblock-id=off,share=on,'
            f'mem-path={file},size=256M', '-machine',
            'memory-backend=pc.ram']
        tool, dst = self.restore(directory)
        told = self.told(tool)
        self.assertIn('all of it was loaded first', told['note'])
        self.assert_restored(dst, told, None)


class Started(Vm):
    """A QEMU that the tool starts."""

    @property
    def pid(self):
        found = processes(os.path.basename(env.STOCK_QEMU), self.qmp_path)
        return found[0] if found else None

    def alive(self):
        return self.pid is not None

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)


def processes(program, word=''):
    """Those that were started as @program, with @word in an argument."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', encoding='utf-8') as f:
                words = f.read().split('\0')
        except (OSError, UnicodeDecodeError):
            continue
        if os.path.basename(words[0]) == program and \
                any(word in w for w in words[1:]):
            found.append(int(pid))
    return found


VIRTIO = ('-device', 'virtio-balloon', '-device', 'virtio-rng',
          '-netdev', 'hubport,id=n0,hubid=0', '-device',
          'virtio-net,netdev=n0', '-device', 'virtio-serial')

if __name__ == '__main__':
    unittest.main()
