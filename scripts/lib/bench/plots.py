# The plots of the report, by matplotlib
#
# SPDX-License-Identifier: GPL-2.0-or-later

import io
import re
import zlib
from statistics import median

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.lines import Line2D

from . import series

matplotlib.rcParams.update({
    'svg.fonttype': 'none', 'svg.hashsalt': 'tlm-bench',
    'font.family': ['DejaVu Sans'], 'font.size': 9,
    'axes.spines.top': False, 'axes.spines.right': False,
    'axes.facecolor': 'none', 'axes.titlesize': 9, 'axes.labelsize': 9,
    'axes.axisbelow': True,
    'hatch.linewidth': 0.5})

STOCK, TLM = '#8b97a5', '#d9622b'
LINES = {'on the wire': '#9ca3af', 'mtx': '#2563eb', 'dtx': '#d9622b',
         'stop': '#7c3aed'}
SHADES = {'guest running': '#e3f0e6', 'guest stopped': '#f6d5d5',
          'post-copy': '#e9e2f6'}
WORKLOADS = matplotlib.colormaps['tab10'].colors
MARKERS = 'os^Dv<>PX'
WIDTH = 11.0            # inches, of all figures
COLUMNS = 4             # timelines side by side


def figure(height):
    return Figure(figsize=(WIDTH, height))


def inset(fig, left, right, top, bottom, **spaces):
    """Margins in inches."""
    w, h = fig.get_size_inches()
    fig.subplots_adjust(left=left / w, right=1 - right / w, top=1 - top / h,
                        bottom=bottom / h, **spaces)


def svg(fig, name):
    """The text of an SVG file; @name tells its ids from those of others in
    the same page."""
    text = io.StringIO()
    fig.savefig(text, format='svg', metadata={'Date': None, 'Creator': None})
    return slim(text.getvalue(), name)


def _round(tag):
    """The numbers of a tag, not those of the text that is shown."""
    return re.sub(r'(?<![\w.#-])-?\d+\.\d{2,}(?![\w.])',
                  lambda m: f'{float(m[0]):.1f}'.removesuffix('.0'), tag[0])


def _ungroup(svg):
    """Without the groups that have no attributes."""
    out, kept = [], []
    for part in re.split(r'(<g\b[^>]*>|</g>)', svg):
        keep = part != '<g/>'
        if part.startswith('<g') and not part.endswith('/>'):
            kept.append(part != '<g>')
            keep = kept[-1]
        elif part == '</g>':
            keep = kept.pop()
        if keep:
            out.append(part)
    return ''.join(out)


def _prefix(name):
    """Ids and classes are of the whole page: they are told apart by this."""
    return f's{zlib.crc32(name.encode()) & 0xfffff:x}-'


def _ids(svg, name):
    """Only those that something refers to, and short."""
    used = list(dict.fromkeys(re.findall(r'href="#([^"]+)"', svg) +
                              re.findall(r'url\(#([^)]+)\)', svg)))
    short = {old: f'{_prefix(name)}i{i}' for i, old in enumerate(used)}
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{short[m[1]]}"'
                 if m[1] in used else '', svg)
    svg = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{short[m[1]]}"', svg)
    return re.sub(r'url\(#([^)]+)\)', lambda m: f'url(#{short[m[1]]})', svg)


def _steps(line):
    """A polyline by the steps from point to point, which are short."""
    points = [tuple(round(float(x) * 10) for x in p.split())
              for p in re.split('[ML]', line)[1:]]
    # What lies within a level stretch is not needed
    points = [p for i, p in enumerate(points)
              if not 0 < i < len(points) - 1 or
              not points[i - 1][1] == p[1] == points[i + 1][1] or
              not points[i - 1][0] <= p[0] <= points[i + 1][0]]
    x0, y0 = points[0]
    steps = [f'{b[0] - a[0]} {b[1] - a[1]}'
             for a, b in zip(points, points[1:])]
    text = f'M{x0} {y0}' + (f'l{" ".join(steps)}' if steps else '')
    text = re.sub(r'-?\d+', lambda m: f'{int(m[0]) / 10:g}', text)
    return text.replace(' -', '-')


def _path(match):
    text = ' '.join(match[1].split())
    text = re.sub(r' ?([MLCQz]) ?', r'\1', text)
    if re.fullmatch(r'(M[-\d. ]+(L[-\d. ]+)*z?)+', text):
        text = re.sub('M[^Mz]+', lambda m: _steps(m[0]), text)
    return f' d="{text}"'


