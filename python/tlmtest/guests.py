# The test guests: QEMU arguments, and how to tell that they are well
#
# Both kinds have the same interface:
#   args(accel)         arguments for either side
#   beats(vm)           heartbeats that this VM's serial port has shown
#   progress(vm)        dict: pages, passes, scans (of the slowest vCPU)
#   corruption(vm)      what the guest reports about its memory, or None
#
# SPDX-License-Identifier: GPL-2.0-or-later

import functools
import os
import re
import shutil
import struct
import subprocess
import tempfile

from . import env
from .vm import VmError, wait_until

import mkrom


def _machine_args(accel, machine, mem_mb, smp, shared, numa=()):
    args = ['-accel', accel, '-cpu', 'qemu64', '-smp', smp, '-m', f'{mem_mb}M']
    if numa:
        # A RAMBlock of its own for each node, of so many MiB
        args += ['-machine', machine]
        for i, size in enumerate(numa):
            args += ['-object', f'memory-backend-ram,id=ram{i},size={size}M',
                     '-numa', f'node,memdev=ram{i}']
    elif shared:
        # RAM in a shared mapping instead of private anonymous memory
        args += ['-object', f'memory-backend-memfd,id=ram0,size={mem_mb}M,'
                 'share=on',
                 '-machine', f'{machine},memory-backend=ram0']
    else:
        args += ['-machine', machine]
    return args


class Guest:
    def wait_alive(self, vm, beats=3, timeout=60):
        """Wait for heartbeats that are not there yet."""
        start = self.beats(vm)
        wait_until(lambda: self._ok(vm) and self.beats(vm) >= start + beats,
                   timeout, lambda: f'{vm.name}: {beats} more heartbeats; '
                   f'serial: {vm.serial()[-300:]!r}')

    def wait_filled(self, vm, timeout=120):
        """Wait until every page of the working set has been written."""
        wait_until(lambda: self._ok(vm) and self.filled(vm), timeout,
                   f'{vm.name}: the working set is written once')

    def wait_scans(self, vm, scans=2, timeout=120):
        """Wait for full checks of the memory; the one under way counts too,
        so two make sure that all pages have been looked at."""
        start = self.progress(vm)['scans']
        wait_until(
            lambda: (self._ok(vm) and
                     self.progress(vm)['scans'] >= start + scans),
            timeout, f'{vm.name}: {scans} more scans')

    def _ok(self, vm):
        if not vm.alive():
            raise VmError(f'{vm.name} has ended:\n{vm.messages()}')
        found = self.corruption(vm)
        if found:
            raise VmError(f'{vm.name}: the guest reports: {found}')
        return True


@functools.lru_cache(maxsize=None)
def _rom_image():
    return mkrom.compile_image()


class RomGuest(Guest):
    """The firmware-ROM guest; settings as of mkrom.build_rom()."""

    name = 'rom'

    def __init__(self, mem_mb=256, machine='pc', vcpus=1, shared=False,
                 numa=(), **settings):
        self.mem_mb, self.machine, self.vcpus = mem_mb, machine, vcpus
        self.shared, self.numa = shared, numa
        settings.setdefault('scan_ms', 300)
        settings.setdefault('heartbeat_ms', 50)
        self.dir = tempfile.mkdtemp(prefix='tlm-rom-')
        env.register(self)
        self.rom = os.path.join(self.dir, 'rom.bin')
        mkrom.build_rom(self.rom, vcpus=vcpus, image=_rom_image(), **settings)

    def close(self):
        env.unregister(self)
        shutil.rmtree(self.dir, ignore_errors=True)

    def args(self, accel):
        return _machine_args(accel, self.machine, self.mem_mb, str(self.vcpus),
                             self.shared, self.numa) + ['-bios', self.rom]

    def _progress(self, vm):
        if not hasattr(vm, 'rom_block'):
            vm.rom_block = vm.blocks()['ram0'] if self.numa else \
                vm.main_block()
        return mkrom.Progress(vm.read_block(
            vm.rom_block, mkrom.PROGRESS_BASE, mkrom.PROGRESS_SIZE))

    def progress(self, vm):
        p = self._progress(vm)
        return {'pages': p.pages, 'passes': p.minimum('passes'),
                'scans': p.minimum('scans')}

    def filled(self, vm):
        p = self._progress(vm)
        return p.started and all(v['state'] in ('run', 'scan')
                                 for v in p.vcpus)

    def beats(self, vm):
        return len(re.findall(r'^H ', vm.serial(), re.M))

    def corruption(self, vm):
        m = re.search(r'^E .*$', vm.serial(), re.M)
        if m:
            return m[0]
        p = self._progress(vm)
        if p.error != 'none':
            return f'in the progress block: {p.error} error ' \
                   f'vcpu={p.err_vcpu:x} page={p.err_page:x} ' \
                   f'want={p.err_want:x} got={p.err_got:x} ' \
                   f'check={p.err_check:x} last={p.err_last:x}'
        return None

    def told_paused(self, vm):
        """Of each vCPU, whether its kvmclock (kvmclock=True) says that the
        guest has been paused.  The guest leaves that as it is."""
        clocks = vm.read_block(vm.rom_block, mkrom.CLOCK_BASE,
                               self.vcpus * mkrom.CLOCK_SIZE)
        return [bool(flags & mkrom.CLOCK_GUEST_STOPPED) for flags in
                clocks[mkrom.CLOCK_FLAGS::mkrom.CLOCK_SIZE]]

    def page_offset(self, vm, page):
        """Where in its RAMBlock a page of the working set is."""
        return self._progress(vm).page_address(page)

    def stale_pages(self, vm):
        """Pages older than what the guest, which is stopped, has noted of
        them: it writes a page first, and then the note."""
        p = self._progress(vm)
        table = vm.read_block(vm.rom_block, p.table_base, 4 * p.ws_pages)
        pages = vm.read_block(vm.rom_block, p.page_address(0),
                              p.ws_pages * mkrom.PAGE_SIZE)
        counters = struct.iter_unpack(f'<I{mkrom.PAGE_SIZE - 4}x', pages)
        return [page for page, ((counter,), (noted,)) in
                enumerate(zip(counters, struct.iter_unpack('<I', table)))
                if counter < noted]


