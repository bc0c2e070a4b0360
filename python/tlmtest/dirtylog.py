# What the dirty log that stays on between incremental checkpoints costs
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import time

from . import migration
from .vm import VmError

WAYS = ('off', 'on', 'after')


def at(vm, name):
    """When the event was, in ms; takes it away."""
    stamp = vm.wait_event(name)['timestamp']
    return 1e3 * stamp['seconds'] + stamp['microseconds'] / 1e3


def save(vm, path, parent=None):
    """An incremental checkpoint, whose file is removed again: (pause, total,
    bytes, generation); times in ms."""
    vm.pull_events()
    vm.events.clear()
    start = time.monotonic()
    vm.qmp('tlm-checkpoint', uri=f'file:{path}', incremental=True,
           **({'parent': parent} if parent else {}))
    info = migration.wait_status(vm, 'completed')
    total = 1e3 * (time.monotonic() - start)
    pause = -at(vm, 'STOP') + at(vm, 'RESUME')
    written = os.stat(path).st_blocks * 512
    os.unlink(path)
    migration.wait_idle(vm)
    kept = info['tlm']['checkpoint']
    if bool(parent) != ('parent' in kept):
        raise VmError(f'another checkpoint than was asked for: {kept}')
    return pause, total, written, kept['generation']


def _speed(vm, guest, seconds):
    begin, pages = time.monotonic(), guest.progress(vm)['pages']
    time.sleep(seconds)
    return (guest.progress(vm)['pages'] - pages) / (time.monotonic() - begin)


def speeds(vm, guest, path, runs, seconds, after_seconds):
    """(number, way, pages/s of the guest): without the log, with it, and with
    it right after a checkpoint, when most pages are written for the first
    time."""
    for number in range(1, runs + 1):
        for way in WAYS if number % 2 else reversed(WAYS):
            if way == 'off':
                vm.qmp('tlm-checkpoint-forget')
            else:
                save(vm, path)
            if way == 'on':
                guest.wait_alive(vm, beats=20)      # each page is written
            yield number, way, _speed(
                vm, guest, after_seconds if way == 'after' else seconds)
