# What a migration must not leave behind in a QEMU: threads, files, places
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os

from tlmtest.vm import VmError, wait_until

PATIENCE_S = 10                 # for threads that are about to end
# Beginnings of their names: migration, the dry run
OURS = 'mig/', 'multifd', 'tlm-'


def _threads(pid):
    """{id: name} of its threads"""
    result = {}
    for tid in os.listdir(f'/proc/{pid}/task'):
        try:
            with open(f'/proc/{pid}/task/{tid}/comm',
                      encoding='ascii') as f:
                result[int(tid)] = f.read().strip()
        except FileNotFoundError:
            pass                # it has ended
    return result


def _files(pid):
    return sorted(os.readlink(f'/proc/{pid}/fd/{fd}')
                  for fd in os.listdir(f'/proc/{pid}/fd'))


def _place(vm, tid):
    """Where it may run: host CPUs and cgroups"""
    with open(f'/proc/{vm.pid}/task/{tid}/cgroup', encoding='ascii') as f:
        return os.sched_getaffinity(tid), f.read()


def _compare_files(pid, before):
    wait_until(lambda: len(_files(pid)) <= before, PATIENCE_S,
               lambda: f'{before} files were open, now: {_files(pid)}')


def look_at_server(pid):
    return {'files': len(_files(pid)), 'threads': len(_threads(pid))}


def compare_server(pid, before):
    """Raises VmError with what is there and was not."""
    _compare_files(pid, before['files'])
    wait_until(lambda: len(_threads(pid)) <= before['threads'], PATIENCE_S,
               lambda: f"{before['threads']} threads ran, now: "
               f'{sorted(_threads(pid).values())}')


def look(vm):
    return {'files': len(_files(vm.pid)),
            'places': {tid: _place(vm, tid)
                       for tid, name in _threads(vm.pid).items()
                       if name.startswith('CPU ')}}


def compare(vm, before):
    """Raises VmError with what is there and was not."""
    def migrating():
        return [name for name in _threads(vm.pid).values()
                if name.startswith(OURS)]
    wait_until(lambda: not migrating(), PATIENCE_S,
               lambda: f'threads are left: {migrating()}')
    _compare_files(vm.pid, before['files'])
    for tid, place in before['places'].items():
        if _place(vm, tid) != place:
            raise VmError(f'a vCPU was at {place}, is at {_place(vm, tid)}')