@functools.lru_cache(maxsize=None)
def linux_files():
    """Directory with the Linux guest's kernel and initramfs."""
    script = os.path.join(env.ROOT, 'tests/guest/linux/build.sh')
    p = subprocess.run([script], capture_output=True, text=True)
    if p.returncode:
        raise VmError('tests/guest/linux/build.sh: ' + p.stderr.strip())
    return p.stdout.strip()


class LinuxGuest(Guest):
    """Debian's kernel and our init; settings as listed in build.sh."""

    name = 'linux'
    LINE = re.compile(r'^TLM-GUEST beat=(\d+) ms=(\d+) passes=(\d+) '
                      r'pages=(\d+) scans=(\d+)\r?$', re.M)

    def __init__(self, mem_mb=512, machine='pc', vcpus=1, shared=False,
                 **settings):
        self.mem_mb, self.machine, self.vcpus = mem_mb, machine, vcpus
        self.shared = shared
        # With one CPU for ever, the virtio drivers of a guest under TCG lose
        # notifications: docs/known-faults.md
        self.max_vcpus = max(vcpus, 2)
        settings.setdefault('scan', 300)
        settings.setdefault('beat', 50)
        settings.setdefault('threads', vcpus)
        # A host that is busy for half a minute is no fault of the guest
        self.append = ' '.join((
            'console=ttyS0 quiet panic=-1 no_timer_check nosoftlockup',
            *(f'tlm.{k}={v}' for k, v in settings.items())))

    def close(self):
        pass

    def args(self, accel):
        files = linux_files()
        smp = f'{self.vcpus},maxcpus={self.max_vcpus}'
        return _machine_args(accel, self.machine, self.mem_mb, smp,
                             self.shared) + [
            '-kernel', os.path.join(files, 'vmlinuz'),
            '-initrd', os.path.join(files, 'initramfs.gz'),
            '-append', self.append]

    def heartbeats(self, vm):
        """The fields of LINE, of all that this VM's serial port has shown."""
        return self.LINE.findall(vm.serial())

    def progress(self, vm):
        lines = self.heartbeats(vm)
        if not lines:
            return {'pages': 0, 'passes': 0, 'scans': 0}
        _beat, _ms, passes, pages, scans = map(int, lines[-1])
        return {'pages': pages, 'passes': passes, 'scans': scans}

    def filled(self, vm):
        return self.progress(vm)['passes'] > 0

    def beats(self, vm):
        return len(self.heartbeats(vm))

    def wait_scans(self, vm, scans=2, timeout=120):
        # A serial port starts empty: first learn where the guest is
        wait_until(lambda: self._ok(vm) and self.beats(vm), timeout,
                   f'{vm.name}: a heartbeat')
        super().wait_scans(vm, scans, timeout)

    def requests(self, vm):
        """What each thread that uses the disk (disk=N) has done at least."""
        lines = re.findall(r'^TLM-GUEST-DISK requests=(\d+)', vm.serial(), re.M)
        return int(lines[-1]) if lines else 0

    def corruption(self, vm):
        m = re.search(r'TLM-GUEST-(CORRUPT|FAILED).*|Kernel panic.*|'
                      r'.*BUG: .*|.*Oops.*', vm.serial())
        return m[0] if m else None
