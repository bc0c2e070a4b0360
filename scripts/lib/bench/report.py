# The report of scripts/bench: one HTML page, with its plots
#
# SPDX-License-Identifier: GPL-2.0-or-later

import importlib.util
import os
import time
from statistics import median

from tlmtest import env

from . import (bounds, claims, order, plan, programs, promises, published,
               series, sim, store, table)
from .document import Document
from .modes import MODES
from .workloads import WORKLOADS

RESULTS, BOUNDS = 'results.jsonl', 'bound.jsonl'
BARS = (series.TOTAL, series.DOWNTIME, series.SENT, series.LOST)
OVERCOMMIT_BARS = (series.TOTAL, series.DOWNTIME, series.SENT,
                   series.LIVE_SPEED)
OVERVIEW = ('precopy', 'multifd', 'autoconverge', 'multifd-autoconverge',
            'postcopy', 'tlm', 'tlm-auto')
PREDICTED_MS, DOWNTIME_MS = 500, 20
SHOWN_S = 0.8           # of less a timeline has next to no samples
METHOD = (
    'A figure is the median of its runs, with the smallest and the largest in '
    'brackets; n is how many runs ended. Modes take turns: run 1 of each, then '
    'run 2. × is the median of the ratios of runs with the same number (of '
    'bytes: the ratio of medians) to the mode that is named.',
    'Total time and downtime are what QEMU reports; for stop and copy, from '
    'the stop to the guest running again. The guest is silent from the last '
    'change of its counter at the source to the first one at the destination, '
    'looked at every 10 ms from outside.',
    'Lost work is the time of the migration less what the guest got done in '
    'it, at its own rate before: over 1.5 s, of programs over 6 s. CPU time '
    'is that of the source without its vCPUs.',
    'Throttled: by its own account, for how long in all TLM held the vCPUs '
    'back while the guest ran, the stop not included, and by how much at '
    'most; of auto-converge only the latter is known.',
    'The verdict: after the migration the guest compares all of its working '
    'set with what it has written, twice. A program is told to come to an '
    'end, and checks its results itself.')
READING = (
    'Bars are medians, dots single runs; hatched is what was cut before its '
    'end.',
    'Timelines: mtx, dtx and stop count RAM, zero pages in full; short dips '
    'of a guest at full speed are its own checks of its memory.')
LIMITS = (
    'vCPUs, migration threads, both ends of the link and the destination '
    'share the few host CPUs named above; on a real host the threads have '
    'their own, and a guest under KVM suffers less from a dirty-log sync than '
    'one under TCG.',
    'The link is shaped by a token bucket between two network namespaces: no '
    'loss, no other traffic, hardly any latency.',
    'Guests are small. The simulator shows larger ones, and how far it is off '
    'on what was measured.')


APART = ('Not all of these modes were measured in turns with each other, from '
         'the same commit (in brackets the number of runs); between such '
         'groups the machine may have been quicker or slower:')
PROGRAMS = ('What the program found when it checked its results after it had '
            'been migrated in mid-run:')


class NoResults(Exception):
    """There is nothing to report on."""


def missing_matplotlib():
    """What to do about it, or None."""
    if importlib.util.find_spec('matplotlib'):
        return None
    return ('no plots without matplotlib: run scripts/install-deps bench '
            "(Debian's python3-matplotlib), then scripts/bench --report FILE")


def listed(groups):
    """Workloads and modes in the order in which they are listed.  Results of
    those that are not listed any more are left out."""
    return {w: {m: groups[w][m] for m in MODES if m in groups[w]}
            for w in WORKLOADS if w in groups}


def _all(groups):
    return [r for by_mode in groups.values() for results in by_mode.values()
            for r in results]


def _hosts(results):
    """A line for each host and pair of QEMUs."""
    commits = {}
    for h in (r['host'] for r in results if r.get('host')):
        line = (f"Host: {h['cpu']}, {h['cpus']} CPUs, {h['memory_mb']} MiB, "
                f"{h['system']}, Linux {h['kernel']}; source QEMU "
                f"{h['source']} with TLM, destination QEMU "
                f"{h['destination']} without; commit")
        commits.setdefault(line, {})[h['commit']] = True
    return [f"{line} {', '.join(c)}" for line, c in commits.items()]


