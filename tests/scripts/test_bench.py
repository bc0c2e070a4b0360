#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/bench without a virtual machine: what is run, and the report."""

import html.parser
import importlib.machinery
import importlib.util
import json
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree as ElementTree

from bench import (claims, facts, figures, linux, order, plan, promises,
                   report, run, schemes, series, sim, store, svg, table,
                   timeline)
from bench.flat import grouped
from bench.modes import MODES
from bench.saves import tables
from bench.saves.run import stands_ms
from bench.workloads import WORKLOADS
import mkbench          # tlmtest.env, which bench imports, knows where it is

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


RATE = 750000           # pages/s of the synthetic guest
LINK = 300e6            # bytes/s
CUT = ('precopy', 'multifd', 'xbzrle')
NOT_POSSIBLE = 'postcopy-pass'
PLOT_LIMIT = 60 << 10
PAGE_LIMIT = 1500000    # of the whole report
SVG = '{http://www.w3.org/2000/svg}'


WORDS = {
    'npb': 'TLM-GUEST beat=9 ms=5 passes=1 pages=7 scans=1\n'
           'IS A VERIFIED run=1 iterations=10 seconds=1.2 units=9\n'
           'IS A VERIFIED run=2 iterations=10 seconds=1.2 units=9\n'
           'TLM-GUEST beat=10 ms=6 passes=1 pages=7 scans=2',
    'redis': 'redis: all keys are right, 120000 of 120000 are there, '
             'commands: 5',
    'postgresql': 'postgresql: all balances are right, transactions: 5',
    'stress-ng': 'passed: 1: vm (1)\nsuccessful run completed in 20 secs'}


def guest_counts(live_ms, end_ms, share, after):
    """Full speed before and (if @after) behind, @share of it while live."""
    pages, counts = 0, []
    for t in range(-1000, end_ms + 1000, 100):
        counts.append((t, int(pages)))
        full = RATE / 10
        pages += (full * share if 0 <= t < live_ms else
                  full if t < 0 or (after and t >= end_ms) else 0)
    return counts


def synthetic_timeline(mode, live_ms, end_ms, sent, share):
    rows = []
    for t in range(3, end_ms, 200):
        done = t / end_ms
        tlm = [sent * done * x for x in (0.3, 0.5, 0.2)] \
            if mode.startswith('tlm') else [None] * 3
        stage = 'postcopy-active' if mode.startswith('postcopy') \
            else 'live' if t < live_ms else 'stop'
        rows.append([t, 1e9 * (1 - done), sent * done, *tlm, None, None,
                     stage, None, None])
    return {'columns': timeline.COLUMNS, 'rows': rows,
            'guest_columns': ('t_ms', 'pages'),
            'guest': guest_counts(live_ms, end_ms, share, mode not in CUT)}


def completed(total, down, sent, lost):
    return {'status': 'completed', 'error': None, 'total_ms': total,
            'downtime_ms': down, 'guest_down_ms': down + 12.0,
            'bytes': sent, 'guest_lost_ms': lost, 'cpu_s': total / 2e3,
            'guest': 'well'}


def outcome(mode, spread):
    """As it is on a guest that writes faster than the link carries."""
    if mode == NOT_POSSIBLE:
        return {'status': 'not possible', 'error':
                'src: migrate-set-capabilities: Userfaultfd not available'}
    if mode in CUT:
        return {'status': 'not ended', 'error': None, 'total_ms': 100010.0,
                'bytes': int(100 * LINK), 'cpu_s': 50.0}
    if 'autoconverge' in mode:
        return completed(63000 * spread, 220, int(63 * LINK), 40000 * spread)
    if mode == 'offline':
        return completed(3850 * spread, 3850 * spread, 1080000000, 3850)
    if mode.startswith('postcopy'):
        return completed(4600 * spread, 4, 1170000000, 3100 * spread)
    if mode == 'tlm-auto':
        return completed(4330 * spread, 267, 1227000000, 3800 * spread)
    return completed(4340 * spread, 3700 * spread, 1230000000, 3780 * spread)


def synthetic(workload, mode, number):
    r = {'mode': MODES[mode].title, 'workload': WORKLOADS[workload].title,
         'key': plan.key((workload, mode, number)), 'time': 1795480641,
         'link_mbit': 2400, 'base_rate': RATE,
         'guest_settings': getattr(WORKLOADS[workload].guest, 'settings', {}),
         'params': {'downtime-limit': 300, **WORKLOADS[workload].params,
                    **MODES[mode].params},
         'limit_s': 100, 'wall_s': 12.0,
         'host': {'cpu': 'Test', 'cpus': 2, 'memory_mb': 1, 'system': 'Test',
                  'kernel': '1', 'commit': 'c', 'source': '10.0.13',
                  'destination': '10.0.13'},
         **outcome(mode, 1 + number * 0.02)}
    if r['status'] == 'not possible':
        return r
    settings = getattr(WORKLOADS[workload].guest, 'settings', {})
    if 'set' in settings and r['status'] == 'completed':
        r['verdict'] = WORDS.get(settings['set'], WORDS['npb'])
        if settings['set'] == 'mpi':
            r['peer'] = {'status': 'completed', 'total_ms': 3900 + number,
                         'downtime_ms': 240}
    end = int(r['total_ms'])
    down = int(r.get('downtime_ms', 0))
    r['timeline'] = synthetic_timeline(mode, end - down, end, r['bytes'], 0.8)
    if claims.is_schedule(mode):
        r['held_by'] = 'cgroup-v1-cpuset'
    if mode.startswith('tlm'):
        r['tlm'] = {'ram': {'mtx': 3e8, 'dtx': 6e8, 'stop': 3e8,
                            'resent': 15e7},
                    'guest': {'lost-work': down + (
                        900 if mode == 'tlm-auto' else 2)}}
        r['half_way'] = {'at': end / 2, 'total': end * 1.05,
                         'downtime': down * 0.95}
    return r


def write_results(directory, workloads=WORKLOADS, runs=3, modes=None):
    with open(os.path.join(directory, report.RESULTS), 'w') as f:
        for w, m, i in plan.select({n: WORKLOADS[n] for n in workloads},
                                   modes, runs):
            f.write(json.dumps(synthetic(w, m, i)) + '\n')
    with open(os.path.join(directory, report.BOUNDS), 'w') as f:
        for i in range(5):
            r = {**synthetic('write-heavy', 'tlm', i), 'bound': 4000,
                 'converge': 'none', 'seen': {}, 'over_ms': 400 + i,
                 'downtime_due': False, 'downtime_kept': False}
            f.write(json.dumps(r) + '\n')


def pack(path):
    """As xz does."""
    with open(path, 'rb') as f, lzma.open(path + store.PACKED, 'wb') as to:
        to.write(f.read())
    os.remove(path)
    return path + store.PACKED


class Words(html.parser.HTMLParser):
    """The words of a page, with a line for each heading, point and row."""

    BEGIN = {'h2': '## ', 'h3': '### ', 'li': '- ', 'tr': '| ', 'code': '`'}
    END = {'h2': '\n', 'h3': '\n', 'li': '\n', 'tr': '\n', 'p': '\n',
           'td': ' | ', 'th': ' | ', 'code': '`'}

    def __init__(self):
        super().__init__()
        self.out, self.plots = [], 0

    def handle_starttag(self, tag, attrs):
        self.plots += tag == 'figure'
        self.out.append(self.BEGIN.get(tag, ''))

    def handle_endtag(self, tag):
        self.plots -= tag == 'figure'
        self.out.append(self.END.get(tag, ''))

    def handle_data(self, data):
        if not self.plots:
            self.out.append(data)


def flat(page):
    parser = Words()
    parser.feed(page)
    return ''.join(parser.out)


class Scratch(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='tlm-bench-')
        self.addCleanup(shutil.rmtree, self.dir)
        self.path = os.path.join(self.dir, report.RESULTS)


