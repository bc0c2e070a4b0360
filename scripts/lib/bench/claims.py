# The claims of the slides and of this project, each answered in a line
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

from . import bounds, programs
from .table import arrived, values

RIVALS = ('multifd-autoconverge', 'autoconverge')
HALF, QUARTER = 0.5, 0.25
COMPARABLE = 1.25       # times the rival's downtime
MARGIN = 1.05           # less than that is noise
NOT_MEASURED = 'not measured'
RUNS = 5                # of a full measurement; of fewer it is said
HEAD = ('claim', 'where', 'measured', 'holds')


def mid(results, key):
    v = values(results, key)
    return median(v) if v else None


def rival(by_mode):
    """(results of the best pre-copy with auto-converge, its total in ms,
    whether that is where it was cut)"""
    ended = [(mid(by_mode[m], 'total_ms'), m) for m in RIVALS
             if mid(by_mode.get(m, []), 'total_ms')]
    if ended:
        total, mode = min(ended)
        return by_mode[mode], total, False
    cut = [r for m in RIVALS for r in by_mode.get(m, [])
           if r['status'] == 'not ended']
    if cut:
        return cut, max(r['total_ms'] for r in cut), True
    return None, None, False


def ended(results):
    return [r for r in results if r['status'] == 'completed']


def few(*groups):
    """Of how many runs a figure is, if of less than it should be."""
    counts = [len(ended(results)) or len(results) for results in groups]
    if min(counts) >= RUNS:
        return ''
    return ' (n ' + ' against '.join(
        map(str, counts if len(set(counts)) > 1 else counts[:1])) + ')'


def seconds(ms):
    return f'{ms / 1e3:.2f} s'


def yes(holds):
    return 'yes' if holds else 'no'


def less(ours, theirs):
    """A verdict that does not make much of noise."""
    if max(ours, theirs) <= min(ours, theirs) * MARGIN:
        return 'no difference'
    return yes(ours < theirs)


def _totals(groups):
    """(workload, rival's total, whether cut, its n if few, a copy of RAM or
    None, {what: TLM's results}) where there is something to compare."""
    for workload, by_mode in groups.items():
        results, theirs, cut = rival(by_mode)
        ours = {name: by_mode[m]
                for m, name in (('tlm', 'TLM'), ('tlm-auto', 'converge'))
                if mid(by_mode.get(m, []), 'total_ms')}
        if theirs and ours:
            copy = mid(by_mode.get('offline', []), 'total_ms')
            yield workload, theirs, cut, few(results), copy, ours


def _total_line(claim, goal, workload, theirs, cut, theirs_n, copy, ours):
    totals = {name: mid(r, 'total_ms') for name, r in ours.items()}
    text = ', '.join(
        f"{name} {seconds(x)} = {'< ' if cut else ''}{x / theirs:.3f} ×"
        f'{few(ours[name])}' for name, x in totals.items())
    text += f"; auto-converge {'> ' if cut else ''}{seconds(theirs)}{theirs_n}"
    if copy:
        text += f', a copy of RAM {seconds(copy)}'
    holds = {name: yes(x <= goal * theirs) for name, x in totals.items()}
    said = ', '.join(f'{name} {held}' for name, held in holds.items())
    if len(set(holds.values())) == 1:
        said = next(iter(holds.values()))
    if copy and copy > goal * theirs:
        said += f': one copy of RAM alone is {copy / theirs:.2f} ×'
    return claim, workload, text, said


def total_time(groups):
    claim = 'total time ≤ 0.5 × that of pre-copy with auto-converge (slides)'
    lines = [_total_line(claim, HALF, *pair) for pair in _totals(groups)]
    return lines or [(claim, '', NOT_MEASURED, '')]


def quarter(groups):
    claim = ('total time ≤ 0.25 × that of pre-copy with auto-converge, where '
             'that takes longer than two copies of RAM (goal)')
    lines = [_total_line(claim, QUARTER, *pair) for pair in _totals(groups)
             if pair[4] and pair[1] > 2 * pair[4]]
    return lines or [(claim, '', NOT_MEASURED, '')]


