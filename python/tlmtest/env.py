# Where the tests find QEMU, firmware and guests; what this host offers
#
# SPDX-License-Identifier: GPL-2.0-or-later

import atexit
import functools
import os
import signal
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
BUILD = os.environ.get('TLM_BUILD', os.path.join(ROOT, 'build'))

QEMU = os.environ.get(
    'TLM_QEMU', os.path.join(BUILD, 'qemu/qemu-system-x86_64'))
STOCK_QEMU = os.environ.get(
    'TLM_STOCK_QEMU', os.path.join(BUILD, 'stock/qemu-system-x86_64'))
FIRMWARE = os.environ.get('TLM_FIRMWARE', os.path.join(BUILD, 'firmware'))
QEMU_SRC = os.environ.get('TLM_QEMU_SRC', os.path.join(BUILD, 'qemu-src'))

for _src in (QEMU_SRC, os.path.join(BUILD, 'stock-src')):
    if os.path.isdir(os.path.join(_src, 'python/qemu/qmp')):
        sys.path.insert(0, os.path.join(_src, 'python'))
        break
sys.path[:0] = [os.path.join(ROOT, 'tests/guest', guest)
                for guest in ('linux', 'rom')]


def missing_qemu(*binaries):
    """Why these binaries cannot be used, or None."""
    for path in binaries:
        if not os.access(path, os.X_OK):
            return f'no QEMU at {path} (build it, or set TLM_QEMU and ' \
                   'TLM_STOCK_QEMU)'
    if not os.path.exists(os.path.join(FIRMWARE, 'bios-256k.bin')):
        return f'no firmware in {FIRMWARE} (set TLM_FIRMWARE)'
    try:
        import qemu.qmp.legacy          # noqa: F401
    except ImportError:
        return f"QEMU's python/qemu/qmp is not in {QEMU_SRC} " \
               '(set TLM_QEMU_SRC)'
    return None


def missing_kvm_device():
    """Why there can be no KVM, whatever the QEMU, or None."""
    if not os.path.exists('/dev/kvm'):
        return 'no /dev/kvm'
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return '/dev/kvm is not accessible to this user'
    return None


@functools.lru_cache(maxsize=None)
def missing_kvm(binary):
    """Why KVM cannot be used, or None."""
    reason = missing_kvm_device()
    if reason:
        return reason
    p = subprocess.run(
        [binary, '-accel', 'kvm', '-machine', 'none', '-nodefaults',
         '-display', 'none', '-monitor', 'stdio'],
        input='quit\n', capture_output=True, text=True, timeout=60)
    if p.returncode:
        return 'QEMU cannot use /dev/kvm: ' + p.stderr.strip()
    return None


# What must not outlive the tests: objects with close(), the newest first.
# A test closes what it opened; this is for tests that are interrupted.
_open = []


def register(obj):
    _open.append(obj)


def unregister(obj):
    if obj in _open:
        _open.remove(obj)


def close_all():
    while _open:
        obj = _open.pop()
        try:
            obj.close()
        except Exception as e:      # the others must be closed as well
            print(f'closing {obj}: {e}', file=sys.stderr)


def _on_signal(signum, _frame):
    close_all()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


atexit.register(close_all)
for _sig in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_sig, _on_signal)