class Plan(Scratch):
    """Which runs are made, and which are not made again."""

    RUNS = [('write-heavy', m, i) for i in range(2)
            for m in ('tlm', 'offline')]

    def execute(self, runs, measure, limit=100):
        self.left = []
        return plan.execute(
            runs, self.path, lambda _: limit, measure,
            lambda made, of, left, run: self.left.append((made, of, left)))

    def measure(self, workload, mode):
        self.made.append((workload, mode))
        return dict(outcome(mode, 1), limit_s=100)

    def setUp(self):
        super().setUp()
        self.made = []

    def test_interleaved(self):
        modes = [m for _, m, _ in plan.select(
            {'overcommit': WORKLOADS['overcommit']}, runs=2)]
        half = len(modes) // 2
        self.assertEqual(modes[:half], modes[half:])
        self.assertEqual(len(set(modes[:half])), half)

    def test_nothing_twice(self):
        self.execute(self.RUNS, self.measure)
        self.assertEqual(len(self.made), 4)
        done = self.execute(self.RUNS, self.measure)
        self.assertEqual(len(self.made), 4)
        self.assertEqual(set(done), set(map(plan.key, self.RUNS)))

    def test_goes_on_after_an_interruption(self):
        def interrupted(workload, mode):
            if len(self.made) == 2:
                raise KeyboardInterrupt
            return self.measure(workload, mode)

        with self.assertRaises(KeyboardInterrupt):
            self.execute(self.RUNS, interrupted)
        with open(self.path, 'a') as f:
            f.write('{"key": "write-heavy/tlm/1", "stat')     # killed here
        done = self.execute(self.RUNS, self.measure)
        self.assertEqual(self.made, [r[:2] for r in self.RUNS])
        self.assertEqual(len(done), 4)
        self.assertEqual(set(plan.load(self.path)), set(done))

    def test_cut_sooner_is_made_again(self):
        def cut(workload, mode):
            self.made.append(mode)
            return {'status': 'not ended', 'limit_s': self.limit}

        run = [('write-heavy', 'precopy', 0)]
        for self.limit, count in ((20, 1), (20, 1), (100, 2), (20, 2)):
            self.execute(run, cut, self.limit)
            self.assertEqual(len(self.made), count, self.limit)

    def test_not_possible_is_tried_once(self):
        runs = [('write-heavy', NOT_POSSIBLE, i) for i in range(3)]
        self.execute(runs, self.measure)
        self.assertEqual(len(self.made), 1)
        self.execute(runs, self.measure)
        self.assertEqual(len(self.made), 1)

    def test_endless_is_cut_twice(self):
        runs = [('write-heavy', m, i) for i in range(4)
                for m in ('precopy', 'tlm')]
        self.execute(runs, self.measure)
        self.assertEqual(self.made.count(('write-heavy', 'precopy')), 2)
        self.assertEqual(self.made.count(('write-heavy', 'tlm')), 4)
        self.execute(runs, self.measure)
        self.assertEqual(len(self.made), 6)

    def test_cut_by_an_earlier_call(self):
        """As by --runs 1 --limit 40."""
        def cut(workload, mode):
            self.made.append(mode)
            return {'status': 'not ended', 'limit_s': 40}

        one = [('write-heavy', 'precopy', 0)]
        five = [('write-heavy', 'precopy', i) for i in range(5)]
        self.execute(one, cut, 40)
        self.assertEqual(len(self.made), 1)
        for runs in (one, five):
            self.execute(runs, cut, 40)
            self.assertEqual(len(self.made), 1)
            self.execute(runs, cut, 20)
            self.assertEqual(len(self.made), 1)
        self.execute(one, cut, 100)         # it might end by then
        self.assertEqual(len(self.made), 2)

    def test_goes_on_from_packed_results(self):
        self.execute(self.RUNS[:2], self.measure)
        packed = pack(self.path)
        self.assertEqual(len(plan.load(self.path)), 2)
        self.execute(self.RUNS, self.measure)
        self.assertEqual(len(self.made), 4)
        os.remove(packed)
        self.assertEqual(len(plan.load(self.path)), 4)

    def test_time_left(self):
        done = {'a/slow/0': {'wall_s': 60}, 'a/fast/0': {'wall_s': 2}}
        self.assertEqual(plan.duration(('a', 'slow', 1), done), 60)
        self.assertEqual(plan.duration(('b', 'fast', 0), done), 2)
        self.assertEqual(plan.duration(('b', 'new', 0), done), 31)
        self.execute(self.RUNS, self.measure)
        self.assertEqual([x[:2] for x in self.left],
                         [(i, 4) for i in range(4)])
        lefts = [x[2] for x in self.left]
        self.assertEqual(lefts[0], 4 * plan.UNKNOWN_S)
        self.assertLess(lefts[-1], lefts[0])

    def test_quick(self):
        runs = plan.select(WORKLOADS, quick=True)
        self.assertTrue({m for _, m, _ in runs} >=
                        {'offline', 'precopy', 'multifd-autoconverge', 'tlm',
                         'tlm-auto'})
        # 10 minutes, also if every run is cut (2 s around it, measured; 20 s
        # for a Linux guest, which boots, and comes to an end)
        self.assertLess(sum(
            plan.QUICK_LIMIT_S + (20 if 'set' in WORKLOADS[w].guest.settings
                                  else 2) for w, _, _ in runs), 10 * 60)
        self.assertEqual({i for *_, i in runs}, {0})


