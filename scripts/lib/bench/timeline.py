# What happened when: samples of one migration, times from its start
#
# The guest's own counter is read from its memory, by a thread that needs no
# monitor: QEMU's may not answer while the guest is stopped. What QEMU itself
# says is taken from the answers that the caller polls for anyway.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import bisect
import threading
import time

from tlmtest.vm import VmError

SAMPLE_MS = 200         # between two rows of the timeline
WATCH_S = 0.01          # between two looks at the guest's counter
GUEST_MS = 100          # between two of these that are kept
BEFORE_S = AFTER_S = 1.0
COLUMNS = ('t_ms', 'left', 'sent', 'mtx', 'dtx', 'stop', 'unsent', 'dirty',
           'stage', 'predicted_total', 'predicted_downtime')


class Counter:
    """When a guest's count of pages written had which value."""

    def __init__(self):
        self.times, self.pages = [], []

    def add(self, t, pages):
        if not self.pages or pages != self.pages[-1]:
            self.times.append(t)
            self.pages.append(pages)

    def at(self, t):
        i = bisect.bisect_right(self.times, t)
        return self.pages[i - 1] if i else 0


class Watch(threading.Thread):
    """Looks at the same guest's counter at the source and the destination.
    There it arrives as data first: only what exceeds the source's last value
    was written by the guest that runs again.  Some guests count beside their
    work that they are alive: in finer and more even steps.
    @arrived: the destination is looked at from when that is set.  To read a
    page there populates it, and post-copy, which discards pages before it
    watches over them, finds that one in its way."""

    def __init__(self, guest, src, dst, arrived):
        super().__init__(daemon=True)
        self.guest, self.vms = guest, (src, dst)
        self.src, self.dst = Counter(), Counter()
        self.src_alive, self.dst_alive = Counter(), Counter()
        self.arrived, self.over = arrived, threading.Event()
        for vm in self.vms:         # finds the counter: the monitor's last use
            guest.progress(vm)

    def _look(self, vm, counter, alive):
        try:
            seen = self.guest.progress(vm)
        except (OSError, VmError):  # not there yet (post-copy), or QEMU ended
            return
        now = time.monotonic()
        counter.add(now, seen['pages'])
        alive.add(now, seen.get('alive', seen['pages']))

    def run(self):
        while not self.over.is_set():
            self._look(self.vms[0], self.src, self.src_alive)
            if self.arrived.is_set():
                self._look(self.vms[1], self.dst, self.dst_alive)
            self.over.wait(WATCH_S)

    def close(self):
        self.over.set()
        self.join()

    def resumed(self):
        """(time of the last sign of life at the source, of the first one at
        the destination), or None."""
        src, dst = self.src_alive, self.dst_alive
        if not src.pages:
            return None
        last = src.pages[-1]
        for t, count in zip(dst.times, dst.pages):
            if count > last:
                return src.times[-1], t
        return None

    def count_at(self, t):
        """The guest's count at time t, wherever it ran."""
        return max(self.src.at(t), self.dst.at(t))


class Timeline:
    """Rows of COLUMNS, with None where a mode has no such figure, and the
    guest's count from a second before the start to AFTER_S after the end."""

    def __init__(self):
        self.rows = []
        self.next_ms = 0

    def look(self, now, info, last=False):
        """@info: query-migrate's answer @now seconds after the start."""
        t_ms = round(now * 1e3)
        if t_ms < self.next_ms and not last:
            return
        self.next_ms = (t_ms // SAMPLE_MS + 1) * SAMPLE_MS
        ram, tlm = info.get('ram', {}), info.get('tlm', {})
        pages, prediction = tlm.get('ram', {}), tlm.get('prediction', {})
        self.rows.append([
            t_ms, ram.get('remaining'), ram.get('transferred'),
            pages.get('mtx'), pages.get('dtx'), pages.get('stop'),
            pages.get('unsent'), pages.get('dirty'),
            tlm.get('stage', info.get('status')), prediction.get('total'),
            prediction.get('downtime')])

    def finish(self, watch, t0, end):
        """Returns what goes into the result."""
        first, last = round(-1e3 * BEFORE_S), round((end - t0 + AFTER_S) * 1e3)
        return {'columns': COLUMNS, 'rows': self.rows, 'guest_columns':
                ('t_ms', 'pages'), 'guest': [
                    (t, watch.count_at(t0 + t / 1e3))
                    for t in range(first, last, GUEST_MS)]}
