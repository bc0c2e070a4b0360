# What a migration must not leave behind in a QEMU: threads, files, places
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os

from tlmtest.vm import VmError, wait_until

PATIENCE_S = 10                 # for threads that are about to end
# Beginnings of their names: migration, the dry run
OURS = 'mig/', 'multifd', 'tlm-'


def _threads(vm):
    """{id: name} of its threads"""
    result = {}
    for tid in os.listdir(f'/proc/{vm.pid}/task'):
        try:
            with open(f'/proc/{vm.pid}/task/{tid}/comm',
                      encoding='ascii') as f:
                result[int(tid)] = f.read().strip()
        except FileNotFoundError:
            pass                # it has ended
    return result


def _place(vm, tid):
    """Where it may run: host CPUs and cgroups"""
    with open(f'/proc/{vm.pid}/task/{tid}/cgroup', encoding='ascii') as f:
        return os.sched_getaffinity(tid), f.read()


def look(vm):
    return {'files': len(os.listdir(f'/proc/{vm.pid}/fd')),
            'places': {tid: _place(vm, tid)
                       for tid, name in _threads(vm).items()
                       if name.startswith('CPU ')}}


def compare(vm, before):
    """Raises VmError with what is there and was not."""
    def migrating():
        return [name for name in _threads(vm).values()
                if name.startswith(OURS)]

    def files():
        return sorted(os.readlink(f'/proc/{vm.pid}/fd/{fd}')
                      for fd in os.listdir(f'/proc/{vm.pid}/fd'))
    wait_until(lambda: not migrating(), PATIENCE_S,
               lambda: f'threads are left: {migrating()}')
    wait_until(lambda: len(files()) <= before['files'], PATIENCE_S,
               lambda: f"{before['files']} files were open, now: {files()}")
    for tid, place in before['places'].items():
        if _place(vm, tid) != place:
            raise VmError(f'a vCPU was at {place}, is at {_place(vm, tid)}')