class Samples(unittest.TestCase):
    """The timeline of a run."""

    def test_rows_are_thinned(self):
        t = timeline.Timeline()
        for i in range(100):
            t.look(i * 0.02, {'status': 'active', 'ram': {
                'remaining': 5, 'transferred': i}})
        self.assertEqual(len(t.rows), 10)
        self.assertEqual({len(r) for r in t.rows}, {len(timeline.COLUMNS)})

    def test_resumption_is_new_work_only(self):
        w = timeline.Watch.__new__(timeline.Watch)
        w.src, w.dst, w.src_alive, w.dst_alive = (
            timeline.Counter() for _ in range(4))
        for t, src, dst in ((0, 10, 0), (1, 20, 5), (2, 30, 20), (3, 30, 30),
                            (4, 30, 30), (5, 30, 31)):
            for counter, count in ((w.src, src), (w.dst, dst),
                                   (w.src_alive, src), (w.dst_alive, dst)):
                counter.add(t, count)
        self.assertEqual(w.resumed(), (2, 5))
        self.assertEqual([w.count_at(t) for t in (0.5, 3.5, 5.5)],
                         [10, 30, 31])

    def test_alive_is_looked_at_for_silence(self):
        class Guest:
            def progress(self, vm):
                return vm

        src, dst = {'pages': 5, 'alive': 9}, {'pages': 0, 'alive': 0}
        w = timeline.Watch(Guest(), src, dst, threading.Event())
        looks = ((w.src, w.src_alive), (w.dst, w.dst_alive))

        def look():
            for vm, counters in zip((src, dst), looks):
                w._look(vm, *counters)

        look()
        dst.update(src)             # it has arrived, and stands still
        look()
        self.assertIsNone(w.resumed())
        dst['alive'] = 10           # it runs, before its work goes on
        look()
        self.assertEqual(w.resumed(),
                         (w.src_alive.times[-1], w.dst_alive.times[-1]))
        self.assertEqual(w.dst.pages, [0, 5])

    def test_destination_is_left_alone_until_it_has_arrived(self):
        class Guest:
            looks = []

            def progress(self, vm):
                self.looks.append(vm)
                return {'pages': 1}

        def wait_for(what):
            deadline = time.monotonic() + 60
            while what not in Guest.looks and time.monotonic() < deadline:
                time.sleep(0.001)
            self.assertIn(what, Guest.looks)

        arrived = threading.Event()
        w = timeline.Watch(Guest(), 'src', 'dst', arrived)
        Guest.looks.clear()         # finding the counter
        w.start()
        try:
            for _ in range(3):
                wait_for('src')
                self.assertNotIn('dst', Guest.looks)
                Guest.looks.clear()
            arrived.set()
            wait_for('dst')
        finally:
            w.close()

    def test_series(self):
        r = synthetic('write-heavy', 'tlm', 0)
        _, rates = series.rate(r, 'on the wire')
        for v in rates:
            self.assertAlmostEqual(v, r['bytes'] / r['total_ms'] / 1e3,
                                   delta=1)
        _, speeds = series.speed(r)
        self.assertAlmostEqual(speeds[0], 100, delta=1)
        self.assertAlmostEqual(series.live_throughput(r), 80, delta=1)
        self.assertEqual([s[2] for s in series.stages(r)],
                         ['guest running', 'guest stopped'])

    def test_cut_run_does_not_seem_to_stop(self):
        r = synthetic('write-heavy', 'precopy', 0)
        self.assertGreater(r['timeline']['guest'][-1][0], r['total_ms'])
        times, speeds = series.speed(r)
        self.assertLess(times[-1], r['total_ms'] / 1e3)
        self.assertAlmostEqual(speeds[-1], 80, delta=1)

    def test_thinned(self):
        xs, ys = series.thin(list(range(315)), [2.0] * 315)
        self.assertLessEqual(len(xs), series.POINTS)
        self.assertEqual(set(ys), {2.0})
        self.assertEqual(xs, sorted(xs))
        few = [1, 2], [3, 4]
        self.assertEqual(series.thin(*few), few)

    def test_units_fit(self):
        runs = [synthetic('idle', 'tlm', i) for i in range(3)]
        cut = [synthetic('write-heavy', 'precopy', 0)]
        for r, ms in zip(runs, (3, 9, 600)):
            r['total_ms'] = ms
        fit = series.TOTAL.fitting([runs])
        self.assertEqual(fit.label, 'total time [ms]')
        self.assertEqual([round(x) for x in fit.ended(runs)], [3, 9, 600])
        self.assertIs(series.TOTAL.fitting([runs, cut]), series.TOTAL)
        runs[2]['total_ms'] = 1000
        self.assertIs(series.TOTAL.fitting([runs]), series.TOTAL)
        self.assertIs(series.LIVE_SPEED.fitting([runs]), series.LIVE_SPEED)

    def test_lost_work_of_a_cut_run(self):
        r = synthetic('write-heavy', 'precopy', 0)
        self.assertAlmostEqual(series.lost_ms(r), 0.2 * r['total_ms'],
                               delta=200)


class Flat(Scratch):
    """Results of the time when query-migrate's "tlm" had no groups."""

    OLD = {'stage': 'done', 'decision': 'as it happens', 'eta': 0,
           'predicted-total': 1000, 'deadline': 2000, 'slack': 900,
           'bound-reachable': True, 'mtx-bytes': 3, 'resent-bytes': 1,
           'epochs': 7, 'lost-work': 5, 'overcommit-note': 'none',
           'downtime': {'ram': 7}}
    NEW = {'stage': 'done', 'decision': 'as it happens',
           'prediction': {'eta': 0, 'total': 1000},
           'bound': {'time': 2000, 'slack': 900, 'reachable': True},
           'ram': {'mtx': 3, 'resent': 1}, 'epochs': {'count': 7},
           'guest': {'lost-work': 5}, 'overcommit': {'note': 'none'},
           'downtime': {'ram': 7}}

    def test_read(self):
        with open(self.path, 'w') as f:
            for tlm in (self.OLD, self.NEW):
                f.write(json.dumps({'tlm': tlm}) + '\n')
            f.write(json.dumps({'mode': 'offline'}) + '\n')
        wanted = [{'tlm': self.NEW}, {'tlm': self.NEW}, {'mode': 'offline'}]
        self.assertEqual(store.read(self.path), wanted)
        pack(self.path)
        store.unpack(self.path)
        self.assertEqual(store.read(self.path), wanted)

    def test_no_bound(self):
        new = grouped({'mtx-bytes': 3, 'bound-reachable': True})
        self.assertEqual(new, {'ram': {'mtx': 3}})

    def test_published(self):
        """Nothing that they have is without a place today."""
        tlm = [r['tlm'] for r in store.read(os.path.join(
            ROOT, 'docs/benchmarks', report.RESULTS)) if 'tlm' in r]
        self.assertTrue(tlm)
        for members in tlm:
            self.assertLessEqual(members.keys(), {
                'stage', 'progress', 'decision', 'live-time', 'bandwidth',
                'prediction', 'bound', 'ram', 'guest', 'epochs', 'overcommit',
                'downtime'})
            self.assertIsInstance(members['ram']['mtx'], int)
            self.assertIsInstance(members['guest']['lost-work'], int)


class LinuxPrograms(unittest.TestCase):
    """What the host reads of a Linux guest, which is none here."""

    class Vm:
        def __init__(self, page, serial=''):
            self.page, self.text = page, serial

        def main_block(self):
            return 'pc.ram'

        def read_block(self, block, offset, length):
            assert (block, offset) == ('pc.ram', linux.PAGE)
            return self.page[:length]

        def serial(self):
            return self.text

        def alive(self):
            return True

    def guest(self):
        guest = linux.BenchGuest.__new__(linux.BenchGuest)
        guest.name = 'npb'
        return guest

    def page(self, state, magic=linux.MAGIC):
        return struct.pack('<6Q', magic, 7, 9, state, 0, 3) + bytes(4048)

    def test_counter(self):
        vm = self.Vm(self.page(linux.READY))
        self.assertEqual(self.guest().progress(vm),
                         {'pages': 9, 'alive': 7, 'scans': 3})
        self.assertTrue(self.guest().filled(vm))
        self.assertIsNone(self.guest().corruption(vm))

    def test_no_counter_yet(self):
        vm = self.Vm(self.page(linux.READY, magic=5))
        self.assertFalse(self.guest().filled(vm))
        self.assertEqual(self.guest().progress(vm)['pages'], 0)

    def test_trouble(self):
        ready = self.page(linux.READY)
        for line in ('TLM-GUEST-CORRUPT IS A run=3: full got=1 want=0',
                     'TLM-BENCH-FAILED redis: wrong: key 5',
                     '[ 9.1] Kernel panic - not syncing: init',
                     'stress-ng[5]: segfault at 0 ip 5'):
            self.assertIn(line[:20], self.guest().corruption(
                self.Vm(ready, f'a\r\n{line}\r\nb')) or '')
        self.assertIn('TLM-BENCH ended', self.guest().corruption(
            self.Vm(self.page(linux.FAILED), 'TLM-BENCH ended with status 1')))

    def test_offsets_are_those_of_the_header(self):
        with open(os.path.join(ROOT, 'tests/guest/linux/counter.h')) as f:
            text = f.read()
        def fields(struct):
            body = re.search(rf'^typedef struct {struct} \{{(.*?)^\}}', text,
                             re.M | re.S)[1]
            return re.findall(r'^    (\w+) (\w+)[;[]', body, re.M)
        self.assertEqual(fields('TlmCounter'), [
            *(('uint64_t', name) for name in linux.FIELDS),
            ('TlmClient', 'client')])
        self.assertEqual(fields('TlmClient'), [
            ('uint64_t', 'asked'), ('uint64_t', 'acknowledged')])
        self.assertEqual(
            int(re.search(r'TLM_MAX_CLIENTS (\d+)', text)[1]),
            linux.MAX_CLIENTS)
        self.assertEqual(
            int(re.search(r'MAGIC UINT64_C\((0x\w+)\)', text)[1], 16),
            linux.MAGIC)
        states = re.search(r'enum \{(.*?)\}', text, re.S)[1]
        self.assertEqual(re.findall(r'TLM_(\w+),', states),
                         ['STARTING', 'READY', 'DONE', 'FAILED'])

    def test_libraries(self):
        with tempfile.TemporaryDirectory() as root:
            found, missing = mkbench.closure(root, [sys.executable])
            self.assertIn('libc.so.6', missing)
            self.assertEqual(found, {})
            script = os.path.join(root, 'script')
            with open(script, 'w') as f:
                f.write('#!/bin/sh\n')
            self.assertEqual(mkbench.needed(script), [])

    def test_tree(self):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, 'share/pg/sets'))
            for name in ('share/pg/b', 'share/pg/sets/a', 'share/other'):
                with open(os.path.join(root, name), 'w') as f:
                    f.write(name)
            os.symlink('/etc/passwd', os.path.join(root, 'share/pg/link'))
            image = mkbench.Image()
            image.add_tree(root, 'share/pg')
            self.assertEqual(
                {name: data.decode() for name, (mode, data, _)
                 in image.entries.items() if stat.S_ISREG(mode)},
                {name: name for name in ('share/pg/b', 'share/pg/sets/a')})