def _classes(svg, name):
    """Styles by class instead of in each element."""
    prefix = _prefix(name)
    styles = list(dict.fromkeys(re.findall(r' style="([^"]+)"', svg)))
    svg = re.sub(r' style="([^"]+)"', lambda m: (
        f' class="{prefix}{styles.index(m[1])}"'), svg)
    rules = ''.join(f'.{prefix}{i}{{{style}}}\n'
                    for i, style in enumerate(styles))
    return svg.replace('</style>', rules + '</style>', 1)


def slim(svg, name):
    """A quarter of its size; its ids unique in a page with other plots."""
    svg = re.sub(r'<metadata>.*?</metadata>\s*', '', svg, flags=re.S)
    svg = re.sub(r'<!--.*?-->', '', svg, flags=re.S)
    svg = re.sub(r'<path [^<>]*style="fill: none"/>', '', svg)
    svg = re.sub('<[^<>]+>', _round, svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', '', svg)
    svg = _classes(_ungroup(_ids(svg, name)), name)
    svg = re.sub(r' d="([^"]+)"', _path, svg)
    return re.sub(r'\s*\n\s*', '\n', svg.replace(' \n', ' '))


def log_axes(*axes):
    for axis in axes:
        low, high = axis.get_view_interval()
        steps = (1, 1.5, 2, 3, 4, 5, 7) if high < low * 8 else \
            (1, 2, 5) if high < low * 500 else (1,)
        axis.set_major_locator(matplotlib.ticker.LogLocator(
            subs=steps, numticks=20))
        axis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.set_major_formatter(
            matplotlib.ticker.FuncFormatter(lambda x, _: f'{x:g}'))


# Bars: a row for each mode, a panel for each figure

def number(x):
    if abs(x - round(x)) < 1e-9:        # as whole milliseconds are
        return f'{x:.0f}'
    for limit, fmt in ((0.095, '{:.3f}'), (9.95, '{:.2f}'), (99.5, '{:.1f}')):
        if x < limit:
            return fmt.format(x)
    return f'{x:.0f}'


def is_tlm(mode):
    return mode.startswith('tlm')


def _bar(ax, y, mode, results, metric):
    """Returns (where the text beside it belongs, the text)."""
    v = metric.ended(results)
    color = TLM if is_tlm(mode) else STOCK
    if v:
        ax.barh(y, median(v), 0.62, color=color, alpha=0.85, clip_on=False)
        ax.plot(v, [y] * len(v), 'o', ms=3, mfc='white', mec='#222222',
                mew=0.7, clip_on=False, zorder=3)
        return max(v), number(median(v))
    status = results[-1]['status']
    if status == 'not possible':
        return 0, 'not possible here'
    if status == 'not ended':
        cut = metric.when_cut(results[-1])
        if cut is None:
            return 0, 'not reached'
        ax.barh(y, cut, 0.62, color='white', ec=color, hatch='////', lw=0.8,
                clip_on=False)
        return cut, f'> {number(cut)}, cut'
    return 0, status


def bars(by_mode, metrics):
    fig = figure(0.3 * len(by_mode) + 0.95)
    axes = fig.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for ax, metric in zip(axes, metrics):
        metric = metric.fitting(by_mode.values())
        texts = [(y, *_bar(ax, y, mode, results, metric))
                 for y, (mode, results) in enumerate(by_mode.items())]
        limit = max((x for _, x, _ in texts), default=0) or 1
        ax.set_xlim(0, limit * 1.5)
        for y, x, text in texts:
            ax.text(x + limit * 0.04, y, text, va='center', fontsize=8)
        ax.set_xlabel(metric.label)
        ax.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(4, prune='upper'))
        ax.grid(axis='x', color='#dddddd', lw=0.6, clip_on=False)
        ax.tick_params(axis='y', length=0)
    names = [r[0]['mode'] for r in by_mode.values()]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    inset(fig, 0.25 + 0.072 * max(map(len, names)), 0.1, 0.12, 0.6,
          wspace=0.1)
    return fig


# Overview: a row for each workload, a mark for each of its main modes

SHOWN = {               # mode: marker, colour, size
    'precopy': ('<', '#9ca3af', 6), 'multifd': ('s', '#5b6675', 5),
    'autoconverge': ('v', '#b8a13c', 6),
    'multifd-autoconverge': ('^', '#7a6a1c', 6),
    'postcopy': ('P', '#7c3aed', 6.5), 'tlm': ('o', TLM, 7),
    'tlm-auto': ('D', '#2563eb', 5.5)}