def noise(groups):
    """By how much the runs of a mode differ, at the median of all."""
    spans = [(max(v) - min(v)) / median(v) for v in (
        table.values(results, 'total_ms') for by_mode in groups.values()
        for results in by_mode.values()) if len(v) > 1]
    return f'{median(spans) * 100:.0f} %' if spans else ''


def _bound_name(result):
    seen = result.get('seen', ())
    return 'bench-bound' + (', link changed' if 'changed' in seen else
                            ', cap changed' if 'cap-changed' in seen else '')


def overview_rows(groups):
    """{workload: (base mode, {mode: (times the base, whether cut)})}"""
    found = {}
    for name, by_mode in groups.items():
        idle = name in WORKLOADS and 'offline' not in WORKLOADS[name].modes
        base = 'multifd' if idle else 'offline'
        if not claims.mid(by_mode.get(base, []), 'total_ms'):
            continue
        marks = {}
        for mode, results in by_mode.items():
            if mode == base or mode not in OVERVIEW:
                continue
            x = promises.times(results, by_mode[base], 'total_ms')
            cut = [r['total_ms'] for r in results
                   if r['status'] == 'not ended']
            if x is not None:
                marks[mode] = x, False
            elif cut:
                marks[mode] = max(cut) / claims.mid(by_mode[base],
                                                    'total_ms'), True
        if marks:
            found[name] = base, marks
    return found


def load(source):
    """({workload: {mode: [result]}}, [result of scripts/bench-bound]) in the
    directory @source."""
    done = plan.load(os.path.join(source, RESULTS))
    if not done:
        raise NoResults(f'no results in {os.path.join(source, RESULTS)}')
    return (listed(plan.by_workload(done)),
            store.read(os.path.join(source, BOUNDS)))


