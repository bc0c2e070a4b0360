# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs on fewer host CPUs, when libvirt's sandbox forbids QEMU to do it."""

import os
import re

from ..errors import MigrateError


def cpu_list(text):
    """CPUs of a list like "0-3,8"; QEMU tells what is wrong with it."""
    cpus = set()
    for first, last in re.findall(r'(\d+)(?:-(\d+))?', str(text)):
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


class Placer:
    """Moves vCPU threads by their affinity when QEMU may not.

    libvirt does not change a domain while it is migrated: vcpupin and
    schedinfo wait for the end of the migration, and fail.  So the threads
    are moved directly, which needs root on the source's host.
    """

    def __init__(self, threads, cpus=None):
        """@cpus: those to use, None: all that the threads may run on"""
        self.started = {t: self._start_time(t) for t in threads}
        self.old = {t: self._mask(t) for t in threads}
        self.only = cpus
        self.level = 0
        self.trouble = None

    @classmethod
    def for_domain(cls, qmp, uuid, cpus, wanted=False):
        """None: QEMU may do it itself, and it is not @wanted here, or nobody
        may here."""
        threads = [c['thread-id'] for c in qmp('query-cpus-fast')]
        try:
            for t in threads:
                with open(f'/proc/{t}/cmdline') as f:
                    if uuid not in f.read():
                        return None     # another host's thread
                with open(f'/proc/{t}/status') as f:
                    if not wanted and re.search(r'^Seccomp:\s*0$', f.read(),
                                                re.M):
                        return None
            return cls(threads, cpus)
        except OSError:
            return None

    @staticmethod
    def _mask(thread):
        """What to restore, and what it is now.  A mask that is all the
        thread's cpuset allows stays so if the cpuset changes."""
        now = os.sched_getaffinity(thread)
        with open('/sys/devices/system/cpu/possible') as f:
            every = cpu_list(f.read())
        os.sched_setaffinity(thread, every)
        allowed = os.sched_getaffinity(thread)
        os.sched_setaffinity(thread, every if allowed == now else now)
        return (every if allowed == now else now), now

    @staticmethod
    def _start_time(thread):
        """By which it differs from a later one with its number; None: it has
        ended."""
        try:
            with open(f'/proc/{thread}/stat') as f:
                return f.read().rpartition(')')[2].split()[19]
        except OSError:
            return None

    def cpus(self):
        allowed = set().union(*(now for _, now in self.old.values()))
        return sorted(allowed & self.only if self.only else allowed)

    def place(self, count):
        """On the first @count host CPUs; 0: back to where they were."""
        if count == self.level:
            return
        self.level = count
        chosen = set(self.cpus()[:count])
        for thread, (restore, now) in self.old.items():
            if self._start_time(thread) != self.started[thread]:
                continue                # QEMU has ended
            try:
                os.sched_setaffinity(thread, restore if not count else
                                     now & chosen or chosen)
            except ProcessLookupError:
                pass                    # just now
            except OSError as e:
                self.trouble = f'vCPU thread {thread}: {e.strerror}'


class NoPlacer:
    """For a migration whose vCPUs QEMU places, or nobody."""

    trouble = None

    def place(self, count):
        pass


def choose(qmp, params):
    """Who places the vCPUs; sets the method in @params if it is not QEMU.
    Raises MigrateError if nobody can, and it was asked for."""
    method = params.get('tlm-overcommit-method')
    if method != 'event' and not (params.get('tlm-overcommit') and
                                  not method):
        return NoPlacer()
    placer = Placer.for_domain(qmp, qmp('query-uuid')['UUID'],
                               cpu_list(params.get('tlm-overcommit-cpus',
                                                   '')),
                               bool(method))
    if placer:
        params['tlm-overcommit-method'] = 'event'
    elif method:
        raise MigrateError('tlm-overcommit-method=event: only root at '
                           "the source's host may move its vCPUs")
    return placer or NoPlacer()
