#!/usr/bin/python3
#
# The dry run: tlm-estimate, query-tlm-estimate and scripts/tlm-estimate
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import unittest

from tlmtest import env, migration
from tlmtest.case import MigrationCase
from tlmtest.guests import RomGuest
from tlmtest.vm import Vm, VmError, wait_until

PAGE = 4096
MB = 1 << 20
LINK = 100 * MB
# Written beside the working set: counters, stacks, progress, VGA
BESIDE = 2 * MB


class EstimateCase(MigrationCase):
    src_caps = {'tlm': True}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with Vm('caps', cls.src_binary, ['-machine', 'none']) as vm:
            commands = {c['name'] for c in vm.qmp('query-commands')}
        if 'tlm-estimate' not in commands:
            raise unittest.SkipTest(
                f"{cls.src_binary} has no command 'tlm-estimate'")

    def query(self, vm, **arguments):
        return vm.qmp('query-tlm-estimate', **arguments)

    def wait_end(self, vm, timeout=60):
        wait_until(lambda: self.query(vm)['status'] != 'measuring', timeout,
                   f'{vm.name}: the measurement ends')
        return self.query(vm)

    def measure(self, vm, bandwidth=LINK, **arguments):
        vm.qmp('tlm-estimate', bandwidth=bandwidth, **arguments)
        answer = self.wait_end(vm)
        self.assertEqual(answer['status'], 'measured', answer)
        return answer

    def prediction(self, answer, converge):
        found = [p for p in answer['predictions']
                 if p['converge'] == converge]
        self.assertEqual(len(found), 1)
        return found[0]

    def changes(self, vm):
        """Who had the dirty log on, from the trace of each change."""
        with open(vm.stderr_path) as f:
            found = re.findall(r'global_dirty_changed bitmask 0x([0-9a-f]+)',
                               f.read())
        return [int(x, 16) for x in found]

    def wait_log(self, vm):
        wait_until(lambda: self.changes(vm) and self.tracked(vm), 30,
                   'the dirty log is on')

    def tracked(self, vm):
        changes = self.changes(vm)
        self.assertTrue(changes, 'no trace of the dirty log')
        return changes[-1]


TRACE = ('-trace', 'global_dirty_changed')
SCRIPT = os.path.join(env.ROOT, 'scripts/tlm-estimate')
KVM_RING = 'kvm,dirty-ring-size=4096'


