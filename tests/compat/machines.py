# The machines of the compatibility table: what is made differently in each
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import tempfile

from tlmtest import hugepages
from tlmtest.guests import LinuxGuest, RomGuest

MEMORY_MB = 128
HIGH_MB = 4608                  # so that RAM lies on both sides of the hole
DISK = 64 << 20
THREADS = 2                     # of the guest, each with a request in flight
VERSIONS = ('9.0', '9.1', '9.2', '10.0', '10.1', '10.2')
MACHINE = 'pc-i440fx-10.0'      # of the others; "pc" is another in each QEMU


class Missing(Exception):
    """Why this host cannot have such a machine."""


# Functions that make one: they return a guest, and what its QEMU gets
# besides.  What has to be undone is put on @exits, an ExitStack.

def plain(machine, mem_mb=MEMORY_MB, **settings):
    return lambda exits: (RomGuest(mem_mb, machine, ws_mb=32, **settings), ())


def backend(kind, *options):
    """RAM of an object; '{dir}' in an option is a directory."""
    def make(exits):
        guest = RomGuest(MEMORY_MB, f'{MACHINE},memory-backend=ram0',
                         ws_mb=32)
        return guest, ('-object', ','.join(
            (f'memory-backend-{kind},id=ram0,size={MEMORY_MB}M',
             *(o.format(dir=guest.dir) for o in options))))
    return make


def huge(exits):
    why = hugepages.take(2 * MEMORY_MB, exits.callback)     # of both sides
    if why:
        raise Missing(why)
    return backend('memfd', 'hugetlb=on',
                   f'hugetlbsize={hugepages.SIZE_MB}M')(exits)


def disk(*devices):
    """A guest that writes to its disk, and checks what it reads."""
    def make(exits):
        directory = exits.enter_context(
            tempfile.TemporaryDirectory(prefix='tlm-compat-'))
        path = os.path.join(directory, 'disk')
        with open(path, 'wb') as f:
            f.truncate(DISK)
        return LinuxGuest(256, MACHINE, ws=24, rate=2000, disk=THREADS), (
            '-object', 'iothread,id=io0', '-blockdev',
            f'driver=file,node-name=disk,filename={path},locking=off',
            *devices)
    return make


MACHINES = {
    **{f'{kind}-{version}': plain(f'{kind}-{version}')
       for kind in ('pc-i440fx', 'pc-q35') for version in VERSIONS},
    'two vCPUs': plain(MACHINE, vcpus=2),
    'two NUMA nodes': plain(MACHINE, numa=(64, 64)),
    'more than 4 GiB': plain(MACHINE, HIGH_MB),
    'memory-backend-ram': backend('ram'),
    'memory-backend-memfd, shared': backend('memfd', 'share=on'),
    'memory-backend-file': backend('file', 'mem-path={dir}'),
    'huge pages': huge,
    'virtio-blk, iothread, writing': disk(
        '-device', 'virtio-blk-pci,drive=disk,iothread=io0'),
}