def _beside(marks):
    """{mode: where in its row}: those that would hide each other apart."""
    at, placed = {}, []
    for mode, (x, _) in marks.items():
        near = sum(max(x, other) < 1.05 * min(x, other) for other in placed)
        at[mode] = (0, -0.24, 0.24)[near % 3]
        placed.append(x)
    return at


def overview(rows, titles):
    """rows: {workload: (its base mode, {mode: (times the base, cut?)})};
    titles: {mode: its name}."""
    fig = figure(0.27 * len(rows) + 1.35)
    ax = fig.subplots()
    for y, (base, marks) in enumerate(rows.values()):
        spread = [x for x, _ in marks.values()] + [1]
        ax.plot((min(spread), max(spread)), (y, y), color='#e5e7eb', lw=3,
                solid_capstyle='round', zorder=1)
        beside = _beside(marks)
        for mode, (x, cut) in marks.items():
            marker, color, size = SHOWN[mode]
            at = y + beside[mode]
            ax.plot(x, at, marker, ms=size, zorder=3, mec=color, mew=1,
                    mfc='white' if cut else color)
            if cut:
                ax.annotate('', (x * 1.16, at), (x, at), zorder=2,
                            arrowprops={'arrowstyle': '->', 'color': color,
                                        'lw': 1})
    ax.axvline(1, color='#374151', lw=0.9, zorder=2)
    ax.set_xscale('log')
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.9), max(high * 1.1, 2))
    log_axes(ax.xaxis)
    ax.set_yticks(range(len(rows)), [
        name + ('' if base == 'offline' else f' (× {titles[base]})')
        for name, (base, _) in rows.items()])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis='y', length=0)
    ax.grid(axis='x', color='#dddddd', lw=0.6)
    ax.set_xlabel('total time [× that of stop and copy]')
    seen = [m for m in SHOWN if any(m in marks for _, marks in rows.values())]
    handles = [Line2D([], [], ls='', marker=SHOWN[m][0], color=SHOWN[m][1],
                      ms=SHOWN[m][2], label=titles[m]) for m in seen]
    if any(cut for _, marks in rows.values() for _, cut in marks.values()):
        handles.append(Line2D([], [], ls='', marker='o', mfc='white',
                              mec='#374151', label='hollow: cut, takes longer'))
    fig.legend(handles=handles, loc='lower center', ncol=4, frameon=False,
               fontsize=8)
    longest = max(len(t.get_text()) for t in ax.get_yticklabels())
    inset(fig, 0.3 + 0.075 * longest, 0.2, 0.12, 0.95)
    return fig


# Timelines: a column for each mode, of its run with the median total time

def _shade(ax, result):
    for begin, end, what in series.stages(result):
        ax.axvspan(begin, end, color=SHADES[what], lw=0)


def _timeline(column, result):
    left, rate, speed = column
    t, v = series.left(result)
    left.plot(t, v, color='#374151', lw=1.2)
    for name in LINES:
        t, v = series.rate(result, name)
        if t:           # the wire's below those of the threads, and wider
            wide = name == 'on the wire' and 'tlm' in result
            rate.plot(t, v, color=LINES[name], lw=2.4 if wide else 1.1)
    t, v = series.speed(result)
    speed.plot(t, v, color='#15803d', lw=1.1)
    begin, end = series.extent(result)
    for ax in column:
        _shade(ax, result)
        ax.set_xlim(begin, end)
        ax.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(5, steps=(1, 2, 5, 10)))
    for ax in (left, rate):
        ax.tick_params(axis='x', length=0)
    speed.set_xlabel('s from the start')
    took = result['total_ms'] / 1e3
    left.set_title(f"{result['mode']}\n" + (
        f'{number(took)} s' if result['status'] == 'completed' else
        f"{result['status']} after {took:.0f} s"))


def highest(ax):
    """Of what is drawn in the row of @ax: a line at the edge is not seen."""
    return max((y for other in ax.get_shared_y_axes().get_siblings(ax)
                for line in other.get_lines() for y in line.get_ydata()),
               default=1)


