# Ways of saving a running guest, TLM's and those that QEMU and libvirt have
#
# A way is called with a VM and where it is to save (a Place); it returns when
# the guest runs and all is saved, with what it has to say of itself.  All ways
# run in the patched QEMU, on the same guest, one after the other: what is not
# TLM's is QEMU's own code there.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import collections
import os
import subprocess

from tlmtest import env, migration
from tlmtest.vm import VmError, wait_until

FILE_CAPS = ('multifd', 'mapped_ram')
SOCKET_CAPS = ('multifd', 'return_path')
LIMIT_S = 120
QEMU_IMG = os.path.join(env.BUILD, 'qemu/qemu-img')
DISK = 'vmstate'                # node and job of snapshot-save

# @uri: of a file, with its @path, or of a QEMU that waits, without
Place = collections.namedtuple('Place', 'uri path')


def _by_tlm(mode):
    def save(vm, place):
        if not place.path:
            migration.set_capabilities(vm, **dict.fromkeys(SOCKET_CAPS, True))
        vm.qmp('tlm-checkpoint', uri=place.uri, mode=mode)
        kept = migration.wait_status(vm, 'completed', LIMIT_S).get(
            'tlm', {}).get('checkpoint', {})
        return {name: kept[name] for name in ('method', 'note')
                if name in kept}
    return save


def _goes_on(vm):
    try:                        # refused until QEMU has tidied up
        vm.qmp('cont')
        return True
    except VmError:
        return False


def _stopped(vm, place):
    """stop; migrate; cont on the event.  To a file by mapped-ram, which is
    faster than a plain stream; by multifd to both."""
    migration.set_capabilities(vm, **dict.fromkeys(
        FILE_CAPS if place.path else SOCKET_CAPS, True))
    vm.qmp('stop')
    vm.qmp('migrate', uri=place.uri)
    migration.wait_status(vm, 'completed', LIMIT_S)
    wait_until(lambda: _goes_on(vm), 10, 'the guest goes on')
    return {}


def _background(vm, place):
    migration.set_capabilities(vm, background_snapshot=True)
    vm.qmp('migrate', uri=place.uri)
    migration.wait_status(vm, 'completed', LIMIT_S)
    return {}


def _snapshot_save(vm, place):
    """Into a qcow2 image that is no disk of the guest."""
    subprocess.run([QEMU_IMG, 'create', '-q', '-f', 'qcow2', place.path, '1M'],
                   check=True, capture_output=True)
    vm.qmp('blockdev-add', driver='qcow2', node_name=DISK,
           file={'driver': 'file', 'filename': place.path})
    try:
        vm.qmp('snapshot-save', job_id=DISK, tag='bench', vmstate=DISK,
               devices=[DISK])
        vm.wait_event('JOB_STATUS_CHANGE', LIMIT_S, lambda data:
                      data['id'] == DISK and data['status'] == 'concluded')
        job, = vm.qmp('query-jobs')
        vm.qmp('job-dismiss', id=DISK)
        if 'error' in job:
            raise VmError(f"snapshot-save: {job['error']}")
    finally:
        vm.qmp('blockdev-del', node_name=DISK)
    return {}


WAYS = {
    'protect': _by_tlm('write-protect'), 'copy': _by_tlm('copy'),
    'auto': _by_tlm('auto'), 'stock': _stopped,
    'background': _background, 'snapshot-save': _snapshot_save}
TITLES = {
    'protect': 'write-protect', 'copy': 'copy', 'auto': 'auto',
    'stock': 'stop, multifd, cont', 'background': 'background-snapshot',
    'snapshot-save': 'snapshot-save'}


def tidy_up(vm):
    """Nothing is left of one way that the next one would inherit."""
    if not vm.alive():
        return
    migration.wait_idle(vm)
    migration.set_capabilities(vm, background_snapshot=False, **dict.fromkeys(
        {*FILE_CAPS, *SOCKET_CAPS}, False))
    if not vm.qmp('query-status')['running']:
        wait_until(lambda: _goes_on(vm), 10, 'the guest goes on')
