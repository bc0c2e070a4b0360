# The four figures of docs/benchmarks.md
#
# scripts/bench --figures makes them from the raw results; a test makes them
# again, and compares.
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

from . import claims, series
from .schemes import RATES, SCHEMES, lost, mid, total
from .svg import FAINT, LINE, Linear, Log, Picture, spread
from .table import values

WIDTH = 720
PAGE = 4096
SMALL = 3               # marks, where there are many
TIMED = ('tlm-auto', 'tlm', 'multifd-autoconverge', 'postcopy', 'offline')


# Figure 1

def speeds(result, begin_s, end_s, step_s):
    """[(s, percent)] of the guest's speed, by means over @step_s."""
    guest = result['timeline']['guest']
    step = round(step_s * 1e3 / (guest[1][0] - guest[0][0]))
    looks = guest[::step]
    return [((t0 + t1) / 2e3,
             min(100, (p1 - p0) / (t1 - t0) * 1e5 / result['base_rate']))
            for (t0, p0), (t1, p1) in zip(looks, looks[1:])
            if begin_s <= (t0 + t1) / 2e3 <= end_s]


def _ends(p, place, x, run, box):
    """Lines where the migration begins and ends, and the time that it took
    beside the second one."""
    _, top, right, _ = box
    ends = run['total_ms'] / 1e3
    for at in (0, ends):
        if at <= x.high:
            p.line([place(at, 0), place(at, 112)], dash='2 2')
    if ends > x.high:
        p.text(right, top - 8, 'goes on', 'end')
    elif x.high > 10:
        late = ends > x.high / 2
        p.text(place(ends, 0)[0] + (-5 if late else 10), top + 8,
               f'{ends:.1f} s', 'end' if late else 'start')


def guest_speed(groups, bound_results):
    """Write-heavy: each scheme's run with the median total time."""
    by_mode = groups['write-heavy']
    row, top = 62, 38
    p = Picture(WIDTH, top + row * len(TIMED) + 34,
                'Guest speed during a migration, by scheme')
    panels = ((178, 430, Linear(-2, 72, (0, 20, 40, 60)), 0.5,
               'guest speed [%], all of it'),
              (462, 708, Linear(-1, 6, (0, 1, 2, 3, 4, 5, 6)), 0.2,
               'guest speed [%], the first 6 s'))
    for left, _, _, _, title in panels:
        p.text(left, 16, title, bold=True)
    for i, mode in enumerate(TIMED):
        scheme, results = SCHEMES[mode], by_mode[mode]
        run = series.typical(results)
        y = top + i * row
        p.text(8, y + 8, scheme.title, bold=True, color=scheme.color)
        p.text(8, y + 8 + LINE, f"{total(results)} s, "
               f"{mid(results, 'bytes', 1e-9)} GB")
        p.text(8, y + 8 + 2 * LINE,
               f'work lost: {lost(results)} s')
        for left, right, x, step, _ in panels:
            last = i == len(TIMED) - 1
            box = (left, y, right, y + row - 18)
            place = p.axes(box,
                           Linear(x.low, x.high, x.ticks if last else ()),
                           Linear(0, 100, (0, 100)),
                           's from the start' if last else '')
            points = speeds(run, x.low, x.high, step)
            p.line([place(points[0][0], 0), *(place(*at) for at in points),
                    place(points[-1][0], 0)], scheme.color, 1.2,
                   fill=scheme.color)
            _ends(p, place, x, run, box)
    return p.svg()


# Figure 2

def _limits(p, box, due):
    """The downtime of each migration, by its limit."""
    limits = sorted({r['limit'] for r in due})
    x = Linear(0, len(limits), ())
    place = p.axes(box, x, Linear(0, 600, (0, 200, 400, 600)),
                   title='downtime and limit [ms]')
    for i, limit in enumerate(limits):
        p.line([place(i + 0.08, limit), place(i + 0.92, limit)], width=2)
        p.text(*place(i + 0.5, limit + 35), f'limit {limit}', 'middle')
        mine = sorted(r['downtime_ms'] for r in due if r['limit'] == limit)
        for n, ms in enumerate(mine):
            at = i + 0.2 + 0.6 * (n * 7 % len(mine)) / len(mine)
            p.mark('circle', *place(at, ms), SCHEMES['tlm-auto'].color,
                   size=SMALL)


def promised(groups, bound_results):
    """Of scripts/bench-bound: the bound, the limit, what was predicted."""
    done = claims.ended(bound_results)
    p = Picture(WIDTH, 330, 'Bounds, downtime limits and predictions of 100 '
                'migrations, beside what came')
    top, bottom = 58, 262
    kinds = (('tlm', 'none', True), ('tlm-auto', 'auto', False))
    for i, (mode, _, hollow) in enumerate(kinds):
        p.mark('circle', 52 + 150 * i, 14, SCHEMES[mode].color, hollow)
        p.text(62 + 150 * i, 14, SCHEMES[mode].title)

    span = Log(0.1, 60, (0.1, 0.5, 1, 5, 10, 50))
    place = p.axes((44, top, 244, bottom), span, span, 'bound [s]',
                   title='total time [s]')
    p.line([place(0.1, 0.1), place(60, 60)], width=1.5)
    p.text(*place(2.2, 4.5), 'the bound', 'end')
    for mode, converge, hollow in kinds:
        for r in done:
            if r['converge'] == converge:
                p.mark('circle', *place(r['bound'] / 1e3,
                                        r['total_ms'] / 1e3),
                       SCHEMES[mode].color, hollow, SMALL)

    _limits(p, (288, top, 468, bottom),
            [r for r in done if r['downtime_due']])

    span = Log(0.01, 40, (0.01, 0.1, 1, 10))
    place = p.axes((514, top, 708, bottom), span, span, 'measured [s]',
                   title='predicted half-way [s]')
    p.line([place(0.01, 0.01), place(40, 40)], width=1.5)
    for what, key, hollow in (('downtime', 'downtime_ms', True),
                              ('total', 'total_ms', False)):
        for r in done:
            if r.get('half_way') and r[key]:
                p.mark('triangle' if hollow else 'circle',
                       *place(r[key] / 1e3, r['half_way'][what] / 1e3),
                       '#374151', hollow, SMALL)
    p.text(*place(1.5, 0.55), 'total time')
    p.text(*place(0.17, 0.045), 'downtime')
    return p.svg()