def downtime(groups):
    claim = 'downtime comparable to that of pre-copy with auto-converge'
    lines = []
    for workload, by_mode in groups.items():
        results, _, cut = rival(by_mode)
        ours = by_mode.get('tlm-auto', [])
        auto = mid(ours, 'downtime_ms')
        if results is None or auto is None:
            continue
        if cut:
            lines.append((claim, workload, f'converge {auto:.0f} ms; '
                          'auto-converge has not ended', 'yes'))
            continue
        theirs = mid(results, 'downtime_ms')
        limit = ours[0].get('params', {}).get('downtime-limit', 0)
        lines.append((
            claim, workload, f'converge {auto:.0f} ms; auto-converge '
            f'{theirs:.0f} ms{few(results)}; limit {limit} ms',
            yes(auto <= max(theirs * COMPARABLE, limit))))
    return lines or [(claim, '', NOT_MEASURED, '')]


def ends(groups):
    claim = 'ends on guests on which pre-copy does not'
    lines = []
    for workload, by_mode in groups.items():
        endless = [by_mode[m][-1] for m in ('precopy', 'xbzrle', 'multifd')
                   if by_mode.get(m) and all(r['status'] == 'not ended'
                                             for r in by_mode[m])]
        ours = [r for m in ('tlm', 'tlm-auto') for r in by_mode.get(m, [])]
        if endless and ours:
            ended = sum(r['status'] == 'completed' for r in ours)
            lines.append((claim, workload, f'{ended} of {len(ours)} runs of '
                          'TLM; not: ' + ', '.join(
                              f"{r['mode']} (cut after "
                              f"{r['total_ms'] / 1e3:.0f} s)"
                              for r in endless),
                          yes(ended == len(ours))))
    return lines or [(claim, '', NOT_MEASURED, '')]


def dtx_helps(groups):
    claim = 'dtx shortens the downtime against TLM.1S'
    lines = []
    for workload, by_mode in groups.items():
        one, both = (mid(by_mode.get(m, []), 'downtime_ms')
                     for m in ('tlm1s', 'tlm'))
        if one and both is not None:
            lines.append((claim, workload, f'TLM.1S {seconds(one)}, TLM '
                          f'{seconds(both)} = {both / one:.2f} ×',
                          less(both, one)))
    return lines or [(claim, '', NOT_MEASURED, '')]


def is_schedule(mode):
    """Of over-commit, by the mode's name."""
    return mode.startswith('tlm-') and mode[4:5].isdigit()


def takes_nothing(results):
    """The schedule leaves the vCPUs as many host CPUs as there are.  By
    throttle n of 8 CPUs are n/8 of the time, on any host."""
    params = results[0].get('params', {})
    if params.get('tlm-overcommit-method', 'auto') in ('throttle', 'quota'):
        return False
    steps = params.get('tlm-overcommit', ())
    cpus = results[0].get('host', {}).get('cpus')
    return bool(steps and cpus) and all(s['cpus'] >= cpus for s in steps)


def overcommitted(groups):
    """[(workload, mode name, results, results of plain TLM)]"""
    return [(w, m, results, by_mode['tlm'])
            for w, by_mode in groups.items() if by_mode.get('tlm')
            for m, results in by_mode.items() if is_schedule(m)]


def overcommit(groups):
    claim = 'over-commit of host CPUs lowers {}'
    lines = []
    for what, key, show in (
            ('downtime', 'downtime_ms', seconds),
            ('what is sent', 'bytes', lambda b: f'{b / 1e6:.0f} MB')):
        for workload, _, results, plain in overcommitted(groups):
            ours, base = mid(results, key), mid(plain, key)
            if ours is None or not base:
                continue
            said = 'as many CPUs as the host has' \
                if takes_nothing(results) else less(ours, base)
            lines.append((
                claim.format(what), f"{workload}, {results[0]['mode']}",
                f'{show(ours)}, without {show(base)}', said))
    return lines or [(claim.format('downtime'), '', NOT_MEASURED, '')]


def bound(results):
    """@results: of scripts/bench-bound."""
    claim = 'the time bound is kept'
    done = [r for r in results if r['status'] == 'completed']
    if not done:
        return [(claim, '', NOT_MEASURED + ' (scripts/bench-bound)', '')]
    kept = sum(map(bounds.kept, done))
    return [(claim, f'{len(results)} random guests, links and bounds',
             f'{kept} of {len(results)} within bound × {bounds.SHARE} + '
             f'{bounds.SLOP_MS} ms', yes(kept == len(results)))]


