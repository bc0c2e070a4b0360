# Runs cases side by side, each in a process of its own
#
# SPDX-License-Identifier: GPL-2.0-or-later

import concurrent.futures
import functools
import multiprocessing
import signal
import time
import traceback

from tlmtest import env
from tlmtest.guests import RomGuest

import scenario
from case import Case
from faults import Faults                           # noqa: F401

LIMIT_S = 240                   # a case takes a second or two


class Result:
    def __init__(self, seed, end, wrong, seconds, stock=False):
        self.seed, self.end, self.wrong = seed, end, wrong
        self.seconds, self.stock = seconds, stock

    def __str__(self):
        line = f'{self.seed} {describe(self.seed)}: {self.end}, ' \
               f'{self.seconds:.1f} s'
        if self.wrong is not None:
            line = f'FAILED {line}\n{self.wrong}\nAgain: ' \
                   f'tests/faults/run --seed {self.seed} --count 1' + \
                   (' --stock' if self.stock else '')
        return line


@functools.cache
def _kvm():
    return env.missing_kvm(env.QEMU) is None


def describe(seed):
    return scenario.text(scenario.draw(seed, _kvm()))


def needs_tlm(seed):
    s = scenario.draw(seed, _kvm())
    return s.kind == 'checkpoint' or s.where == 'throttled'


def _too_long(*_):
    raise TimeoutError(f'not over after {LIMIT_S} s')


def run_case(seed, stock=False):
    start = time.monotonic()
    if stock and needs_tlm(seed):
        return Result(seed, 'without TLM: no such thing', None, 0)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        end, wrong = Case(scenario.draw(seed, _kvm()), stock).run(), None
    except Exception:           # whatever it is, it is the verdict
        end, wrong = 'wrong', traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
    return Result(seed, end, wrong, time.monotonic() - start, stock)


def run(seeds, jobs, stock=False):
    """Yields the results in the order of the seeds."""
    _kvm()
    RomGuest().close()          # compiles it, for all
    with concurrent.futures.ProcessPoolExecutor(
            jobs, multiprocessing.get_context('fork')) as pool:
        yield from pool.map(functools.partial(run_case, stock=stock), seeds)