class Claims(unittest.TestCase):
    def groups(self, **by_mode):
        return {'write-heavy': {m.replace('_', '-'): r
                                for m, r in by_mode.items()}}

    def runs(self, mode, **values):
        return [{**synthetic('write-heavy', mode, i), **values}
                for i in range(3)]

    def verdict(self, answer, groups):
        return [line[3] for line in answer(groups)]

    def test_total(self):
        rival = self.runs('autoconverge')
        for total, half, quarter in ((4000, 'yes', 'yes'),
                                     (30000, 'yes', 'no'),
                                     (40000, 'no', 'no')):
            groups = self.groups(
                tlm=self.runs('tlm', total_ms=total), autoconverge=rival,
                offline=self.runs('offline'))
            self.assertEqual(self.verdict(claims.total_time, groups), [half])
            self.assertEqual(self.verdict(claims.quarter, groups), [quarter])

    def test_modes_that_differ(self):
        groups = self.groups(
            **{'tlm': self.runs('tlm', total_ms=40000),
               'tlm-auto': self.runs('tlm-auto', total_ms=30000),
               'autoconverge': self.runs('autoconverge')})
        self.assertEqual(self.verdict(claims.total_time, groups),
                         ['TLM no, converge yes'])

    def test_floor_is_said(self):
        groups = self.groups(
            tlm=self.runs('tlm', total_ms=4100),
            autoconverge=self.runs('autoconverge', total_ms=4200),
            offline=self.runs('offline', total_ms=4000))
        self.assertEqual(self.verdict(claims.total_time, groups),
                         ['no: one copy of RAM alone is 0.95 ×'])
        # A rival of less than two copies is not what that goal is about
        self.assertEqual(self.verdict(claims.quarter, groups), [''])

    def test_cut_rival_is_a_lower_limit(self):
        lines = claims.total_time(self.groups(
            tlm=self.runs('tlm'), autoconverge=self.runs(
                'autoconverge', status='not ended', total_ms=100000)))
        self.assertIn('= < 0.04', lines[0][2])
        self.assertIn('> 100.00 s', lines[0][2])

    def test_losses_are_said(self):
        lost = claims.losses(self.groups(tlm=self.runs('tlm'),
                                         postcopy=self.runs('postcopy')))
        self.assertIn('downtime', [line[1] for line in lost])
        self.assertNotIn('total time', [line[1] for line in lost])

    def test_noise_is_no_difference(self):
        plain = self.runs('tlm', downtime_ms=1000, bytes=1000000)
        for down, said in ((990, 'no difference'), (800, 'yes'),
                           (1200, 'no')):
            groups = self.groups(tlm=plain, tlm_20_1=self.runs(
                'tlm-20-1', downtime_ms=down, bytes=1000000))
            self.assertEqual(self.verdict(claims.overcommit, groups),
                             [said, 'no difference'])

    def test_as_many_cpus_as_there_are(self):
        groups = self.groups(tlm=self.runs('tlm'),
                             tlm_20_2=self.runs('tlm-20-2', downtime_ms=1))
        self.assertEqual(set(self.verdict(claims.overcommit, groups)),
                         {'as many CPUs as the host has'})
        for r in groups['write-heavy']['tlm-20-2']:
            r['params']['tlm-overcommit-method'] = 'throttle'
        self.assertNotIn('as many CPUs as the host has',
                         self.verdict(claims.overcommit, groups))

    def test_noise_is_no_loss(self):
        groups = self.groups(
            tlm=self.runs('tlm', downtime_ms=14, guest_lost_ms=0.0),
            multifd=self.runs('offline', downtime_ms=2, guest_lost_ms=-9.0))
        figures = [line[1] for line in claims.losses(groups)]
        self.assertNotIn('downtime', figures)
        self.assertNotIn('lost guest work', figures)

    def test_ends(self):
        endless = self.runs('precopy')
        groups = self.groups(tlm=self.runs('tlm'), precopy=endless)
        line, = claims.ends(groups)
        self.assertEqual(line[3], 'yes')
        self.assertIn('3 of 3', line[2])
        self.assertIn('pre-copy (cut after 100 s)', line[2])
        groups['write-heavy']['tlm'][0]['status'] = 'failed'
        self.assertEqual(self.verdict(claims.ends, groups), ['no'])
        endless[0]['status'] = 'completed'      # that pre-copy has ended
        self.assertEqual(self.verdict(claims.ends, groups), [''])

    def test_unmeasured(self):
        for line in claims.answers({}, []):
            self.assertIn(claims.NOT_MEASURED, line[2])
            self.assertEqual(line[3], '')


