#!/usr/bin/python3
#
# Checkpoints that wait: held before the pause until somebody asks for it, and
# at the manager's gate in the pause; and who wants something of the guest
# meanwhile
#
# SPDX-License-Identifier: GPL-2.0-or-later

import unittest

from tlmtest import migration
from tlmtest.case import CRAWL, MB, STEADY
from tlmtest.checkpoint import CheckpointCase
from tlmtest.guests import RomGuest
from tlmtest.ram import FrozenRam
from tlmtest.vm import VmError, wait_until

SHORT_MS = 200
ENOUGH_MS = 5000                # for a test to stop the guest meanwhile
LONG_MS = 600000                # never, in a test
RACES = 20


class WaitingCase(CheckpointCase):
    def setUp(self):
        self.guest = RomGuest(ws_mb=64)

    def start(self, **parameters):
        src = self.start_source(self.guest)
        migration.set_parameters(src, max_bandwidth=0, **parameters)
        return src

    def assert_unharmed(self, src):
        self.assert_runs_on(self.guest, src)
        self.assert_as_before(src)

    @staticmethod
    def order(src):
        """Of stages, and of stops and starts."""
        src.pull_events()
        return [e['data']['stage'] if e['event'] == 'MIGRATION_TLM_STAGE'
                else e['event'] for e in src.events
                if e['event'] in ('MIGRATION_TLM_STAGE', 'STOP', 'RESUME')]


class Hold(WaitingCase):
    def begin_held(self, src, **arguments):
        path = self.path()
        self.begin(src, f'file:{path}', hold=True, **arguments)
        return path

    def assert_held(self, src):
        self.wait_stage(src, 'ready')
        epochs = self.tlm(src)['epochs']['count']
        wait_until(lambda: self.tlm(src)['epochs']['count'] > epochs + 3, 60,
                   'epochs go by')
        tlm = self.tlm(src)
        self.assertEqual((tlm['stage'], tlm['decision']), ('ready', 'held'))
        self.assertEqual(src.status(), 'running')

    @staticmethod
    def tlm(src):
        return src.qmp('query-migrate')['tlm']

    def test_hold(self):
        src = self.start()
        path = self.begin_held(src, gate=True)
        self.assert_held(src)
        self.assertEqual(self.tlm(src)['guest']['speed'], 1)
        src.qmp('migrate-tlm-switchover')
        migration.wait_status(src, 'pre-switchover')
        frozen = FrozenRam(src)
        src.qmp('migrate-continue', state='pre-switchover')
        migration.wait_status(src, 'completed')
        self.assertEqual(self.order(src), [
            'setup', 'live', 'STOP', 'stop', 'RESUME', 'flush', 'done'])
        self.assert_unharmed(src)
        src.close()
        self.restore(self.guest, frozen, path)

    def test_not_asked_for(self):
        """Without hold nothing is said of being ready."""
        src = self.start()
        self.begin(src, f'file:{self.path()}')
        migration.wait_status(src, 'completed')
        self.assertNotIn('ready', self.order(src))

    def test_asked_for_before_it_is_ready(self):
        self.guest = RomGuest(ws_mb=64, pattern='uniform', rate=STEADY)
        src = self.start()
        migration.set_parameters(src, max_bandwidth=CRAWL)
        self.begin_held(src)
        self.wait_stage(src, 'live')
        src.qmp('migrate-tlm-switchover')
        self.wait_stage(src, 'flush')
        migration.set_parameters(src, max_bandwidth=0)
        migration.wait_status(src, 'completed')
        self.assertNotIn('ready', self.order(src))
        self.assert_unharmed(src)

    def test_slowed_guest(self):
        """It is slowed for the pass at most, and not while it is held."""
        src = self.start(tlm_converge='auto', downtime_limit=1)
        migration.set_parameters(src, max_bandwidth=CRAWL)
        self.begin_held(src)
        self.assert_held(src)
        wait_until(lambda: self.tlm(src)['guest']['speed'] == 1, 60,
                   'it has its full speed')
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        self.assert_unharmed(src)

    def test_time_bound(self):
        """It ends the hold: by a checkpoint, or by none."""
        for action, status in (('complete', 'completed'),
                               ('cancel', 'failed')):
            with self.sub(action=action):
                self.guest = RomGuest(ws_mb=64)
                src = self.start(tlm_time_bound=4000,
                                 tlm_bound_action=action)
                self.begin_held(src, gate=action == 'cancel')
                self.wait_stage(src, 'ready')
                info = migration.wait_status(src, status)
                if status == 'failed':
                    self.assertIn('time bound of 4000 ms', info['error-desc'])
                self.assert_unharmed(src)

    def test_cancel(self):
        src = self.start()
        self.begin_held(src)
        self.assert_held(src)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        self.assert_unharmed(src)
        self.migrate_again(self.guest, src)


