# Base class of the integration tests
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import os
import unittest

from . import env, migration
from .link import Loopback
from .qtest import QTest
from .ram import compare_ram
from .vm import Vm, wait_until
from .wirecheck import WireCheck

PAGE = 4096
MB = 1 << 20

# Slow enough for several epochs; the guests dirty memory far faster
SLOW = 50 * MB
# Slow enough to act in the middle of the live stage, if the guest leaves
# pages for mtx: one that rewrites its set in every epoch is soon passed
CRAWL = 10 * MB
STEADY = 2000                   # pages/s


class MigrationCase(unittest.TestCase):
    src_binary = env.QEMU
    dst_binary = env.STOCK_QEMU
    # what differs between the two sides: set on the source only
    src_caps = {}

    @classmethod
    def setUpClass(cls):
        reason = env.missing_qemu(cls.src_binary, cls.dst_binary)
        if reason:
            raise unittest.SkipTest(reason)

    @contextlib.contextmanager
    def sub(self, **params):
        """A subtest that ends its own VMs, failed or not."""
        with self.subTest(**params):
            try:
                yield
            finally:
                self.doCleanups()

    def need_accel(self, accel):
        if accel == 'kvm':
            for binary in {self.src_binary, self.dst_binary}:
                reason = env.missing_kvm(binary)
                if reason:
                    self.skipTest(reason)

    def start_vm(self, name, binary, args, netns=None):
        vm = Vm(name, binary, args, netns)
        self.addCleanup(vm.close)
        return vm.start()

    def start_source(self, guest, accel='tcg', link=Loopback, extra=()):
        """Start the guest and wait until its memory is in use."""
        self.need_accel(accel)
        self.addCleanup(guest.close)
        src = self.start_vm('src', self.src_binary,
                            [*guest.args(accel), *extra],
                            link.src_netns)
        guest.wait_filled(src)
        guest.wait_alive(src)
        return src

    def start_source_with_qtest(self, guest, link=Loopback, extra=()):
        """... and somebody who writes to its memory and devices."""
        path = os.path.join(guest.dir, 'qtest')
        src = self.start_source(guest, link=link, extra=(
            *extra, '-qtest', f'unix:{path},server=on,wait=off',
            '-qtest-log', 'none'))
        qtest = QTest(path)
        self.addCleanup(qtest.close)
        return src, qtest

    def start_destination(self, guest, accel='tcg', link=Loopback, extra=(),
                          name='dst'):
        return self.start_vm(name, self.dst_binary,
                             [*guest.args(accel), *extra, '-S',
                              '-incoming', 'defer'], link.dst_netns)

    def connect(self, src, dst, channels=2, link=Loopback, wire=False,
                caps=None, **params):
        """Set both sides up; returns the (host, port) to migrate to and the
        WireCheck in between, if wanted."""
        common = {'multifd': True, **(caps or {})}
        migration.set_capabilities(dst, **common)
        migration.set_capabilities(src, **common, **self.src_caps)
        migration.set_parameters(dst, multifd_channels=channels)
        migration.set_parameters(src, multifd_channels=channels, **params)
        address = migration.listen(dst, link.address)
        if not wire:
            return address, None
        check = WireCheck(*address, netns=link.src_netns)
        self.addCleanup(check.close)
        return check.address, check

    def assert_same_ram(self, src, dst, check=None):
        """check: the WireCheck, to tell the first bad page's history."""
        result = compare_ram(src, dst)
        self.assertGreater(result.pages, 0)
        if not result.equal():
            if check and result.first:
                result.history = check.history(*result.first[:2])
            self.fail(str(result))
        return result

    def assert_guest_well(self, guest, vm):
        """The guest runs, and has checked all of its memory since now."""
        guest.wait_alive(vm)
        guest.wait_scans(vm)
        self.assertFalse(self.was_reset(vm), f'{vm.name} was reset')

    @staticmethod
    def was_reset(vm):
        """A guest whose vCPUs have lost their state may have begun anew, and
        be well."""
        vm.pull_events()
        return 'RESET' in {e['event'] for e in vm.events}

    def assert_wire_clean(self, report, channels):
        self.assertEqual(report['errors'], [])
        self.assertEqual(report['num_violations'], 0, report['violations'])
        self.assertEqual(len(report['channels']), channels)
        self.assertGreater(report['pages'], 0)

    def wire_report(self, src, check, channels):
        """What @check, if there is one, has seen of a migration that is over,
        which must be clean.  Ends the source."""
        if not check:
            return None
        # The destination holds no connection once it has completed; the
        # source closes its own when it ends
        src.close()
        report = check.report()
        self.assert_wire_clean(report, channels)
        return report

    def finish(self, guest, src, dst, check=None):
        """After a completed migration: compare RAM, run on, check."""
        migration.wait_loaded(dst)
        result = self.assert_same_ram(src, dst, check)
        dst.qmp('cont')
        self.assert_guest_well(guest, dst)
        return result

    def migrate(self, guest, accel='tcg', channels=2, link=Loopback,
                wire=False, caps=None, timeout=120, extra=(), **params):
        """A whole migration with all checks.  Returns the source's last
        query-migrate, and what WireCheck reports."""
        src = self.start_source(guest, accel, link, extra)
        dst = self.start_destination(guest, accel, link, extra)
        address, check = self.connect(src, dst, channels, link, wire, caps,
                                      **params)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed', timeout)
        self.finish(guest, src, dst, check)
        return info, self.wire_report(src, check, channels)


class TlmCase(MigrationCase):
    """From the patched QEMU to the stock one."""

    src_caps = {'tlm': True}

    def assert_tlm_info(self, info, report=None):
        """What query-migrate says after the end, against the wire."""
        tlm = info['tlm']
        self.assertEqual(tlm['stage'], 'done')
        self.assertEqual(tlm['progress'], 100)
        self.assertGreater(tlm['epochs']['count'], 0)
        sent = tlm['ram']['mtx'] + tlm['ram']['dtx'] + tlm['ram']['stop']
        owed = info['ram']['total'] - tlm['ram']['skipped']
        self.assertGreaterEqual(sent, owed)
        if report:
            self.assertEqual(report['pages'] * PAGE, sent)
            self.assertEqual(report['pages_sent_again'] * PAGE,
                             tlm['ram']['resent'])
            self.assertEqual(report['distinct_pages'] * PAGE, owed)

    def stages(self, src):
        src.pull_events()
        return [e['data']['stage'] for e in src.events
                if e['event'] == 'MIGRATION_TLM_STAGE']

    def wait_stage(self, src, stage, timeout=60):
        src.wait_event('MIGRATION_TLM_STAGE', timeout,
                       lambda data: data['stage'] == stage)

    def assert_runs_on(self, guest, src):
        """After a migration that did not happen."""
        migration.wait_idle(src)
        wait_until(lambda: src.status() == 'running', 30,
                   'the guest runs on at the source')
        self.assert_guest_well(guest, src)
        threads = [t['name'] for t in src.qmp('query-migrationthreads')]
        self.assertEqual(threads, [])

    def migrate_again(self, guest, src, accel='tcg', channels=2, wire=True):
        """A migration that must succeed, after whatever has happened."""
        dst = self.start_destination(guest, accel, name='dst2')
        migration.set_parameters(src, max_bandwidth=SLOW)
        address, check = self.connect(src, dst, channels, wire=wire)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst, check)
        self.assert_tlm_info(info, self.wire_report(src, check, channels))
