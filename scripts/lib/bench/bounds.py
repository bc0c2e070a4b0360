# The results of scripts/bench-bound
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

SHARE, SLOP_MS = 1.03, 50
DOWNTIME_SHARE = 1.2
HEAD = ('runs', 'completed', 'bound kept', 'worst overrun ms',
        'downtime limit kept', 'total predicted within',
        'downtime predicted within')
PARTS = {
    'all': lambda r: True,
    'converge=none': lambda r: r['converge'] == 'none',
    'converge=auto': lambda r: r['converge'] == 'auto',
    'link changed': lambda r: 'changed' in r['seen'],
    'cap changed': lambda r: 'cap-changed' in r['seen'],
    'tlm-bound-action=cancel': lambda r: r.get('action') == 'cancel',
}


def kept(result):
    """Of one that was completed."""
    return result['total_ms'] <= result['bound'] * SHARE + SLOP_MS


def off(results, what, actual):
    """By how many percent what was predicted at half of the way was off."""
    return [abs(r['half_way'][what] - r[actual]) / r[actual] * 100
            for r in results if r.get('half_way') and r[actual]]


def _off(results, what, actual):
    v = off(results, what, actual)
    return f'{median(v):.0f} % ({len(v)} runs)' if v else '–'


def rows(results):
    table = []
    for title, belongs in PARTS.items():
        part = [r for r in results if belongs(r)]
        done = [r for r in part if r['status'] == 'completed']
        due = [r for r in done if r['downtime_due']]
        if part:
            table.append([
                f'{title}: {len(part)}', len(done), sum(map(kept, done)),
                f"{max([0, *(r['over_ms'] for r in done)]):.0f}",
                f"{sum(r['downtime_kept'] for r in due)} of {len(due)}",
                _off(done, 'total', 'total_ms'),
                _off(done, 'downtime', 'downtime_ms')])
    return table