def timelines(results):
    """At most COLUMNS results."""
    fig = figure(5.45)
    axes = fig.subplots(3, max(2, len(results)), sharey='row', sharex='col',
                        squeeze=False)
    for i, result in enumerate(results):
        _timeline(axes[:, i], result)
    for ax in axes[:, 1:].flat:
        ax.tick_params(axis='y', length=0)
    for ax in axes[:, len(results):].flat:
        ax.set_axis_off()
    for ax, label in zip(axes[:, 0], ('left to send [GB]', 'rate [MB/s]',
                                      'guest speed [%]')):
        ax.set_ylabel(label)
        ax.set_ylim(0, max(ax.get_ylim()[1], 1.08 * highest(ax)))
    fig.align_ylabels(axes[:, 0])
    seen = {what for r in results for *_, what in series.stages(r)}
    seen |= {n for n in LINES for r in results if series.rate(r, n)[0]}
    fig.legend(handles=[
        *(Line2D([], [], color=c, label=n)
          for n, c in LINES.items() if n in seen),
        *(Patch(color=c, label=n) for n, c in SHADES.items() if n in seen)],
        loc='lower center', ncol=7, frameon=False, fontsize=8)
    inset(fig, 0.75, 0.15, 0.45, 0.85, wspace=0.1, hspace=0.12)
    return fig


def chunks(results):
    """Rows of at most COLUMNS, and of about as many each."""
    count = -(-len(results) // COLUMNS)
    ends = [len(results) * i // count for i in range(count + 1)]
    return [results[a:b] for a, b in zip(ends, ends[1:])]


# What was said beforehand against what came

def _scatter(ax, points, groups, title):
    """points: [(group, real s, predicted s)]"""
    both = [x for _, a, b in points for x in (a, b)]
    low, high = min(both) / 1.5, max(both) * 1.5
    line = (low, high)
    ax.fill_between(line, [x * 0.85 for x in line], [x * 1.15 for x in line],
                    color='#e5e7eb', lw=0)
    ax.plot(line, line, color='#9ca3af', lw=0.8)
    for i, group in enumerate(groups):
        mine = [(a, b) for g, a, b in points if g == group]
        if mine:
            ax.plot(*zip(*mine), MARKERS[i % len(MARKERS)], ms=5.5, mew=0,
                    color=WORKLOADS[i % len(WORKLOADS)], alpha=0.75)
    ax.set(xscale='log', yscale='log', xlim=line, ylim=line, title=title,
           xlabel='measured [s]', aspect='equal')
    ax.grid(color='#dddddd', lw=0.6)
    log_axes(ax.xaxis, ax.yaxis)


def scatters(panels, label):
    """panels: {title: [(group, measured s, predicted s)]}"""
    groups = list(dict.fromkeys(g for p in panels.values() for g, *_ in p))
    fig = figure(max(4.6, 0.205 * (len(groups) + 2)))
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, points) in zip(axes, panels.items()):
        _scatter(ax, points, groups, title)
    axes[0].set_ylabel(label)
    handles = [Line2D([], [], ls='', marker=MARKERS[i % len(MARKERS)],
                      color=WORKLOADS[i % len(WORKLOADS)], label=g)
               for i, g in enumerate(groups)]
    handles.append(Patch(color='#e5e7eb', label='within 15 %'))
    fig.legend(handles=handles, loc='upper right', frameon=False, fontsize=8,
               bbox_to_anchor=(0.995, 0.99))
    inset(fig, 0.75, 2.6, 0.35, 0.6, wspace=0.25)
    return fig


# The simulator at sizes that do not fit here

def curves(panels):
    """panels: {title: {mode title: [(x, total s, downtime s)]}}; a row for
    total and downtime, a column for each panel."""
    fig = figure(5.2)
    axes = fig.subplots(2, len(panels), sharex=True, squeeze=False)
    colors = {'stop and copy': STOCK, 'TLM': TLM, 'TLM, converge': '#2563eb'}
    for column, (title, modes) in zip(axes.T, panels.items()):
        for mode, points in modes.items():
            x, total, down = zip(*points)
            for ax, v in zip(column, (total, down)):
                ax.plot(x, v, '.-', color=colors[mode], lw=1.2, ms=4)
        column[0].set_title(title)
        column[1].set_xlabel('guest dirties, in times of the link')
        column[0].set_ylim(0, None)
        column[1].set_yscale('log')
        log_axes(column[1].yaxis)
        for ax in column:
            ax.set_xscale('log')
            ax.grid(color='#dddddd', lw=0.6)
            log_axes(ax.xaxis)
    for ax, label in zip(axes[:, 0], ('total time [s]', 'downtime [s]')):
        ax.set_ylabel(label)
    fig.align_ylabels(axes[:, 0])
    fig.legend(handles=[Line2D([], [], color=c, marker='.', label=n)
                        for n, c in colors.items()],
               loc='lower center', ncol=3, frameon=False)
    inset(fig, 0.75, 0.15, 0.35, 0.85, wspace=0.12, hspace=0.12)
    return fig