class Promises(unittest.TestCase):
    """The table of what was promised."""

    def runs(self, workload, mode, n=5, **values):
        return [{**synthetic(workload, mode, i), **values} for i in range(n)]

    def groups(self, workload, **by_mode):
        return {workload: {m.replace('_', '-'): self.runs(
            workload, m.replace('_', '-'), **values)
            for m, values in by_mode.items()}}

    def line(self, rows, start):
        line, = [r for r in rows if r[0].startswith(start)]
        return line

    def test_nothing(self):
        for _, measured, kept in promises.rows({}, []):
            self.assertIn(promises.NOT_MEASURED, measured)
            self.assertEqual(kept, '')

    def regime(self, stock, **auto):
        """What is said of rate-is-link."""
        return self.line(promises.regimes(self.groups(
            'rate-is-link', offline={}, tlm_auto={
                'total_ms': 5000, 'downtime_ms': 250, 'guest_lost_ms': 1000,
                **auto}, **stock)), 'rate = link')

    def test_best_stock_mode(self):
        slow = {'status': 'completed', 'total_ms': 40000, 'downtime_ms': 290,
                'guest_lost_ms': 9000}
        for stock, measured, kept in (
                ({'multifd_autoconverge': slow},
                 '0.12 × multifd, auto-converge', 'yes'),
                # The better one of the two
                ({'multifd_autoconverge': slow,
                  'multifd': {**slow, 'total_ms': 10000}},
                 '0.5 × multifd (', '**total no, lost work yes**; '
                 'one copy of RAM alone is 0.40 ×'),
                # Not if it does not meet the limit
                ({'multifd_autoconverge': slow, 'multifd': {
                    **slow, 'total_ms': 10000, 'downtime_ms': 340}},
                 '0.12 × multifd, auto-converge', 'yes'),
                # Nor if it is post-copy
                ({'multifd_autoconverge': slow, 'postcopy': {
                    **slow, 'total_ms': 4000, 'downtime_ms': 3}},
                 '0.12 × multifd, auto-converge', 'yes'),
                ({'autoconverge': {**slow, 'guest_lost_ms': 500}},
                 '0.12 × pre-copy, auto-converge',
                 '**total yes, lost work no**'),
                ({'precopy': {}}, '< 0.05 × pre-copy', 'yes'),
                # What was cut soon might have ended soon
                ({'autoconverge': slow, 'precopy': {'total_ms': 12000}},
                 '0.12 × pre-copy, auto-converge',
                 'yes; not known of pre-copy, cut after 12 s')):
            line = self.regime(stock)
            self.assertIn(measured, line[1])
            self.assertEqual(line[2], kept, line)
        self.assertEqual(self.regime({'postcopy': {}})[2], '')

    def test_few_runs_are_said(self):
        rival = {'total_ms': 40000, 'downtime_ms': 290}
        self.assertNotIn('(n', self.regime({'autoconverge': rival})[1])
        self.assertIn('(n 5 against 1)', self.regime(
            {'autoconverge': {**rival, 'n': 1}})[1])
        self.assertIn('(n 2)', self.regime(
            {'autoconverge': {**rival, 'n': 2}}, n=2)[1])

    def test_write_heavy(self):
        rows = list(promises.write_heavy(self.groups(
            'write-heavy', offline={}, tlm={}, tlm_auto={
                'guest_lost_ms': 6000}, autoconverge={})))
        self.assertEqual([r[2] for r in rows],
                         ['yes', 'yes', '**no**', 'yes', 'yes'])
        self.assertIn('1.13 ×', rows[0][1])

    def test_hot_set(self):
        def lost(ms):
            return {'guest': {'lost-work': ms}}
        for values, said, kept in (
                ({'tlm': lost(112)}, 'throttled: none', 'yes'),
                ({'tlm': lost(900)}, 'throttled: 0.80 s', '**no**'),
                ({'downtime_ms': 400, 'tlm': lost(400)}, '400 ms', '**no**'),
                ({'tlm': {}}, '100 ms', 'yes; throttling not recorded')):
            line, = promises.hot_set(self.groups(
                'small-hot-set', offline={}, tlm_auto={
                    'downtime_ms': 100, **values}))
            self.assertIn(said, line[1])
            self.assertEqual(line[2], kept, line)

    def test_idle_is_paired(self):
        groups = self.groups('idle', multifd={}, tlm={})
        for i, (a, b) in enumerate(zip(groups['idle']['tlm'],
                                       groups['idle']['multifd'])):
            a.update(status='completed', total_ms=10 * (i + 1))
            b.update(status='completed', total_ms=20 * (i + 1))
        del groups['idle']['multifd'][0]
        line = next(promises.idle(groups))
        self.assertIn('0.5 ×', line[1])
        self.assertEqual(line[2], 'yes')

    def test_bound(self):
        runs = [{**synthetic('write-heavy', 'tlm', i), 'bound': 5000,
                 'downtime_due': True, 'downtime_kept': i > 0}
                for i in range(3)]
        self.assertEqual([r[2] for r in promises.bound(runs)],
                         ['yes', '**no**', 'yes'])


class Order(unittest.TestCase):
    """Which modes were measured in turns."""

    def group(self, *runs):
        """runs: (mode, minute, commit)"""
        by_mode = {}
        for mode, minute, *commit in runs:
            mine = by_mode.setdefault(mode, [])
            r = synthetic('write-heavy', mode, len(mine))
            mine.append({**r, 'time': 1795600000 + minute * 60,
                         'wall_s': 30, 'host': {
                             **r['host'], 'commit': (*commit, 'c')[0]}})
        return by_mode

    def names(self, *runs):
        return [sorted({r['mode'] for r in block})
                for block in order.blocks(self.group(*runs))]

    TURNS = [(m, 100 + 2 * i + j) for i in range(3)
             for j, m in enumerate(('offline', 'tlm'))]

    def test_in_turns(self):
        self.assertEqual(order.describe(self.group(*self.TURNS)), [])
        # One that was cut and settled, first in the list
        self.assertEqual(order.describe(self.group(
            ('precopy', 99), *self.TURNS)), [])

    def test_hours_before(self):
        group = self.group(('precopy', 0), ('multifd', 1), *self.TURNS)
        first, second = order.describe(group)
        self.assertIn('pre-copy (1), multifd (1): 2026-11-25', first)
        self.assertIn('stop and copy (3), TLM (3)', second)
        self.assertTrue(second.endswith('UTC, in turns'), second)

    def test_one_after_the_other(self):
        block = [('multifd', 94 + i) for i in range(5)]
        self.assertEqual(self.names(*block, *self.TURNS),
                         [['multifd'], ['TLM', 'stop and copy']])

    def test_resumed(self):
        later = [(m, t + 500) for m, t in self.TURNS]
        self.assertEqual(self.names(*self.TURNS, *later),
                         [['TLM', 'stop and copy']] * 2)

    def test_commits(self):
        line, = order.describe(self.group(
            *self.TURNS[:2], *((*t, 'd') for t in self.TURNS[2:])))
        self.assertTrue(line.endswith('commit c, d'), line)


class Throttled(unittest.TestCase):
    """By how much the guest was held back while it ran."""

    def test_seen(self):
        tlm = {'stage': 'live', 'epochs': {'count': 5},
               'guest': {'speed': 0.04}}
        for info, percent in (
                ({}, 0), ({'cpu-throttle-percentage': 99}, 99),
                ({'tlm': tlm}, 96), ({'tlm': {**tlm, 'stage': 'stop'}}, 0),
                ({'tlm': {**tlm, 'epochs': {'count': 1},
                          'guest': {'speed': 0}}}, 0)):
            self.assertEqual(run.throttled_percent(info), percent)

    def test_cells(self):
        auto = [synthetic('write-heavy', 'tlm-auto', i) for i in range(3)]
        self.assertEqual(table.throttled(auto), '0.90 s')
        for r in auto:
            r['throttle_percent'] = 93
        self.assertEqual(table.throttled(auto), '0.90 s, up to 93 %')
        plain = [synthetic('write-heavy', 'tlm', 0)]
        self.assertEqual(table.throttled(plain), 'none')
        stock = [synthetic('write-heavy', 'autoconverge', 0)]
        self.assertEqual(table.throttled(stock), table.NONE)
        stock[0]['throttle_percent'] = 99
        self.assertEqual(table.throttled(stock), 'up to 99 %')
        stock[0]['throttle_percent'] = 0
        self.assertEqual(table.throttled(stock), 'none')


