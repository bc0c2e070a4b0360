# What this project has promised, beside what came out
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

from . import bounds, series
from .claims import NOT_MEASURED, ended, few, mid, seconds
from .table import (UNTHROTTLED_MS, pair_ratios, resent_percent, slowed_ms,
                    throttled)

HEAD = ('promise', 'measured', 'kept')
TOLERANCE = 1.1         # of the downtime limit, for stock modes and for TLM
REGIMES = {'rate-is-link': 'rate = link', 'rate-is-2-links':
           'rate = 2 × link', 'low-locality': 'low locality at 3 GB/s'}
POSTCOPY = (
    'The best stock mode: of all that have ended with a downtime within '
    f'{TOLERANCE} × the limit the one with the shortest total time. Post-copy '
    'is in the tables but not among these: it moves the wait for memory '
    'behind the switchover, where the downtime does not count it, and a link '
    'that is lost then takes the guest along. A mode that was cut counts as '
    'if it had ended then.')


def times(results, base, key):
    """Median of the ratios of pairs, or the ratio of medians; or None."""
    pairs = pair_ratios(results, base, key)
    if pairs:
        return median(pairs)
    ours, theirs = mid(results, key), mid(base, key)
    return ours / theirs if ours is not None and theirs else None


def yes(holds):
    return 'yes' if holds else '**no**'


def missing(promise):
    return promise, NOT_MEASURED, ''


class Check:
    """Figures of one line, and whether all of them are as they should be."""

    def __init__(self, promise, *measured):
        self.promise, self.measured = promise, measured
        self.texts, self.kept = [], []

    def add(self, text, holds):
        self.texts.append(text if holds else f'**{text}**')
        self.kept.append(holds)

    def times(self, results, base, key, limit, what=''):
        x = times(results, base, key)
        if x is not None:
            self.add(f'{what}{x:.3g} ×', x <= limit)

    def line(self):
        if not self.texts:
            return missing(self.promise)
        return (self.promise, ', '.join(self.texts) + few(*self.measured),
                yes(all(self.kept)))


def _of(groups, workload, *modes):
    by_mode = groups.get(workload, {})
    return [by_mode.get(m, []) for m in modes]


def _measured(*results):
    return all(map(ended, results))


def idle(groups):
    for workload, what, limit in (
            ('idle', 'idle 1 GiB guest, uncapped', 1.05),
            ('idle-filled', 'idle 1 GiB guest with 768 MiB in use', 1.05),
            ('idle16g', 'idle 16 GiB guest, uncapped', 0.4)):
        promise = f"{what}: total ≤ {limit} × multifd's, median of pairs"
        tlm, multifd = _of(groups, workload, 'tlm', 'multifd')
        c = Check(promise, tlm, multifd)
        if _measured(tlm, multifd):
            c.times(tlm, multifd, 'total_ms', limit)
            c.texts[0] += (f" ({mid(tlm, 'total_ms'):.0f} ms against "
                           f"{mid(multifd, 'total_ms'):.0f} ms)")
        yield c.line()


def write_heavy(groups):
    plain, auto, offline = _of(groups, 'write-heavy', 'tlm', 'tlm-auto',
                               'offline')
    c = Check('write-heavy, plain: total and bytes ≤ 1.35 × stop and copy',
              plain, offline)
    if _measured(plain, offline):
        for key in ('total_ms', 'bytes'):
            c.times(plain, offline, key, 1.35)
    yield c.line()
    c = Check('write-heavy, `converge=auto`: total ≤ 1.3 × stop and copy, '
              'bytes ≤ 1.3 ×', auto, offline)
    if _measured(auto, offline):
        for key in ('total_ms', 'bytes'):
            c.times(auto, offline, key, 1.3)
    yield c.line()
    c = Check("write-heavy, `converge=auto`: lost work ≤ 1.15 × stop and copy's "
              'total time',
              auto, offline)
    if _measured(auto, offline):
        x = mid(auto, 'guest_lost_ms') / mid(offline, 'total_ms')
        c.add(f'{x:.3g} ×', x <= 1.15)
    yield c.line()
    c = Check('write-heavy, `converge=auto`: downtime ≤ 330 ms', auto)
    if _measured(auto):
        down = mid(auto, 'downtime_ms')
        c.add(f'{down:.0f} ms', down <= 330)
    yield c.line()
    for mode, name in (('autoconverge', 'auto-converge'),
                       ('multifd-autoconverge', 'multifd, auto-converge')):
        rival, = _of(groups, 'write-heavy', mode)
        c = Check(f'write-heavy, `converge=auto`: total ≤ 0.085 × {name}', auto, rival)
        if _measured(auto, rival):
            c.times(auto, rival, 'total_ms', 0.085)
            yield c.line()


def limit_of(results):
    return results[0].get('params', {}).get('downtime-limit', 300)


def is_rival(mode):
    """Of QEMU's own modes, those that are to be compared with."""
    return not mode.startswith(('tlm', 'postcopy')) and mode != 'offline'


