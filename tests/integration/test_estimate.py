#!/usr/bin/python3
#
# The dry run: tlm-estimate, query-tlm-estimate and "tlm estimate"
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import re
import subprocess
import sys
import time
import unittest

from tlmtest import env, migration
from tlmtest.case import STEADY, MigrationCase
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

    def begin(self, vm, window):
        """Start to measure; the dirty log is on, or has been by now."""
        before = len(self.changes(vm))
        vm.qmp('tlm-estimate', bandwidth=LINK, window=window)
        wait_until(lambda: any(self.changes(vm)[before:]), 30,
                   'the dirty log is on')

    def tracked(self, vm):
        changes = self.changes(vm)
        self.assertTrue(changes, 'no trace of the dirty log')
        return changes[-1]


TRACE = ('-trace', 'global_dirty_changed', '-trace', 'tlm_estimate_watch')
TOOL = os.path.join(env.ROOT, 'scripts/tlm')
KVM_RING = 'kvm,dirty-ring-size=4096'


def tries():
    """Windows in ms, for what may be over too soon on a busy machine, or
    does not come to pass in a short one."""
    return (1000, 3000, 10000, 30000)


class Measured(EstimateCase):
    """What is measured, against what the guest says it does."""

    def watches(self, vm):
        with open(vm.stderr_path) as f:
            return f.read().count('tlm_estimate_watch')

    def measure_beside(self, guest, vm, window):
        """Measure, and look at the guest's progress meanwhile.  Returns the
        answer and how many pages the guest has written at least and at most
        in the window."""
        watches = self.watches(vm)
        before = guest.progress(vm)['pages']
        sent = time.monotonic()
        vm.qmp('tlm-estimate', bandwidth=LINK, window=window)
        wait_until(lambda: self.watches(vm) > watches, 30,
                   'the window begins')
        first = last = guest.progress(vm)['pages']
        while True:
            now = guest.progress(vm)['pages']
            # the window began after the command was sent
            if time.monotonic() >= sent + window / 1000:
                break
            last = now
        answer = self.wait_end(vm)
        after = guest.progress(vm)['pages']
        self.assertEqual(answer['status'], 'measured', answer)
        self.assertGreaterEqual(answer['window'], window)
        # the last of these it may still be writing
        return answer, max(last - first - 1, 0), after - before + 1

    def test_working_set(self):
        """A guest that rewrites all of its set again and again."""
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                guest = RomGuest(ws_mb=32, scan_ms=0)
                src = self.start_source(guest, accel, extra=TRACE)
                for window in tries():
                    answer, least, _most = self.measure_beside(guest, src,
                                                               window)
                    seen = answer['working-set-bytes']
                    # it writes to them in turn
                    self.assertGreaterEqual(seen,
                                            min(least * PAGE, 32 * MB))
                    self.assertLessEqual(seen, 32 * MB + BESIDE)
                    if least * PAGE >= 64 * MB:
                        break
                else:
                    self.fail('the guest is too slow')
                self.assertGreater(answer['dirty-rate'], 0)
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
            with self.sub(accel=accel):
                guest = RomGuest(ws_mb=192, rate=2000, scan_ms=0)
                src = self.start_source(guest, accel, extra=TRACE)
                for window in tries():
                    answer, least, most = self.measure_beside(guest, src,
                                                              window)
                    seen = answer['working-set-bytes']
                    # it writes to them in turn
                    self.assertGreaterEqual(seen,
                                            min(least * PAGE, 192 * MB))
                    self.assertLessEqual(seen, most * PAGE + BESIDE)
                    # the rate is that of samples: the guest must have been
                    # as fast in these as it was between them
                    steady = seen / answer['window'] * 1000
                    if 0.4 < answer['dirty-rate'] / steady < 2.5:
                        break
                else:
                    self.fail(f'no rate near {steady}: {answer}')

    def test_dirty_ring(self):
        """It ends and leaves nothing on.  How much is seen says nothing:
        there are hosts on which, with QEMU's own calc-dirty-rate too, the
        ring loses pages and the guest hardly goes on."""
        self.need_accel('kvm')
        guest = RomGuest(ws_mb=16, scan_ms=0)
        try:
            src = self.start_source(guest, KVM_RING, extra=TRACE)
        except VmError as e:
            if 'dirty ring' not in str(e).lower():
                raise
            self.skipTest('this KVM has no dirty ring')
        answer, _least, most = self.measure_beside(guest, src, 1000)
        self.assertLessEqual(answer['working-set-bytes'],
                             min(most * PAGE, 16 * MB) + BESIDE)
        self.assertEqual(self.tracked(src), 0)

    def test_bql(self):
        """The log is cleared in stretches, however much is dirty."""
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                guest = RomGuest(mem_mb=768, ws_mb=512, scan_ms=0)
                src = self.start_source(
                    guest, accel, extra=('-trace', 'tlm_estimate_clear'))
                self.measure(src)
                with open(src.stderr_path) as f:
                    held = [tuple(map(int, m)) for m in re.findall(
                        r'tlm_estimate_clear (\d+) pieces, with the BQL held '
                        r'for (\d+) us, the last of them for (\d+) us',
                        f.read())]
                # twice to begin with, then at the end of four rounds
                pieces = sum(n for n, _us, _last in held)
                self.assertGreaterEqual(pieces, 6 * 768 // 64)
                self.assertEqual(pieces % 6, 0)
                # none is begun when the time is up
                for n, us, last in held:
                    self.assertLess(us - last, 5000 + 2, held)

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
            with self.sub(shared=shared):
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
            with self.sub(accel=accel):
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
                with self.sub(accel=accel, delay=delay):
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
        answer = self.wait_end(src)
        self.assertEqual(answer['status'], 'failed')
        self.assertIn('migration', answer['error'])
        self.assertNotIn('predictions', answer)
        migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)

    def test_cancelled_migration(self):
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        src = self.start_source(guest, extra=TRACE)
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, max_bandwidth=MB)
        src.qmp('tlm-estimate', bandwidth=LINK, window=60000)
        migration.start(src, *address)
        self.assertEqual(self.wait_end(src)['status'], 'failed')
        with self.assertRaisesRegex(VmError, 'migration is running'):
            src.qmp('tlm-estimate', bandwidth=LINK)
        # its log is on
        wait_until(lambda: migration.status(src) == 'active', 30, 'active')
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

        # how long it measures, in s: a busy machine may miss a short one
        for seconds in (2, 10, 50):
            src.qmp('calc-dirty-rate', calc_time=seconds, mode='dirty-bitmap')
            wait_until(lambda: rate_status() != 'unstarted', 30,
                       'calc-dirty-rate begins')
            try:
                src.qmp('tlm-estimate', bandwidth=LINK)
            except VmError as e:
                self.assertIn('calc-dirty-rate', str(e))
                break
            self.assertTrue(rate_measured())
            self.wait_end(src)
        else:
            self.fail('not refused beside calc-dirty-rate')
        wait_until(rate_measured, 60, 'calc-dirty-rate ends')
        self.measure(src)

        # it starts later and ends later
        for seconds in (2, 10, 50):
            self.begin(src, window=250 * seconds)
            src.qmp('calc-dirty-rate', calc_time=seconds,
                    mode='dirty-bitmap')
            beside = self.query(src)['status'] == 'measuring'
            answer = self.wait_end(src)
            went_on = not rate_measured()
            wait_until(rate_measured, 60, 'calc-dirty-rate ends')
            if beside and went_on:
                self.assertEqual(answer['status'], 'measured')
                break
        else:
            self.fail('calc-dirty-rate was broken off')
        self.assertEqual(self.tracked(src), 0)

        # it starts later and ends earlier
        self.begin(src, window=60000)
        src.qmp('calc-dirty-rate', calc_time=1, mode='dirty-bitmap')
        wait_until(rate_measured, 30, 'calc-dirty-rate ends')
        answer = self.wait_end(src)
        self.assertEqual(answer['status'], 'failed')
        self.assertIn('calc-dirty-rate', answer['error'])
        self.assertEqual(self.tracked(src), 0)
        self.assert_guest_well(guest, src)

    def test_guest_stopped_meanwhile(self):
        guest = RomGuest(ws_mb=16)
        src = self.start_source(guest, extra=TRACE)
        for window in tries():
            self.begin(src, window)
            src.qmp('stop')
            meanwhile = self.query(src)['status'] == 'measuring'
            self.assertEqual(self.wait_end(src)['status'], 'measured')
            src.qmp('cont')
            if meanwhile:
                break
        else:
            self.fail('it was over before the guest was stopped')
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
        for window in tries():
            src.qmp('tlm-estimate', bandwidth=LINK, window=window)
            try:
                src.qmp('tlm-estimate', bandwidth=LINK)
            except VmError as e:
                self.assertIn('measurement is running', str(e))
                break
            self.wait_end(src)
        else:
            self.fail('two measurements at once')
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
        # all that is populated is rewritten, much faster than the link
        for window in tries():
            answer = self.measure(src, window=window)
            if (answer['working-set-bytes'] >= 128 * MB and
                    answer['dirty-rate'] > 2 * LINK):
                break
        else:
            self.fail(f'the guest is too slow: {answer}')
        self.assertEqual(answer['bandwidth'], LINK)
        floor = answer['populated-bytes'] * 1000 / LINK
        none, auto = (self.prediction(answer, c) for c in ('none', 'auto'))
        for p in (none, auto):
            self.assertGreaterEqual(p['total'], floor)
            self.assertGreaterEqual(p['smallest-bound'], floor)
            self.assertLess(p['smallest-bound'], floor * 1.2 + 50)
            self.assertTrue(p['bound-reachable'])
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


