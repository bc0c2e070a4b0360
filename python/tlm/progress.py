# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress that is shown while a migration is under way."""

import collections
import os
import shutil
import sys
import time

from .figures import bar, duration, rate, size, speed
from .status import FINAL

REDRAW_S = 0.1
PLAIN_S = 1.0
FULL_SPEED = 0.995          # is shown as 100 % from here on


def describe(status, sending, limits, downtime=True):
    """(what, percent or None, details): most important details first.
    @sending: bytes per second on the wire, None: not known.  @downtime: what
    is predicted of it holds"""
    tlm, ram = status.tlm, status.ram
    final = status.status in FINAL
    if not ram or not tlm and final:
        return status.status, None, []
    details = [] if sending is None else [rate(sending)]
    if not tlm:
        details += [f'{size(ram.transferred)} sent',
                    f'{size(ram.remaining)} left', f'round {ram.round}']
        return status.status, None, details
    if final:
        return status.status, tlm.progress, []
    if status.paused:
        return 'paused', tlm.progress, [
            'the network has failed: migrate-recover at the destination, then '
            'migrate here, with resume']
    details += _tlm_details(tlm, ram, limits, downtime)
    return tlm.stage, tlm.progress, details


def _tlm_details(tlm, ram, limits, downtime):
    live = tlm.stage == 'live'
    details = []
    if not live:
        details.append(f'{size(ram.remaining)} left')
    if tlm.eta:
        details.append(f'ETA {duration(tlm.eta)}')
    if live and downtime and tlm.predicted_downtime:
        details.append(f'downtime {duration(tlm.predicted_downtime)}')
    if tlm.slack is not None and tlm.predicted_total:
        details.append(f'slack {tlm.slack / 1000:+.1f} s'
                       if tlm.bound_reachable else 'bound out of reach')
    if live and tlm.guest_speed < FULL_SPEED:
        details.append(speed(tlm.guest_speed))
    elif live and tlm.dirty_rate:
        details.append(f'guest dirties {rate(tlm.dirty_rate)}')
    if limits and tlm.bandwidth and not tlm.downtime_reachable:
        details.append('downtime limit out of reach')
    if tlm.overcommit_cpus is not None:
        details.append(f'vCPUs on {tlm.overcommit_cpus} host CPUs')
    return details


class Display:
    """A line a stage that redraws on a terminal; else plain lines, one a
    second."""

    def __init__(self, out=None, limits=False, downtime=True):
        self.out = out or sys.stdout
        self.tty = self.out.isatty() and \
            os.environ.get('TERM', 'dumb') != 'dumb'
        self.limits, self.downtime = limits, downtime
        self.start = time.monotonic()
        self.last_s = None
        self.last_what = None
        self.drawn = False
        self.sent = collections.deque()     # (time, bytes)

    def update(self, status):
        now = time.monotonic()
        what, percent, details = describe(
            status, self._rate(now, status.ram), self.limits, self.downtime)
        if percent is None and what not in ('active', 'setup'):
            return
        if what == 'setup' and now - self.start < PLAIN_S:
            return                  # normally too short to be read
        self.show(what, percent, details)

    def show(self, what, percent, details):
        """@percent: None if nobody knows"""
        now = time.monotonic()
        pause = REDRAW_S if self.tty else PLAIN_S
        if (what == self.last_what and self.last_s is not None and
                now - self.last_s < pause):
            return
        if self.drawn and what != self.last_what and \
                self.last_what in ('live', 'disks'):
            self._keep_line()
        self.last_s, self.last_what = now, what
        head = f'{now - self.start:6.1f} s  {what:<9}'
        if percent is not None:
            head += f' {percent:3.0f} %'
        if self.tty:
            self._redraw(head, percent, list(details))
        else:
            self.out.write(self._join(head, details) + '\n')
        self.out.flush()

    def _redraw(self, head, percent, details):
        """What does not fit is left out, the last first."""
        width = shutil.get_terminal_size().columns - 1
        if percent is not None:
            head += ' ' + bar(percent, 20 if width > 100 else 10)
        while details and len(self._join(head, details)) > width:
            details.pop()
        text = self._join(head, details)[:width]
        self.out.write(f'\r{text}\x1b[K')
        self.drawn = True

    def _rate(self, now, ram):
        """What was sent in the last second, per second."""
        if not ram:
            return None
        self.sent.append((now, ram.transferred))
        while len(self.sent) > 2 and self.sent[1][0] <= now - 1:
            self.sent.popleft()
        then, before = self.sent[0]
        return (ram.transferred - before) / (now - then) if now > then \
            else None

    @staticmethod
    def _join(head, details):
        return head + ('  ' + ', '.join(details) if details else '')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._keep_line()

    def _keep_line(self):
        """What is drawn next goes below the line that is there."""
        if self.drawn:
            self.out.write('\n')
            self.out.flush()
            self.drawn = False
