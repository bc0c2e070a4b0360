# The simulator on the parameters of a measured workload, beside the outcome
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import subprocess
from statistics import median

from .table import values

PAGE = 4096
MODELS = {'seq': 'sequential', 'uniform': 'uniform', 'hotcold': 'hotcold'}
MODES = {'tlm': 'none', 'tlm-auto': 'auto', 'offline': 'offline'}
HEAD = ('workload', 'mode', 'total ms', 'simulated', 'downtime ms',
        'simulated')


def run(tool, *options):
    """Returns (total ms, downtime ms)."""
    out = subprocess.run([tool, '--json', *options], check=True, text=True,
                         capture_output=True).stdout
    r = json.loads(out.splitlines()[0])
    return r['total'] * 1e3, r['downtime'] * 1e3


def simulate(tool, guest, mbit, mode, downtime_limit):
    """guest: the settings of a RomGuest.  Returns (total ms, downtime ms)."""
    ws = guest['ws_mb']
    rate = guest.get('rate') or 3e9 / PAGE
    model = guest.get('pattern', 'seq')
    if model == 'hotcold' and guest.get('hot_share') == 100:
        # The rest is never written to: only the hot part is a working set
        model, ws = 'uniform', ws * guest['hot_percent'] / 100
    filled = guest['ws_mb'] / guest['mem_mb']
    return run(
        tool, '--mode', MODES[mode], '--model', MODELS[model],
        '--ram', f"{guest['mem_mb']}m", '--ws', f'{int(ws * 1024)}k',
        '--zero', f'{max(0, 1 - (filled - ws / guest["mem_mb"])):.3f}',
        '--rate', str(int(rate * PAGE)), '--link', str(mbit * 1000000),
        '--limit', str(downtime_limit / 1e3), '--tell-link')


def compare(tool, groups):
    """groups: {workload: {mode: [result]}}.  Returns a dict for each pair of
    which the simulator knows all that matters, real and simulated in ms."""
    found = []
    if not os.path.exists(tool):
        return found
    for workload, by_mode in groups.items():
        for mode in MODES:
            results = by_mode.get(mode, [])
            total = values(results, 'total_ms')
            if not total:
                continue
            r = results[0]
            guest, mbit = r.get('guest_settings'), r.get('link_mbit')
            if not mbit or not guest or 'ws_mb' not in guest or \
                    guest.get('pattern') == 'window':
                continue
            sim = simulate(tool, guest, mbit, mode,
                           r['params']['downtime-limit'])
            found.append({
                'workload': workload, 'mode': mode, 'sim_total': sim[0],
                'total': median(total), 'sim_downtime': sim[1],
                'downtime': median(values(results, 'downtime_ms'))})
    return found


def error(simulated, real):
    if not real:
        return f'{simulated:.0f}'
    return f'{simulated:.0f} ({(simulated - real) / real * 100:+.0f} %)'


def rows(compared):
    return [[c['workload'], c['mode'], f"{c['total']:.0f}",
             error(c['sim_total'], c['total']), f"{c['downtime']:.0f}",
             error(c['sim_downtime'], c['downtime'])] for c in compared]
