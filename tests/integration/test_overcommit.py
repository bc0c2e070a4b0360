#!/usr/bin/python3
# Over-commit of a running QEMU: every vCPU is back where it was, on every exit
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import signal
import subprocess
import tempfile
import unittest

from tlmtest import env, migration
from tlmtest.case import MigrationCase
from tlmtest.guests import RomGuest
from tlmtest.vm import wait_until

VCPUS = 4
CPUS = sorted(os.sched_getaffinity(0))
# Far in front of the working set, which begins at 1 MiB of 256: HELD is slow
EARLY = [{'progress': 0.01, 'cpus': 1}]

# The guests rewrite so little that mtx has to send nearly all of their
# working set (it skips what is dirty).  At this rate that takes longer than
# any test: the live stage lasts until the test ends it.
HELD = 64 << 10


def placement(vm):
    """{thread id: (allowed CPUs, cgroups)} of all of QEMU's threads"""
    result = {}
    for tid in os.listdir(f'/proc/{vm.pid}/task'):
        base = f'/proc/{vm.pid}/task/{tid}'
        try:
            with open(f'{base}/status') as f:
                allowed = re.search(r'^Cpus_allowed_list:\s*(\S+)',
                                    f.read(), re.M)[1]
            with open(f'{base}/cgroup') as f:
                result[int(tid)] = allowed, f.read()
        except (FileNotFoundError, ProcessLookupError):
            pass                        # a worker thread that has ended
    return result


def vcpu_threads(vm):
    return [c['thread-id'] for c in vm.qmp('query-cpus-fast')]


