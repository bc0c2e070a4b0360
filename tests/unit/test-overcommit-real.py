#!/usr/bin/python3
#
# Run test-overcommit-real on a system with cgroup v2 only: a virtual machine
# with Debian's kernel, whose process 1 the test is.
#
# Usage: test-overcommit-real.py [PROGRAM]
#
# PROGRAM is test-overcommit-real, by default the one below build/.
#
# Prints TAP.  The kernel is the one of tests/guest/linux.  Environment:
# TLM_STOCK_QEMU, TLM_FIRMWARE, TLM_GUEST_KERNEL; by default those of build/.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import gzip
import os
from pathlib import Path
import re
import stat
import subprocess
import sys
import tempfile

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / 'tests/guest/linux'))
from mkinitramfs import entry  # noqa: E402  pylint: disable=C0413

TIMEOUT_S = 300


def libraries(program):
    """The shared libraries of program, and the loader"""
    out = subprocess.run(['ldd', program], check=True, text=True,
                         capture_output=True).stdout
    return sorted(set(re.findall(r'(/\S+) \(0x', out)))


def initramfs(program, out):
    files = {'init': program}
    files.update((lib.lstrip('/'), lib) for lib in libraries(program))
    dirs = {'dev'}
    for name in files:
        dirs.update(str(d) for d in Path(name).parents if str(d) != '.')
    parts = [entry(i, d, stat.S_IFDIR | 0o755)
             for i, d in enumerate(sorted(dirs), 1)]
    parts.append(entry(100, 'dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1)))
    for i, (name, source) in enumerate(sorted(files.items()), 101):
        parts.append(entry(i, name, stat.S_IFREG | 0o755,
                           Path(source).read_bytes()))
    parts.append(entry(0, 'TRAILER!!!', 0))
    with gzip.open(out, 'wb', 1) as f:
        f.write(b''.join(parts))


def skip(why):
    print(f'1..0 # SKIP {why}')
    sys.exit(0)


def main():
    if len(sys.argv) > 2:
        sys.exit('usage: test-overcommit-real.py [PROGRAM]')
    program = (sys.argv + [str(TOP / 'build/tests/unit/test-overcommit-real')]
               )[1]
    if not os.access(program, os.X_OK):
        skip(f'{program} does not exist')
    qemu = os.environ.get('TLM_STOCK_QEMU',
                          str(TOP / 'build/stock/qemu-system-x86_64'))
    firmware = os.environ.get('TLM_FIRMWARE', str(TOP / 'build/firmware'))
    if not os.access(qemu, os.X_OK):
        skip(f'{qemu} does not exist')
    guest = subprocess.run([TOP / 'tests/guest/linux/build.sh'], text=True,
                           stdout=subprocess.PIPE, check=False)
    if guest.returncode:
        sys.exit('Bail out! the guest kernel cannot be had')
    kernel = Path(guest.stdout.strip().splitlines()[-1]) / 'vmlinuz'

    with tempfile.TemporaryDirectory() as tmp:
        image = Path(tmp) / 'initramfs.gz'
        initramfs(program, image)
        command = [qemu, '-L', firmware, '-machine', 'pc,accel=tcg',
                   '-cpu', 'max', '-smp', '2', '-m', '512', '-nodefaults',
                   '-display', 'none', '-no-reboot', '-serial', 'stdio',
                   '-kernel', str(kernel), '-initrd', str(image), '-append',
                   'console=ttyS0 quiet loglevel=3 panic=-1']
        try:
            run = subprocess.run(command, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, timeout=TIMEOUT_S,
                                 check=False)
        except subprocess.TimeoutExpired as e:
            sys.stdout.write((e.stdout or b'').decode(errors='replace'))
            print(f'Bail out! the guest did not end in {TIMEOUT_S} s')
            return 1
    text = run.stdout.decode(errors='replace').replace('\r', '')
    # The last line says how the test ended: without it the guest crashed
    ended = re.search(r'^# exit status 0$', text, re.M)
    tap = re.compile(r'(ok|not ok|1\.\.|#|Bail out!)')
    for line in text.splitlines():
        print(line if tap.match(line) else '# ' + line)
    if run.returncode or not ended:
        print('Bail out! the test did not end well in the guest')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
