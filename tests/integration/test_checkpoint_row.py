#!/usr/bin/python3
#
# Many checkpoints of one VM in a row, while its guest writes: whole and
# incremental ones mixed, copied and write-protected.  Each tenth is restored by
# a stock QEMU and compared with RAM as it was in the pause.  What QEMU holds
# does not grow.
#
# TLM_REPEAT: how many (default 12; by hand: TLM_REPEAT=200)
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import random
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_checkpoint_incremental import Case            # noqa: E402
from tlmtest import migration                           # noqa: E402
from tlmtest.case import MB                             # noqa: E402
from tlmtest.guests import RomGuest                     # noqa: E402
from tlmtest.ram import read_all                        # noqa: E402

REPEAT = int(os.environ.get('TLM_REPEAT', 12))
WHOLE = 1 / 4                   # so many of them
COMPARED = 10                   # each such one
WARM = 3                        # after so many QEMU has all that it keeps
SOME_THREADS = 3                # of QEMU's pool, which come and go
SOME_MEMORY = 32 * MB           # of malloc(), and of the guest's own


class InARow(Case):
    def held(self):
        """(bytes in memory, open files, threads) of QEMU"""
        with open(f'/proc/{self.src.pid}/status', encoding='ascii') as f:
            resident = 1024 * int(re.search(r'VmRSS:\s+(\d+)', f.read())[1])
        return (resident, *(len(os.listdir(f'/proc/{self.src.pid}/{what}'))
                            for what in ('fd', 'task')))

    def take_fast(self, **arguments):
        """Without a look at RAM in the pause."""
        self.chain.begin(**arguments)
        self.chain.end(migration.wait_status(self.src, 'completed'))

    def test_in_a_row(self):
        rand = random.Random(REPEAT)
        guest = RomGuest(ws_mb=64, pattern='hotcold')
        self.chain = self.start_chain(guest)
        read_all(self.src)
        held, children = [], 0
        for i in range(REPEAT):
            whole = rand.random() < WHOLE
            arguments = {'mode': rand.choice(('copy', 'write-protect')),
                         **({'parent': None} if whole else {})}
            if i % COMPARED == COMPARED - 1:
                frozen, _ = self.chain.take(**arguments)
                self.restore(self.chain, frozen)
                self.assert_guest_well(guest, self.src)
            else:
                self.take_fast(**arguments)
            children += self.chain.was_child
            held.append(self.held())
        first, last = held[min(WARM, REPEAT - 1)], held[-1]
        print(f'{REPEAT} checkpoints, {children} incremental: memory, files, '
              f'threads of QEMU {first} after {WARM + 1}, {last} at the end, '
              f'at most {tuple(map(max, zip(*held)))}', file=sys.stderr)
        self.assertGreater(children, REPEAT / 3)
        self.assertLess(children, REPEAT)
        self.assertLess(last[0], first[0] + SOME_MEMORY)
        self.assertLessEqual(last[1], first[1])
        self.assertLessEqual(last[2], first[2] + SOME_THREADS)
        self.assert_runs_on(guest, self.src)


del Case

if __name__ == '__main__':
    unittest.main()
