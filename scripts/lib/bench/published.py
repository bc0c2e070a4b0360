# What others have published, beside what was measured here
#
# Slides: K. Chanchio, "Time-Bounded, Thread-Based Live Migration of Virtual
# Machines", Vasabilab, Thammasat University. MPLM: its successor, of the same
# group, for QEMU 2.9, with one thread: means of 10 migrations of NPB class C
# kernels, 8 vCPUs, 8 GB, 1 Gbit/s.
#
# SPDX-License-Identifier: GPL-2.0-or-later

from dataclasses import dataclass
from statistics import median

from . import sim
from .table import NONE, values

PAGE = 4096
MPLM_LINK = 1e9 / 8     # bytes/s
MPLM_RAM = 8 << 30


@dataclass
class Mplm:
    kernel: str
    total: float        # s
    downtime: float     # s
    rate: int = 0       # dirty pages/s; 0: not published
    precopy: float = 0  # s, of QEMU's own
    ours: tuple = ()    # the workloads here that are most like it

    @property
    def links(self):
        return self.rate * PAGE / MPLM_LINK


MPLM = (
    Mplm('MG', 62.25, 21.21, 207637, ours=('npb-mg', 'low-locality')),
    Mplm('IS', 22.84, 4.08, ours=('npb-is-b', 'npb-is')),
    Mplm('SP', 24.05, 5.37, 47370, 984, ('npb-sp', 'rate-is-2-links')),
    Mplm('BT', 19.87, 4.70, 35062, 623, ('npb-bt', 'rate-is-link')),
)

HEAD = ('theirs', 'dirty rate / link', 'total s', 'down s', 'down / total',
        'pre-copy / it', 'ours', 'dirty rate / link', 'total s', 'down s',
        'down / total', 'auto-converge / it', 'simulated on theirs: total s',
        'down s')
DIFFERS = (
    'Theirs are NPB kernels of class C on 8 vCPUs. Beside them is the same '
    'kernel (npb-…) of the class that fits here, on 2 vCPUs; or, where that '
    'has not been measured, a guest of one vCPU that rewrites 1 GiB at random '
    'at the rate that is said, so of their locality it has nothing.',
    'Their links are 1 Gbit/s and their guests 8 GB; ours are smaller by what '
    'this machine can hold. Ratios can be compared, seconds cannot.',
    'How much of their RAM was in use is not published. The simulator was '
    'given what their figures imply: RAM = total × link, working set = '
    'downtime × link, the published dirty rate at random.',
    'Their pre-copy is that of QEMU 2.9 without auto-converge, at its '
    'downtime limit of 300 ms; ours is multifd with auto-converge.',
    'The slides give their times as pictures; their text has the ratio '
    '0.25–0.5 to the auto-converging pre-copy of QEMU 1.6.0, for NPB class D '
    'on 8 vCPUs with 16 and 36 GB.')


def simulated(tool, m, mode='none'):
    if not m.rate or not tool:
        return None
    total, down = sim.run(
        tool, '--mode', mode, '--model', 'uniform', '--zero', '0',
        '--ram', f'{int(m.total * MPLM_LINK) >> 10}k',
        '--ws', f'{int(m.downtime * MPLM_LINK) >> 10}k',
        '--rate', str(m.rate * PAGE), '--link', '1000000000',
        '--limit', '0.3', '--tell-link')
    return total / 1e3, down / 1e3


def _ours(m, groups):
    """Cells of what was measured here."""
    measured = [w for w in m.ours
                if values(groups.get(w, {}).get('tlm', []), 'total_ms')]
    if not measured:
        return [NONE] * 6
    by_mode = groups[measured[0]]
    results = by_mode['tlm']
    total = values(results, 'total_ms')
    r = results[0]
    links = r['guest_settings'].get('rate', 0) * PAGE * 8 / (
        r['link_mbit'] * 1e6) if r.get('link_mbit') else 0
    total, down = median(total), median(values(results, 'downtime_ms'))
    rival = by_mode.get('multifd-autoconverge', [])
    theirs = values(rival, 'total_ms')
    if theirs:
        ratio = f'{median(theirs) / total:.1f}'
    elif rival:
        ratio = f"> {rival[-1].get('total_ms', 0) / total:.1f} (cut)"
    else:
        ratio = NONE
    return [measured[0], f'{links:.1f}' if links else NONE,
            f'{total / 1e3:.2f}', f'{down / 1e3:.2f}',
            f'{down / total:.2f}', ratio]


def rows(groups, tool):
    table = []
    for m in MPLM:
        known = simulated(tool, m)
        table.append(
            [f'MPLM, {m.kernel}.C', f'{m.links:.1f}' if m.rate else NONE,
             f'{m.total:.2f}', f'{m.downtime:.2f}',
             f'{m.downtime / m.total:.2f}',
             f'{m.precopy / m.total:.0f}' if m.precopy else NONE,
             *_ours(m, groups),
             *(f'{x:.1f}' for x in known or ())] + [NONE] * (
                 0 if known else 2))
    return table


# The slides' guest, in the simulator
SLIDES_RAM, SLIDES_WS = 36, 27.3        # GiB
TIMES_OF_LINK = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8, 20, 50)
SIMULATED = {'stop and copy': 'offline', 'TLM': 'none',
             'TLM, converge': 'auto'}


def slides_sizes(tool):
    """{title: {mode: [(dirty rate / link, total s, downtime s)]}}"""
    panels = {}
    for gbit in (1, 10):
        panel = panels[f'{SLIDES_RAM} GiB, {SLIDES_WS} GiB of it written at '
                       f'random, {gbit} Gbit/s'] = {}
        for title, mode in SIMULATED.items():
            panel[title] = [
                (x, *(v / 1e3 for v in sim.run(
                    tool, '--mode', mode, '--model', 'uniform',
                    '--ram', f'{SLIDES_RAM}g',
                    '--ws', f'{int(SLIDES_WS * 1024)}m', '--zero', '0',
                    '--rate', str(int(x * gbit * 1e9 / 8)),
                    '--link', str(gbit * 1000000000), '--limit', '0.3',
                    '--vcpus', '8', '--tell-link')))
                for x in TIMES_OF_LINK]
    return panels
