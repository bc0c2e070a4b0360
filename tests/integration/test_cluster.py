#!/usr/bin/python3
#
# tlm cluster with whole virtual machines: guests that talk to each other,
# saved as one, killed, and restored by a stock QEMU
#
# TLM_REPEAT: how often each cluster is killed while it is saved again and again
# (default 1); with 5 or more, those of four guests too
# TLM_SEED: other random moments
#
# SPDX-License-Identifier: GPL-2.0-or-later

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from tlm import options, parser
from tlm.cluster import config, member, packets, save
from tlm.cluster.sets import Sets
from tlm.progress import Display
from tlmtest import env, migration
from tlmtest.case import CRAWL, STEADY, TlmCase
from tlmtest.cluster import TOOL, Node, Nodes
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.played import Cluster
from tlmtest.vm import VmError, wait_until

REPEAT = int(os.environ.get('TLM_REPEAT', '1'))
SEED = os.environ.get('TLM_SEED', '')
PORT = 20000 + os.getpid() % 20000
# The guests share their host's CPUs with whatever else is tested
WINDOW = ('--window', '5s')
APART_S = 1.5
BEATS_A_SECOND = 200
SMALL_DISK = 32                 # MB
DISK_MB = 16
REQUESTS = 200                  # of each thread, to be sure that it goes on
KILLS = 4 * REPEAT


