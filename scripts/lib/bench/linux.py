# A Linux guest with a workload out of Debian's packages, or our own
#
# What it does is in tests/guest/linux/run.sh.  It counts its work, and that it
# is alive, in a page that is read here from outside (counter.h there).
#
# SPDX-License-Identifier: GPL-2.0-or-later

import functools
import os
import re
import struct
import subprocess

from tlmtest import env
from tlmtest.guests import Guest
from tlmtest.vm import VmError, wait_until

PAGE = 128 << 20                # where the page of counter.h is
MAGIC = 0x544e554f434d4c54
FIELDS = ('magic', 'alive', 'work', 'state', 'stop', 'runs')
STOP_OFFSET = 8 * FIELDS.index('stop')
CLIENTS_OFFSET = 8 * len(FIELDS)
MAX_CLIENTS = 8
STARTING, READY, DONE, FAILED = range(4)
TROUBLE = re.compile(r'TLM-(?:BENCH|GUEST)-(?:FAILED|CORRUPT).*|'
                     r'.*Kernel panic.*|.*BUG: .*|.*Oops.*|.* segfault .*|'
                     r'Out of memory: .*')
ENDED = re.compile(r'^TLM-BENCH ended.*$', re.M)


@functools.lru_cache(maxsize=None)
def image(name):
    """(kernel, initramfs) of a set of tests/guest/linux/build-bench.sh."""
    script = os.path.join(env.ROOT, 'tests/guest/linux/build-bench.sh')
    p = subprocess.run([script, name], capture_output=True, text=True)
    if p.returncode:
        raise VmError(f'tests/guest/linux/build-bench.sh {name}: '
                      + p.stderr.strip())
    return p.stdout.split()


class BenchGuest(Guest):
    """name: the set, and what run.sh is to do; settings: what it is told."""

    def __init__(self, name, mem_mb=512, machine='pc', vcpus=1, **settings):
        self.name, self.mem_mb = name, mem_mb
        self.machine, self.vcpus = machine, vcpus
        self.files = image(name)
        settings = {'run': name, 'counter': hex(PAGE), **settings}
        # memmap: the page is no memory that Linux uses.  nosoftlockup: a host
        # that is busy is no fault of the guest
        self.append = (f'console=ttyS0 quiet panic=-1 no_timer_check '
                       f'nosoftlockup memmap=4K${PAGE:#x} ' + ' '.join(
                           f'tlm_{k}={v}' for k, v in settings.items()))

    def close(self):
        pass

    def args(self, accel):
        kernel, initramfs = self.files
        return ['-accel', accel, '-cpu', 'qemu64',
                '-smp', str(self.vcpus), '-m', f'{self.mem_mb}M',
                '-machine', self.machine, '-kernel', kernel,
                '-initrd', initramfs, '-append', self.append]

    def counter(self, vm):
        """The fields of the page; all 0 before the guest has set it up."""
        if not hasattr(vm, 'bench_block'):
            vm.bench_block = vm.main_block()
        values = struct.unpack(f'<{len(FIELDS)}Q', vm.read_block(
            vm.bench_block, PAGE, 8 * len(FIELDS)))
        found = dict(zip(FIELDS, values))
        return found if found['magic'] == MAGIC else dict.fromkeys(FIELDS, 0)

    def clients(self, vm):
        """[(asked for, acknowledged)] of each client of journal.c: which
        records it has written."""
        self.counter(vm)
        numbers = struct.unpack(f'<{2 * MAX_CLIENTS}Q', vm.read_block(
            vm.bench_block, PAGE + CLIENTS_OFFSET, 16 * MAX_CLIENTS))
        return [pair for pair in zip(numbers[::2], numbers[1::2]) if pair[0]]

    def progress(self, vm):
        """pages: units of work of whatever size."""
        c = self.counter(vm)
        return {'pages': c['work'], 'alive': c['alive'], 'scans': c['runs']}

    def filled(self, vm):
        return self.counter(vm)['state'] == READY

    def beats(self, vm):
        return self.counter(vm)['alive']

    def corruption(self, vm):
        m = TROUBLE.search(vm.serial())
        if m:
            return m[0].strip()
        if self.counter(vm)['state'] == FAILED:
            return 'failed: ' + vm.serial()[-500:]
        return None

    def verify(self, vm, timeout=120):
        """Tell the guest to come to an end, and wait for its verdict on all
        that it has done.  Returns its words."""
        vm.write_block(vm.bench_block, PAGE + STOP_OFFSET,
                       struct.pack('<Q', 1))
        wait_until(lambda: self._ok(vm) and
                   self.counter(vm)['state'] == DONE and
                   ENDED.search(vm.serial()), timeout,
                   lambda: f'{vm.name}: the guest has checked what it did; '
                   f'serial: {vm.serial()[-300:]!r}')
        return ENDED.split(vm.serial())[0].replace('\r', '').strip()
