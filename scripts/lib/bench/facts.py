# The tables of docs/benchmarks.md
#
# scripts/bench --figures prints them; a test finds each of them in the page.
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

from . import bounds, claims
from .programs import is_program
from .schemes import RATES, SCHEMES, downtime, least, lost, mid, title, total
from .table import NONE, to_markdown, verdict


def scheme_table(groups, bound_results):
    by_mode = groups['write-heavy']
    return ('scheme', 'runs', 'total s', 'downtime ms', 'guest silent ms',
            'sent GB', 'work lost s'), [
        (scheme.title, f'{len(claims.ended(r))} of {len(r)}', total(r),
         downtime(r), mid(r, 'guest_down_ms', fmt='{:.0f}'),
         least(r, 'bytes', 1e-9),
         lost(r))
        for mode, scheme in SCHEMES.items() for r in [by_mode[mode]]]


def _used(results, key, limit):
    """Median and largest share of a limit."""
    v = [100 * r[key] / r[limit] for r in results]
    return f'{median(v):.0f} % ({max(v):.0f} %)' if v else NONE


def _off(results, what, key):
    v = bounds.off(results, what, key)
    return f'{median(v):.0f} %' if v else NONE


def bound_table(groups, bound_results):
    rows = []
    for which, belongs in bounds.PARTS.items():
        done = claims.ended(filter(belongs, bound_results))
        due = [r for r in done if r['downtime_due']]
        rows.append((
            which, f'{sum(map(bounds.kept, done))} of {len(done)}',
            _used(done, 'total_ms', 'bound'),
            f"{sum(r['downtime_kept'] for r in due)} of {len(due)}",
            _used(due, 'downtime_ms', 'limit'),
            _off(done, 'total', 'total_ms'),
            _off(done, 'downtime', 'downtime_ms')))
    return ('runs', 'bound kept', 'share of the bound used', 'limit kept',
            'share of the limit used', 'error of the predicted total',
            'of the predicted downtime'), rows


def _figures(results):
    return ' / '.join((total(results), downtime(results),
                       least(results, 'bytes', 1e-6, '{:.0f}')))


def program_table(groups, bound_results):
    rows = []
    for name, by_mode in groups.items():
        if not is_program(by_mode):
            continue
        stop, rival, plain, auto = (by_mode[m] for m in (
            'offline', 'multifd-autoconverge', 'tlm', 'tlm-auto'))
        every = [r for results in by_mode.values() for r in results]
        rows.append((name, stop[0]['guest_settings']['mem_mb'],
                     total(stop), *map(_figures, (rival, plain, auto)),
                     f'{lost(rival)} / {lost(auto)}', verdict(every)))
    return ('program', 'RAM MiB', 'stop and copy: s',
            'auto-converge: s / ms / MB', 'TLM: s / ms / MB',
            'TLM, converge: s / ms / MB',
            'work lost s: auto-converge / TLM, converge', 'results right'
            ), rows


def brief(x):
    return f'{x:.0f}' if x >= 100 or x == round(x) else f'{x:.2f}'


def loss_table(groups, bound_results):
    """Which scheme of QEMU's is ahead of TLM's best, and in what."""
    found = {}
    for workload, figure, ours, best in claims.beaten(groups):
        name = title(groups[workload][best[1]])
        found.setdefault((name, figure), []).append(
            (workload, best, ours, ours[0] - best[0]))
    rows = []
    for (name, (what, _, scale, unit, _)), cases in found.items():
        workload, best, ours, _ = max(cases, key=lambda x: x[3])
        by_mode = groups[workload]
        rows.append((name, what, len(cases), f'{workload}: '
                     f'{brief(best[0] * scale)} {unit}, '
                     f'{title(by_mode[ours[1]])} '
                     f'{brief(ours[0] * scale)} {unit}'))
    return ('ahead of TLM', 'in', 'workloads', 'farthest'), rows


def _commits(results):
    """By the time of their first run, with the number of runs."""
    found = {}
    for r in sorted(results, key=lambda r: r.get('time', 0)):
        name = r['host']['commit']
        short = name[:7] + '+' * name.endswith('+')
        found[short] = found.get(short, 0) + 1
    return ', '.join(f'{c} ({n})' for c, n in found.items())


def _of(groups, workloads, belongs):
    return [r for w in workloads for m, results in groups[w].items()
            if belongs(m) for r in results]


def commit_table(groups, bound_results):
    def ours(mode):
        return mode.startswith('tlm')

    def theirs(mode):
        return not ours(mode)

    rows = []
    linux = [w for w, by_mode in groups.items() if is_program(by_mode)]
    for what, workloads in (
            ('write-heavy', ['write-heavy']),
            ('at growing rates', RATES), ('the programs', linux)):
        rows += [(f'{what}, {whose}', _commits(_of(groups, workloads, of)))
                 for whose, of in (('TLM', ours), ("QEMU's own", theirs))]
    rows.append(('the bounds', _commits(bound_results)))
    return ('what', 'commits, in brackets how many runs'), rows


TABLES = (scheme_table, bound_table, program_table, loss_table, commit_table)


def tables(groups, bound_results):
    """The tables as Markdown."""
    return [to_markdown(*make(groups, bound_results)) for make in TABLES]