class Measured(EstimateCase):
    """What is measured, against what the guest says it does."""

    def measure_passes(self, guest, vm):
        """Measure while the guest rewrites its set at least once, however
        slow it is on this host.  Returns the answer and how many pages it
        has written at most."""
        window = 1000
        while True:
            before = guest.progress(vm)
            answer = self.measure(vm, window=window)
            after = guest.progress(vm)
            self.assertGreaterEqual(answer['window'], window)
            if after['passes'] > before['passes'] + 1:
                return answer, after['pages'] - before['pages']
            window *= 3
            self.assertLessEqual(window, 60000, 'the guest is too slow')

    def test_working_set(self):
        """A guest that rewrites all of its set again and again."""
        for accel in ('tcg', 'kvm'):
            with self.subTest(accel=accel):
                guest = RomGuest(ws_mb=32, scan_ms=0)
                src = self.start_source(guest, accel, extra=TRACE)
                answer, written = self.measure_passes(guest, src)
                self.assertGreaterEqual(answer['working-set-bytes'],
                                        0.99 * 32 * MB)
                self.assertLessEqual(answer['working-set-bytes'],
                                     32 * MB + BESIDE)
                self.assertLessEqual(answer['dirty-rate'] *
                                     answer['window'] / 1000,
                                     written * PAGE * 2 + BESIDE)
                self.assertGreater(answer['dirty-rate'] *
                                   answer['window'] / 1000,
                                   answer['working-set-bytes'])
                self.assertEqual(self.tracked(src), 0)
                self.assert_guest_runs(guest, src)

    def assert_guest_runs(self, guest, vm):
        start = guest.progress(vm)['pages']
        wait_until(lambda: guest._ok(vm) and
                   guest.progress(vm)['pages'] > start, 30,
                   'the guest goes on writing')

    def test_rate(self):
        """A guest that writes to other pages at a steady, low rate."""
        for accel in ('tcg', 'kvm'):
            with self.subTest(accel=accel):
                guest = RomGuest(ws_mb=192, rate=2000, scan_ms=0)
                src = self.start_source(guest, accel)
                before, t0 = guest.progress(src)['pages'], time.monotonic()
                answer = self.measure(src, window=3000)
                after, t1 = guest.progress(src)['pages'], time.monotonic()
                written = (after - before) * PAGE
                # no page twice: it is written to in turn
                self.assertLess(written, 192 * MB)
                self.assertLessEqual(answer['working-set-bytes'],
                                     written + BESIDE)
                steady = written / (t1 - t0)
                got = answer['working-set-bytes'] / answer['window'] * 1000
                self.assertGreater(got, 0.6 * steady)
                self.assertGreater(answer['dirty-rate'], 0.4 * steady)
                self.assertLess(answer['dirty-rate'],
                                2.5 * steady + BESIDE)

    def test_dirty_ring(self):
        self.need_accel('kvm')
        guest = RomGuest(ws_mb=16, scan_ms=0)
        try:
            src = self.start_source(guest, KVM_RING, extra=TRACE)
        except VmError as e:
            if 'dirty ring' not in str(e).lower():
                raise
            self.skipTest('this KVM has no dirty ring')
        before = guest.progress(src)['pages']
        answer = self.measure(src)
        written = (guest.progress(src)['pages'] - before) * PAGE
        # a full ring stops the guest: it is slow while it is watched
        self.assertGreater(written, MB)
        self.assertGreater(answer['working-set-bytes'],
                           0.5 * min(written, 16 * MB))
        self.assertLessEqual(answer['working-set-bytes'], 16 * MB + BESIDE)
        self.assertEqual(self.tracked(src), 0)

    def test_paused_guest(self):
        """It writes nothing; what it has is still to be sent."""
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        src.qmp('stop')
        answer = self.measure(src)
        self.assertEqual(answer['working-set-bytes'], 0)
        self.assertEqual(answer['dirty-rate'], 0)
        self.assertGreater(answer['populated-bytes'], 60 * MB)
        src.qmp('cont')
        self.assert_guest_well(guest, src)
        self.assertGreater(self.measure(src)['working-set-bytes'], 0)

    def resident(self, vm):
        with open(f'/proc/{vm.pid}/status') as f:
            return int(re.search(r'^VmRSS:\s*(\d+)', f.read(), re.M)[1]) * 1024

    def test_populated(self):
        """Pages never written to are found, and are left as they are."""
        for shared in (False, True):
            with self.subTest(shared=shared):
                guest = RomGuest(mem_mb=1024, ws_mb=64, shared=shared)
                src = self.start_source(guest)
                before = self.resident(src)
                for _ in range(3):
                    answer = self.measure(src, window=100)
                self.assertGreater(answer['total-bytes'], 1024 * MB)
                self.assertGreater(answer['populated-bytes'], 64 * MB)
                self.assertLess(answer['populated-bytes'], 80 * MB)
                # a page out of each 64 KiB is looked at: 64 MiB if each
                # were populated by that
                self.assertLess(self.resident(src) - before, 16 * MB)

    def test_zero_pages(self):
        """Pages that are there but zero cost nothing on the link."""
        guest = RomGuest(mem_mb=256, ws_mb=32)
        src = self.start_source(guest, extra=(
            '-object', 'memory-backend-ram,id=r,size=256M,prealloc=on',
            '-machine', 'pc,memory-backend=r'))
        self.assertGreater(self.resident(src), 256 * MB)
        answer = self.measure(src, window=100)
        self.assertLess(answer['populated-bytes'], 64 * MB)

    def test_window_lengths(self):
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest)
        for window in (100, 2500):
            answer = self.measure(src, window=window)
            self.assertGreaterEqual(answer['window'], window)