def load_script(name):
    """A script as a module."""
    path = os.path.join(ROOT, 'scripts', name)
    loader = importlib.machinery.SourceFileLoader(
        name.replace('-', '_'), path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module       # dataclasses look there
    loader.exec_module(module)
    return module


class Bounds(Scratch):
    """scripts/bench-bound without its migrations."""

    RUNS = 100

    @classmethod
    def setUpClass(cls):
        cls.bench = load_script('bench-bound')
        cls.all = [cls.bench.scenario(n, 1) for n in range(cls.RUNS)]

    def test_fixed_by_the_seed(self):
        def known(s):
            return s.workload.title, s.workload.params, s.bound, s.cap
        self.assertEqual([known(self.bench.scenario(n, 1)) for n in range(9)],
                         [known(s) for s in self.all[:9]])
        self.assertNotEqual([known(self.bench.scenario(n, 2))
                             for n in range(9)],
                            [known(s) for s in self.all[:9]])
        # As measured before there were caps
        self.assertEqual(
            (self.all[0].workload.title, self.all[0].bound),
            ('ROM 512 of 768 MiB, 6k pages/s, 2400 Mbit/s', 3379))

    def test_shares(self):
        linked = [s for s in self.all if s.later != 1]
        capped = [s for s in self.all if s.cap]
        cancel = [s for s in self.all if s.action == 'cancel']
        self.assertEqual((len(linked), len(capped)), (25, 25))
        self.assertFalse([s for s in linked if s.cap])
        self.assertGreater(len(cancel), 10)
        self.assertTrue([s for s in cancel if s.cap])
        self.assertTrue([s for s in cancel if s.later != 1])
        up = sum(s.cap[1] > s.cap[0] for s in capped)
        self.assertGreater(up, 5)
        self.assertGreater(len(capped) - up, 5)

    def test_bound_can_be_kept(self):
        for n, s in enumerate(self.all):
            mbit = s.workload.rate_mbit
            for c in s.cap:
                self.assertLess(c, mbit, n)
            slowest = min(mbit, mbit * s.later, *s.cap)
            sent = s.turn * self.bench.TURN
            self.assertAlmostEqual(s.copy_ms, sent * 8e-3 / slowest,
                                   delta=1, msg=n)
            self.assertGreaterEqual(s.bound, 1.25 * s.copy_ms + s.limit, n)
            self.assertGreater(s.workload.limit_s, s.bound * 1e-3, n)

    def test_parameters(self):
        for s in self.all:
            p = s.workload.params
            self.assertEqual(p['tlm-time-bound'], s.bound)
            self.assertEqual(p.get('tlm-bound-action', 'complete'), s.action)
            self.assertEqual(p.get('max-bandwidth'),
                             s.cap[0] * 125000 if s.cap else None)

    def changes(self, scenario, *sent):
        """What is set when that many bytes have been sent."""
        done = []

        class Both:
            def set_rate(self, rate):
                done.append(rate)

            def qmp(self, command, **arguments):
                if command == 'query-migrate':
                    return {'status': 'active',
                            'ram': {'transferred': self.sent}}
                done.append(arguments)
                return None

        vm = Both()
        during = self.bench.During(scenario, vm)
        for vm.sent in sent:
            during(vm, 1.0)
        return done, during.seen

    def test_changes_once_after_a_third(self):
        for s in self.all:
            self.assertEqual(self.changes(s, 0, s.turn - 1), ([], {}))
            done, seen = self.changes(s, 0, s.turn, 2 * s.turn)
            self.assertEqual(done, [
                *([int(s.workload.rate_mbit * s.later)]
                  if s.later != 1 else []),
                *([{'max-bandwidth': s.cap[1] * 125000}] if s.cap else [])])
            self.assertEqual(seen, {
                **({'changed': 1.0} if s.later != 1 else {}),
                **({'cap-changed': 1.0} if s.cap else {})})

    def result(self, n, **values):
        s = self.all[n]
        return {'number': n, 'seed': 1, 'workload': s.workload.title,
                'bound': s.bound, 'limit': s.limit, 'converge': s.converge,
                'action': s.action, 'status': 'completed', 'seen': {},
                'total_ms': s.bound, 'over_ms': 0, 'bound_kept': True,
                'downtime_ms': 50, 'downtime_due': s.converge == 'auto',
                'downtime_kept': True, **values}

    def test_table(self):
        results = [self.result(n) for n in range(20)]
        results[9] = self.result(9, status='cancelled')
        results[5]['seen'] = {'cap-changed': 1.0}
        results[3]['seen'] = {'changed': 1.0}
        text = self.bench.table(results)
        self.assertIn('| all: 20 | 19 | 19 |', text)
        self.assertIn('| cap changed: 1 | 1 | 1 |', text)
        self.assertIn('| link changed: 1 | 1 | 1 |', text)
        self.assertIn('| tlm-bound-action=cancel: 3 | 2 | 2 |', text)

    def test_other_scenarios_are_made_again(self):
        path = os.path.join(self.dir, 'bound.jsonl')
        with open(path, 'w') as f:
            for r in (self.result(0), self.result(1, workload='before'),
                      self.result(2, seed=2), self.result(3, bound=1)):
                f.write(json.dumps(r) + '\n')
            f.write('{"number": 4, "se')
        self.assertEqual(list(self.bench.load(path, 1)), [0])


class Reports(Scratch):
    """The whole report of made-up results of every workload and mode."""

    def setUp(self):
        super().setUp()
        write_results(self.dir)
        self.groups = plan.by_workload(plan.load(self.path))
        self.page = os.path.join(self.dir, 'report.html')

    def text(self, draw=False):
        report.write(self.dir, self.page, draw)
        with open(self.page, encoding='utf-8') as f:
            return flat(f.read())

    def section(self, text, title):
        return text.split(f'### {title}\n')[1].split('\n##')[0]

    def test_tables(self):
        text = self.text()
        for name, w in WORKLOADS.items():
            part = self.section(text, w.title)
            for mode in w.modes:
                self.assertIn(f'| {MODES[mode].title} |', part, name)
        part = self.section(text, WORKLOADS['write-heavy'].title)
        self.assertRegex(part, r'\| pre-copy \| 0/3 \| not ended, cut after '
                         '100 s')
        self.assertRegex(part, r'after a pass \| 0/3 \| not possible here: '
                         'Userfaultfd not available')
        self.assertRegex(part, r'\| TLM \| 3/3 \| 4\.43 \(4\.34–4\.51\)')
        self.assertRegex(text, r'\| TLM, 0\.2-\(2\) \|.*\| 80 .*'
                         r'\| cgroup-v1-cpuset \|')
        self.assertNotRegex(text, r'\bnan\b|\binf\b|None')

    def test_programs(self):
        r = self.groups['npb-is']['tlm'][1]
        r.update(status='error', guest=None, verdict=None, error=
                 'dst: guest 5 is wrong: IS A FAILED run=3\nmore')
        self.groups['mpi-is']['tlm-auto'][0]['peer'] = {'status': 'not ended'}
        with open(self.path, 'w') as f:
            for by_mode in self.groups.values():
                for results in by_mode.values():
                    for r in results:
                        f.write(json.dumps(r) + '\n')
        text = self.text()
        part = self.section(text, WORKLOADS['npb-is'].title)
        # It had arrived, and was wrong then: that is not hidden by n
        self.assertRegex(part, r'\| TLM \| 2/3 \|.*\| 2/3 \|')
        self.assertIn('- TLM, run 2: error: dst: guest 5 is wrong: IS A '
                      'FAILED run=3\n', part)
        self.assertIn('| TLM, converge | 3/3 | `IS A VERIFIED run=2 '
                      'iterations=10 seconds=1.2 units=9` (and 1 before) |',
                      part)
        part = self.section(text, WORKLOADS['mpi-is'].title)
        self.assertRegex(part, r'\| TLM \| 3/3 \|.*\| 3/3 \| 3\.90 '
                         r'\(3\.90–3\.90\) \| 240')
        self.assertRegex(part, r'\| TLM, converge \| 3/3 \|.*\| 2/3 \| 3')
        self.assertIn('all keys are right',
                      self.section(text, WORKLOADS['redis'].title))
        self.assertNotIn('last words', self.section(
            text, WORKLOADS['write-heavy'].title))
        self.assertIn('| npb-is | 11 of 12 migrations in all modes | no |',
                      text)
        self.assertIn('then the other node: 11 of 12 ended', text)
        self.assertRegex(text, r'MPLM, MG\.C .* npb-mg \| – \|')

    def test_overview(self):
        rows = report.overview_rows(self.groups)
        base, marks = rows['write-heavy']
        self.assertEqual(base, 'offline')
        self.assertTrue(marks['precopy'][1])
        self.assertAlmostEqual(marks['tlm'][0], 4340 / 3850, delta=0.01)
        self.assertNotIn('offline', marks)
        for r in self.groups['idle']['multifd']:
            r.update(status='completed', total_ms=100)
        del self.groups['redis']['offline']
        rows = report.overview_rows(self.groups)
        self.assertEqual(rows['idle'][0], 'multifd')
        self.assertNotIn('redis', rows)

    def test_programs_are_not_simulated(self):
        groups = {n: self.groups[n] for n in self.groups
                  if 'set' in WORKLOADS[n].guest.settings}
        self.assertTrue(groups)
        # This "simulator" would fail, were it run
        self.assertEqual(sim.compare('/bin/false', groups), [])

    def test_without_matplotlib(self):
        real = importlib.util.find_spec
        try:
            importlib.util.find_spec = lambda name: None
            missing = report.write(self.dir, self.page)
            text = self.text(draw=True)
        finally:
            importlib.util.find_spec = real
        self.assertIn('scripts/install-deps bench', missing)
        self.assertIn('scripts/install-deps bench', text)
        with open(self.page, encoding='utf-8') as f:
            self.assertNotIn('<svg', f.read())

    def test_what_is_not_listed_any_more(self):
        """Old results may have it; it is not shown."""
        text = json.dumps(synthetic('write-heavy', 'tlm', 0))
        with open(self.path, 'a') as f:
            for key in ('kvm-ring/tlm/0', 'write-heavy/dirty-limit/0'):
                f.write(json.dumps({**json.loads(text), 'key': key,
                                    'mode': 'bygone'}) + '\n')
        text = self.text()
        self.assertNotIn('bygone', text)
        self.assertNotIn('kvm-ring', text)

    def test_one_result(self):
        with open(self.path, 'w') as f:
            f.write(json.dumps(synthetic('write-heavy', 'precopy', 0)) + '\n')
        os.remove(os.path.join(self.dir, report.BOUNDS))
        self.assertIn('not ended', self.text())

    def test_packed_results(self):
        """As they are checked in: the same report."""
        text = self.text()
        for name in (report.RESULTS, report.BOUNDS):
            pack(os.path.join(self.dir, name))
        self.assertEqual(self.text(), text)

    def test_no_result(self):
        os.remove(self.path)
        p = subprocess.run(
            [os.path.join(ROOT, 'scripts/bench'), '--report', self.page,
             '--results', self.dir], capture_output=True, text=True)
        self.assertEqual(p.returncode, 1)
        self.assertIn('no results', p.stderr)
        self.assertFalse(os.path.exists(self.page))


class Page(unittest.TestCase):
    """docs/benchmarks.md, which is written by hand, against the results."""

    DOCS = os.path.join(ROOT, 'docs')
    LINES, FIGURE_LIMIT = 150, 40 << 10

    @classmethod
    def setUpClass(cls):
        cls.known = report.load(os.path.join(cls.DOCS, 'benchmarks'))
        with open(os.path.join(cls.DOCS, 'benchmarks.md'),
                  encoding='utf-8') as f:
            cls.page = f.read()

    def test_figures(self):
        """Those that are checked in are those of the results."""
        beside = os.path.join(self.DOCS, 'benchmarks')
        there = {}
        for name in os.listdir(beside):
            if not name.endswith(store.PACKED):
                with open(os.path.join(beside, name), encoding='utf-8') as f:
                    there[name.removesuffix('.svg')] = f.read()
        made = figures.figures(*self.known)
        self.assertEqual(set(there), set(made))
        for name, text in made.items():
            self.assertTrue(text == there[name], f'{name}.svg is not of these '
                            'results: scripts/bench --figures makes it anew')
            self.assertIn(f'](benchmarks/{name}.svg)', self.page)

    def test_figures_are_of_the_results(self):
        """What would another result change?"""
        groups, bound = (json.loads(json.dumps(x)) for x in self.known)
        made = figures.figures(*self.known)
        for by_mode in groups.values():
            for r in by_mode.get('tlm-auto', ()):
                r['total_ms'] *= 1.5
        bound[0]['total_ms'] *= 1.5
        changed = figures.figures(groups, bound)
        self.assertEqual([n for n in made if made[n] == changed[n]], [])
        self.assertEqual(
            [a == b for a, b in zip(facts.tables(*self.known),
                                    facts.tables(groups, bound))],
            [False] * (len(facts.TABLES) - 1) + [True])     # commits

    def test_figures_are_small_and_whole(self):
        for name, text in figures.figures(*self.known).items():
            self.assertLess(len(text.encode()), self.FIGURE_LIMIT, name)
            root = ElementTree.fromstring(text)
            self.assertEqual(root.tag, SVG + 'svg')
            self.assertLessEqual(int(root.get('width')), 720, name)
            self.assertNotRegex(text, r'(?i)\bnan\b|\binf\b|href|url\(', name)

    def test_figures_name_each_scheme(self):
        for name, modes in (('guest-speed', figures.TIMED),
                            ('over-rates', schemes.SCHEMES),
                            ('trade', schemes.SCHEMES),
                            ('promised', ('tlm', 'tlm-auto'))):
            root = ElementTree.fromstring(
                figures.figures(*self.known)[name])
            words = [''.join(t.itertext()) for t in root.iter(SVG + 'text')]
            for m in modes:
                self.assertIn(schemes.SCHEMES[m].title, words, name)

    def test_tables(self):
        for text in facts.tables(*self.known):
            self.assertIn(f'\n\n{text}\n\n', self.page,
                          'scripts/bench --figures prints it anew')

    def test_words(self):
        """Figures that the text quotes beside those of the tables."""
        groups, bound = self.known

        def mid(workload, mode, key='total_ms'):
            return claims.mid(groups[workload][mode], key)

        def all_of(workload, mode):
            return sorted(r['total_ms'] / 1e3
                          for r in groups[workload][mode])

        longer = [100 * (ours[0] / best[0] - 1)
                  for _, figure, ours, best in claims.beaten(groups)
                  if figure[1] == 'total_ms' and best[1] == 'offline']
        mg = [f'{s:.1f}' for s in all_of('npb-mg', 'multifd-autoconverge')]
        stopped = [r['downtime_ms'] / 1e3 for r in
                   groups['write-heavy']['postcopy']]
        late = [s for s in stopped if s > 0.3]
        loose = [r['bound'] / r['copy_ms'] for r in bound]
        heavy = 'write-heavy', 'multifd-autoconverge'
        for path, words in (
                ('README.md', f'takes auto-converge {mid(*heavy) / 1e3:.0f} '
                 f"s and {mid(*heavy, 'bytes') / 1e9:.1f} GB, TLM "
                 f"{mid('write-heavy', 'tlm-auto') / 1e3:.1f} s and "
                 f"{mid('write-heavy', 'tlm-auto', 'bytes') / 1e9:.1f} GB"),
                (None, f"1 GiB took {mid('idle', 'tlm'):.0f} ms against "
                 f"multifd's {mid('idle', 'multifd'):.0f} ms, 16 GiB "
                 f"{mid('idle16g', 'tlm'):.0f} ms against "
                 f"{mid('idle16g', 'multifd'):.0f} ms"),
                (None, f"{mid('idle-filled', 'tlm'):.0f} ms stand against "
                 f"{mid('idle-filled', 'multifd'):.0f} ms"),
                (None, f"took {', '.join(mg[:-1])} and {mg[-1]} s"),
                (None, f"{mid('rate-is-link', 'xbzrle') / 1e3:.2f} s with "
                 f"{mid('rate-is-link', 'xbzrle', 'guest_lost_ms') / 1e3:.2f}"
                 ' s of work lost, against '
                 f"{mid('rate-is-link', 'tlm-auto') / 1e3:.2f} s with "
                 f"{mid('rate-is-link', 'tlm-auto', 'guest_lost_ms') / 1e3:.2f}"
                 ' s'),
                (None, '({:.2f} s to {:.2f} s at best)'.format(*(
                    mid('overcommit-throttle', m, 'downtime_ms') / 1e3
                    for m in ('tlm', 'tlm-20-2')))),
                (None, f'is quicker on {len(longer)} workloads: TLM\'s best '
                 f'mode takes {min(longer):.0f} to {max(longer):.0f} % '
                 'longer'),
                (None, f'(but {max(late):.1f} s in {len(late)} of '
                 f'{len(stopped)} write-heavy runs)'),
                (None, f'{min(loose):.1f} to {max(loose):.1f} times a copy'),
                (None, f'On how many of {len(groups)} workloads'),
                (None, f'differ by {report.noise(groups)} in their total')):
            text = self.page
            if path:
                with open(os.path.join(ROOT, path), encoding='utf-8') as f:
                    text = f.read()
            self.assertIn(words, ' '.join(text.split()))

    def test_eleven_programs(self):
        _, rows = facts.program_table(*self.known)
        self.assertEqual(len(rows), 11)

    def test_short(self):
        self.assertLessEqual(len(self.page.splitlines()), self.LINES)

    def test_command(self):
        with tempfile.TemporaryDirectory() as out:
            p = subprocess.run([os.path.join(ROOT, 'scripts/bench'),
                                '--figures', out], check=True,
                               capture_output=True, text=True)
            self.assertEqual(sorted(os.listdir(out)),
                             sorted(f'{n}.svg' for n in figures.FIGURES))
        for text in facts.tables(*self.known):
            self.assertIn(text, p.stdout)

    def test_what_is_lacking(self):
        groups, _ = self.known
        self.assertEqual(schemes.lacking(groups), [])
        self.assertEqual(schemes.lacking({
            **groups, 'redis': {m: r for m, r in groups['redis'].items()
                                if m != 'tlm'}}), ['redis/tlm'])
        p = subprocess.run(
            [os.path.join(ROOT, 'scripts/bench'), '--figures', '/nonexistent',
             '--results', self.few()], capture_output=True, text=True)
        self.assertEqual(p.returncode, 1)
        self.assertIn('no results of write-heavy/offline, ', p.stderr)
        self.assertFalse(os.path.exists('/nonexistent'))

    def few(self):
        directory = tempfile.mkdtemp(prefix='tlm-bench-')
        self.addCleanup(shutil.rmtree, directory)
        write_results(directory, ('idle',))
        return directory

    def test_spread(self):
        for places, apart, moved in (
                ([], 5, []), ([7], 5, [7]), ([0, 10], 5, [0, 10]),
                ([10, 10], 4, [8, 12]), ([12, 10, 50], 4, [13, 9, 49])):
            self.assertEqual(svg.spread(places, apart), moved)


@unittest.skipIf(report.missing_matplotlib(), 'no matplotlib '
                 '(scripts/install-deps bench)')
class Plots(Scratch):
    @classmethod
    def setUpClass(cls):
        source = tempfile.mkdtemp(prefix='tlm-bench-')
        cls.addClassCleanup(shutil.rmtree, source)
        write_results(source)
        path = os.path.join(source, 'report.html')
        cls.missing = report.write(source, path)
        cls.files = sorted(os.listdir(source))
        with open(path, encoding='utf-8') as f:
            cls.page = f.read()
        cls.svgs = dict(re.findall('<figure id="(.*?)">(<svg.*?</svg>)',
                                   cls.page, re.S))

    def words(self, name):
        root = ElementTree.fromstring(self.svgs[name])
        return [''.join(t.itertext()) for t in root.iter(SVG + 'text')]

    def test_all_there(self):
        for name, w in WORKLOADS.items():
            words = self.words(f'{name}-bars')
            self.assertEqual([m for m in w.modes
                              if MODES[m].title not in words], [], name)
            titles = ' '.join(
                ' '.join(self.words(n)) for n in self.svgs
                if n.startswith(f'{name}-timeline-'))
            for m in w.modes:
                if m != NOT_POSSIBLE:   # there is nothing to draw
                    self.assertIn(MODES[m].title, titles, name)
        self.assertIn('predictions', self.svgs)
        self.assertIn('overcommit-schedules', self.svgs)

    def test_cut_and_impossible_are_shown(self):
        words = self.words('write-heavy-bars')
        self.assertIn('> 100, cut', words)
        self.assertIn('not possible here', words)

    def test_figures_are_not_rounded_away(self):
        self.assertIn('4.43', self.words('write-heavy-bars'))
        self.assertIn('0.004', self.words('write-heavy-bars'))

    def test_valid(self):
        for name, text in self.svgs.items():
            ids = [e.get('id') for e in ElementTree.fromstring(text).iter()
                   if e.get('id')]
            self.assertEqual(len(ids), len(set(ids)), name)
            self.assertNotRegex(text, r'(?i)\bnan\b|\binf\b', name)
            for target in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)',
                                     text):
                self.assertIn(''.join(target), ids, name)

    def test_overview(self):
        words = self.words('overview')
        for name in ('write-heavy', 'redis', 'mpi-is', 'TLM, converge',
                     'hollow: cut, takes longer'):
            self.assertIn(name, words)
        self.assertIn('total time [× that of stop and copy]', words)

    def test_steps(self):
        from bench import plots
        for path, short in (
                ('M 0 0 L 3.5 0 ', 'M0 0l3.5 0'),
                ('M 71.5 124.6 L 71.5 32.4 L 80.1 32.4 z', 'M71.5 124.6l0-92.2'
                 ' 8.6 0z'),
                ('M 0 1.5 C 0.4 1.5 0.8 1.3 1.1 1.1 z ',
                 'M0 1.5C0.4 1.5 0.8 1.3 1.1 1.1z'),
                ('M 1 2 L 2 2 L 3 2 L 4 5', 'M1 2l2 0 1 3'),
                ('M 1 2 L 3 4 M 5 6 L 5 7', 'M1 2l2 2M5 6l0 1')):
            self.assertEqual(plots._path(re.match('(.*)', path)),
                             f' d="{short}"')

    def test_small_enough(self):
        self.assertLess(max(map(len, self.svgs.values())), PLOT_LIMIT)
        self.assertLess(len(self.page.encode()), PAGE_LIMIT)

    def test_page_needs_nothing_from_outside(self):
        self.assertIsNone(self.missing)
        self.assertEqual(self.files,
                         [report.BOUNDS, 'report.html', report.RESULTS])
        self.assertEqual(self.page.count('<svg '), len(self.svgs))
        self.assertNotIn('<script', self.page)
        self.assertNotRegex(self.page, r'@import|url\((?!#)|<(img|link|iframe)')
        self.assertEqual(re.findall(r'(?:src|href)="(?!#)[^"]*"', self.page),
                         [])
        ids = re.findall(r'\bid="([^"]+)"', self.page)
        self.assertEqual(len(ids), len(set(ids)))