class Gate(WaitingCase):
    def to_gate(self, src, timeout_ms=LONG_MS, **arguments):
        path = self.path()
        self.begin(src, f'file:{path}', gate=True, gate_timeout=timeout_ms,
                   **arguments)
        src.wait_event('STOP')
        return path

    def test_nobody_comes(self):
        """The guest does not stay stopped."""
        src = self.start()
        self.to_gate(src, SHORT_MS)
        info = migration.wait_status(src, 'failed')
        self.assertIn(f'{SHORT_MS} ms', info['error-desc'])
        self.assertIn('gate-timeout', info['error-desc'])
        self.assert_unharmed(src)
        with self.assertRaisesRegex(VmError, 'not in expected state'):
            src.qmp('migrate-continue', state='pre-switchover')
        migration.set_capabilities(src, pause_before_switchover=False)
        self.migrate_again(self.guest, src)

    def test_default(self):
        """A second, as nobody said how long."""
        src = self.start()
        migration.set_capabilities(src, pause_before_switchover=True)
        src.qmp('tlm-checkpoint', uri=f'file:{self.path()}')
        info = migration.wait_status(src, 'failed')
        self.assertIn('for 1000 ms', info['error-desc'])
        self.assert_unharmed(src)

    def test_race_with_the_manager(self):
        """Who is answered without an error has not come too late."""
        src = self.start()
        ends = set()
        for i in range(RACES):
            self.to_gate(src, 1 + i)
            try:
                src.qmp('migrate-continue', state='pre-switchover')
                wanted = 'completed'
            except VmError as e:
                self.assertIn('not in expected state', str(e))
                wanted = 'failed'
            ends.add(wanted)
            migration.wait_status(src, wanted)
            migration.wait_idle(src)
        self.assert_unharmed(src)

    def test_cancel(self):
        src = self.start()
        self.to_gate(src)
        migration.wait_status(src, 'pre-switchover')
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        self.assert_unharmed(src)

    def test_connections_lost(self):
        """What is kept cannot be sent: that is noticed."""
        for mode in ('copy', 'write-protect'):
            with self.sub(mode=mode):
                self.guest = RomGuest(ws_mb=64)
                src = self.start()
                dst = self.start_destination(self.guest)
                migration.set_capabilities(dst, multifd=True)
                self.begin(src, 'tcp:%s:%d' % migration.listen(dst), gate=True,
                           mode=mode, gate_timeout=LONG_MS)
                migration.wait_status(src, 'pre-switchover')
                src.qmp('yank', instances=[{'type': 'migration'}])
                src.qmp('migrate-continue', state='pre-switchover')
                migration.wait_status(src, 'failed')
                self.assert_unharmed(src)

    def test_time_bound(self):
        """If it is sooner than the gate's time-out."""
        src = self.start(tlm_time_bound=3000, tlm_bound_action='cancel')
        self.to_gate(src)
        info = migration.wait_status(src, 'failed')
        self.assertIn('time bound of 3000 ms', info['error-desc'])
        self.assert_unharmed(src)

    def test_stopped_by_the_user(self):
        """The checkpoint is good, and the guest stays stopped after it."""
        for end in ('completed', 'failed', 'cancelled'):
            with self.sub(end=end):
                self.guest = RomGuest(ws_mb=64)
                src = self.start()
                path = self.to_gate(
                    src, ENOUGH_MS if end == 'failed' else LONG_MS)
                migration.wait_status(src, 'pre-switchover')
                src.qmp('stop')
                self.assertEqual(src.status(), 'paused')
                frozen = FrozenRam(src) if end == 'completed' else None
                if end == 'completed':
                    src.qmp('migrate-continue', state='pre-switchover')
                elif end == 'cancelled':
                    src.qmp('migrate_cancel')
                migration.wait_status(src, end)
                migration.wait_idle(src)
                self.assertEqual(src.status(), 'paused')
                self.assertNotIn('RESUME', self.order(src))
                src.qmp('cont')
                self.assert_unharmed(src)
                if frozen:
                    src.close()
                    self.restore(self.guest, frozen, path)

    def test_started_by_the_user(self):
        """RAM would not be of one moment: no checkpoint, rather."""
        for then, status in (('cont', 'running'), ('stop', 'paused')):
            with self.sub(then=then):
                self.guest = RomGuest(ws_mb=64)
                src = self.start()
                self.to_gate(src)
                migration.wait_status(src, 'pre-switchover')
                src.qmp('cont')
                src.qmp(then)
                src.qmp('migrate-continue', state='pre-switchover')
                info = migration.wait_status(src, 'failed')
                self.assertIn('started in the pause', info['error-desc'])
                migration.wait_idle(src)
                self.assertEqual(src.status(), status)
                src.qmp('cont')
                self.assert_unharmed(src)

    def test_reset(self):
        """Of a stopped guest: it is done, and the guest goes on."""
        src = self.start()
        self.to_gate(src)
        migration.wait_status(src, 'pre-switchover')
        src.qmp('system_reset')
        src.wait_event('RESET')
        src.qmp('migrate-continue', state='pre-switchover')
        info = migration.wait_status(src, 'failed')
        self.assertIn('reset in the pause', info['error-desc'])
        self.assertEqual(src.status(), 'running')
        self.assert_unharmed(src)

    def test_paused_guest(self):
        """It stays paused, whoever does not come."""
        src = self.start()
        src.qmp('stop')
        src.wait_event('STOP')
        self.begin(src, f'file:{self.path()}', gate=True,
                   gate_timeout=SHORT_MS)
        migration.wait_status(src, 'failed')
        migration.wait_idle(src)
        self.assertEqual(src.status(), 'paused')
        src.qmp('cont')
        self.assert_unharmed(src)

    def test_quit(self):
        src = self.start()
        self.to_gate(src)
        migration.wait_status(src, 'pre-switchover')
        src.qmp('quit')
        self.assertEqual(src.process.wait(60), 0)


