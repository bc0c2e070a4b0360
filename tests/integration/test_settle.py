#!/usr/bin/python3
#
# Before the guest is stopped, the source asks the destination whether it has
# loaded all that was sent.  The answers come late, or not at all: the source's
# trace says how long it has waited, and all RAM of both sides is compared.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import re
import threading
import unittest

from tlmtest import migration, trace
from tlmtest.case import SLOW, STEADY, TlmCase
from tlmtest.delay import Delay
from tlmtest.guests import RomGuest
from tlmtest.vm import wait_until

TRACE = ('-trace', 'tlm_settle', '-trace', 'tlm_stage')
PING_TRACE = ('-trace', 'loadvm_process_command_ping')
PING = re.compile(r'loadvm_process_command_ping .*0x544c4d')
ONE_WAY_S = 0.05
# As in planner/plan.c: so long without a bound, and so many times
LIMIT_US = 1000000
ATTEMPTS = 3
# A host that is busy for LIMIT_US answers too late: that must not be the rule
TRIES = 5


class Settle(TlmCase):
    def begin(self, guest, answers=None, caps=None, **params):
        """A migration over a path of its own; returns both VMs."""
        src = self.start_source(guest, extra=TRACE)
        dst = self.start_destination(guest, extra=PING_TRACE)
        migration.set_capabilities(src, events=True)
        params = {'max_bandwidth': SLOW, 'downtime_limit': 2000, **params}
        address, _ = self.connect(
            src, dst, caps=caps or {'return-path': True},
            **{name.replace('_', '-'): v for name, v in params.items()})
        path = Delay(address, ONE_WAY_S, answers)
        self.addCleanup(path.close)
        migration.start(src, '127.0.0.1', path.port)
        return src, dst

    def waits(self, src):
        """[(answered, us)] of each time the source has asked, and has not
        stopped the guest yet."""
        text = trace.read(src).split('tlm_stage stop')[0]
        return [(m[1] == '1', int(m[2])) for m in re.finditer(
            r'tlm_settle answered (\d), after (\d+) us', text)]

    def complete(self, guest, src, dst):
        info = migration.wait_status(src, 'completed')
        self.finish(guest, src, dst)
        self.assert_tlm_info(info)
        return self.waits(src)

    def test_guest_runs_until_the_answer(self):
        for _ in range(TRIES):
            guest = RomGuest(ws_mb=64)
            waits = self.complete(guest, *self.begin(guest))
            self.assertGreaterEqual(len(waits), 1)
            answered, us = waits[-1]
            self.assertGreaterEqual(us, 2 * ONE_WAY_S * 1e6)
            self.doCleanups()
            if answered:
                return
            self.assertGreaterEqual(us, LIMIT_US)
        self.fail('no answer has ever come in time')

    def test_no_answer(self):
        """It is not waited for without end.  What the guest writes meanwhile
        arrives: finish() compares all RAM."""
        guest = RomGuest(ws_mb=64)
        answers = threading.Event()
        self.addCleanup(answers.set)
        src, dst = self.begin(guest, answers)
        self.wait_stage(src, 'device')
        answers.set()           # or the source would wait for the last one
        (answered, us), = self.complete(guest, src, dst)
        self.assertFalse(answered)
        self.assertGreaterEqual(us, LIMIT_US)

    def test_decided_again(self):
        """A guest that writes on makes what is left too much, again and
        again: the live stage ends nevertheless."""
        guest = RomGuest(ws_mb=64, pattern='uniform', rate=STEADY)
        answers = threading.Event()
        self.addCleanup(answers.set)
        src, dst = self.begin(guest, answers, tlm_converge='auto',
                              downtime_limit=60)
        self.wait_stage(src, 'device')
        answers.set()
        waits = self.complete(guest, src, dst)
        self.assertEqual(len(waits), ATTEMPTS)
        self.assertFalse(any(answered for answered, _ in waits))

    def test_cancelled_meanwhile(self):
        guest = RomGuest(ws_mb=64)
        answers = threading.Event()
        self.addCleanup(answers.set)
        src, dst = self.begin(guest, answers)
        wait_until(lambda: PING.search(trace.read(dst)), 60,
                   'the destination has been asked')
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        answers.set()
        self.assert_runs_on(guest, src)
        dst.close()
        self.migrate_again(guest, src, wire=False)

    def test_without_return_path(self):
        guest = RomGuest(ws_mb=64)
        src, dst = self.begin(guest, caps={'return-path': False})
        self.assertEqual(self.complete(guest, src, dst), [])
        self.assertIsNone(PING.search(trace.read(dst)))


if __name__ == '__main__':
    unittest.main(verbosity=2)