class Beside(EstimateCase):
    """Measurements beside others who use the dirty log."""

    def test_then_migrate(self):
        for accel in ('tcg', 'kvm'):
            with self.subTest(accel=accel):
                guest = RomGuest(ws_mb=64, pattern='hotcold')
                src = self.start_source(guest, accel)
                self.measure(src, window=300)
                dst = self.start_destination(guest, accel)
                address, _ = self.connect(src, dst)
                migration.start(src, *address)
                migration.wait_status(src, 'completed')
                self.finish(guest, src, dst)

    def test_migration_breaks_it_off(self):
        """And loses nothing by it, whenever it comes."""
        for accel in ('tcg', 'kvm'):
            for delay in (0, 0.02, 0.3):
                with self.subTest(accel=accel, delay=delay):
                    self.break_off(accel, delay)

    def break_off(self, accel, delay):
        guest = RomGuest(ws_mb=64, pattern='hotcold')
        src = self.start_source(guest, accel, extra=TRACE)
        dst = self.start_destination(guest, accel)
        address, _ = self.connect(src, dst, max_bandwidth=50 * MB)
        src.qmp('tlm-estimate', bandwidth=LINK, window=60000)
        # not a wait for anything: which phase it hits is what varies
        time.sleep(delay)
        migration.start(src, *address)
        answer = self.wait_end(src, 10)
        self.assertEqual(answer['status'], 'failed')
        self.assertIn('migration', answer['error'])
        self.assertNotIn('predictions', answer)
        migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)

    def test_cancelled_migration(self):
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest, extra=TRACE)
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, max_bandwidth=MB)
        src.qmp('tlm-estimate', bandwidth=LINK, window=60000)
        migration.start(src, *address)
        self.assertEqual(self.wait_end(src, 10)['status'], 'failed')
        with self.assertRaisesRegex(VmError, 'migration is running'):
            src.qmp('tlm-estimate', bandwidth=LINK)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        wait_until(lambda: self.tracked(src) == 0, 30,
                   'the dirty log is turned off')
        self.assert_guest_well(guest, src)
        self.measure(src)
        self.assertEqual(self.tracked(src), 0)

    def test_calc_dirty_rate(self):
        """It shares a flag with us: whoever ends last turns it off."""
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest, extra=TRACE)

        def rate_status():
            return src.qmp('query-dirty-rate')['status']

        def rate_measured():
            return rate_status() == 'measured'

        src.qmp('calc-dirty-rate', calc_time=2, mode='dirty-bitmap')
        wait_until(lambda: rate_status() == 'measuring', 30,
                   'calc-dirty-rate begins')
        with self.assertRaisesRegex(VmError, 'calc-dirty-rate'):
            src.qmp('tlm-estimate', bandwidth=LINK)
        wait_until(rate_measured, 30, 'calc-dirty-rate ends')
        self.measure(src)

        # it starts later and ends later
        src.qmp('tlm-estimate', bandwidth=LINK, window=500)
        self.wait_log(src)
        src.qmp('calc-dirty-rate', calc_time=2, mode='dirty-bitmap')
        self.assertEqual(self.wait_end(src)['status'], 'measured')
        self.assertFalse(rate_measured())
        wait_until(rate_measured, 30, 'calc-dirty-rate ends')
        self.assertEqual(self.tracked(src), 0)

        # it starts later and ends earlier
        src.qmp('tlm-estimate', bandwidth=LINK, window=60000)
        self.wait_log(src)
        src.qmp('calc-dirty-rate', calc_time=1, mode='dirty-bitmap')
        wait_until(rate_measured, 30, 'calc-dirty-rate ends')
        answer = self.wait_end(src, 10)
        self.assertEqual(answer['status'], 'failed')
        self.assertIn('calc-dirty-rate', answer['error'])
        self.assertEqual(self.tracked(src), 0)
        self.assert_guest_well(guest, src)

    def test_guest_stopped_meanwhile(self):
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest, extra=TRACE)
        src.qmp('tlm-estimate', bandwidth=LINK, window=1000)
        self.wait_log(src)
        src.qmp('stop')
        self.assertEqual(self.wait_end(src)['status'], 'measured')
        src.qmp('cont')
        self.assertEqual(self.tracked(src), 0)
        self.measure(src)
        self.assertEqual(self.tracked(src), 0)
        self.assert_guest_well(guest, src)


