# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that libvirt copies before it lets QEMU migrate."""

import collections

from ..figures import duration, rate, size

TREND_S = 5                 # over which it is judged when that will end


class Disks:
    """How far the copies are, from what "query-block-jobs" says: there are no
    jobs but libvirt's, which does not migrate a domain that has others."""

    def __init__(self):
        self.began = self.ended = None
        self.copied = self.left = 0
        self.samples = collections.deque()      # (time, copied, left)

    def look(self, jobs, now):
        """False: nothing is copied (yet)."""
        if not jobs:
            return False
        self.began = self.began or now
        # what the guest writes meanwhile is added to a job's length
        self.copied = sum(j['offset'] for j in jobs)
        self.left = sum(j['len'] - j['offset'] for j in jobs)
        self.samples.append((now, self.copied, self.left))
        while len(self.samples) > 2 and \
                self.samples[1][0] <= now - TREND_S:
            self.samples.popleft()
        return True

    def percent(self):
        return 100 * self.copied / max(self.copied + self.left, 1)

    def details(self):
        """As describe() of progress.py has them."""
        (t0, copied0, left0), (t1, copied1, left1) = \
            self.samples[0], self.samples[-1]
        details = [f'{size(left1)} left']
        if t1 - t0 >= 1:
            details.insert(0, rate((copied1 - copied0) / (t1 - t0)))
            if left1 < left0:
                eta_ms = left1 * (t1 - t0) / (left0 - left1) * 1000
                details.append(f'ETA {duration(eta_ms)}')
            elif left1:
                details.append('the guest writes as fast as is copied')
        return details

    def report(self, bound, total_ms):
        """Lines for a migration that has completed; QEMU counts without
        disks.  @total_ms: QEMU's, None: not known"""
        copying_ms = (self.ended - bound.began) * 1000
        lines = [f'  disks     {size(self.copied + self.left):>8}  '
                 f'copied before that, in {duration(copying_ms)}']
        if total_ms is not None and bound.ms:
            over = copying_ms + total_ms - bound.ms
            lines.append(f'  bound     {duration(bound.ms):>8}  for both '
                         'together: ' +
                         (f'overrun by {duration(over)}' if over > 0
                          else 'kept'))
        return lines
