# Which runs are to be made, which are there already, how long they will take
#
# SPDX-License-Identifier: GPL-2.0-or-later

import time
from statistics import median

from . import store

QUICK_LIMIT_S = 20
CUT_RUNS = 2            # then a mode that does not end is known well enough
UNKNOWN_S = 15          # a run of which nothing is known yet


def select(workloads, modes=None, runs=None, quick=False):
    """[(workload, mode, number)] for {name: Workload}.  Modes are
    interleaved: what else the machine does hits all of them."""
    plan = []
    for name, w in workloads.items():
        mine = modes or (w.quick if quick else w.modes)
        count = runs or (1 if quick else w.runs)
        plan += [(name, m, i) for i in range(count) for m in mine]
    return plan


def key(run):
    return '/'.join(map(str, run))


def load(path):
    """{key: result}; of two with the same key the later one."""
    return {r['key']: r for r in store.read(path)}


def _was_cut(r, limit_s):
    """At this limit or a longer one."""
    return r['status'] == 'not ended' and r.get('limit_s', limit_s) >= limit_s


def settles(run, done, limit_s, cut_runs=CUT_RUNS):
    """Need not be made (again).  What is not possible is tried once, what was
    cut at the limit @cut_runs times; at a shorter one does not count."""
    mine = [r for k, r in done.items()
            if k.rsplit('/', 1)[0] == '/'.join(run[:2])]
    if any(r['status'] == 'not possible' for r in mine) or \
            sum(_was_cut(r, limit_s) for r in mine) >= cut_runs:
        return True
    r = done.get(key(run))
    return bool(r) and (r['status'] != 'not ended' or _was_cut(r, limit_s))


def duration(run, done):
    """Seconds that a run will take, from those that are there."""
    def median_of(matches):
        v = [r['wall_s'] for k, r in done.items()
             if 'wall_s' in r and matches(k.split('/'))]
        return median(v) if v else None
    return (median_of(lambda k: k[:2] == list(run[:2])) or
            median_of(lambda k: k[1] == run[1]) or
            median_of(lambda k: True) or UNKNOWN_S)


def execute(plan, path, limit_of, measure, tell):
    """Make the runs that are missing in the file @path.  limit_of(workload):
    when a run is cut; measure(workload, mode): a result; tell(made, of,
    seconds left, run) before each.  Returns all results, by key.  A mode that
    an earlier call has cut at that limit is known well enough."""
    store.unpack(path)
    done = load(path)
    todo = [run for run in plan
            if not settles(run, done, limit_of(run[0]), cut_runs=1)]
    for made, run in enumerate(todo):
        if settles(run, done, limit_of(run[0])):
            continue            # has turned out not to be possible
        tell(made, len(todo), sum(duration(r, done) for r in todo[made:]),
             run)
        begin = time.monotonic()
        result = {**measure(*run[:2]), 'key': key(run),
                  'time': int(time.time()),
                  'wall_s': round(time.monotonic() - begin, 2)}
        done[key(run)] = result
        store.append(path, result)
    return done


def by_workload(done):
    """{workload: {mode: [result]}}, in the order they were made."""
    groups = {}
    for k, r in done.items():
        workload, mode, _number = k.rsplit('/', 2)
        groups.setdefault(workload, {}).setdefault(mode, []).append(r)
    for modes in groups.values():
        for results in modes.values():
            results.sort(key=lambda r: int(r['key'].rsplit('/', 1)[1]))
    return groups