class Asked(EstimateCase):
    """Arguments, errors, predictions."""

    def test_errors(self):
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest)
        self.assertEqual(self.query(src), {'status': 'none'})
        for arguments in ({'bandwidth': 0},
                          {'bandwidth': LINK, 'window': 99},
                          {'bandwidth': LINK, 'window': 60001}):
            with self.subTest(**arguments), self.assertRaises(VmError):
                src.qmp('tlm-estimate', **arguments)
        self.assertEqual(self.query(src), {'status': 'none'})
        src.qmp('tlm-estimate', bandwidth=LINK)
        with self.assertRaisesRegex(VmError, 'measurement is running'):
            src.qmp('tlm-estimate', bandwidth=LINK)
        self.assertEqual(self.wait_end(src)['status'], 'measured')
        with self.assertRaises(VmError):
            self.query(src, bandwidth=0)

    def test_destination_has_nothing_to_measure(self):
        guest = RomGuest(ws_mb=16)
        self.addCleanup(guest.close)
        vm = self.start_vm('dst', self.src_binary,
                           [*guest.args('tcg'), '-incoming', 'defer'])
        with self.assertRaisesRegex(VmError, 'migration'):
            vm.qmp('tlm-estimate', bandwidth=LINK)

    def test_predictions(self):
        guest = RomGuest(mem_mb=512, ws_mb=128)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0, downtime_limit=300)
        answer = self.measure(src)
        self.assertEqual(answer['bandwidth'], LINK)
        floor = answer['populated-bytes'] * 1000 / LINK
        none, auto = (self.prediction(answer, c) for c in ('none', 'auto'))
        for p in (none, auto):
            self.assertGreaterEqual(p['total'], floor)
            self.assertGreaterEqual(p['smallest-bound'], floor)
            self.assertLess(p['smallest-bound'], floor * 1.2 + 50)
            self.assertTrue(p['bound-reachable'])
        # all that is populated is rewritten all the time
        self.assertGreater(none['downtime'], 0.9 * floor)
        self.assertFalse(none['downtime-reachable'])
        self.assertLessEqual(auto['downtime'], 300)
        self.assertTrue(auto['downtime-reachable'])

        # other values, without another measurement
        for bound, wanted in ((floor * 0.8, False), (floor * 3, True)):
            with self.subTest(bound=bound):
                other = self.query(src, time_bound=int(bound))
                self.assertEqual(
                    [p['bound-reachable'] for p in other['predictions']],
                    [wanted] * 2)
                self.assertEqual(other['window'], answer['window'])
        other = self.query(src, bandwidth=2 * LINK)
        self.assertAlmostEqual(self.prediction(other, 'none')['downtime'],
                               none['downtime'] / 2,
                               delta=0.1 * none['downtime'])
        other = self.query(src, downtime_limit=int(2 * floor))
        self.assertTrue(
            self.prediction(other, 'none')['downtime-reachable'])
        migration.set_parameters(src, tlm_time_bound=int(floor * 0.8))
        self.assertFalse(
            self.query(src)['predictions'][0]['bound-reachable'])

    def test_cap(self):
        """The cap holds the live stage down; the link, all of it."""
        guest = RomGuest(mem_mb=512, ws_mb=128, rate=100)
        src = self.start_source(guest)
        totals = []
        for cap in (0, LINK // 4):
            migration.set_parameters(src, max_bandwidth=cap)
            answer = self.measure(src)
            totals.append(self.prediction(answer, 'none')['total'])
        self.assertGreater(totals[1], 2 * totals[0])
        migration.set_parameters(src, max_bandwidth=100 * LINK)
        total = self.prediction(self.query(src), 'none')['total']
        self.assertAlmostEqual(total, totals[0], delta=0.2 * totals[0])


class Script(EstimateCase):
    def run_script(self, vm, *options):
        # QEMU's monitor serves one client: make way
        vm.monitor.close()
        try:
            return subprocess.run(
                [sys.executable, SCRIPT, '--qmp', vm.qmp_path, *options],
                capture_output=True, text=True, timeout=120)
        finally:
            from qemu.qmp.legacy import QEMUMonitorProtocol
            vm.monitor = QEMUMonitorProtocol(vm.qmp_path)
            vm.monitor.connect()

    def test_script(self):
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        p = self.run_script(src, '--bandwidth', '0.8Gbit/s', '--json')
        self.assertEqual(p.returncode, 0, p.stderr)
        answer = json.loads(p.stdout)
        self.assertEqual(answer['bandwidth'], 100000000)
        self.assertEqual(answer['status'], 'measured')
        self.assertEqual(self.query(src)['window'], answer['window'])

        p = self.run_script(src, '--bandwidth', '100MB/s', '--window', '200',
                            '--bound', '60000')
        self.assertEqual(p.returncode, 0, p.stderr)
        for words in ('RAM', 'plain TLM', 'converge=auto', 'smallest bound',
                      'can be kept'):
            self.assertIn(words, p.stdout)
        p = self.run_script(src, '--bandwidth', '100MB/s', '--window', '200',
                            '--bound', '1')
        self.assertEqual(p.returncode, 3, p.stderr)
        self.assertIn('cannot be kept', p.stdout)

        # refused by QEMU; by the script
        p = self.run_script(src, '--bandwidth', '100MB/s', '--window', '1')
        self.assertEqual(p.returncode, 1)
        self.assertIn('window', p.stderr)
        p = self.run_script(src, '--bandwidth', '100 horses')
        self.assertEqual(p.returncode, 2)
        # nothing was changed by it
        self.assertEqual(
            src.qmp('query-migrate-parameters')['tlm-time-bound'], 0)

    def test_units(self):
        script = load(SCRIPT)
        for text, wanted in (('1000', 1000), ('2.4Gbit/s', 300000000),
                             ('300MB/s', 300000000), ('10Gbps', 1250000000),
                             ('286MiB/s', 286 * MB), ('8kb/s', 1000)):
            with self.subTest(text=text):
                self.assertEqual(script.parse_bandwidth(text), wanted)
        for text in ('', '0', '-1MB/s', '1.2.3', '5 horses', '1 B/h', 'inf'):
            with self.subTest(text=text), \
                    self.assertRaises(argparse.ArgumentTypeError):
                script.parse_bandwidth(text)


def load(path):
    """A script without .py as a module."""
    loader = importlib.machinery.SourceFileLoader('tlm_estimate', path)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('tlm_estimate', loader))
    loader.exec_module(module)
    return module


if __name__ == '__main__':
    unittest.main()
