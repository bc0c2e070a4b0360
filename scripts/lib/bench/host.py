# What a figure was measured on: kept with every run
#
# SPDX-License-Identifier: GPL-2.0-or-later

import functools
import os
import platform
import subprocess

from tlmtest import env


def _first(path, start):
    """The value of the first line of a /proc file that begins so."""
    try:
        with open(path) as f:
            for line in f:
                if line.startswith(start):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return 'unknown'


@functools.lru_cache(maxsize=None)
def commit():
    """This checkout's commit; "+" if what is measured has been edited."""
    def git(*args):
        return subprocess.run(['git', '-C', env.ROOT, *args], text=True,
                              capture_output=True).stdout.strip()
    try:
        changed = git('status', '--porcelain', '--untracked-files=no',
                      'migration', 'patches', 'scripts/lib/bench')
        return git('rev-parse', '--short=12', 'HEAD') + (
            '+' if changed else '') or 'unknown'
    except OSError:
        return 'unknown'


@functools.lru_cache(maxsize=None)
def _machine():
    release = platform.freedesktop_os_release()
    memory_kb = int(_first('/proc/meminfo', 'MemTotal').split()[0])
    return {'cpu': _first('/proc/cpuinfo', 'model name'),
            'cpus': len(os.sched_getaffinity(0)),
            'memory_mb': memory_kb >> 10, 'kernel': platform.release(),
            'system': release.get('PRETTY_NAME', 'unknown'),
            'commit': commit()}


def _version(vm):
    v = vm.qmp('query-version')
    text = '.'.join(str(v['qemu'][k]) for k in ('major', 'minor', 'micro'))
    return text + (f" {v['package']}" if v['package'] else '')


def describe(src, dst):
    return {**_machine(), 'source': _version(src),
            'destination': _version(dst)}
