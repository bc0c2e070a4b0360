#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Do the NPB-like kernels verify, and do they find a lost page?
#
#   test-npb.py PROGRAM...
#
# Class S and W must give the published values, with any number of threads
# and again when repeated; class S with a page lost half-way must not. The
# page for the host must say what has been done. Prints TAP.

import mmap
import os
import re
import struct
import subprocess
import sys
import tempfile

COUNTER = struct.Struct('=6Q')          # tests/guest/linux/counter.h
STOP = 4 * 8                            # where it is in there
READY = 1


def run(program, *args, **env):
    p = subprocess.run([program, *args], capture_output=True, text=True,
                       env={**os.environ, **env})
    return p.returncode, p.stdout, f'{p.returncode}: {p.stdout}{p.stderr}'


def verifies(program, kernel, cls, *args, runs=1):
    status, out, said = run(program, cls, *args)
    found = re.findall(rf'^{kernel} {cls} VERIFIED run=(\d+) '
                       r'iterations=(\d+) ', out, re.M)
    good = (status == 0 and [int(n) for n, _ in found] ==
            list(range(1, runs + 1)) and all(int(i) for _, i in found)
            and 'CORRUPT' not in out)
    return good, said


def finds_corruption(program, kernel, cls):
    status, out, said = run(program, cls, '--corrupt', '--repeat', '2')
    return (status == 1 and 'VERIFIED' not in out and
            len(re.findall(rf'^{kernel} {cls} FAILED run=1 ', out, re.M)) == 1
            and f'TLM-GUEST-CORRUPT {kernel} {cls} run=1: ' in out), said


def counts(program, stop):
    """Units, runs and state in the page; asked to stop, it runs once"""
    with tempfile.NamedTemporaryFile() as f:
        f.write(COUNTER.pack(0, 0, 0, 0, stop, 0).ljust(2 * mmap.PAGESIZE,
                                                        b'\0'))
        f.flush()
        status, out, said = run(program, 'S', '--repeat', '3',
                                TLM_COUNTER=f.name, TLM_COUNTER_OFFSET='0')
        f.seek(0)
        _, _, work, state, _, runs = COUNTER.unpack(f.read(COUNTER.size))
    units = [int(u) for u in re.findall(r' units=(\d+)$', out, re.M)]
    want = 1 if stop else 3
    return (status == 0 and state == READY and runs == want == len(units) and
            len(set(units)) == 1 and work >= sum(units) > 0,
            f'work={work} runs={runs} state={state} {said}')


def beats(program):
    """Heartbeats go up, in lines as tests/integration has them, until the
    host asks to stop
    """
    lines, out = [], ''
    with tempfile.NamedTemporaryFile() as f:
        f.truncate(mmap.PAGESIZE)
        page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        p = subprocess.Popen([program, 'S', '--repeat', '0', '--beat', '1'],
                             text=True, stdout=subprocess.PIPE,
                             env={**os.environ, 'TLM_COUNTER': f.name})
        for line in p.stdout:
            m = re.fullmatch(r'TLM-GUEST beat=(\d+) ms=(\d+) passes=(\d+) '
                             r'pages=(\d+) scans=(\d+)\n', line)
            if m:
                lines.append(tuple(map(int, m.groups())))
            else:
                out += line
            if len(lines) >= 3 and lines[-1][4]:
                page[STOP:STOP + 8] = struct.pack('=Q', 1)
        status = p.wait()
        page.close()
    return (status == 0 and lines and 'VERIFIED' in out and
            all(a <= b for one, two in zip(lines, lines[1:])
                for a, b in zip(one, two))), f'{status}: {lines[-9:]} {out}'


def refuses(program, *args):
    status, out, said = run(program, *args)
    return status == 2 and 'usage' in said and 'VERIFIED' not in out, said


def cases(program):
    name = os.path.basename(program)
    kernel = name.removeprefix('npb-').upper()
    yield f'{name} S', verifies(program, kernel, 'S')
    yield f'{name} S, 1 thread', verifies(program, kernel, 'S',
                                          '--threads', '1')
    yield f'{name} S, 5 threads, 3 runs', verifies(
        program, kernel, 'S', '--threads', '5', '--repeat', '3', runs=3)
    yield f'{name} W', verifies(program, kernel, 'W')
    yield f'{name} finds a lost page', finds_corruption(program, kernel, 'S')
    yield f'{name} counts', counts(program, 0)
    yield f'{name} stops when asked to', counts(program, 1)
    yield f'{name} has heartbeats', beats(program)
    status, out, said = run(program, 'S', '--seconds', '1')
    yield (f'{name} ends after a second',
           (status == 0 and 'VERIFIED' in out, said))
    yield f'{name} refuses a class', refuses(program, 'X')
    yield f'{name} refuses a number', refuses(program, 'S', '--repeat', '-1')


def main():
    if len(sys.argv) < 2:
        sys.exit('usage: test-npb.py PROGRAM...')
    count = failed = 0
    for program in sys.argv[1:]:
        for what, (good, said) in cases(program):
            count += 1
            failed += not good
            print(f"{'ok' if good else 'not ok'} {count} - {what}",
                  flush=True)
            if not good:
                for line in said.splitlines():
                    print('#', line)
    print(f'1..{count}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
