# Which modes of a workload were measured in turns, and which apart
#
# Interleaved runs share what else the machine does; a mode that was measured
# an hour before the others, or from another commit, does not.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import time

APART_S = 120           # between two runs of a workload: not in one go


def _span(results):
    ends = [r['time'] for r in results]
    return min(r['time'] - r.get('wall_s', 0) for r in results), max(ends)


def _goes(results):
    """Runs by time, split where there is a gap."""
    goes = []
    for r in sorted(results, key=lambda r: r['time']):
        if goes and r['time'] - r.get('wall_s', 0) <= \
                goes[-1][-1]['time'] + APART_S:
            goes[-1].append(r)
        else:
            goes.append([r])
    return goes


def _by_mode(results):
    found = {}
    for r in results:
        found.setdefault(r['mode'], []).append(r)
    return found


def _blocks(go):
    """Of runs without a gap those that took turns: modes of several runs each
    that overlap in time.  A mode of a single run may have had its turn first
    or last."""
    blocks = []
    for name, mine in sorted(_by_mode(go).items(),
                             key=lambda m: _span(m[1])[0]):
        begin, end = _span(mine)
        last = blocks[-1] if blocks else None
        if last and (begin < last['end'] or last['single'] or
                     len(mine) == 1):
            last['runs'] += mine
            last['end'] = max(end, last['end'])
            last['single'] = last['single'] and len(mine) == 1
        else:
            blocks.append({'runs': list(mine), 'end': end,
                           'single': len(mine) == 1})
    return [b['runs'] for b in blocks]


def _commits(results):
    return list(dict.fromkeys(r['host']['commit'] for r in results
                              if r.get('host')))


def _when(results):
    begin, end = (time.gmtime(t) for t in _span(results))
    first = time.strftime('%Y-%m-%d %H:%M', begin)
    same_day = begin[:3] == end[:3]
    return first + '–' + time.strftime(
        '%H:%M' if same_day else '%Y-%m-%d %H:%M', end)


def blocks(by_mode):
    """[[result]]: what was measured in turns, first things first."""
    runs = [r for results in by_mode.values() for r in results
            if r.get('time')]
    return [b for go in _goes(runs) for b in _blocks(go)]


def describe(by_mode):
    """Lines of text; none if all was measured in turns from one commit."""
    found = blocks(by_mode)
    commits = _commits([r for b in found for r in b])
    if len(found) < 2 and len(commits) < 2:
        return []
    lines = []
    for block in found:
        names = [f'{name} ({len(mine)})'
                 for name, mine in _by_mode(block).items()]
        line = f"{', '.join(names)}: {_when(block)} UTC"
        if len(names) > 1:
            line += ', in turns'
        if len(commits) > 1:
            line += f", commit {', '.join(_commits(block)) or 'unknown'}"
        lines.append(line)
    return lines
