# The schemes that docs/benchmarks.md compares: names, colours, medians
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

from .programs import is_program
from .table import NONE, fixed, values
from .workloads import WORKLOADS

RATES = ('rate-is-half-link', 'rate-is-link', 'rate-is-2-links',
         'low-locality')        # one guest, at growing rates


class Scheme:
    """How a mode is called and drawn, in every figure."""

    def __init__(self, title, color, shape, dash=''):
        self.title, self.color = title, color
        self.shape, self.dash = shape, dash


SCHEMES = {
    'tlm-auto': Scheme('TLM, converge', '#8f2d0c', 'circle'),
    'tlm': Scheme('TLM', '#dd7a30', 'diamond'),
    'multifd-autoconverge': Scheme('auto-converge', '#1d4ed8', 'square',
                                   '7 3'),
    'postcopy': Scheme('post-copy', '#7e57c2', 'triangle', '2 3'),
    'offline': Scheme('stop and copy', '#111827', 'cross', '9 3 2 3'),
    'multifd': Scheme('pre-copy (multifd)', '#7b8794', 'wedge', '4 4')}


def lacking(groups):
    """What the page shows and these results do not have: workload/mode."""
    shown = ('write-heavy', *RATES,
             *(w for w in groups if is_program(groups[w])))
    return [f'{w}/{m}' for w in shown for m in WORKLOADS[w].modes
            if m in SCHEMES and m not in groups.get(w, ())]


def title(results):
    """Of the mode of these results."""
    mode = results[0]['key'].split('/')[1]
    return SCHEMES[mode].title if mode in SCHEMES else results[0]['mode']


def mid(results, key, scale=1.0, fmt='{:.2f}'):
    """The median as text."""
    v = values(results, key)
    return fixed(fmt, median(v) * scale) if v else NONE


def least(results, key, scale=1e-3, fmt='{:.2f}'):
    """The median; or how far it had come when all runs were cut."""
    if all(r['status'] == 'not ended' for r in results):
        return f'> {max(r[key] for r in results) * scale:.0f}'
    return mid(results, key, scale, fmt)


def total(results):
    return least(results, 'total_ms')


def downtime(results):
    return mid(results, 'downtime_ms', fmt='{:.0f}')


def lost(results):
    return mid(results, 'guest_lost_ms', 1e-3)