def idle(groups):
    claim = 'nothing is lost where multifd does well'
    lines = []
    for workload, by_mode in groups.items():
        if set(by_mode) & set(RIVALS):
            continue
        multifd, tlm = (mid(by_mode.get(m, []), 'total_ms')
                        for m in ('multifd', 'tlm'))
        if multifd and tlm:
            lines.append((claim, workload, f'multifd {seconds(multifd)}, TLM '
                          f'{seconds(tlm)} = {tlm / multifd:.2f} ×',
                          yes(tlm <= multifd * 1.1)))
    return lines or [(claim, '', NOT_MEASURED, '')]


def verified(groups):
    """Of programs in Linux guests."""
    claim = 'programs verify after having been migrated in mid-run'
    lines = []
    for workload, by_mode in groups.items():
        if not programs.is_program(by_mode):
            continue
        there = [r for results in by_mode.values() for r in results
                 if arrived(r)]
        right = sum(r.get('guest') == 'well' for r in there)
        text = f'{right} of {len(there)} migrations in all modes'
        peers = [r['peer'] for r in there if r.get('peer')]
        if peers:
            done = sum(p['status'] == 'completed' for p in peers)
            text += f'; then the other node: {done} of {len(peers)} ended'
        lines.append((claim, workload, text, yes(right == len(there))))
    return lines or [(claim, '', NOT_MEASURED, '')]


def answers(groups, bound_results):
    return [*total_time(groups), *quarter(groups), *downtime(groups),
            *ends(groups), *verified(groups), *bound(bound_results), *dtx_helps(groups),
            *overcommit(groups), *idle(groups)]


# title, key, scale, unit, and a difference that is noise here
FIGURES = (('total time', 'total_ms', 1e-3, 's', 100),
           ('downtime', 'downtime_ms', 1, 'ms', 20),
           ('bytes sent', 'bytes', 1e-6, 'MB', 5e6),
           ('lost guest work', 'guest_lost_ms', 1e-3, 's', 100))
LOSSES = ('workload', 'figure', 'best of TLM', 'better', 'because')
WITHIN_LIMIT = ('both keep the limit: TLM stops the guest as soon as what is '
                'left fits in it')
POSTCOPY = ('it moves the guest first and fetches pages as they are missed: a '
            'link or host that fails then takes the guest along')
OFFLINE = 'it sends every page once, as no guest runs meanwhile'
MILD = ('it hardly slows the guest, and sends its memory again and again '
        'meanwhile: paid for in total time and bytes')
SPARED = 'it lets the guest run, which does not write faster than the link'


def _why(mode, key, ours, theirs, limit):
    if mode == 'offline':
        return OFFLINE
    if mode.startswith('postcopy'):
        return POSTCOPY
    if key == 'downtime_ms' and max(ours, theirs) <= limit:
        return WITHIN_LIMIT
    if 'autoconverge' in mode and key == 'guest_lost_ms':
        return MILD
    return SPARED


def _best(by_mode, key, tlm):
    """(value, mode name) of the best mode that has ended, or None.  What is
    less than nothing, as lost work may be, is noise."""
    ended = [(max(0, mid(r, key)), m) for m, r in by_mode.items()
             if m.startswith('tlm') == tlm and mid(r, key) is not None]
    return min(ended, default=None)


def beaten(groups):
    """Where a stock mode that has ended beats the best of TLM's:
    (workload, one of FIGURES, (TLM's value, mode), (the better one, mode))"""
    for workload, by_mode in groups.items():
        for figure in FIGURES:
            _, key, _, _, noise = figure
            ours, best = (_best(by_mode, key, tlm) for tlm in (True, False))
            if ours and best and ours[0] > max(best[0] * MARGIN,
                                               best[0] + noise):
                yield workload, figure, ours, best


def losses(groups):
    """The same as lines of a table."""
    lines = []
    for workload, (title, key, scale, unit, _), ours, best in beaten(groups):
        by_mode = groups[workload]
        limit = by_mode[best[1]][0].get('params', {}).get('downtime-limit', 0)
        cells = [f'{v * scale:.2f} {unit} ({by_mode[m][0]["mode"]})'
                 + few(by_mode[m]) for v, m in (ours, best)]
        lines.append((workload, title, *cells,
                      _why(best[1], key, ours[0], best[0], limit)))
    return lines
