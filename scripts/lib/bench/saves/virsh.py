# Save a libvirt domain: by virsh, and by tlm checkpoint
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time

from tlmtest import env
from tlmtest.guests import LinuxGuest
from tlmtest.virt import Domain, Pair
from tlmtest.vm import VmError, wait_until

from ..run import guest_rate
from .run import AFTER_S, CALIBRATE_S

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
EVENT = re.compile(r'event (STOP|RESUME) at (\d+)\.(\d+)')
LIMIT_S = 20                    # virsh --live need not ever end
ABORT_S = 60
GUESTS = {
    'virsh-write-heavy': (
        'domain of libvirt, 1.5 GiB, that rewrites 1 GiB at full speed',
        {'ws': 1024}),
    'virsh-steady': (
        'domain of libvirt, 1.5 GiB, that writes 80 MB/s to 256 MiB',
        {'ws': 256, 'rate': 20000})}


def _virsh(*more):
    def command(name, directory):
        return ['virsh', 'snapshot-create-as', name, '--no-metadata',
                '--memspec', f'file={directory}/vm,snapshot=external',
                '--diskspec', 'vda,snapshot=no', *more]
    return command


def _tlm(mode):
    def command(name, directory):
        return [TOOL, 'checkpoint', 'save', '--domain', name, '--dir',
                directory, '--mode', mode, '--json']
    return command


WAYS = {'virsh-protect': _tlm('write-protect'), 'virsh-copy': _tlm('copy'),
        'virsh-live': _virsh('--live'), 'virsh-paused': _virsh()}
TITLES = {
    'virsh-protect': 'tlm checkpoint save --mode write-protect',
    'virsh-copy': 'tlm checkpoint save --mode copy',
    'virsh-live': 'virsh snapshot-create-as --live --memspec',
    'virsh-paused': 'virsh snapshot-create-as --memspec'}


class Stops:
    """What virsh tells of QEMU's events, while it is open."""

    def __init__(self, host, name):
        self.said = tempfile.TemporaryFile('w+')
        self.process = host.popen(
            'stdbuf', '-oL', 'virsh', 'qemu-monitor-event', name, '--loop',
            stdout=self.said, stderr=subprocess.STDOUT)

    def ms(self):
        """(how long the guest stood still, whether it runs)"""
        self.said.seek(0)
        total, begin = 0, None
        for name, seconds, micros in EVENT.findall(self.said.read()):
            at = 1e3 * int(seconds) + int(micros) / 1e3
            if name == 'STOP':
                begin = at
            elif begin is not None:
                total, begin = total + at - begin, None
        return total, begin is None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.said.close()


class RunningDomain:
    """As Running, for the guests of libvirt."""

    def __init__(self, name, directories):
        self.dirs = directories
        self.guest = LinuxGuest(mem_mb=1536, scan=0, beat=10,
                                **GUESTS[name][1])
        self.stack = contextlib.ExitStack()
        try:
            pair = self.stack.enter_context(contextlib.closing(Pair()))
            self.host = pair.hosts[0]
            self.host.use_emulator(env.QEMU)
            self.domain = self.stack.enter_context(
                contextlib.closing(Domain(pair, self.guest)))
            self.domain.start(self.host)
            self.vm = self.domain.at[self.host]
        except BaseException:
            self.close()
            raise

    def close(self):
        self.stack.close()

    def _work(self):
        return self.guest.progress(self.vm)['pages']

    def _save(self, way, directory):
        """Returns whether it was cut off."""
        p = self.host.popen(*WAYS[way](self.domain.name, directory),
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said, _ = p.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.host.virsh('domjobabort', self.domain.name, check=False)
            try:
                p.communicate(timeout=ABORT_S)
            except subprocess.TimeoutExpired:
                p.send_signal(signal.SIGKILL)
                p.communicate()
            return True
        if p.returncode:
            raise VmError(' '.join(said.split())[-300:])
        return False

    def measure(self, way, to):
        result = {'way': way, 'to': to, 'loadavg': round(os.getloadavg()[0], 2),
                  'status': 'completed'}
        self.guest.wait_alive(self.vm, beats=5)
        base = guest_rate(self.guest, self.vm, CALIBRATE_S)
        try:
            with tempfile.TemporaryDirectory(
                    prefix='tlm-bench-', dir=self.dirs[to]) as directory, \
                    contextlib.closing(Stops(self.host, self.domain.name)) \
                    as stops:
                # Only what comes behind its first word is seen
                time.sleep(AFTER_S)
                start, work = time.monotonic(), self._work()
                if self._save(way, directory):
                    result['status'] = 'not ended'
                end = time.monotonic()
                result['bytes'] = sum(
                    f.stat().st_blocks * 512 for f in os.scandir(directory)
                    if f.name not in ('.lock',))
                time.sleep(AFTER_S)
                done = self._work() - work
                seconds = time.monotonic() - start
                wait_until(lambda: stops.ms()[1], 30, 'the domain goes on')
                result.update(
                    pause_ms=stops.ms()[0], total_ms=1e3 * (end - start),
                    base_rate=base, lost_ms=1e3 * (seconds - done / base))
        except VmError as e:
            if not self.vm.alive():
                raise
            result.update(status='failed', error=str(e))
        return result
