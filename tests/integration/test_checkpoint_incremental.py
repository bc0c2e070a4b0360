#!/usr/bin/python3
#
# Incremental checkpoints by TLM: what ends a chain, what does not, and that
# each generation, joined with those before, is what a stock QEMU restores
#
# The manager's gate (pause-before-switchover) holds the guest in the pause,
# until all of its RAM has been read: that is what must be restored.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest

from test_populated import Balloon
from tlm.checkpoint import mappedram
from tlmtest import env, migration
from tlmtest.case import CRAWL, MB, PAGE, STEADY, TlmCase
from tlmtest.guests import LinuxGuest, RomGuest
from tlmtest.ram import FrozenRam
from tlmtest.vm import VmError, wait_until

SMALL_DISK = 24                 # MB
# Generations of the mixed run; TLM_REPEAT=5 makes it five times as long
GENERATIONS = 10 * int(os.environ.get('TLM_REPEAT', 1))


class Chain:
    """The checkpoints of a running VM, and a file that any QEMU restores."""

    def __init__(self, case, src):
        self.case, self.src = case, src
        directory = tempfile.TemporaryDirectory(prefix='tlm-chain-')
        case.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, 'vm')
        self.part = os.path.join(directory.name, 'part')
        self.newest, self.was_child = None, False

    def begin(self, uri=None, gate=False, **arguments):
        if self.newest:
            arguments.setdefault('parent', self.newest)
        if not arguments.get('parent'):
            arguments.pop('parent', None)
        arguments.setdefault('incremental', True)
        migration.set_capabilities(self.src, pause_before_switchover=gate)
        self.src.pull_events()
        self.src.events = [e for e in self.src.events
                           if e['event'] != 'MIGRATION_TLM_STAGE']
        self.src.qmp('tlm-checkpoint', uri=uri or f'file:{self.part}',
                     **arguments)

    def take(self, **arguments):
        """Returns RAM as it was in the pause, and the "checkpoint" of
        query-migrate."""
        # All RAM is read at the gate, which takes longer than a second
        self.begin(gate=True, gate_timeout=0, **arguments)
        migration.wait_status(self.src, 'pre-switchover')
        frozen = FrozenRam(self.src)
        self.src.qmp('migrate-continue', state='pre-switchover')
        return frozen, self.end(migration.wait_status(self.src, 'completed'))

    def end(self, info):
        """It has completed."""
        migration.wait_idle(self.src)
        kept = info['tlm']['checkpoint']
        self.newest = kept.get('generation')
        self.was_child = 'parent' in kept
        if self.was_child:
            self.join()
        else:
            os.replace(self.part, self.path)
        return kept

    def join(self):
        with open(self.part, 'rb') as child, open(self.path, 'r+b') as parent:
            mappedram.apply(child.fileno(), parent.fileno())

    def pages(self):
        """Of the last incremental file."""
        with open(self.part, 'rb') as f:
            return sum(mappedram.pages(f.fileno(), b)
                       for b in mappedram.blocks(f.fileno()))


class Case(TlmCase):
    def start_chain(self, guest, accel='tcg', extra=()):
        self.guest, self.accel, self.extra = guest, accel, extra
        self.src = self.start_source(guest, accel, extra=extra)
        migration.set_parameters(self.src, max_bandwidth=0)
        return Chain(self, self.src)

    def restore(self, chain, frozen):
        dst = self.start_destination(self.guest, self.accel, extra=self.extra)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, chain.path)
        self.finish(self.guest, frozen, dst)
        dst.close()

    def assert_child(self, chain, parent=None, **arguments):
        """The next one has what has changed since @parent, and all of it."""
        parent = parent or chain.newest
        frozen, kept = chain.take(parent=parent, **arguments)
        self.assertNotIn('full-reason', kept)
        self.assertEqual(kept['parent'], parent)
        self.restore(chain, frozen)
        return kept

    def assert_full(self, chain, why, restore=True, **arguments):
        frozen, kept = chain.take(**arguments)
        self.assertNotIn('parent', kept)
        self.assertRegex(kept['full-reason'], why)
        if restore:
            self.restore(chain, frozen)
        return kept


