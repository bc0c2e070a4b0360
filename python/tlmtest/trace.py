# What QEMU's -trace has written to stderr
#
# SPDX-License-Identifier: GPL-2.0-or-later

import re

ARMING = ('-trace', 'kvm_clear_dirty_log', '-trace', 'tlm_sync',
          '-trace', 'tlm_batch')


def read(vm):
    with open(vm.stderr_path, errors='replace') as f:
        return f.read()


def armed_per_epoch(vm, page=None):
    """
    After each sync, how many parts of the dirty log were cleared that had
    not been before: until then they do not tell of writes.  With page: only
    until mtx first sends a page of pc.ram from there on.  The VM was started
    with ARMING.
    """
    seen, epochs = set(), []
    for m in re.finditer(r'tlm_sync (epoch)|kvm_clear_dirty_log '
                         r'(slot\S+ start \S+) size|tlm_batch \S+/mtx: '
                         r'block pc.ram, first page 0x(\w+)', read(vm)):
        if m[1]:
            epochs.append(0)
        elif m[3]:
            if page is not None and int(m[3], 16) >= page:
                return epochs
        elif epochs and m[2] not in seen:
            seen.add(m[2])
            epochs[-1] += 1
    return epochs