class Command(EstimateCase):
    def run_tool(self, vm, *options):
        # QEMU's monitor serves one client: make way
        vm.monitor.close()
        try:
            return subprocess.run(
                [sys.executable, TOOL, 'estimate', '--qmp', vm.qmp_path,
                 *options],
                capture_output=True, text=True, timeout=120)
        finally:
            from qemu.qmp.legacy import QEMUMonitorProtocol
            vm.monitor = QEMUMonitorProtocol(vm.qmp_path)
            vm.monitor.connect()

    def test_command(self):
        guest = RomGuest(ws_mb=64)
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=0)
        p = self.run_tool(src, '--bandwidth', '0.8Gbit/s', '--json')
        self.assertEqual(p.returncode, 0, p.stderr)
        answer = json.loads(p.stdout)
        self.assertEqual(answer['bandwidth'], 100000000)
        self.assertEqual(answer['status'], 'measured')
        self.assertEqual(self.query(src)['window'], answer['window'])

        p = self.run_tool(src, '--bandwidth', '100MB/s', '--window', '200ms',
                          '--bound', '1min')
        self.assertEqual(p.returncode, 0, p.stderr)
        for words in ('RAM', 'plain TLM', 'converge=auto', 'smallest bound',
                      'can be kept'):
            self.assertIn(words, p.stdout)
        p = self.run_tool(src, '--bandwidth', '100MB/s', '--window', '200ms',
                          '--bound', '1ms')
        self.assertEqual(p.returncode, 3, p.stderr)
        self.assertIn('cannot be kept', p.stdout)

        # refused by QEMU; by the command
        p = self.run_tool(src, '--bandwidth', '100MB/s', '--window', '1ms')
        self.assertEqual(p.returncode, 1)
        self.assertIn('window', p.stderr)
        p = self.run_tool(src, '--bandwidth', '100 horses')
        self.assertEqual(p.returncode, 2)
        # nothing was changed by it
        self.assertEqual(
            src.qmp('query-migrate-parameters')['tlm-time-bound'], 0)


if __name__ == '__main__':
    unittest.main()