class Overcommit(MigrationCase):
    src_caps = {'tlm': True}

    def setUp(self):
        if len(CPUS) < 2:
            self.skipTest('needs two host CPUs')

    def prepare(self, method, extra=(), caps=None, **settings):
        guest = RomGuest(mem_mb=256, ws_mb=96, vcpus=VCPUS, rate=20)
        src = self.start_source(guest, extra=extra)
        dst = self.start_destination(guest)
        migration.set_capabilities(src, events=True)
        address, _ = self.connect(
            src, dst, caps=caps, max_bandwidth=HELD, tlm_overcommit=EARLY,
            tlm_overcommit_method=method, **settings)
        # As libvirt's vcpupin would have it
        os.sched_setaffinity(vcpu_threads(src)[0], {CPUS[1]})
        before = placement(src)
        migration.start(src, *address)
        data = src.wait_event('MIGRATION_TLM_OVERCOMMIT', timeout=60)['data']
        self.assertEqual((data['cpus'], data['vcpus']), (1, VCPUS))
        return guest, src, dst, before, data['method']

    def assert_held(self, src, before, method):
        now = placement(src)
        vcpus = vcpu_threads(src)
        if method not in ('throttle', 'event') and 'quota' not in method:
            self.assertEqual(
                {now[t][0] for t in vcpus} - {str(c) for c in CPUS}, set(),
                now)
            self.assertEqual(len({now[t][0] for t in vcpus}), 1)
        if 'cgroup' in method:
            for tid in vcpus:
                self.assertIn(f'/tlm-{src.pid}-', now[tid][1])
        for tid, where in before.items():
            if tid not in vcpus:
                self.assertEqual(now.get(tid, where), where)

    def assert_back(self, src, before):
        data = src.wait_event('MIGRATION_TLM_OVERCOMMIT', timeout=60)['data']
        self.assertEqual(data['cpus'], 0)
        now = placement(src)
        for tid in vcpu_threads(src):
            self.assertEqual(now[tid], before[tid])
        info = src.qmp('query-migrate').get('tlm', {})
        self.assertNotIn('cpus', info.get('overcommit', {}))

    def assert_at_full_speed(self, src):
        """For the books, as nobody has answered the event."""
        def epochs():
            return src.qmp('query-migrate')['tlm']['epochs']['count']
        first = epochs()
        wait_until(lambda: epochs() >= first + 2, 60, 'two more epochs')
        of_guest = src.qmp('query-migrate')['tlm']['guest']
        self.assertEqual((of_guest['speed'], of_guest['lost-work']), (1, 0))

    def assert_runs_at_source(self, guest, src):
        guest.wait_alive(src)
        guest.wait_scans(src)

    def methods(self):
        yield from ('affinity', 'auto', 'throttle', 'event')
        if os.geteuid() == 0:
            # throttle, where there is no such cgroup
            yield from ('cgroup', 'quota')

    def test_completion(self):
        for method in self.methods():
            with self.sub(method=method):
                guest, src, dst, before, used = self.prepare(method)
                info = src.qmp('query-migrate')['tlm']['overcommit']
                self.assertEqual((info['cpus'], info['method']), (1, used))
                self.assert_held(src, before, used)
                if used == 'event':
                    self.assert_at_full_speed(src)
                migration.set_parameters(src, max_bandwidth=0)
                migration.wait_status(src, 'completed')
                self.assert_back(src, before)
                self.finish(guest, src, dst)

    def test_cancel(self):
        for method in self.methods():
            with self.sub(method=method):
                guest, src, _dst, before, used = self.prepare(method)
                self.assert_held(src, before, used)
                src.qmp('migrate_cancel')
                migration.wait_status(src, 'cancelled')
                self.assert_back(src, before)
                self.assert_runs_at_source(guest, src)

    def into_pre_switchover(self, method):
        guest, src, dst, before, used = self.prepare(
            method, caps={'pause-before-switchover': True})
        self.assert_held(src, before, used)
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'pre-switchover')
        return guest, src, dst, before

    def test_cancel_pre_switchover(self):
        for method in self.methods():
            with self.sub(method=method):
                guest, src, _dst, before = self.into_pre_switchover(method)
                src.qmp('migrate_cancel')
                migration.wait_status(src, 'cancelled')
                self.assert_back(src, before)
                self.assert_runs_at_source(guest, src)

    def test_cancel_stop(self):
        """While the destination does not read"""
        for method in self.methods():
            with self.sub(method=method):
                guest, src, dst, before, used = self.prepare(method)
                self.assert_held(src, before, used)
                dst.process.send_signal(signal.SIGSTOP)
                src.qmp('migrate-tlm-switchover')
                src.wait_event('MIGRATION_TLM_STAGE', timeout=60,
                               match=lambda data: data['stage'] == 'stop')
                self.assertFalse(src.qmp('query-status')['running'])
                migration.wait_stalled(src)
                src.qmp('migrate_cancel')
                migration.wait_status(src, 'cancelled')
                self.assert_back(src, before)
                self.assert_runs_at_source(guest, src)

    def test_broken_channels(self):
        for method in self.methods():
            with self.sub(method=method):
                guest, src, _dst, before, used = self.prepare(method)
                self.assert_held(src, before, used)
                src.qmp('yank', instances=[{'type': 'migration'}])
                migration.wait_status(src, 'failed')
                self.assert_back(src, before)
                self.assert_runs_at_source(guest, src)

    def test_destination_killed(self):
        for method in ('affinity', 'auto', 'throttle'):
            with self.sub(method=method):
                guest, src, dst, before, used = self.prepare(method)
                self.assert_held(src, before, used)
                dst.kill()
                migration.wait_status(src, 'failed')
                self.assert_back(src, before)
                self.assert_runs_at_source(guest, src)

    def test_bound_out_of_reach(self):
        guest, src, _dst, before, _ = self.prepare(
            'auto', tlm_time_bound=3600000, tlm_bound_action='cancel')
        migration.set_parameters(src, tlm_time_bound=1)
        migration.wait_status(src, 'failed')
        self.assertIn('bound', src.qmp('query-migrate')['error-desc'])
        self.assert_back(src, before)
        self.assert_runs_at_source(guest, src)

    def test_late_eject(self):
        """The guest lets go of a vCPU, as it was asked for before."""
        for method, level in (('affinity', None), ('throttle', 0.5)):
            with self.sub(method=method):
                self.late_eject(method, level)

    def late_eject(self, method, speed):
        guest = RomGuest(mem_mb=256, ws_mb=96, vcpus=2, rate=20)
        extra = ('-smp', 'cpus=2,maxcpus=3')
        src, qtest = self.start_source_with_qtest(guest, extra=extra)
        dst = self.start_destination(guest, extra=extra)
        migration.set_capabilities(src, events=True)
        free, = (c for c in src.qmp('query-hotpluggable-cpus')
                 if 'qom-path' not in c)
        src.qmp('device_add', driver=free['type'], id='late',
                **free['props'])
        late = (set(vcpu_threads(src)) -
                {c['thread-id'] for c in src.qmp('query-cpus-fast')
                 if not c['qom-path'].endswith('/late')})
        self.assertEqual(len(late), 1)
        # The firmware guest has no ACPI: the test does its part
        qtest.do('outb', 0xaf00, 0)      # no bitmap, but registers
        src.qmp('device_del', id='late')

        address, _ = self.connect(
            src, dst, max_bandwidth=HELD, tlm_overcommit=EARLY,
            tlm_overcommit_method=method)
        before = placement(src)
        migration.start(src, *address)
        data = src.wait_event('MIGRATION_TLM_OVERCOMMIT',
                              timeout=60)['data']
        self.assertEqual((data['cpus'], data['vcpus']), (1, 3))
        self.assert_held(src, before, data['method'])
        with self.assertRaisesRegex(Exception, 'migrat'):
            src.qmp('device_del', id='late')
        qtest.do('outl', 0xaf00, 2)      # the third vCPU:
        qtest.do('outb', 0xaf04, 8)      # eject
        # DEVICE_DELETED may be long in coming: a TCG vCPU is referred to
        wait_until(lambda: late.isdisjoint(vcpu_threads(src)), 60,
                   'the vCPU is gone')
        data = src.wait_event('MIGRATION_TLM_OVERCOMMIT', timeout=60)['data']
        self.assertEqual((data['cpus'], data['vcpus']), (1, 2))
        self.assert_held(src, before, data['method'])
        if speed:
            wait_until(lambda: abs(src.qmp('query-migrate')['tlm']
                                   ['guest']['speed'] - speed) < 0.1,
                       60, 'the speed is that for two vCPUs')
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        self.assert_back(src, before)
        self.assert_runs_at_source(guest, src)

    def test_no_proc(self):
        """In a chroot QEMU can place no threads, but throttle and ask."""
        if os.geteuid() != 0:
            self.skipTest('chroot needs root')
        for method in ('throttle', 'event', 'affinity', 'auto'):
            with self.sub(method=method), \
                    tempfile.TemporaryDirectory() as root:
                guest, src, dst, before, used = self.prepare(
                    method, extra=('-run-with', f'chroot={root}'))
                self.assertEqual(used,
                                 'event' if method == 'event' else 'throttle')
                tlm = src.qmp('query-migrate')['tlm']
                note = tlm['overcommit'].get('note')
                self.assertEqual(note is None,
                                 method in ('throttle', 'event'), note)
                migration.set_parameters(src, max_bandwidth=0)
                migration.wait_status(src, 'completed')
                self.assert_back(src, before)
                self.finish(guest, src, dst)

    def test_steps_up_and_down(self):
        # The last three are in RAM that the guest has never touched: mtx
        # passes over it in no time, and yet by none of them
        steps, levels = (1, 15, 70, 70.5, 99), (1, 2, 1, 2, 1)
        guest = RomGuest(mem_mb=256, ws_mb=96, vcpus=VCPUS, rate=20)
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        migration.set_capabilities(src, events=True)
        before = placement(src)
        address, _ = self.connect(
            src, dst, tlm_overcommit_method='affinity',
            tlm_overcommit=[{'progress': p, 'cpus': n}
                            for p, n in zip(steps, levels)])
        migration.start(src, *address)
        seen = [src.wait_event('MIGRATION_TLM_OVERCOMMIT',
                               timeout=120)['data']['cpus']
                for _ in range(len(levels) + 1)]
        self.assertEqual(seen, [*levels, 0])
        migration.wait_status(src, 'completed')
        now = placement(src)
        for tid in vcpu_threads(src):
            self.assertEqual(now[tid], before[tid])
        self.finish(guest, src, dst)

    def test_killed_source_leaves_what_the_tool_removes(self):
        tool = os.path.join(env.BUILD, 'tools/tlm-cgroup-cleanup')
        if not os.path.exists(tool):
            self.skipTest(f'no {tool}')
        if os.geteuid() != 0:
            self.skipTest('cgroups need root')
        _guest, src, _dst, _before, used = self.prepare('auto')
        if not used.startswith('cgroup'):
            self.skipTest(f'no cgroup with cpuset here: {used} was used')
        src.kill()
        p = subprocess.run([tool], capture_output=True, text=True)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(f'tlm-{src.pid}', p.stdout)
        p = subprocess.run([tool], capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stdout), (0, ''))

    def test_refused(self):
        guest = RomGuest(mem_mb=64, ws_mb=16)
        src = self.start_source(guest)
        for bad in ([{'progress': 101, 'cpus': 1}],
                    [{'progress': 50, 'cpus': 2},
                     {'progress': 20, 'cpus': 1}],
                    [{'progress': 50, 'cpus': 0}]):
            with self.assertRaisesRegex(Exception, 'tlm-overcommit'):
                migration.set_parameters(src, tlm_overcommit=bad)
        with self.assertRaisesRegex(Exception, 'tlm-overcommit-cpus'):
            migration.set_parameters(src, tlm_overcommit_cpus='0-')
        src.hmp('migrate_set_parameter tlm-overcommit 0.2-(4),0.5-(2)')
        steps = src.qmp('query-migrate-parameters')['tlm-overcommit']
        self.assertEqual(steps, [{'progress': 20, 'cpus': 4},
                                 {'progress': 50, 'cpus': 2}])
        self.assertIn('0.5-(2)', src.hmp('info migrate_parameters'))
        src.hmp('migrate_set_parameter tlm-overcommit ""')
        self.assertEqual(
            src.qmp('query-migrate-parameters')['tlm-overcommit'], [])
        wait_until(src.alive, 5, 'QEMU is alive')


if __name__ == '__main__':
    unittest.main()