class Generations(Case):
    def check(self, guest, accel='tcg', extra=(), count=3):
        chain = self.start_chain(guest, accel, extra)
        frozen, kept = chain.take()
        self.assertNotIn('parent', kept)
        self.assertNotIn('full-reason', kept)
        self.restore(chain, frozen)
        for _ in range(count):
            parent = chain.newest
            kept = self.assert_child(chain, parent)
            self.assertNotEqual(kept['generation'], parent)
            guest.wait_scans(self.src, 1)
        self.assert_runs_on(guest, self.src)
        return chain

    def test_small_set(self):
        """Only what has changed is written."""
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                chain = self.check(RomGuest(ws_mb=4), accel)
                self.assertLess(chain.pages() * PAGE, 16 * MB)

    def test_write_heavy(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                self.check(RomGuest(ws_mb=64), accel, count=2)

    def test_linux(self):
        self.check(LinuxGuest(mem_mb=384, ws=64), count=2)

    def test_paused(self):
        """Nothing is written, and nothing is lost when it runs again."""
        guest = RomGuest(ws_mb=16)
        chain = self.start_chain(guest)
        chain.take()
        self.src.qmp('stop')
        self.assert_child(chain)
        frozen, _ = chain.take()
        self.assertLess(chain.pages(), 64)
        self.restore(chain, frozen)
        self.src.qmp('cont')
        guest.wait_scans(self.src, 1)
        self.assert_child(chain)

    def test_parent_of_the_newest(self):
        """For somebody who has lost the newest."""
        guest = RomGuest(ws_mb=16, pattern='uniform', rate=STEADY)
        chain = self.start_chain(guest)
        chain.take()
        older = chain.newest
        kept = self.take_and_lose(chain, older)
        self.assertEqual(kept['parent'], older)
        guest.wait_scans(self.src, 1)
        self.take_and_lose(chain, older)
        self.assert_child(chain, older)
        self.assert_child(chain)

    @staticmethod
    def take_and_lose(chain, parent):
        before = chain.path + '.before'
        shutil.copyfile(chain.path, before)
        _, kept = chain.take(parent=parent)
        os.replace(before, chain.path)
        return kept

    def test_zeroed_and_discarded(self):
        """What has become zero is not what it was in the parent."""
        for shared in (False, True):
            with self.sub(shared=shared):
                guest = RomGuest(mem_mb=256, ws_mb=16, shared=shared)
                self.guest, self.accel, self.extra = guest, 'tcg', Balloon.ARGS
                self.src, qtest = self.start_source_with_qtest(
                    guest, extra=Balloon.ARGS)
                balloon = Balloon(qtest, 200 * MB)
                chain = Chain(self, self.src)
                qtest.do('memset', 100 * MB, 64 * MB, 0x5a)
                chain.take()
                qtest.do('memset', 100 * MB, 8 * MB, 0)
                balloon.inflate(120 * MB, 8 * MB)
                self.assert_child(chain)
                # Written, and discarded before the log is read
                qtest.do('memset', 140 * MB, 4 * MB, 0xa5)
                balloon.inflate(140 * MB, 4 * MB)
                # Used again
                qtest.do('memset', 120 * MB, 4 * MB, 1)
                self.assert_child(chain)

    def test_refused(self):
        guest = RomGuest(ws_mb=4)
        chain = self.start_chain(guest, extra=(
            '-m', '256M,slots=2,maxmem=1G',
            '-object', 'memory-backend-ram,id=vmem,size=128M',
            '-device', 'virtio-mem-pci,memdev=vmem,requested-size=0'))
        with self.assertRaisesRegex(VmError, 'virtio-mem'):
            chain.begin()
        chain.begin(incremental=False)
        migration.wait_status(self.src, 'completed')


class NothingLost(Case):
    """What fails, is cancelled, or only looks, costs the chain nothing."""

    def start_writer(self):
        """A guest of which no two generations are the same."""
        self.chain = self.start_chain(RomGuest(ws_mb=64))
        self.chain.take()
        return self.chain

    def fail(self, uri=None, stop=None, wanted='failed', **arguments):
        """A checkpoint that does not come about."""
        self.chain.begin(uri, **arguments)
        if stop:
            stop()
        info = migration.wait_status(self.src, wanted)
        migration.wait_idle(self.src)
        self.assertNotIn('generation',
                         info.get('tlm', {}).get('checkpoint', {}))
        self.guest.wait_scans(self.src, 1)

    def crawl(self, stage):
        self.wait_stage(self.src, stage)
        migration.wait_ram_sent(self.src, 2)

    def test_cancelled(self):
        for stage, mode in (('live', 'auto'), ('flush', 'copy'),
                            ('flush', 'write-protect')):
            with self.sub(stage=stage, mode=mode):
                self.start_writer()
                for _ in range(2):      # one after the other
                    migration.set_parameters(self.src, max_bandwidth=CRAWL)
                    self.fail(stop=lambda: (
                        self.wait_stage(self.src, stage),
                        self.src.qmp('migrate_cancel')),
                        wanted='cancelled', mode=mode)
                migration.set_parameters(self.src, max_bandwidth=0)
                self.assert_child(self.chain)
                self.assert_child(self.chain)

    def test_cancelled_in_the_pause(self):
        self.start_writer()
        self.fail(gate=True, gate_timeout=0, wanted='cancelled',
                  stop=lambda: (
                      migration.wait_status(self.src, 'pre-switchover'),
                      self.src.qmp('migrate_cancel')))
        self.assert_child(self.chain)

    def test_receiver_dies(self):
        self.start_writer()
        dst = self.start_destination(self.guest)
        migration.set_capabilities(dst, multifd=True)
        host, port = migration.listen(dst)
        migration.set_parameters(self.src, max_bandwidth=CRAWL)
        self.fail(f'tcp:{host}:{port}', lambda: (
            self.wait_stage(self.src, 'flush'), dst.kill()))
        migration.set_parameters(self.src, max_bandwidth=0)
        self.assert_child(self.chain)

    def test_disk_full(self):
        place = tempfile.mkdtemp(prefix='tlm-small-')
        self.addCleanup(os.rmdir, place)
        mount = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={SMALL_DISK}m', 'tmpfs',
             place], capture_output=True, text=True, check=False)
        if mount.returncode:
            self.skipTest(f'no small disk: {mount.stderr.strip()}')
        self.addCleanup(subprocess.run, ['umount', place], check=True)
        self.start_writer()
        self.fail(f'file:{place}/vm')
        self.assert_child(self.chain)

    def test_not_begun(self):
        self.start_writer()
        with self.assertRaisesRegex(VmError, 'nowhere'):
            self.chain.begin('file:/nowhere/vm')
        self.fail('tcp:127.0.0.1:1')
        self.assert_child(self.chain)

    def test_calc_dirty_rate(self):
        """It reads the log, and leaves it as it is."""
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                chain = self.start_chain(RomGuest(ws_mb=16), accel)
                chain.take()
                self.src.qmp('calc-dirty-rate', calc_time=1,
                             mode='dirty-bitmap')
                wait_until(lambda: self.src.qmp('query-dirty-rate')['status']
                           == 'measured', 60, 'the rate is measured')
                self.assert_child(chain)
                self.assert_child(chain)

    def test_reset(self):
        self.start_writer()
        self.src.qmp('system_reset')
        self.src.wait_event('RESET')
        self.assert_child(self.chain)


