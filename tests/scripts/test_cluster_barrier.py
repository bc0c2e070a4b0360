#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster's barrier: events, and questions to those that have not come,
in each order."""

import asyncio
import unittest
from unittest import mock

from tlm.cluster.barrier import Barrier
from tlm.errors import MigrateError


# Turns of the event loop, in which an answer that is an error is passed on
TURNS = 12


class Played:
    """A member that comes when it is about to be asked, or some turns of the
    event loop after it was."""

    name = 'a'
    before = there = heard = False
    after = answer = on_change = None

    @property
    def channel(self):
        return self

    @property
    def ask_s(self):
        if self.before:
            asyncio.get_running_loop().call_soon(self.come, 0)
        return 0

    def come(self, turns):
        if turns:
            asyncio.get_running_loop().call_soon(self.come, turns - 1)
            return
        self.there = True
        if self.on_change:
            self.heard = True
            self.on_change(self)

    async def look(self):
        if self.after is not None:
            self.come(self.after)
        if self.answer:
            raise self.answer

    def failed(self):
        return False

    def over(self, _there):
        return False


class Barriers(unittest.TestCase):
    def wait(self, member):
        async def meet():
            await asyncio.wait_for(
                Barrier([member], lambda m: m.there).wait(), 60)
        asyncio.run(meet())

    def test_comes_before_it_is_asked(self):
        member = Played()
        member.before = True
        self.wait(member)

    def test_comes_when_it_was_asked(self):
        """What was wrong before it came does not matter any more."""
        heard = 0
        for turns in range(TURNS):
            member = Played()
            member.after, member.answer = turns, MigrateError('gone')
            try:
                self.wait(member)
            except MigrateError:
                self.assertFalse(member.heard, f'after {turns} turns')
            heard += member.heard
        self.assertTrue(0 < heard < TURNS)      # both were seen

    def test_those_that_came_are_asked_too(self):
        """From time to time: their QEMUs want to know that somebody is
        there."""
        first, second = Played(), Played()
        first.there = True

        async def look():
            second.come(0)
        first.look = look

        async def meet():
            await asyncio.wait_for(
                Barrier([first, second], lambda m: m.there).wait(), 60)
        second.name = 'b'
        with mock.patch('tlm.cluster.barrier.ASK_ALL_S', 0):
            asyncio.run(meet())

    def test_gone(self):
        member = Played()
        member.answer = MigrateError('gone')
        with self.assertRaisesRegex(MigrateError, 'a: gone'):
            self.wait(member)


if __name__ == '__main__':
    unittest.main()