class ClusterCase(TlmCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-sets-')
        self.addCleanup(directory.cleanup)
        self.dir = directory.name

    def nodes(self, guests):
        nodes = Nodes(guests, self.dir)
        self.addCleanup(nodes.close)
        return nodes

    def talking(self, kind, count=2, **settings):
        """Guests that need each other."""
        try:
            guests = [Node(kind, i + 1, count, PORT, **settings)
                      for i in range(count)]
        except VmError as e:
            self.skipTest(f'no guest: {e}')
        nodes = self.nodes(guests)
        nodes.start()
        return nodes

    def assert_one_moment(self, content):
        """All guests on one host: by its clock."""
        stops = [m['stopped-us'] for m in content['members']]
        resumes = [m['resumed-us'] for m in content['members']]
        self.assertLessEqual(max(stops), min(resumes))


class Talking(ClusterCase):
    def test_echo(self):
        nodes = self.talking('echo')
        for name in ('one', 'two', 'three'):
            self.assertTrue(nodes.goes_on(count=100))
            self.assert_one_moment(nodes.save(name, *WINDOW))
        self.assertTrue(nodes.goes_on(count=100))
        # Each as often as one likes, in any order
        for name in ('three', 'one', 'three'):
            nodes.restore(name)
            self.assertTrue(nodes.goes_on(count=100))
        self.assertIn('ECHO VERIFIED', nodes.verify())
        wait_until(lambda: 'ECHO VERIFIED' in nodes.vms[1].serial(), 30,
                   'the other end says so too')
        self.assertIsNone(nodes.guests[1].corruption(nodes.vms[1]))

    def test_checkpoints_of_different_moments(self):
        """What this test would see, were they not of one moment."""
        nodes = self.talking('echo')
        moments = {}
        for number in (1, 0):
            name = f'vm{number}'
            directory = os.path.join(self.dir, name)
            os.mkdir(directory)
            nodes.run([TOOL, 'checkpoint', 'save', '--qmp',
                       nodes.socket(number), '--dir', directory, '--name',
                       'one'])
            moments[name] = nodes._counters()[0]['work']
            if number:
                # The other end goes on, and both ends count what came
                start = nodes._counters()[0]['alive']
                wait_until(lambda: nodes._counters()[0]['alive'] >=
                           start + BEATS_A_SECOND * APART_S, 60, 'some time has passed')
        self.assertGreater(moments['vm0'], moments['vm1'])
        self.forge('one')
        nodes.restore('one')
        try:
            went_on = nodes.goes_on(count=1000)
        except VmError as e:
            self.assertIn('TLM-GUEST-CORRUPT echo', str(e))
            return
        self.assertFalse(went_on, 'these checkpoints do not fit')

    def save_apart(self, nodes, name, early=False):
        """Packets are held, and the first guest stops a long time after the
        other.  @early: what that one sends then goes out before."""
        real, args = member.Member.cut, parser.of_command(
            options.COMMANDS['cluster save']).parse_args(
                ['--dir', self.dir, '--buffer-packets', '--window', '30s',
                 name])
        members, tasks = {}, []

        def alive():
            return nodes._counters()[0]['alive']

        async def late(one, answer):
            while 'vm1' not in members or not members['vm1'].stands():
                await asyncio.sleep(0.01)
            if early:
                members['vm1'].release()
            first = alive()
            while alive() < first + BEATS_A_SECOND * APART_S:
                await asyncio.sleep(0.01)
            real(one)
            answer.set_result(None)

        def cut(one):
            members[one.name] = one
            if one.name == 'vm1':
                real(one)
            else:
                one.answers = [asyncio.get_running_loop().create_future()]
                tasks.append(asyncio.ensure_future(
                    late(one, one.answers[0])))
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(member.Member, 'cut', cut))
            if early:           # this is found out
                stack.enter_context(mock.patch.object(
                    packets.Held, 'ask', lambda _: []))
            content = asyncio.run(save.save(
                Sets(self.dir), [config.Vm(f'vm{i}', nodes.socket(i))
                                 for i in range(2)], args, name,
                Display(sys.stderr)))
        first, second = content['members']
        self.assertGreater(first['stopped-us'], second['resumed-us'])
        self.assertNotIn('gate', second)

    def test_packets_held(self):
        """A guest goes on long before the other stops, but nobody hears of
        what it does then.  If somebody does, the set is none."""
        nodes = self.talking('echo')
        self.save_apart(nodes, 'held')
        self.assertTrue(nodes.goes_on(count=100))
        self.save_apart(nodes, 'early', early=True)
        self.assertTrue(nodes.goes_on(count=100))
        nodes.restore('early')
        try:
            self.assertFalse(nodes.goes_on(count=1000))
        except VmError as e:
            self.assertIn('TLM-GUEST-CORRUPT echo', str(e))
        nodes.restore('held', env.QEMU)
        self.assertTrue(nodes.goes_on(count=1000))
        nodes.save('soon', '--buffer-packets', *WINDOW)
        nodes.restore('soon')
        self.assertTrue(nodes.goes_on(count=100))
        self.assertIn('ECHO VERIFIED', nodes.verify())

    def forge(self, name):
        """A set of what is no set."""
        sets = Sets(self.dir)
        members = []
        for vm in ('vm0', 'vm1'):
            member = {'name': vm, 'dir': vm, 'checksum': ''}
            member['checksum'] = sets.of_member(member).get(
                name).manifest['checksum']
            members.append(member)
        sets.add(name, {'name': name, 'id': '0', 'created': '2026',
                        'members': members})

    def killed_again_and_again(self, nodes, times):
        """While they are saved all the time; the newest set is good."""
        chance = random.Random(self.id() + SEED)
        messages = os.path.join(self.dir, 'messages')
        for _ in range(times):
            with open(messages, 'w', encoding='utf-8') as f:
                p = subprocess.Popen(
                    nodes.saving('watch', '--every', '2s', '--keep', '2',
                                 '--json', *WINDOW), stdout=subprocess.PIPE,
                    stderr=f, text=True)
            self.addCleanup(p.stdout.close)
            self.addCleanup(p.kill)
            for _ in range(chance.randrange(1, 3)):
                line = p.stdout.readline()
                if not line:
                    with open(messages, encoding='utf-8') as f:
                        self.fail(f'watch has ended: {f.read()}')
                self.assert_one_moment(json.loads(line))
            # A random moment: any of this one's steps, or between two
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(chance.uniform(0, 2.5))
            nodes.kill()
            p.kill()
            p.wait()
            name = json.loads(nodes.run(nodes.words('show', '--json')))['name']
            nodes.run(nodes.words('verify', name))
            nodes.restore(name, env.QEMU)
            self.assertTrue(nodes.goes_on())
        nodes.save('last', *WINDOW)
        nodes.restore('last')
        self.assertTrue(nodes.goes_on())
        return nodes.verify()

    def job_killed(self, kernel, count=2):
        nodes = self.talking('mpi', count, kernel=kernel, **{'class': 'W'})
        self.assertIn(f'{kernel.upper()} W VERIFIED',
                      self.killed_again_and_again(nodes, REPEAT))

    def test_is_killed(self):
        """Few messages, and all keys in them."""
        self.job_killed('is')

    def test_cg_killed(self):
        """Many small ones: each guest waits for all others all the time."""
        self.job_killed('cg')

    @unittest.skipUnless(REPEAT >= 5, 'TLM_REPEAT is less than 5')
    def test_is_of_four_killed(self):
        self.job_killed('is', 4)

    @unittest.skipUnless(REPEAT >= 5, 'TLM_REPEAT is less than 5')
    def test_cg_of_four_killed(self):
        self.job_killed('cg', 4)


