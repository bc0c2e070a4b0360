#!/usr/bin/python3
#
# Build the firmware-ROM test guest and patch its parameters into the image
#
# Usage:
#   mkrom.py --out rom.bin --ws-mb 128 --pattern hotcold --vcpus 2
#   qemu-system-x86_64 -cpu qemu64 -m 256 -smp 2 -nodefaults -display none \
#       -bios rom.bin -serial stdio
#
# Needs gcc and binutils; no multilib libc.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROM_SIZE = 64 * 1024
PAGE_SIZE = 4096
MAGIC = b'TLMROMP1'

PATTERNS = ('seq', 'uniform', 'hotcold', 'window')
FLAG_VERIFY, FLAG_FILL, FLAG_CLOCK = 1, 2, 4

CFLAGS = ('-m32 -march=i686 -O2 -Wall -Wextra -Werror -ffreestanding '
          '-fno-pic -fno-pie -fno-stack-protector -fcf-protection=none '
          '-fno-asynchronous-unwind-tables -mgeneral-regs-only').split()

# struct params in rom.c, in this order after the magic
PARAMS = ('size', 'start_page', 'ws_pages', 'pattern', 'rate', 'hot_percent',
          'hot_share', 'stride', 'vcpus', 'heartbeat_ms', 'scan_ms',
          'tsc_khz', 'flags', 'seed')

# struct progress in rom.c
PROGRESS_BASE = 0x10000
PROGRESS_MAGIC = 0x504d4c54
PROGRESS_HEAD = struct.Struct('<16I')
PROGRESS_VCPU = struct.Struct('<Q6I32x')
PROGRESS_VCPU_OFFSET = 256
MAX_VCPUS = 64
# layout.h; the flags of a struct pvclock_vcpu_time_info are its byte 29
CLOCK_BASE = 0xc000
CLOCK_SIZE = 0x40
CLOCK_FLAGS = 29
CLOCK_GUEST_STOPPED = 2
PROGRESS_SIZE = PROGRESS_VCPU_OFFSET + MAX_VCPUS * PROGRESS_VCPU.size


def compile_image(cc='gcc', ld='ld'):
    """Compile and link the image, parameters not yet set."""
    with tempfile.TemporaryDirectory(prefix='tlm-rom-') as tmp:
        objects = []
        for src in ('start.S', 'rom.c'):
            obj = os.path.join(tmp, src + '.o')
            subprocess.run([cc, *CFLAGS, '-c', os.path.join(HERE, src),
                            '-o', obj], check=True)
            objects.append(obj)
        out = os.path.join(tmp, 'rom.bin')
        subprocess.run([ld, '-m', 'elf_i386', '--no-warn-rwx-segments',
                        '-T', os.path.join(HERE, 'rom.lds'),
                        '--oformat', 'binary', '-o', out, *objects],
                       check=True)
        with open(out, 'rb') as f:
            image = f.read()
    if len(image) != ROM_SIZE:
        raise RuntimeError(f'image has {len(image)} bytes, not {ROM_SIZE}')
    return image


def patch(image, **values):
    """Return the image with the parameters set."""
    at = image.find(MAGIC)
    if at < 0 or image.find(MAGIC, at + 1) >= 0:
        raise RuntimeError('no unique parameter table in the image')
    at += len(MAGIC)
    size, = struct.unpack_from('<I', image, at)
    if size != len(MAGIC) + 4 * len(PARAMS):
        raise RuntimeError('parameter table of the image has another layout')
    values['size'] = size
    table = struct.pack(f'<{len(PARAMS)}I', *(values[k] for k in PARAMS))
    return image[:at] + table + image[at + len(table):]


