# Runs a case with TLM and without it, and says what must not differ
#
# SPDX-License-Identifier: GPL-2.0-or-later

import concurrent.futures
import multiprocessing
import signal
import time
import traceback

from tlmtest.guests import RomGuest

import keys
from move import Ending, Move

LIMIT_S = 300                   # a migration and its verdict take 2 s
ABORTS = 'tlb_reset_dirty_range_all'


def refused_by_tlm(case):
    """A word of the reason why TLM refuses what QEMU alone takes, or None."""
    channels = int(case['channels'])
    return 'auto-converge' if case['auto-converge'] == 'on' else \
        'multifd-channels' if channels < 2 else \
        'tlm-dtx-channels' if int(case['dtx-channels']) >= channels else \
        'zero-page-detection' if case['zero-page'] == 'legacy' else None


def ends_by_bound(case, ending):
    """Whether a time bound may have ended it so.  With bound action
    'complete', it only does so before there is a connection."""
    bounded = case['bound'] != '0' or case['meanwhile'] == 'bound'
    return bounded and ending.how == 'failed' and \
        'time bound' in ending.said and \
        (case['action'] == 'cancel' or 'connected within' in ending.said)


class Verdict:
    """wrong: None, or what kind of thing; tlm, stock: each an Ending; stock is
    None if it was not needed to see that TLM is wrong."""

    def __init__(self, case, tlm, stock, wrong):
        self.case, self.tlm, self.stock, self.wrong = case, tlm, stock, wrong

    def how(self):
        """In a word, for statistics."""
        if self.wrong:
            return 'wrong'
        if self.tlm.how == self.stock.how:
            return self.tlm.how
        alone = 'a fault that is mended' \
            if is_mended(self.case, self.stock) else self.stock.how
        return f'{self.tlm.how} (alone: {alone})'

    def __str__(self):
        lines = [f'TLM: {self.tlm}']
        if self.stock:
            lines.append(f'QEMU alone: {self.stock}')
        return '\n'.join(lines)


def is_mended(case, stock):
    """Whether it is a fault of QEMU under TCG that the series mends: it aborts
    in a sync of the dirty log, or loses pages of all RAMBlocks but the first.
    Such a case is judged as if QEMU alone had done what was asked for."""
    two_blocks = case['memory'] == 'numa' or case['dimm'] != '0'
    return stock.how == 'wrong' and (
        ABORTS in stock.said or
        two_blocks and stock.kind in ('ram', 'guest'))


def _judge(case, tlm, stock):
    """What kind of thing is wrong, or None."""
    if is_mended(case, stock):
        stock = Ending('cancelled' if case['meanwhile'] == 'cancel' else
                       'completed')
    if stock.how == 'wrong':
        return f'{stock.kind} without TLM'
    reason = refused_by_tlm(case)
    if stock.how == 'refused':
        return None if tlm.how == 'refused' else f'{tlm.how}, not refused'
    if reason:
        return None if tlm.how == 'refused' and reason in tlm.said else \
            f'{tlm.how}, not refused'
    if tlm.how == stock.how or ends_by_bound(case, tlm):
        return None
    if case['meanwhile'] == 'cancel' and \
            {tlm.how, stock.how} == {'completed', 'cancelled'}:
        return None             # it may come too late
    return f'{tlm.how}, not {stock.how}'


def _too_long(*_):
    raise TimeoutError(f'not over after {LIMIT_S} s')


def _move(case, tlm, sabotage):
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        return Move(case, tlm, sabotage).run()
    except Exception:           # whatever it is, it is the verdict
        return Ending('wrong', traceback.format_exc(limit=-3), 'error')
    finally:
        signal.alarm(0)


def compare(case, sabotage=None):
    """Returns a Verdict.  Only the run with TLM is sabotaged."""
    tlm = _move(case, True, sabotage and sabotage.of(case))
    if tlm.how == 'wrong':
        return Verdict(case, tlm, None, tlm.kind)
    stock = _move(case, False, None)
    return Verdict(case, tlm, stock, _judge(case, tlm, stock))


def fails_as(wrong, tries=1, sabotage=None):
    """For shrink(): whether a case fails in the same way, in one of so many
    tries."""
    return lambda case: any(compare(case, sabotage).wrong == wrong
                            for _ in range(tries))


def _one(seed, sabotage):
    begin = time.monotonic()
    verdict = compare(keys.draw(seed), sabotage)
    return seed, verdict, time.monotonic() - begin


def run(seeds, jobs, sabotage=None):
    """Yields (seed, Verdict, seconds) in the order of the seeds."""
    RomGuest().close()          # compiles it, for all
    with concurrent.futures.ProcessPoolExecutor(
            jobs, multiprocessing.get_context('fork')) as pool:
        yield from pool.map(_one, seeds, [sabotage] * len(seeds))