class Pauses(WaitingCase):
    def test_guest_that_is_reset(self):
        """Again and again, as are the checkpoints: none begins in the middle
        of a reset, which drops the BQL to wait for the vCPUs."""
        src = self.start()
        for _ in range(RACES):
            self.begin(src, f'file:{self.path()}')
            while migration.status(src) not in migration.FINAL:
                src.qmp('system_reset')
            migration.wait_status(src, 'completed')
            migration.wait_idle(src)
        src.wait_event('RESET')
        self.guest.wait_filled(src)
        src.pull_events()
        src.events.clear()
        self.assert_unharmed(src)

    def test_write_in_the_pause(self):
        """As without a buffer, but the user stops and resets meanwhile."""
        for command, status in (('stop', 'completed'),
                                ('system_reset', 'failed')):
            with self.sub(command=command):
                self.guest = RomGuest(ws_mb=64)
                src = self.start()
                migration.set_parameters(src, max_bandwidth=CRAWL)
                self.begin(src, f'file:{self.path()}', buffer_size=MB)
                self.wait_stage(src, 'stop')
                src.qmp(command)
                migration.set_parameters(src, max_bandwidth=0)
                migration.wait_status(src, status)
                migration.wait_idle(src)
                self.assertEqual(
                    src.status(), 'paused' if command == 'stop' else 'running')
                src.qmp('cont')
                src.pull_events()
                src.events.clear()
                self.assert_unharmed(src)


if __name__ == '__main__':
    unittest.main()
