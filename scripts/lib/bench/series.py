# What plots and tables need out of one result and its timeline
#
# SPDX-License-Identifier: GPL-2.0-or-later

from dataclasses import dataclass
from statistics import median

SPEED_MS = 200          # over which the guest's speed is taken
POINTS = 60             # of a line in a timeline, at most
AFTER_S = 0.8           # of the time behind the end that is shown


def _timeline(result):
    """(columns as a dict of lists, guest's [(ms, pages)])"""
    t = result.get('timeline') or {'columns': (), 'rows': (), 'guest': ()}
    columns = list(zip(*t['rows'])) or [()] * len(t['columns'])
    return dict(zip(t['columns'], columns)), t['guest']


def thin(xs, ys):
    """Means of neighbours, so that no more than POINTS are left."""
    step = -(-len(xs) // POINTS)
    if step < 2:
        return xs, ys
    return tuple([sum(v[i:i + step]) / len(v[i:i + step])
                  for i in range(0, len(v), step)] for v in (xs, ys))


def has_timeline(result):
    return len((result.get('timeline') or {}).get('rows', ())) > 1


def left(result):
    """Seconds, GB"""
    c, _ = _timeline(result)
    points = [(t / 1e3, v / 1e9) for t, v in
              zip(c.get('t_ms', ()), c.get('left', ())) if v is not None]
    return thin(*(tuple(zip(*points)) or ((), ())))


def rate(result, name):
    """Seconds, MB/s; name: on the wire, or a stage or thread of TLM."""
    c, _ = _timeline(result)
    key = 'sent' if name == 'on the wire' else name
    points = [(t, v) for t, v in zip(c.get('t_ms', ()), c.get(key, ()))
              if v is not None]
    if points:
        points.insert(0, (0, 0))
    times, rates = [], []
    for (t0, v0), (t1, v1) in zip(points, points[1:]):
        # Two answers at almost the same time: no rate worth showing
        if t1 - t0 >= 50:
            times.append((t0 + t1) / 2e3)
            rates.append(max(0, (v1 - v0) / (t1 - t0) / 1e3))
    return thin(times, rates)


def speed(result):
    """Seconds, percent of what the guest did before the migration."""
    _, guest = _timeline(result)
    if result['status'] != 'completed':     # what follows is QEMU's end
        guest = [g for g in guest if g[0] <= end_s(result) * 1e3]
    base = result.get('base_rate')
    times, speeds = [], []
    step = max(1, SPEED_MS // (guest[1][0] - guest[0][0])) \
        if len(guest) > 1 else 1
    for (t0, p0), (t1, p1) in zip(guest[:-step:step], guest[step::step]):
        if base:
            times.append((t0 + t1) / 2e3)
            speeds.append(max(0, (p1 - p0) / (t1 - t0) * 1e5 / base))
    return thin(times, speeds)


def end_s(result):
    c, _ = _timeline(result)
    return max(result.get('total_ms') or 0,
               max(c.get('t_ms', ()), default=0)) / 1e3


def extent(result):
    """(from, to) in seconds, of what is worth showing."""
    end = end_s(result)
    after = AFTER_S if result['status'] == 'completed' else 0
    return -min(0.5, end / 10), end + min(after, end / 5)


def stages(result):
    """[(from s, to s, name)]; from QEMU's own times."""
    end = end_s(result)
    if result['status'] != 'completed':
        return [(0, end, 'guest running')]
    c, _ = _timeline(result)
    total = result['total_ms'] / 1e3
    moved = [t for t, s in zip(c.get('t_ms', ()), c.get('stage', ()))
             if s == 'postcopy-active']
    if moved:
        return [(0, moved[0] / 1e3, 'guest running'),
                (moved[0] / 1e3, total, 'post-copy')]
    stop = max(0, total - (result.get('downtime_ms') or 0) / 1e3)
    return [(0, stop, 'guest running'), (stop, total, 'guest stopped')]


def pages_between(result, begin_ms, end_ms):
    _, guest = _timeline(result)
    inside = [p for t, p in guest if begin_ms <= t <= end_ms]
    return inside[-1] - inside[0] if len(inside) > 1 else None


def lost_ms(result):
    """Of the guest's work; so far, if the migration was cut."""
    if result.get('guest_lost_ms') is not None:
        return max(0, result['guest_lost_ms'])
    end = end_s(result) * 1e3
    pages = pages_between(result, 0, end)
    base = result.get('base_rate')
    if pages is None or not base:
        return None
    return max(0, end - pages / base * 1e3)


def live_throughput(result):
    """Percent of full speed, while the guest ran during the migration."""
    if result['status'] != 'completed' or not result.get('base_rate'):
        return None
    live = result['total_ms'] - (result.get('downtime_ms') or 0)
    pages = pages_between(result, 0, live)
    if pages is None or live < 300:
        return None
    live -= live % 100          # the last sample within
    return 100 * pages / (result['base_rate'] * live / 1e3)


@dataclass
class Metric:
    name: str
    unit: str
    of: object              # of a completed result
    cut: bool = False       # says something, too, of one that was cut
    small: str = ''         # the unit of a thousandth

    @property
    def label(self):
        return f'{self.name} [{self.unit}]'

    def when_cut(self, result):
        return self.of(result) if self.cut else None

    def ended(self, results):
        """Of those that have."""
        v = [self.of(r) for r in results if r['status'] == 'completed']
        return [x for x in v if x is not None]

    def fitting(self, modes):
        """In the smaller unit if all of the modes' results are below 1."""
        v = [x for results in modes for x in self.ended(results) + [
            self.when_cut(r) or 0 for r in results
            if r['status'] == 'not ended']]
        if not self.small or max(v, default=1) >= 1:
            return self

        def thousandths(result):
            x = self.of(result)
            return None if x is None else x * 1e3
        return Metric(self.name, self.small, thousandths, self.cut)


def _scaled(key, factor):
    return lambda r: r[key] * factor if r.get(key) is not None else None


def _lost_s(result):
    v = lost_ms(result)
    return None if v is None else v / 1e3


TOTAL = Metric('total time', 's', _scaled('total_ms', 1e-3), True, 'ms')
DOWNTIME = Metric('downtime', 's', _scaled('downtime_ms', 1e-3), small='ms')
SENT = Metric('sent', 'GB', _scaled('bytes', 1e-9), True, 'MB')
LOST = Metric('lost guest work', 's', _lost_s, True, 'ms')
LIVE_SPEED = Metric('guest speed while live', '%', live_throughput)


def typical(results):
    """The run with the median total time of those with a timeline."""
    drawn = [r for r in results if has_timeline(r)]
    ended = [r for r in drawn if r['status'] == 'completed'] or drawn
    if not ended:
        return None
    middle = median(sorted(r['total_ms'] for r in ended))
    return min(ended, key=lambda r: abs(r['total_ms'] - middle))