def with_disk(guest, path):
    """Its disk is an image of its own."""
    with open(path, 'wb') as f:
        f.truncate(DISK_MB << 20)
    args = guest.args
    guest.args = lambda accel: [
        *args(accel), '-drive', f'file={path},format=raw,if=virtio,'
        'cache=none,aio=threads']
    return guest


class Disks(ClusterCase):
    options, since = WINDOW, 'parent'

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix='tlm-disks-')
        self.addCleanup(directory.cleanup)
        self.disks = directory.name

    def start(self, guest, count=2, **settings):
        self.cluster = self.nodes([
            with_disk(guest(**settings), os.path.join(self.disks, f'{i}.img'))
            for i in range(count)])
        self.cluster.start()

    def files(self):
        return sorted(f for f in os.listdir(self.disks)
                      if not f.startswith('.'))

    def contents(self):
        found = {}
        for name in self.files():
            with open(os.path.join(self.disks, name), 'rb') as f:
                found[name] = hashlib.file_digest(f, 'sha256').hexdigest()
        return found

    def assert_disks_used(self):
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            wait_until(lambda: guest.requests(vm), 120, 'it uses its disk')
            done = guest.requests(vm)
            wait_until(lambda: guest._ok(vm) and
                       guest.requests(vm) > done + REQUESTS, 120,
                       f'{vm.name}: the guest goes on with its disk')

    def test_saved_and_restored(self):
        """All disks are of the moment of the cut, and each set can be had as
        often as one likes."""
        self.start(LinuxGuest, mem_mb=192, ws=16, disk=2)
        self.assert_disks_used()
        for name in ('one', 'two'):
            content = self.cluster.save(name, '--disk', 'auto',
                                        '--incremental', *self.options)
            self.assert_one_moment(content)
            self.assertEqual([len(m['disks']) for m in content['members']],
                             [1, 1])
            self.assert_disks_used()
        self.assertEqual([m[self.since] for m in content['members']],
                         ['one', 'one'])
        self.cluster.kill()
        bases = {k: v for k, v in self.contents().items() if 'two' not in k}
        self.assertEqual(len(bases), 4)
        for name in ('one', 'two', 'one'):
            done = self.cluster.restore(name)
            self.assertEqual([len(vm['disks']) for vm in done['vms']], [1, 1])
            self.assert_disks_used()
        self.cluster.kill()
        for done in done['vms']:
            shutil.rmtree(os.path.dirname(done['disks'][0]))
        for path in os.listdir(self.disks):
            if path.startswith('restored-'):
                shutil.rmtree(os.path.join(self.disks, path))
        self.assertEqual({k: v for k, v in self.contents().items()
                          if k in bases}, bases)
        with open(os.path.join(self.disks, '1.img'), 'r+b') as f:
            f.write(b'!')
        with self.assertRaisesRegex(VmError, 'vm1: the image .*has changed'):
            self.cluster.restore('one')
        self.assertEqual(len(self.files()), 6)

    def test_one_that_cannot(self):
        """Then none of them goes on in an overlay."""
        self.start(RomGuest, ws_mb=4)
        guests = self.cluster.guests
        guests.append(RomGuest(ws_mb=4))
        args = guests[2].args
        guests[2].args = lambda accel: [*args(accel), '-drive', 'if=virtio,'
                                        'driver=null-co,size=1M']
        self.cluster.add(2)
        with self.assertRaisesRegex(VmError, 'vm2: disk .* which is no file'):
            self.cluster.save('one', '--disk', 'auto', *self.options)
        self.assertEqual(self.files(), ['0.img', '1.img'])
        for vm in self.cluster.vms[:2]:
            self.assertEqual(
                [n for n in vm.qmp('query-named-block-nodes')
                 if n['drv'] == 'qcow2'], [])
        self.assertEqual([f for _, _, files in os.walk(self.dir)
                          for f in files if f != '.lock'], [])

    def test_coordinator_killed_before_the_cut(self):
        """The overlays, which nobody uses, are removed."""
        self.start(RomGuest, ws_mb=64, rate=STEADY)
        p = subprocess.Popen(
            self.cluster.saving('save', '--disk', 'auto', *self.options,
                                '--bandwidth', f'{CRAWL}B/s', 'one'),
            stdout=subprocess.DEVNULL)
        self.addCleanup(p.kill)
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'live')
        p.kill()
        p.wait()
        self.assertEqual(len(self.files()), 4)
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'ready')
        self.cluster.run(self.cluster.words('prune', '--keep', '9'))
        self.assertEqual(self.files(), ['0.img', '1.img'])
        self.cluster.save('two', '--disk', 'auto', *self.options)
        self.assertEqual(len(self.files()), 4)


