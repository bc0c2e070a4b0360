# /init of the nested guest: load KVM, run cases.py, end the machine
#
# From the kernel's command line, as environment: TLM_NESTED_CASES (names of
# test methods, with commas), TLM_TEST_PATIENCE.  TAP goes to the second
# serial port, all else to the console.  mkimage.py puts the interpreter's
# line in front.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import ctypes
import faulthandler
import fcntl
import os
import socket
import struct
import sys
import traceback
import tty

RUN_UNITTEST = '/tlm/tests/lib/run-unittest'

SYS_init_module = 175               # x86-64
RB_AUTOBOOT = 0x01234567
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

# How often it is told where the cases are; less than one may take
WHERE_S = 60

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f'{what}: {os.strerror(error)}')


def mount(kind, where):
    check(libc.mount(kind, where, kind, 0, None), f'mounting {where}')


def load_modules():
    with open('/modules/order', encoding='ascii') as f:
        for name in f.read().split():
            with open('/modules/' + name, 'rb') as module:
                data = module.read()
            check(libc.syscall(SYS_init_module, data,
                               ctypes.c_ulong(len(data)), b''),
                  f'loading module {name}')


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS,
                    struct.pack('16sh14x', b'lo', IFF_UP))


def run_cases():
    os.environ.update(
        PATH='/bin', HOME='/tmp', TLM_QEMU='/qemu/tlm',
        TLM_STOCK_QEMU='/qemu/stock', TLM_FIRMWARE='/firmware',
        TLM_QEMU_SRC='/tlm/qemu-src')
    tap = os.open('/dev/ttyS1', os.O_WRONLY | os.O_NOCTTY)
    tty.setraw(tap)                 # no carriage returns
    os.dup2(tap, 1)
    faulthandler.dump_traceback_later(
        WHERE_S * float(os.environ['TLM_TEST_PATIENCE']), repeat=True)
    names = os.environ.get('TLM_NESTED_CASES', '')
    sys.argv = ['run-unittest', '/tlm/tests/guest/nested/cases.py',
                *('NestedKvm.' + n for n in names.split(',') if n)]
    with open(RUN_UNITTEST, encoding='utf-8') as f:
        program = compile(f.read(), RUN_UNITTEST, 'exec')
    exec(program, {'__name__': '__main__', '__file__': RUN_UNITTEST})


def main():
    try:
        mount(b'proc', b'/proc')
        mount(b'sysfs', b'/sys')
        mount(b'devtmpfs', b'/dev')
        load_modules()
        loopback_up()
        run_cases()
    except SystemExit as e:
        print(f'run-unittest ended with status {e.code}', file=sys.stderr)
    except BaseException:           # whatever it is, the machine must end
        traceback.print_exc()
    sys.stderr.flush()
    # -no-reboot makes it QEMU's end
    libc.reboot(RB_AUTOBOOT)


# mkimage.py imports this file to learn what it needs
if __name__ == '__main__':
    main()
