#!/usr/bin/python3
#
# Run a unit test of the search for pages that were never populated on
# Linux 6.1: a virtual machine with Debian 12's kernel, two NUMA nodes and
# swap, whose process 1 the test is.
#
# Usage: test-populated-guest.py PROGRAM
#
# PROGRAM is test-populated-init or test-populated-moved-init.
#
# Prints TAP.  Environment: TLM_STOCK_QEMU, TLM_FIRMWARE; by default those of
# build/.  TLM_DEBIAN12_KERNEL names another kernel (bzImage) to run it on;
# it needs a built-in NVMe driver, for the swap device.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import threading

TOP = Path(__file__).resolve().parents[2]
TIMEOUT_S = 400
SWAP_MB = 64
NODE_MB = 384


def load(name):
    """A sibling of this file that is a program as well"""
    spec = importlib.util.spec_from_file_location(
        name.replace('-', '_'), Path(__file__).with_name(name + '.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_kernel():
    kernel = os.environ.get('TLM_DEBIAN12_KERNEL')
    if kernel:
        return kernel
    out = subprocess.run([TOP / 'tests/guest/debian12/build.sh'], text=True,
                         stdout=subprocess.PIPE, check=False)
    if out.returncode:
        sys.exit('Bail out! the kernel of Debian 12 cannot be had')
    return str(Path(out.stdout.strip().splitlines()[-1]) / 'vmlinuz')


def run(command):
    """Print what the guest prints; the exit status that it ends with"""
    tap = re.compile(r'(ok|not ok|1\.\.|#|Bail out!)')
    ended = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as qemu:
        timer = threading.Timer(TIMEOUT_S, qemu.kill)
        timer.start()
        for line in qemu.stdout:
            line = line.decode(errors='replace').strip()
            print(line if tap.match(line) else '# ' + line, flush=True)
            m = re.fullmatch(r'# exit status (\d+)', line)
            ended = int(m[1]) if m else ended
        timer.cancel()
    return ended


def main():
    if len(sys.argv) != 2:
        sys.exit('usage: test-populated-guest.py PROGRAM')
    program = sys.argv[1]
    guest = load('test-overcommit-real')
    qemu = os.environ.get('TLM_STOCK_QEMU',
                          str(TOP / 'build/stock/qemu-system-x86_64'))
    firmware = os.environ.get('TLM_FIRMWARE', str(TOP / 'build/firmware'))
    for binary in (program, qemu):
        if not os.access(binary, os.X_OK):
            guest.skip(f'{binary} does not exist')
    kernel = find_kernel()
    nodes = []
    for node in range(2):
        nodes += ['-object', f'memory-backend-ram,id=m{node},size={NODE_MB}M',
                  '-numa', f'node,cpus={node},memdev=m{node}']

    with tempfile.TemporaryDirectory() as tmp:
        image = Path(tmp) / 'initramfs.gz'
        guest.initramfs(program, image)
        swap = Path(tmp) / 'swap'
        with open(swap, 'wb') as f:
            f.truncate(SWAP_MB << 20)
        command = [qemu, '-L', firmware, '-machine', 'pc,accel=tcg',
                   '-cpu', 'max', '-smp', '2', '-m', str(2 * NODE_MB), *nodes,
                   '-drive', f'if=none,id=swap,format=raw,file={swap}',
                   '-nodefaults', '-device', 'nvme,serial=swap,drive=swap',
                   '-display', 'none', '-no-reboot', '-serial', 'stdio',
                   '-kernel', kernel, '-initrd', str(image), '-append',
                   'console=ttyS0 quiet loglevel=3 panic=-1']
        ended = run(command)
    # Without it the guest crashed
    if ended is None:
        print('Bail out! the test did not end well in the guest')
        return 1
    return ended


if __name__ == '__main__':
    sys.exit(main())
