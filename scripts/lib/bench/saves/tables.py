# What the runs of scripts/bench-checkpoint say, as a table
#
# SPDX-License-Identifier: GPL-2.0-or-later

from ..table import NONE, outcome, paired_ratio, spread, to_markdown

# (what, key of a result, scale, format, whether it is compared with the work
# that is lost otherwise, or with the time that it takes otherwise)
FIGURES = (('pause ms', 'pause_ms', 1, '{:.1f}', False),
           ('total s', 'total_ms', 1e-3, '{:.2f}', False),
           ('lost work s', 'lost_ms', 1e-3, '{:.2f}', True))


def _cell(mine, base, key, scale, form):
    """The median of @mine, its range, and the median of the ratios of runs
    that followed each other."""
    if not mine:
        return NONE
    if not any(r['status'] == 'completed' for r in mine):
        return outcome(mine)
    text = spread(mine, key, scale, form)
    if base and base is not mine and text != NONE:
        ratio = paired_ratio(mine, base, key)
        text += f', × {ratio}' if ratio != NONE else ''
    return text


def rows(guest, results, ways, base, work_base):
    """[[guest, target, what, a cell for each of @ways]]"""
    table = []
    for to in dict.fromkeys(r['to'] for r in results):
        groups = {way: [r for r in results
                        if (r['to'], r['way']) == (to, way)] for way in ways}
        for what, key, scale, form, is_work in FIGURES:
            against = groups.get(work_base if is_work else base)
            if any(key in r for r in results):
                table.append([guest, to, what, *(
                    _cell(groups[way], against, key, scale, form)
                    for way in ways)])
    return table


def markdown(done, titles, base, work_base):
    """@done: {guest: [result]}; titles: {way: its title}"""
    return to_markdown(('guest', 'to', '', *titles.values()), [
        row for guest, results in done.items()
        for row in rows(guest, results, titles, base, work_base)])