class Trouble(ClusterCase):
    """Guests that check their memory, and something that goes wrong."""

    def start(self, count=2):
        # Pages are left for the pass: it does not end at once
        self.cluster = self.nodes([RomGuest(ws_mb=64, rate=STEADY)
                                   for _ in range(count)])
        self.cluster.start()
        self.cluster.save('old', *WINDOW)
        for vm in self.cluster.vms:         # what comes is not of this one
            vm.pull_events()
            vm.events.clear()

    def saving(self, *more):
        p = subprocess.Popen(self.cluster.saving('save', *more, 'one'),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.kill)
        return p

    def assert_failed(self, p, why):
        _, err = p.communicate(timeout=180)
        self.assertEqual(p.returncode, 1, err)
        self.assertRegex(err, why)

    def assert_all_well(self, but=()):
        """They run, nothing is left of the set, and the old one is good."""
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            if vm in but:
                continue
            wait_until(lambda vm=vm: migration.status(vm) in
                       ('none', *migration.FINAL), 60, 'all is over')
            self.assert_runs_on(guest, vm)
            caps = {c['capability'] for c in
                    vm.qmp('query-migrate-capabilities') if c['state']}
            self.assertEqual(caps, set())
        self.assert_old_alone()

    def assert_old_alone(self):
        self.assertEqual(
            {f for _, _, files in os.walk(self.dir) for f in files},
            {'.lock', 'old.json', 'old.checkpoint'})
        self.assertEqual(
            self.cluster.run(self.cluster.words('verify')), 'old: good\n')

    def assert_old_restores(self):
        self.cluster.restore('old')
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            self.assert_guest_well(guest, vm)

    def assert_recovers(self):
        self.cluster.run(self.cluster.words('prune', '--keep', '9'))
        self.assert_all_well()
        self.cluster.save('two', *WINDOW)

    def test_coordinator_killed_in_the_live_stage(self):
        """They go on as they did, and hold until somebody comes by."""
        self.start()
        p = self.saving('--bandwidth', f'{CRAWL}B/s')
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'live')
        p.kill()
        p.wait()
        for vm in self.cluster.vms:
            self.assertEqual(vm.status(), 'running')
        self.assertIn('one: no set', self.cluster.run(
            self.cluster.words('list')))
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'ready')
        self.assert_recovers()

    def test_coordinator_killed_with_a_vm_at_the_gate(self):
        """QEMU lets it go on by itself."""
        self.start(1)
        guest, vm = self.cluster.guests[0], self.cluster.vms[0]
        slow = {'slow': {'takes': {'ready': None}}}
        with Cluster(self.cluster.sockets, slow):
            p = subprocess.Popen(self.cluster.saving(
                'save', '--window', '5s', 'one',
                f'slow={self.cluster.sockets}/slow'), stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True)
            self.addCleanup(p.stderr.close)
            self.addCleanup(p.stdout.close)
            vm.wait_event('MIGRATION', 60, lambda data:
                          data['status'] == 'pre-switchover')
            p.kill()
            self.assertEqual(p.wait(), -signal.SIGKILL)
            vm.wait_event('RESUME', 60)
        self.assert_runs_on(guest, vm)
        self.assert_recovers()

    def test_coordinator_killed_at_any_time(self):
        """There is a whole set, or none, and all run on."""
        self.start()
        chance = random.Random(self.id())
        for _ in range(KILLS):
            p = self.saving(*WINDOW)
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(chance.uniform(0.2, 1.5))
            p.kill()
            p.wait()
            self.cluster.run(self.cluster.words('prune', '--keep', '9'))
            names = {e['name']: e['problem'] for e in json.loads(
                self.cluster.run(self.cluster.words('list', '--json')))
                ['sets']}
            self.assertIn(names, ({'old': None},
                                  {'old': None, 'one': None}))
            if 'one' in names:
                self.cluster.run(self.cluster.words('verify', 'one'))
                self.remove('one')
            self.assert_all_well()

    def remove(self, name):
        """As if it had never been."""
        Sets(self.dir).remove(name)

    def test_vm_dies(self):
        self.start()
        first, second = self.cluster.vms
        p = self.saving('--bandwidth', f'{CRAWL}B/s')
        self.wait_stage(second, 'live')
        self.wait_stage(first, 'live')
        second.process.kill()
        self.assert_failed(p, 'vm1: QEMU has closed the connection')
        self.assert_all_well(but=(second,))
        self.assert_old_restores()

    def test_vm_hangs(self):
        """It is found out, the other runs on; awake, it does too."""
        self.start()
        first, second = self.cluster.vms
        p = self.saving('--bandwidth', f'{CRAWL}B/s')
        self.wait_stage(second, 'live')
        self.wait_stage(first, 'live')
        os.kill(second.pid, signal.SIGSTOP)
        try:
            self.assert_failed(p, 'vm1: .*no answer from QEMU')
            self.assert_runs_on(self.cluster.guests[0], first)
        finally:
            os.kill(second.pid, signal.SIGCONT)
        self.assert_recovers()

    def test_full_disk(self):
        self.start()
        target = os.path.join(self.dir, 'vm1')
        p = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1g', 'tmpfs',
                            target], capture_output=True, text=True,
                           check=False)
        if p.returncode:
            self.skipTest(f'no small disk: {p.stderr.strip()}')
        self.addCleanup(subprocess.run, ['umount', target], check=True)
        p = self.saving('--bandwidth', f'{CRAWL}B/s')
        self.wait_stage(self.cluster.vms[1], 'live')
        subprocess.run(['mount', '-o', f'remount,size={SMALL_DISK}m',
                        target], check=True)
        self.assert_failed(p, 'vm1: .*No space left')
        subprocess.run(['umount', target], check=True)
        self.addCleanup(subprocess.run, ['mount', '-t', 'tmpfs', 'tmpfs',
                                         target], check=True)
        self.assert_all_well()


if __name__ == '__main__':
    unittest.main()
