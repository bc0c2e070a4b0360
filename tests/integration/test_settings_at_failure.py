#!/usr/bin/python3
#
# Settings that a manager changes as soon as a migration has failed
#
# The status is "failed" before QEMU has closed its channels, and from then on
# capabilities and parameters can be set.  A second client sets them all the
# time, so it does so in the first moment in which it can.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import socket
import tempfile
import threading
import unittest

from tlmtest import migration
from tlmtest.case import MigrationCase
from tlmtest.guests import RomGuest
from tlmtest.vm import PATIENCE, VmError, wait_until

CRAWL = 2 << 20             # bytes/s: it does not end by itself
STEADY = 500                # pages/s
BATCH = 8                   # requests that QEMU takes before it answers
ROUNDS = 5


class Setter(threading.Thread):
    """Executes @command, again and again, until it has been obeyed once."""

    def __init__(self, path, command, arguments):
        super().__init__(daemon=True)
        self.file = socket.socket(socket.AF_UNIX)
        self.file.settimeout(60 * PATIENCE)
        self.file.connect(path)
        self.request = json.dumps({'execute': command,
                                   'arguments': arguments}).encode() + b'\n'
        self.refused = 0        # answers before it was obeyed
        self.obeyed = False

    def run(self):
        with self.file, self.file.makefile('rwb') as f, \
                contextlib.suppress(OSError):       # QEMU has ended
            f.write(b'{"execute": "qmp_capabilities"}\n')
            f.flush()
            f.readline()                            # greeting
            f.readline()
            while not self.obeyed:
                f.write(BATCH * self.request)
                f.flush()
                asked = BATCH
                while asked:
                    line = f.readline()
                    if not line:
                        return
                    answer = json.loads(line)
                    if 'error' in answer:
                        self.refused += 1
                        asked -= 1
                    elif 'return' in answer:
                        self.obeyed = True
                        return


class SettingsAtFailure(MigrationCase):
    def start(self, *more):
        guest = RomGuest(ws_mb=64, rate=STEADY)
        src = self.start_source(guest, extra=more)
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, channels=4, max_bandwidth=CRAWL)
        migration.start(src, *address)
        migration.wait_status(src, 'active')
        return guest, src, dst

    def fail(self, guest, src, dst):
        dst.process.kill()
        migration.wait_status(src, 'failed')
        guest.wait_alive(src)
        self.assertEqual(src.status(), 'running')

    def turn_off(self, *caps):
        for _ in range(ROUNDS):
            place = tempfile.TemporaryDirectory()
            self.addCleanup(place.cleanup)
            path = os.path.join(place.name, 'setter')
            vms = self.start('-qmp', f'unix:{path},server=on,wait=off')
            setter = Setter(path, 'migrate-set-capabilities', {
                'capabilities': [{'capability': c, 'state': False}
                                 for c in caps]})
            setter.start()
            wait_until(lambda: setter.refused, 60, 'it cannot be set yet')
            self.fail(*vms)
            setter.join()
            self.assertTrue(setter.obeyed)
            self.doCleanups()

    def test_multifd_off(self):
        self.turn_off('multifd')

    def test_tlm_off(self):
        self.src_caps = {'tlm': True}
        self.turn_off('tlm', 'multifd')

    def test_channels(self):
        """Stock QEMU lets them be set at any time."""
        for number in (1, 200):
            for fails in (True, False):
                with self.sub(number=number, fails=fails):
                    guest, src, dst = self.start()
                    migration.set_parameters(src, multifd_channels=number)
                    if fails:
                        self.fail(guest, src, dst)
                        continue
                    migration.set_parameters(src, max_bandwidth=0)
                    migration.wait_status(src, 'completed')
                    self.finish(guest, src, dst)

    def test_tlm_channels(self):
        """Once it has failed; before, TLM refuses it."""
        self.src_caps = {'tlm': True}
        guest, src, dst = self.start()
        with self.assertRaisesRegex(VmError, 'cannot be changed'):
            migration.set_parameters(src, multifd_channels=200)
        self.fail(guest, src, dst)


if __name__ == '__main__':
    unittest.main()