# Figure 3

def link_share(results):
    """How many times what the link carries the guest writes."""
    r = results[0]
    return r['guest_settings']['rate'] * PAGE * 8 / (r['link_mbit'] * 1e6)


def _curve(p, place, scheme, points):
    """points: [(x, value, whether it was cut there)]"""
    p.line([place(x, v) for x, v, _ in points], scheme.color, 1.8,
           scheme.dash)
    for x, v, cut in points:
        at = place(x, v)
        p.mark(scheme.shape, *at, scheme.color, hollow=cut)
        if cut:
            p.line([(at[0], at[1] - 6), (at[0], at[1] - 17)], scheme.color,
                   1.8)
            p.line([(at[0] - 4, at[1] - 12), (at[0], at[1] - 18),
                    (at[0] + 4, at[1] - 12)], scheme.color, 1.8)


def _over_rates(p, groups, box, y, key, scale, title, x_label):
    rates = [round(link_share(groups[w]['offline']), 1) for w in RATES]
    place = p.axes(box, Log(0.45, 11.5, rates), y, x_label, title=title)
    ends = {}
    for mode, scheme in SCHEMES.items():
        points = []
        for rate, workload in zip(rates, RATES):
            results = groups[workload].get(mode, [])
            done = values(results, key)
            v = done or [r[key] for r in results]
            if v:
                points.append((rate, median(v) * scale, not done))
        _curve(p, place, scheme, points)
        ends[mode] = place(*points[-1][:2])
    labels = spread([y for _, y in ends.values()], LINE)
    for (mode, (x, y)), at in zip(ends.items(), labels):
        p.line([(x + 8, y), (x + 26, at)], FAINT)
        p.text(x + 30, at, SCHEMES[mode].title, color=SCHEMES[mode].color)


def over_rates(groups, bound_results):
    """Total time and bytes of one guest that writes faster and faster."""
    p = Picture(WIDTH, 520, 'Total time and bytes sent over the rate at which '
                'the guest writes')
    for top, y, key, scale, title, x_label in (
            (34, Log(3, 100, (3, 5, 10, 20, 50, 100)), 'total_ms', 1e-3,
             'total time [s]', ''),
            (292, Log(0.9, 30, (1, 2, 5, 10, 20)), 'bytes', 1e-9,
             'sent [GB]', 'the guest writes, in times of what the link '
             'carries')):
        _over_rates(p, groups, (44, top, 560, top + 180), y, key, scale,
                    title, x_label)
    return p.svg()


# Figure 4

TRADED = ('write-heavy', *RATES[1:])
# Beside which of a scheme's marks its name stands, and where
NAMES = {'downtime_ms': {'tlm-auto': (0, -8, -14), 'tlm': (2, 12, 4),
                         'multifd-autoconverge': (0, -80, -16),
                         'postcopy': (0, 10, 0), 'offline': (0, -8, -16),
                         'multifd': (0, -46, 18)},
         'guest_lost_ms': {'tlm-auto': (3, 12, 0), 'tlm': (2, 12, 4),
                           'multifd-autoconverge': (3, -70, 12),
                           'postcopy': (0, -8, -14),
                           'offline': (0, -8, -28),
                           'multifd': (0, -6, 18)}}


def trade(groups, bound_results):
    """What a short total time costs: downtime, and the guest's work."""
    p = Picture(WIDTH, 350, 'Downtime and lost work against total time')
    for left, y, key, title in (
            (50, Log(0.0007, 8, (0.001, 0.01, 0.1, 1, 5)), 'downtime_ms',
             'downtime, as QEMU says [s]'),
            (412, Log(0.1, 40, (0.1, 0.3, 1, 3, 10, 30)), 'guest_lost_ms',
             'work that the guest lost [s]')):
        place = p.axes((left, 40, left + 296, 290),
                       Log(3, 100, (3, 5, 10, 20, 50, 100)), y,
                       'total time [s]', title=title)
        for mode, scheme in SCHEMES.items():
            found = []
            for workload in TRADED:
                results = groups[workload].get(mode, [])
                took, v = (values(results, k) for k in ('total_ms', key))
                if took and v:
                    found.append(place(median(took) / 1e3, median(v) / 1e3))
            for at in found:
                p.mark(scheme.shape, *at, scheme.color)
            n, dx, dy = NAMES[key][mode]
            if found:
                x, at = found[min(n, len(found) - 1)]
                p.text(x + dx, at + dy, scheme.title, color=scheme.color)
    return p.svg()


FIGURES = {'guest-speed': guest_speed, 'promised': promised,
           'over-rates': over_rates, 'trade': trade}


def figures(groups, bound_results):
    """{name: text of an SVG file}"""
    return {name: draw(groups, bound_results)
            for name, draw in FIGURES.items()}
