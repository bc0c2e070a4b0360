#!/usr/bin/python3
#
# How long the main loop has to wait while tlm-estimate measures a guest that
# rewrites a large working set: the slowest answers of QMP, and how long the
# BQL was held to clear the dirty log.  Not a test.
#
#   PYTHONPATH=python tests/integration/estimate_bql.py
#       [--mem MIB] [--ws MIB] [--window MS] [--accel tcg|kvm]
#
# TLM_QEMU is the binary to measure.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import re
import sys
import time

from tlmtest import env
from tlmtest.guests import RomGuest
from tlmtest.vm import Vm

TRACE = 'tlm_estimate_clear'


def answers(vm, going_on):
    """How long QMP took to answer, in ms, the slowest first."""
    times = []
    while going_on():
        begin = time.monotonic()
        vm.qmp('query-version')
        times.append((time.monotonic() - begin) * 1000)
    return sorted(times, reverse=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--mem', type=int, default=4096, metavar='MIB')
    p.add_argument('--ws', type=int, default=2816, metavar='MIB')
    p.add_argument('--window', type=int, default=2000, metavar='MS')
    p.add_argument('--accel', choices=('tcg', 'kvm'), default='tcg')
    args = p.parse_args()
    reason = env.missing_qemu(env.QEMU)
    if reason:
        sys.exit(reason)
    guest = RomGuest(mem_mb=args.mem, ws_mb=args.ws, scan_ms=0)
    # A trace event that the binary does not have is only warned of
    with Vm('src', env.QEMU, [*guest.args(args.accel), '-trace',
                              TRACE]) as vm:
        guest.wait_filled(vm)
        end = time.monotonic() + 3
        before = answers(vm, lambda: time.monotonic() < end)
        vm.qmp('tlm-estimate', bandwidth=10 ** 9, window=args.window)
        during = answers(vm, lambda: vm.qmp('query-tlm-estimate')['status'] ==
                         'measuring')
        result = vm.qmp('query-tlm-estimate')
        with open(vm.stderr_path) as f:
            held = sorted((int(us) / 1000 for us in re.findall(
                TRACE + r' \d+ pieces, .* held for (\d+) us, ', f.read())),
                reverse=True)
    guest.close()
    print(f"working set {result['working-set-bytes'] >> 20} MiB, "
          f"window {result['window']} ms")
    for name, times in (('QMP before', before), ('QMP during', during),
                        ('BQL held', held)):
        print(f'{name}, ms: {len(times)} times, slowest:',
              ' '.join(f'{t:.1f}' for t in times[:5]))


if __name__ == '__main__':
    main()