class Ended(Case):
    """Others that use the dirty log: the next one is full, and says why."""

    def start_small(self, **arguments):
        self.chain = self.start_chain(RomGuest(ws_mb=4), **arguments)
        self.chain.take()
        return self.chain

    def assert_log_off(self, off=True):
        """By what QEMU shows of its trace event."""
        changes = re.findall(r'global_dirty_changed bitmask (0x[0-9a-f]+)',
                             self.src.messages())
        self.assertEqual(int(changes[-1], 16) == 0, off, changes)

    def test_migration(self):
        for tlm in (False, True):
            with self.sub(tlm=tlm):
                chain = self.start_small()
                dst = self.start_destination(self.guest)
                address, _ = self.connect(self.src, dst, max_bandwidth=CRAWL)
                migration.set_capabilities(self.src, tlm=tlm)
                migration.start(self.src, *address)
                migration.wait_ram_sent(self.src, 1)
                self.src.qmp('migrate_cancel')
                migration.wait_status(self.src, 'cancelled')
                migration.wait_idle(self.src)
                dst.close()
                migration.set_capabilities(self.src, tlm=False, multifd=False)
                migration.set_parameters(self.src, max_bandwidth=0)
                self.assert_full(chain, 'migration or a snapshot')
                self.assert_child(chain)

    def test_snapshots(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-disk-')
        self.addCleanup(directory.cleanup)
        disk = os.path.join(directory.name, 'disk.qcow2')
        subprocess.run([os.path.join(os.path.dirname(env.QEMU), 'qemu-img'),
                        'create', '-q', '-f', 'qcow2', disk, '512M'],
                       check=True)
        chain = self.start_small(extra=('-drive', f'if=none,file={disk}'))
        self.assertEqual(self.src.hmp('savevm one'), '')
        # Restored without a disk that the other QEMU holds
        self.extra = ()
        self.assert_full(chain, 'migration or a snapshot')
        self.assert_child(chain)
        self.assertEqual(self.src.hmp('loadvm one'), '')
        self.assert_full(chain, 'loaded from a snapshot')
        self.assert_child(chain)

    def test_background_snapshot(self):
        chain = self.start_small()
        migration.set_capabilities(self.src, pause_before_switchover=False)
        try:
            migration.set_capabilities(self.src, background_snapshot=True)
        except VmError as e:
            self.skipTest(str(e))
        migration.start_to_file(self.src, chain.part)
        migration.wait_status(self.src, 'completed')
        migration.set_capabilities(self.src, background_snapshot=False)
        wait_until(lambda: self.src.status() == 'running', 30, 'it runs')
        migration.wait_idle(self.src)
        self.assert_full(chain, 'migration or a snapshot')
        self.assert_child(chain)

    def test_dry_run(self):
        chain = self.start_small()
        self.src.qmp('tlm-estimate', bandwidth=100 * MB, window=200)
        wait_until(lambda: self.src.qmp('query-tlm-estimate')['status'] ==
                   'measured', 60, 'the guest has been watched')
        self.assert_full(chain, 'dry run')
        self.assert_child(chain)

    def test_layout(self):
        chain = self.start_small(extra=('-m', '256M,slots=2,maxmem=1G'))
        self.src.qmp('object-add', qom_type='memory-backend-ram', id='more',
                     size=128 * MB)
        self.src.qmp('device_add', driver='pc-dimm', id='dimm', memdev='more')
        self.assert_full(chain, 'layout', restore=False)
        self.extra = (*self.extra, '-object',
                      'memory-backend-ram,id=more,size=128M',
                      '-device', 'pc-dimm,id=dimm,memdev=more')
        self.assert_child(chain)

    def test_other_generations(self):
        """One that never was, and one from too long ago."""
        chain = self.start_small()
        first = chain.newest
        chain.newest = '00000000-0000-0000-0000-000000000000'
        self.assert_full(chain, 'not known')
        chain.newest = first
        self.assert_full(chain, 'not known')
        for _ in range(2):
            chain.take()
        self.assert_child(chain)

    def test_log_off(self):
        """By the user: nobody else would."""
        chain = self.start_small(extra=('-trace', 'global_dirty_changed'))
        self.assert_log_off(False)
        self.src.qmp('tlm-checkpoint-forget')
        self.assert_log_off()
        self.src.qmp('tlm-checkpoint-forget')
        self.assert_full(chain, 'tlm-checkpoint-forget')
        self.assert_log_off(False)
        newest = chain.newest
        kept = self.assert_child(chain, incremental=False)
        self.assertNotIn('generation', kept)
        self.assert_log_off()
        chain.newest = newest
        self.assert_full(chain, "without 'incremental'")

    def test_failed(self):
        """A full one has no parent that could have a child instead."""
        chain = self.start_small()
        newest, chain.newest = chain.newest, None
        migration.set_parameters(self.src, max_bandwidth=CRAWL)
        chain.begin()
        self.wait_stage(self.src, 'live')
        self.src.qmp('migrate_cancel')
        migration.wait_status(self.src, 'cancelled')
        migration.wait_idle(self.src)
        migration.set_parameters(self.src, max_bandwidth=0)
        chain.newest = newest
        self.assert_full(chain, 'full checkpoint has failed')
        self.assert_child(chain)

    def test_log_is_used_by_others(self):
        """While the chain has it, a migration must work as ever."""
        self.start_small()
        migration.set_capabilities(self.src, pause_before_switchover=False)
        self.migrate_again(self.guest, self.src)


class Mixed(Case):
    def test_generations(self):
        """Whatever happens, each generation is right; memory stays flat."""
        rand = random.Random(GENERATIONS)
        chain = self.start_chain(RomGuest(ws_mb=32, pattern='hotcold'))
        chain.take()
        for i in range(GENERATIONS):
            for _ in range(rand.randrange(3)):
                self.disturb(chain, rand)
            older = chain.newest
            frozen, kept = chain.take(
                mode=rand.choice(('copy', 'write-protect')))
            self.assertEqual('parent' in kept, 'full-reason' not in kept)
            self.assertNotEqual(older, chain.newest)
            self.restore(chain, frozen)
            if i == 1:
                begin = self.resident()
        self.assertLess(self.resident(), begin + 64 * MB)
        self.assert_runs_on(self.guest, self.src)

    def resident(self):
        """What QEMU has in memory, without the guest's."""
        with open(f'/proc/{self.src.pid}/status', encoding='ascii') as f:
            return 1024 * int(re.search(r'VmRSS:\s+(\d+)', f.read())[1])

    def disturb(self, chain, rand):
        what = rand.choice(('cancel', 'cancel', 'rate', 'forget', 'pause'))
        if what == 'cancel':
            migration.set_parameters(self.src, max_bandwidth=CRAWL)
            chain.begin()
            self.wait_stage(self.src, rand.choice(('live', 'flush')))
            self.src.qmp('migrate_cancel')
            migration.wait_status(self.src, ('cancelled', 'completed'))
            migration.wait_idle(self.src)
            migration.set_parameters(self.src, max_bandwidth=0)
        elif what == 'rate':
            self.src.qmp('calc-dirty-rate', calc_time=100,
                         calc_time_unit='millisecond', mode='dirty-bitmap')
            wait_until(lambda: self.src.qmp('query-dirty-rate')['status'] ==
                       'measured', 60, 'the rate is measured')
        elif what == 'forget':
            self.src.qmp('tlm-checkpoint-forget')
        else:
            self.src.qmp('stop')
            self.src.qmp('cont')


if __name__ == '__main__':
    unittest.main()
