# Runs cases side by side, each in a process of its own
#
# SPDX-License-Identifier: GPL-2.0-or-later

import collections
import concurrent.futures
import functools
import multiprocessing
import signal
import time
import traceback

from tlmtest import env
from tlmtest.guests import RomGuest

import clustered
import scenario
import served
from case import Case
from clustercase import ClusterCase
from servedcase import ServedCase

LIMIT_S = 240                   # a case takes some seconds
# Each draws from the seeds by itself: what one of them draws does not change
# when another one is added
Kind = collections.namedtuple('Kind', 'draw text case')
KINDS = {
    'migrations': Kind(scenario.draw, scenario.text, Case),
    'stops': Kind(scenario.draw_stop, scenario.text, Case),
    'servers': Kind(served.draw, served.text, ServedCase),
    'clusters': Kind(clustered.draw, clustered.text, ClusterCase),
}


class Result:
    def __init__(self, kind, seed, end, wrong, seconds, stock=False):
        self.kind, self.seed, self.end, self.wrong = kind, seed, end, wrong
        self.seconds, self.stock = seconds, stock

    def __str__(self):
        line = f'{self.seed} {describe(self.kind, self.seed)}: {self.end}, ' \
               f'{self.seconds:.1f} s'
        if self.wrong is not None:
            line = f'FAILED {line}\n{self.wrong}\nAgain: ' \
                   f'tests/faults/run --of {self.kind} --seed {self.seed} ' \
                   '--count 1' + \
                   (' --stock' if self.stock else '')
        return line


@functools.cache
def _kvm():
    return env.missing_kvm(env.QEMU) is None


def draw(kind, seed):
    return KINDS[kind].draw(seed, _kvm())


def describe(kind, seed):
    return KINDS[kind].text(draw(kind, seed))


def needs_tlm(s):
    return s.kind != 'migrate' or s.where == 'throttled'


def _too_long(*_):
    raise TimeoutError(f'not over after {LIMIT_S} s')


def run_case(seed, kind, stock=False):
    start = time.monotonic()
    s, case = draw(kind, seed), KINDS[kind].case
    if stock and needs_tlm(s):
        return Result(kind, seed, 'without TLM: no such thing', None, 0)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        end, wrong = case(s, stock).run(), None
    except Exception:           # whatever it is, it is the verdict
        end, wrong = 'wrong', traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
    return Result(kind, seed, end, wrong, time.monotonic() - start, stock)


def missing(kind):
    """Why these cannot be run here, or None."""
    return env.missing_qemu(env.QEMU, env.STOCK_QEMU) or \
        KINDS[kind].case.missing()


def run(seeds, jobs, kind='migrations', stock=False):
    """Yields the results in the order of the seeds."""
    _kvm()
    RomGuest().close()          # compiles it, for all
    with concurrent.futures.ProcessPoolExecutor(
            jobs, multiprocessing.get_context('fork')) as pool:
        yield from pool.map(functools.partial(run_case, kind=kind,
                                              stock=stock), seeds)