class Saves(unittest.TestCase):
    """scripts/bench-checkpoint"""

    WAYS = ('fast', 'stock', 'background')

    @staticmethod
    def result(way, number, status='completed', **figures):
        return {'to': 'memory', 'way': way, 'status': status,
                'key': f'guest/memory/{way}/{number}', **figures}

    def rows(self, results):
        return tables.rows('guest', results, self.WAYS, 'stock', 'background')

    def test_ratios_are_of_the_same_turn(self):
        results = [self.result(way, number, pause_ms=pause, lost_ms=lost)
                   for way, pauses, lost in (
                       ('fast', (1, 3, 8), 500), ('stock', (10, 10, 40), 100),
                       ('background', (5, 5, 5), 1000))
                   for number, pause in enumerate(pauses)]
        pause, lost = self.rows(results)
        self.assertEqual(pause, [
            'guest', 'memory', 'pause ms', '3.0 (1.0–8.0), × 0.200',
            '10.0 (10.0–40.0)', '5.0 (5.0–5.0), × 0.500'])
        self.assertEqual(lost[2:4], ['lost work s',
                                     '0.50 (0.50–0.50), × 0.500'])

    def test_what_has_not_ended(self):
        row, = self.rows([
            self.result('fast', 0, 'not ended', error='cut', total_ms=20000),
            self.result('stock', 0, total_ms=1000)])
        self.assertEqual(row[2:], [
            'total s', 'not ended, cut after 20 s: cut', '1.00', table.NONE])

    def test_all_pauses_count(self):
        def event(name, seconds, micros):
            return {'event': name, 'timestamp': {'seconds': seconds,
                                                 'microseconds': micros}}
        self.assertEqual(stands_ms([
            event('RESUME', 9, 0), event('STOP', 10, 999000),
            event('MIGRATION', 11, 0), event('RESUME', 11, 1000),
            event('STOP', 12, 0), event('RESUME', 12, 500)]), 2.5)


if __name__ == '__main__':
    unittest.main()