def best_stock(by_mode):
    """(results of the best stock mode within the downtime limit, or of the
    one that was cut first; its total in ms; whether that was cut)."""
    within, cut = [], []
    for mode, results in by_mode.items():
        if not is_rival(mode):
            continue
        if ended(results):
            if mid(results, 'downtime_ms') <= TOLERANCE * limit_of(results):
                within.append((mid(results, 'total_ms'), mode))
        elif results[-1]['status'] == 'not ended':
            cut.append((max(r['total_ms'] for r in results
                            if r['status'] == 'not ended'), mode))
    total, mode = min(within or cut, default=(None, None))
    if mode is None:
        return None
    return by_mode[mode], total, not within, min(cut, default=None)


def lost(results):
    v = [x for x in map(series.lost_ms, results) if x is not None]
    return median(v) if v else None


def _against_best(promise, by_mode, auto, limit):
    rival, total, cut, first_cut = best_stock(by_mode)
    name = rival[0]['mode']
    ours = mid(auto, 'total_ms')
    x = ours / total if cut else times(auto, rival, 'total_ms')
    texts = [f"{'< ' if cut else ''}{x:.2g} × {name} "
             f"({seconds(ours)} against {'> ' if cut else ''}"
             f'{seconds(total)})']
    kept = [('total', x <= limit)]
    mine, theirs = lost(auto), lost(rival)
    if mine is not None and theirs is not None:
        texts.append(f"lost work {seconds(mine)} against "
                     f"{'> ' if cut else ''}{seconds(theirs)}")
        kept.append(('lost work', mine < theirs))
    said = ', '.join(f"{what} {'yes' if k else 'no'}" for what, k in kept)
    said = yes(kept[0][1]) if len({k for _, k in kept}) == 1 else f'**{said}**'
    copy = mid(by_mode.get('offline', []), 'total_ms')
    if copy and copy > limit * total:
        said += f'; one copy of RAM alone is {copy / total:.2f} ×'
    if not cut and first_cut and ours > limit * first_cut[0]:
        said += (f'; not known of {by_mode[first_cut[1]][0]["mode"]}, cut '
                 f'after {first_cut[0] / 1e3:.0f} s')
    return promise, ', '.join(texts) + few(auto, rival), said


def regimes(groups):
    for workload, name in REGIMES.items():
        promise = (f'{name}, `converge=auto`: total ≤ 0.35 × the best stock '
                   'mode within the downtime limit, with less lost work')
        by_mode = groups.get(workload, {})
        auto = by_mode.get('tlm-auto', [])
        if ended(auto) and best_stock(by_mode):
            yield _against_best(promise, by_mode, auto, 0.35)
        else:
            yield missing(promise)


def hot_set(groups):
    auto, offline = _of(groups, 'small-hot-set', 'tlm-auto', 'offline')
    c = Check('small hot set at full speed, `converge=auto`: total ≤ 1.2 × '
              'stop and copy, downtime within the limit, no throttling',
              auto, offline)
    if _measured(auto, offline):
        c.times(auto, offline, 'total_ms', 1.2)
        down = mid(auto, 'downtime_ms')
        c.add(f'{down:.0f} ms', down <= limit_of(auto))
        slow = [x for x in map(slowed_ms, auto) if x is not None]
        if slow:
            c.add(f'throttled: {throttled(auto)}',
                  median(slow) <= UNTHROTTLED_MS)
        else:
            *line, kept = c.line()
            yield (*line, kept + '; throttling not recorded')
            return
    yield c.line()


def bound(results):
    """@results: of scripts/bench-bound."""
    promise = (f'bound kept (× {bounds.SHARE} + {bounds.SLOP_MS} ms) in all '
               'random runs')
    if not results:
        yield missing(promise + ' (scripts/bench-bound)')
        return
    done = ended(results)
    kept = sum(map(bounds.kept, done))
    yield (promise, f'{kept} of {len(results)}', yes(kept == len(results)))
    due = [r for r in done if r.get('downtime_due')]
    kept = sum(r['downtime_kept'] for r in due)
    yield (f'downtime ≤ {bounds.DOWNTIME_SHARE} × the limit where said to be '
           'reachable', f'{kept} of {len(due)}',
           yes(kept == len(due)) if due else '')
    c = Check('predicted half-way within 15 % (median)', done)
    for what, key in (('total', 'total_ms'), ('downtime', 'downtime_ms')):
        off = bounds.off(done, what, key)
        if off:
            c.add(f'{what} {median(off):.0f} %', median(off) <= 15)
    yield c.line()


def resent(groups):
    texts = []
    for workload in ('write-heavy', 'small-hot-set'):
        for mode, name in (('tlm', ''), ('tlm-auto', ' with `auto`')):
            results, = _of(groups, workload, mode)
            if ended(results):
                texts.append(f'{workload}{name} {resent_percent(results)} %')
    yield 'pages sent more than once', ', '.join(texts) or NOT_MEASURED, ''


def rows(groups, bound_results):
    return [*idle(groups), *write_heavy(groups), *regimes(groups),
            *hot_set(groups), *bound(bound_results), *resent(groups)]
