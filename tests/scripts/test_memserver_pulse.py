#!/usr/bin/python3
#
# A server that is asked again and again: no answer goes to another question,
# and one that is silent is given up
#
# SPDX-License-Identifier: GPL-2.0-or-later

import unittest
from unittest import mock

from tlm.checkpoint import pulse
from tlm.errors import MigrateError


class Server:
    """Answers with the command, once it is @awake."""

    address = 'unix:/s'

    def __init__(self):
        self.sent, self.awake = [], True

    def send(self, command, **_):
        self.sent.append(command)

    def answer(self, patience=0):
        return self.sent.pop(0) if self.sent and (self.awake or patience) \
            else None

    def __call__(self, command, _patience=0, /, **arguments):
        self.send(command, **arguments)
        return self.answer(1)


class Pulse(unittest.TestCase):
    def setUp(self):
        self.server, self.now = Server(), 0
        clock = mock.patch('tlm.checkpoint.pulse.time.monotonic',
                           lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        self.pulse = pulse.Pulse(self.server, 1)

    def beat(self, seconds):
        self.now += seconds
        self.pulse.beat()

    def test_answers_are_not_mixed_up(self):
        self.server.awake = False
        self.beat(pulse.ASK_S + 1)
        self.assertEqual(self.server.sent, ['status'])
        self.assertEqual(self.pulse('confirm'), 'confirm')
        self.beat(pulse.ASK_S + 1)
        self.pulse.end()
        self.assertEqual(self.server('show'), 'show')

    def test_silent(self):
        self.server.awake = False
        self.beat(pulse.ASK_S + 1)
        self.beat(pulse.SILENT_S)
        with self.assertRaisesRegex(MigrateError, 'has not answered'):
            self.beat(1)
        # And is not asked, and waited for, again
        with self.assertRaisesRegex(MigrateError, 'has not answered'):
            self.pulse('cancel')

    def test_slow(self):
        self.server.awake = False
        self.beat(pulse.ASK_S + 1)
        self.beat(pulse.SILENT_S)
        self.server.awake = True
        self.beat(1)
        self.assertEqual(self.server.sent, [])


if __name__ == '__main__':
    unittest.main()
