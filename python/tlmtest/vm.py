# One QEMU process: start it, talk QMP, read and write its guest's RAM
#
# SPDX-License-Identifier: GPL-2.0-or-later

import asyncio
import collections
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from . import env

Block = collections.namedtuple('Block', 'name page_size used hva readonly')

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1

# For slow and busy machines: a factor on every limit.  Nothing waits longer
# than it must, the limits only end what would not end.
PATIENCE = float(os.environ.get('TLM_TEST_PATIENCE', '3'))

QMP_TIMEOUT = 60.0 * PATIENCE


class VmError(Exception):
    """QEMU did not do what was wanted of it; carries its last messages."""


def die_with_parent():
    """In the child: be killed when the test is, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(predicate, timeout, what):
    """Poll until predicate() is true and return its value.  timeout: in
    seconds, on an idle machine.  what: words, or a function for them if they
    are to tell how things are in the end."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise VmError(f'not within {timeout} s: '
                          f'{what() if callable(what) else what}')
        time.sleep(0.02)


def whole_lines(path):
    """A file that someone still writes to, without the line that is not yet at
    its end: half of it may say something else."""
    with open(path, 'rb') as f:
        text = f.read().decode('latin-1')
    return text[:text.rfind('\n') + 1]


class Vm:
    """A QEMU process.  netns: name of a network namespace to run in."""

    def __init__(self, name, binary, args, netns=None):
        self.name = name
        self.netns = netns
        self.dir = tempfile.mkdtemp(prefix=f'tlm-{name}-')
        self.serial_path = os.path.join(self.dir, 'serial')
        self.stderr_path = os.path.join(self.dir, 'stderr')
        self.qmp_path = os.path.join(self.dir, 'qmp')
        self.events = []
        self.monitor = None
        self.process = None
        self._mem = None
        # An empty file: the guest may not have written yet when it is read
        with open(self.serial_path, 'wb'):
            pass
        self.command = [
            binary, '-name', f'{name},debug-threads=on', '-no-user-config',
            '-nodefaults', '-display', 'none', '-L', env.FIRMWARE,
            '-qmp', f'unix:{self.qmp_path},server=on,wait=off',
            '-chardev', f'file,id=serial0,path={self.serial_path},append=on',
            '-serial', 'chardev:serial0', *args]
        if netns:
            self.command[:0] = ['ip', 'netns', 'exec', netns]
        env.register(self)

    def start(self):
        with open(self.stderr_path, 'wb') as err:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=err,
                stderr=err, preexec_fn=die_with_parent)
        wait_until(lambda: not self.alive() or os.path.exists(self.qmp_path),
                   60, f'{self.name}: the QMP socket appears')
        if not self.alive():
            raise VmError(f'{self.name} ended with status '
                          f'{self.process.returncode}:\n{self.messages()}')
        return self.connect()

    def connect(self):
        from qemu.qmp.legacy import QEMUMonitorProtocol
        monitor = QEMUMonitorProtocol(self.qmp_path)

        def connected():
            # The socket file appears shortly before QEMU listens on it
            try:
                monitor.connect()
                return True
            except Exception as e:
                if not self.alive():
                    raise VmError(f'{self.name} ended:\n'
                                  f'{self.messages()}') from e
                return False
        wait_until(connected, 60, f'{self.name}: QMP answers')
        monitor.settimeout(QMP_TIMEOUT)
        self.monitor = monitor
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return f'Vm({self.name})'

    @property
    def pid(self):
        # "ip netns exec" replaces itself by the command
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def messages(self):
        """The end of what QEMU has written to stderr."""
        with open(self.stderr_path, errors='replace') as f:
            return ''.join(f.readlines()[-20:])

    # Monitor

    def qmp(self, command, **arguments):
        """Execute a command; returns its result or raises VmError."""
        # QMP names have hyphens, Python's keywords cannot
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        try:
            reply = self.monitor.cmd_raw(command, arguments)
        except Exception as e:
            raise VmError(f'{self.name}: {command}: {type(e).__name__} {e}\n'
                          f'{self.messages()}') from e
        if 'error' in reply:
            raise VmError(f'{self.name}: {command}: '
                          f"{reply['error']['desc']}")
        return reply['return']

    def hmp(self, line):
        return self.qmp('human-monitor-command', command_line=line)

    def pull_events(self):
        """Add all that has been sent so far to self.events."""
        self.status()               # its answer comes behind them
        self.events += self.monitor.get_events(False)

    def _await_events(self, seconds):
        try:
            self.events += self.monitor.get_events(seconds)
        except asyncio.TimeoutError:
            pass

    def wait_event(self, name, timeout=30.0, match=lambda data: True):
        """Wait for an event that has not been waited for before."""
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        while True:
            for i, event in enumerate(self.events):
                if event['event'] == name and match(event.get('data', {})):
                    return self.events.pop(i)
            if time.monotonic() > deadline:
                raise VmError(f'{self.name}: no event {name} in {timeout} s; '
                              f"others: {[e['event'] for e in self.events]}")
            self._await_events(0.1)

    def status(self):
        return self.qmp('query-status')['status']

    # Serial port

    def serial(self):
        return whole_lines(self.serial_path)

    def serial_size(self):
        return os.path.getsize(self.serial_path)

    # Guest RAM, straight from the process's memory: all RAMBlocks, no copy
    # on disk, and no code of QEMU between test and data

    def blocks(self):
        """RAMBlocks by name."""
        result = {}
        for line in self.hmp('info ramblock').splitlines()[1:]:
            m = re.match(r' *(.*?) +(\d+) (\w+) +0x([0-9a-f]+) 0x([0-9a-f]+) '
                         r'0x([0-9a-f]+) 0x([0-9a-f]+) +(r[ow])', line)
            if not m:
                raise VmError(f'cannot parse "info ramblock": {line!r}')
            size = int(m[2]) * {'B': 1, 'KiB': 1 << 10, 'MiB': 1 << 20,
                                'GiB': 1 << 30}[m[3]]
            result[m[1]] = Block(m[1], size, int(m[5], 16), int(m[7], 16),
                                 m[8] == 'ro')
        return result

    def _memory(self):
        if self._mem is None:
            self._mem = os.open(f'/proc/{self.pid}/mem', os.O_RDWR)
        return self._mem

    def read_block(self, block, offset, length):
        data = os.pread(self._memory(), length, block.hva + offset)
        if len(data) != length:
            raise VmError(f'{self.name}: short read of {block.name}')
        return data

    def write_block(self, block, offset, data):
        """Change RAM behind the guest's and the dirty log's back."""
        if os.pwrite(self._memory(), data, block.hva + offset) != len(data):
            raise VmError(f'{self.name}: short write to {block.name}')

    def main_block(self):
        """The block that holds guest-physical address 0 (below 3 GiB)."""
        return max(self.blocks().values(), key=lambda b: b.used)

    # End

    def kill(self):
        """As a crash of the host would: no goodbye to the other side."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def close(self):
        env.unregister(self)
        if self._mem is not None:
            os.close(self._mem)
            self._mem = None
        self.kill()
        if self.monitor is not None:
            try:
                self.monitor.close()
            except Exception:       # the other end has just been killed
                pass
            self.monitor = None
        shutil.rmtree(self.dir, ignore_errors=True)