def table_mb(ws_mb):
    """MiB the guest needs behind its working set for the counters."""
    return -(-ws_mb // 1024)


def build_rom(out, ws_mb=64, start_mb=1, pattern='seq', rate=0,
              hot_percent=10, hot_share=90, stride=1, vcpus=1,
              heartbeat_ms=100, scan_ms=2000, tsc_khz=0, verify=True,
              fill=True, kvmclock=False, seed=1, image=None):
    """Write the ROM image for these parameters to the file out."""
    if pattern not in PATTERNS:
        raise ValueError(f'unknown pattern {pattern!r}')
    if start_mb < 1 or ws_mb < 1 or start_mb + ws_mb + table_mb(ws_mb) > 3072:
        raise ValueError('the working set must lie between 1 MiB and 3 GiB')
    if not 1 <= vcpus <= MAX_VCPUS:
        raise ValueError(f'vcpus must be 1 to {MAX_VCPUS}')
    if not 1 <= hot_percent <= 100 or not 0 <= hot_share <= 100:
        raise ValueError('percentages out of range')
    flags = (FLAG_VERIFY if verify else 0) | (FLAG_FILL if fill else 0) | \
        (FLAG_CLOCK if kvmclock else 0)
    data = patch(image or compile_image(),
                 start_page=start_mb * 256, ws_pages=ws_mb * 256,
                 pattern=PATTERNS.index(pattern), rate=rate,
                 hot_percent=hot_percent, hot_share=hot_share, stride=stride,
                 vcpus=vcpus, heartbeat_ms=heartbeat_ms, scan_ms=scan_ms,
                 tsc_khz=tsc_khz, flags=flags, seed=seed)
    with open(out, 'wb') as f:
        f.write(data)


class Progress:
    """The guest's progress block, parsed from its bytes in guest memory."""

    ERRORS = ('none', 'page', 'scan', 'params', 'vcpus')
    STATES = ('off', 'fill', 'run', 'scan', 'stopped')

    def __init__(self, data):
        (self.magic, self.num_vcpus, error, _aps, _go, _lock, self.tsc_khz,
         self.err_vcpu, self.err_page, self.err_want, self.err_got,
         self.err_check, self.err_last, self.table_base, self.start_page,
         self.ws_pages) = PROGRESS_HEAD.unpack_from(data)
        self.started = self.magic == PROGRESS_MAGIC
        self.error = self.ERRORS[error] if self.started or error else 'none'
        self.vcpus = []
        for i in range(min(self.num_vcpus, MAX_VCPUS) if self.started else 0):
            (pages, passes, scans, beats, state, first,
             num) = PROGRESS_VCPU.unpack_from(
                 data, PROGRESS_VCPU_OFFSET + i * PROGRESS_VCPU.size)
            self.vcpus.append({
                'pages': pages, 'passes': passes, 'scans': scans,
                'beats': beats, 'state': self.STATES[state],
                'first_page': first, 'num_pages': num})

    @property
    def pages(self):
        return sum(v['pages'] for v in self.vcpus)

    def minimum(self, key):
        return min((v[key] for v in self.vcpus), default=0)

    def page_address(self, page):
        return (self.start_page + page) * PAGE_SIZE


def main():
    p = argparse.ArgumentParser(
        description='Build the firmware-ROM test guest.')
    p.add_argument('--out', required=True, help='image to write, for -bios')
    p.add_argument('--ws-mb', type=int, default=64, help='working set')
    p.add_argument('--start-mb', type=int, default=1, help='its address')
    p.add_argument('--pattern', choices=PATTERNS, default='seq')
    p.add_argument('--rate', type=int, default=0,
                   help='pages/s, all vCPUs together; 0: as fast as possible')
    p.add_argument('--hot-percent', type=int, default=10,
                   help='hotcold: hot part of the set; window: its size')
    p.add_argument('--hot-share', type=int, default=90,
                   help='hotcold: percent of the writes that go to the hot '
                        'part; 100: the rest is written once and only scanned')
    p.add_argument('--stride', type=int, default=1,
                   help='seq: distance of consecutive writes in pages')
    p.add_argument('--vcpus', type=int, default=1, help='as with -smp')
    p.add_argument('--heartbeat-ms', type=int, default=100,
                   help='between two lines on the serial port; 0: none')
    p.add_argument('--scan-ms', type=int, default=2000,
                   help='between two checks of the whole set; 0: none')
    p.add_argument('--tsc-khz', type=int, default=0,
                   help='TSC frequency; 0: the guest measures it')
    p.add_argument('--no-verify', action='store_true',
                   help='do not check pages before they are rewritten')
    p.add_argument('--no-fill', action='store_true',
                   help='do not write every page once at the start')
    p.add_argument('--kvmclock', action='store_true',
                   help='have KVM keep a clock for each vCPU')
    p.add_argument('--seed', type=int, default=1)
    a = p.parse_args()
    try:
        build_rom(a.out, ws_mb=a.ws_mb, start_mb=a.start_mb,
                  pattern=a.pattern, rate=a.rate, hot_percent=a.hot_percent,
                  hot_share=a.hot_share, stride=a.stride, vcpus=a.vcpus,
                  heartbeat_ms=a.heartbeat_ms, scan_ms=a.scan_ms,
                  tsc_khz=a.tsc_khz, verify=not a.no_verify,
                  fill=not a.no_fill, kvmclock=a.kvmclock, seed=a.seed)
    except ValueError as e:
        p.error(str(e))
    except subprocess.CalledProcessError as e:
        sys.exit(f'mkrom.py: {e.cmd[0]} failed with status {e.returncode}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