class Report:
    def __init__(self, source, draw=True):
        """Of the results in the directory @source."""
        self.groups, self.bounds = load(source)
        tool = os.path.join(env.BUILD, 'tools/tlm-sim')
        self.tool = tool if os.path.exists(tool) else None
        self.document = Document('Live migration by TLM, measured')
        self.plots = None
        if draw and not missing_matplotlib():
            from . import plots
            self.plots = plots

    def draw(self, name, make, caption):
        """make: returns a figure."""
        if self.plots:
            self.document.plot(name, self.plots.svg(make(), name), caption)

    # Sections

    def opening(self):
        d, results = self.document, _all(self.groups)
        day = time.strftime('%Y-%m-%d', time.gmtime(
            max(r.get('time', 0) for r in results)))
        d.text(f'{len(results)} migrations, the last one on {day}. Made by '
               '`scripts/bench`; every run is a line of `results.jsonl`.')
        d.points(_hosts(results))
        spans = noise(self.groups)
        if spans:
            d.text(f'Noise: total times of the same mode differ by {spans} '
                   'from the smallest to the largest (median of all modes).')
        if missing_matplotlib():
            d.text(missing_matplotlib())

    def promised(self):
        d = self.document
        d.heading('What was promised, and what came out')
        d.table(promises.HEAD, promises.rows(self.groups, self.bounds))
        d.text(promises.POSTCOPY)

    def overview(self):
        rows = overview_rows(self.groups)
        if rows:
            titles = {m: mode.title for m, mode in MODES.items()}
            self.draw('overview', lambda: self.plots.overview(rows, titles),
                      'All workloads: total time against that of stop and '
                      'copy (of idle guests, of multifd), medians')

    def bound(self):
        if self.bounds:
            self.document.heading('The bound, kept or not')
            self.document.table(bounds.HEAD, bounds.rows(self.bounds))

    def claims(self):
        d = self.document
        d.heading('The claims, answered')
        lines = claims.answers(self.groups, self.bounds)
        d.table(claims.HEAD, [
            ('' if i and line[0] == lines[i - 1][0] else line[0], *line[1:])
            for i, line in enumerate(lines)])
        lost = claims.losses(self.groups)
        d.heading('Where another mode does better', 3)
        if lost:
            d.text('Figures by which a mode of QEMU that ended is ahead of '
                   'the best of TLM by more than 5 %.')
            d.table(claims.LOSSES, lost)
        else:
            d.text('Nowhere, by more than 5 % and noise.')

    def workload(self, name, by_mode):
        d = self.document
        base = 'offline' if 'offline' in by_mode else next(iter(by_mode))
        d.heading(next(iter(by_mode.values()))[0]['workload'], 3)
        d.text(f'`scripts/bench --only {name}`; × is against '
               f'"{by_mode[base][0]["mode"]}".')
        d.table(table.HEAD, table.rows(by_mode, base))
        self.apart(by_mode)
        wrong = programs.troubles(by_mode)
        if wrong:
            d.text('Runs that went wrong:')
            d.points(wrong)
        if programs.is_program(by_mode):
            d.text(PROGRAMS)
            d.table(programs.head(by_mode), programs.rows(by_mode))
        self.draw(f'{name}-bars',
                  lambda: self.plots.bars(by_mode, BARS),
                  f'{name}: medians and single runs')
        self.timelines(name, by_mode)

    def apart(self, by_mode):
        """What was not measured in turns with the rest."""
        lines = order.describe(by_mode)
        if lines:
            self.document.text(APART)
            self.document.points(lines)

    def timelines(self, name, by_mode):
        typical = [r for r in map(series.typical, by_mode.values()) if r]
        if not self.plots or not typical or min(
                map(series.end_s, typical)) < SHOWN_S:
            return
        for i, some in enumerate(self.plots.chunks(typical)):
            self.draw(f'{name}-timeline-{i + 1}',
                      lambda some=some: self.plots.timelines(some),
                      f'{name}: the run of each mode with the median total '
                      'time, each on a time axis of its own')

    def workloads(self):
        self.document.heading('Workloads')
        if self.plots:
            self.document.points(READING)
        for name, by_mode in self.groups.items():
            self.workload(name, by_mode)

    def silence(self):
        """Where QEMU's downtime is not what the guest saw."""
        rows = []
        for name, by_mode in self.groups.items():
            for results in by_mode.values():
                told, seen = (claims.mid(results, k) for k in (
                    'downtime_ms', 'guest_down_ms'))
                if told is not None and seen is not None and \
                        abs(seen - told) > max(30, 0.1 * told):
                    rows.append((name, results[0]['mode'], f'{told:.0f}',
                                 f'{seen:.0f}', f'{seen - told:+.0f}'))
        d = self.document
        d.heading('Downtime: what QEMU says and what the guest saw')
        if not rows:
            d.text('They agree to 30 ms or a tenth in all modes.')
            return
        d.text('Pairs that differ by more than 30 ms and a tenth, medians in '
               'ms. A guest that is throttled is silent before it is stopped; '
               'after it, under post-copy, while it waits for its pages.')
        d.table(('workload', 'mode', 'QEMU', 'guest', 'difference'), rows)

    def overcommit(self):
        d = self.document
        d.heading('Over-commit')
        found = dict.fromkeys(w for w, *_ in
                              claims.overcommitted(self.groups))
        d.text('0.2-(2): from 20 % of the pass on, all vCPUs run on 2 host '
               'CPUs. The last panel is what the guest gets done, before it '
               'is stopped, of what it did before.'
               if found else 'Not measured.')
        for name in found:
            by_mode = {m: r for m, r in self.groups[name].items()
                       if m == 'tlm' or claims.is_schedule(m)}
            d.heading(f"Schedules: {by_mode['tlm'][0]['workload']}", 3)
            idle = [r[0]['mode'] for r in by_mode.values()
                    if claims.takes_nothing(r)]
            if idle:
                d.text('The host has no more CPUs than these schedules leave '
                       f"to the vCPUs: {', '.join(idle)}. They take nothing "
                       'away, and stand for the noise.')
            d.table(('mode', 'n', 'total s', 'downtime ms', 'MB sent',
                     'guest speed while live %', 'held by'), [
                         self.overcommit_row(r) for r in by_mode.values()])
            self.draw(f'{name}-schedules',
                      lambda: self.plots.bars(by_mode, OVERCOMMIT_BARS),
                      f'{name}: the schedules')

    @staticmethod
    def overcommit_row(results):
        ended = [r for r in results if r['status'] == 'completed']
        speeds = [{'status': 'completed', 'x': series.live_throughput(r)}
                  for r in ended]
        return (results[0]['mode'], f'{len(ended)}/{len(results)}',
                table.spread(results, 'total_ms', 1e-3),
                table.spread(results, 'downtime_ms', fmt='{:.0f}'),
                table.spread(results, 'bytes', 1e-6, '{:.0f}'),
                table.spread(speeds, 'x', fmt='{:.0f}'),
                ', '.join(sorted({r['held_by'] for r in ended
                                  if r.get('held_by')})) or table.NONE)

    def predictions(self):
        d = self.document
        d.heading('Prediction and reality')
        pairs = {'total': 'total_ms', 'downtime': 'downtime_ms'}
        known = [(name, r) for name, by_mode in self.groups.items()
                 for results in by_mode.values() for r in results] + [
                     (_bound_name(r), r) for r in self.bounds]
        known = [(n, r) for n, r in known if r['status'] == 'completed' and
                 r.get('half_way') and r['total_ms'] >= PREDICTED_MS]
        if not known:
            d.text('Not measured.')
            return
        panels = {f'{what} time' if what == 'total' else what: [
            (n, r[key] / 1e3, r['half_way'][what] / 1e3) for n, r in known
            if r.get(key, 0) >= DOWNTIME_MS and r['half_way'].get(what)]
            for what, key in pairs.items()}
        panels = {t: p for t, p in panels.items() if p}
        d.text('What TLM predicted when it was half-way, and what it came to. '
               f'Left out: migrations of less than {PREDICTED_MS} ms, which '
               f'have no half-way worth the name, and downtimes below '
               f'{DOWNTIME_MS} ms.')
        d.table(('workload', 'n', 'total, median error %', 'downtime, median '
                 'error %'), self.prediction_rows(known, pairs))
        if panels:
            self.draw('predictions', lambda: self.plots.scatters(
                panels, 'predicted at 50 % [s]'),
                'Predictions half-way against what was measured')

    @staticmethod
    def prediction_rows(known, pairs):
        rows = []
        for name in dict.fromkeys(n for n, _ in known):
            mine = [r for n, r in known if n == name]
            rows.append((name, len(mine), *(table.spread(
                [{'status': 'completed', 'x': abs(
                    r['half_way'][what] - r[key]) / r[key] * 100}
                 for r in mine if r.get(key, 0) >= DOWNTIME_MS], 'x',
                fmt='{:.0f}')
                for what, key in pairs.items())))
        return rows

    def simulator(self):
        d = self.document
        d.heading('The simulator')
        if not self.tool:
            d.text('`build/tools/tlm-sim` is not built: not compared.')
            return
        compared = sim.compare(self.tool, self.groups)
        if compared:
            d.text("`build/tools/tlm-sim` runs TLM's own planner on the "
                   'parameters of what was measured.')
            d.table(sim.HEAD, sim.rows(compared))
            panels = {'total time': [(c['workload'], c['total'] / 1e3,
                                      c['sim_total'] / 1e3)
                                     for c in compared],
                      'downtime': [(c['workload'], c['downtime'] / 1e3,
                                    c['sim_downtime'] / 1e3)
                                   for c in compared
                                   if c['downtime'] and c['sim_downtime']]}
            panels = {t: p for t, p in panels.items() if p}
            self.draw('simulator', lambda: self.plots.scatters(
                panels, 'simulated [s]'),
                'The simulator against what was measured')
        d.text("The slides' guest does not fit here. Simulated:")
        self.draw('slides-sizes', lambda: self.plots.curves(
            published.slides_sizes(self.tool)),
            'Simulated: total time and downtime (limit 300 ms) over the rate '
            'at which the guest dirties its memory')

    def others(self):
        d = self.document
        d.heading('Beside what others have published')
        d.table(published.HEAD, published.rows(self.groups, self.tool))
        d.points(published.DIFFERS)

    def closing(self):
        d = self.document
        d.heading('How it was measured, and what it cannot show')
        d.points(METHOD)
        d.points(LIMITS)

    def html(self):
        for section in (self.opening, self.overview, self.promised,
                        self.claims, self.bound, self.workloads, self.silence,
                        self.overcommit, self.predictions, self.simulator,
                        self.others, self.closing):
            section()
        return self.document.html()


def write(source, path, draw=True):
    """Of the results in the directory @source, to the file @path.  Returns
    what is missing, or None."""
    text = Report(source, draw).html()
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)
    return missing_matplotlib()
