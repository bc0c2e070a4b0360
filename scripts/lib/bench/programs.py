# What programs in Linux guests said of themselves after their migration
#
# SPDX-License-Identifier: GPL-2.0-or-later

import re

from .table import NONE, arrived, number, spread, verdict

HEAD = ('mode', 'right', 'last words')
PEER = ('node 2 migrated', 'its total s', 'its downtime ms')
VERIFIED = re.compile(r'^.* VERIFIED .*$', re.M)
WORDS = 100             # letters of a program that are shown


def is_program(by_mode):
    return any(r.get('verdict') for results in by_mode.values()
               for r in results)


def last_words(results):
    """Of the last run that has any: what was verified last, or the last line
    of what was said, and how often something was verified."""
    for r in reversed(results):
        text = r.get('verdict')
        if not isinstance(text, str) or not text.strip():
            continue
        verified = VERIFIED.findall(text)
        lines = verified or [line for line in text.splitlines()
                             if line.strip() and
                             not line.startswith('TLM-GUEST')]
        if lines:
            line = ' '.join(lines[-1].split())[:WORDS]
            return f'`{line}`' + (f' (and {len(verified) - 1} before)'
                                  if len(verified) > 1 else '')
    return NONE


def head(by_mode):
    return HEAD + (PEER if has_peer(by_mode) else ())


def has_peer(by_mode):
    return any(r.get('peer') for results in by_mode.values()
               for r in results)


def rows(by_mode):
    table = []
    for results in by_mode.values():
        if not any(map(arrived, results)):
            continue
        row = [results[0]['mode'], verdict(results), last_words(results)]
        if has_peer(by_mode):
            peers = [r['peer'] for r in results if r.get('peer')]
            done = sum(p['status'] == 'completed' for p in peers)
            row += [f'{done}/{len(peers)}' if peers else NONE,
                    spread(peers, 'total_ms', 1e-3),
                    spread(peers, 'downtime_ms', fmt='{:.0f}')]
        table.append(row)
    return table


def troubles(by_mode):
    """A line for each run that went wrong."""
    lines = []
    for results in by_mode.values():
        for r in results:
            if r['status'] in ('completed', 'not ended', 'not possible'):
                continue
            why = (r.get('error') or '').strip().splitlines()
            lines.append(f"{r['mode']}, run {int(number(r)) + 1}: "
                         f"{r['status']}" + (f': {why[0]}' if why else ''))
    return lines
