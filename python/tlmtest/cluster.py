# Several guests that work together over a network, saved and restored as one
# by the command "tlm cluster"
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from bench.linux import BenchGuest

from . import env
from .vm import Vm, VmError, wait_until

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
GROUP = '239.215.0.2'
TOOL_S = 600
# Heartbeats of a guest, some 200 a second while it has a CPU: more than its
# TCP takes to try again several times
BEATS = 3000


class Node(BenchGuest):
    """@kind: 'mpi' or 'echo' (tests/guest/linux/run.sh); they are joined by a
    multicast group on the loopback device."""

    def __init__(self, kind, node, nodes, port, mem_mb=256, **settings):
        super().__init__(kind, mem_mb, node=node, nodes=nodes, **settings)
        # Guests that share a busy host's CPUs are not locked up
        self.append += ' nosoftlockup'
        self.node, self.port = node, port

    def args(self, accel):
        return [*super().args(accel), '-netdev', f'socket,id=lan,mcast={GROUP}:'
                f'{self.port},localaddr=127.0.0.1',
                '-device', 'virtio-net-pci,netdev=lan,romfile=,'
                f'mac=52:54:00:d7:00:{self.node:02x}']


class Restored(Vm):
    """A QEMU that "tlm cluster restore" has started with the command line of
    a Vm, and that has outlived the tool."""

    told = None

    @property
    def pid(self):
        return self.told['pid']

    def alive(self):
        """False too once it is a zombie, which others have to reap."""
        with contextlib.suppress(FileNotFoundError):
            os.readlink(f'/proc/{self.pid}/exe')
            return True
        return False

    def kill(self):
        if self.told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not self.alive(), 30, f'{self.name} has ended')
            shutil.rmtree(os.path.dirname(self.told['qmp']),
                          ignore_errors=True)


class Nodes:
    """The guests, where they run, and the command for them."""

    def __init__(self, guests, directory):
        self.guests, self.dir = guests, directory
        self.vms = []
        self.sockets = tempfile.mkdtemp(prefix='tlm-cluster-')
        env.register(self)

    def close(self):
        env.unregister(self)
        for vm in self.vms:
            vm.close()
        for guest in self.guests:
            guest.close()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def socket(self, number):
        """Of the monitor that is for the tool."""
        return os.path.join(self.sockets, f'vm{number}')

    def _vm(self, kind, number, binary):
        return kind(f'vm{number}', binary, [
            *self.guests[number].args('tcg'), '-qmp',
            f'unix:{self.socket(number)},server=on,wait=off'])

    def start(self, binary=env.QEMU):
        """Those that are asked before the first, that asks them."""
        self.vms = [self._vm(Vm, i, binary) for i in range(len(self.guests))]
        for vm in reversed(self.vms):
            vm.start()
        self.wait_work()

    def add(self, number, binary=env.QEMU):
        """One that nobody waits for."""
        self.vms.append(self._vm(Vm, number, binary))
        self.vms[-1].start()

    def wait_work(self):
        for guest, vm in zip(self.guests, self.vms, strict=True):
            if guest.filled(vm) or vm is self.vms[0]:
                guest.wait_filled(vm)

    def words(self, command, *more):
        return [TOOL, 'cluster', command, '--dir', self.dir, *more]

    def saving(self, command, *more):
        return self.words(command, *more, *(
            f'vm{i}={self.socket(i)}' for i in range(len(self.guests))))

    def save(self, name, *more):
        """Returns the manifest."""
        return json.loads(self.run(self.saving('save', '--json', name, *more)))

    @staticmethod
    def run(words):
        p = subprocess.run(words, capture_output=True, text=True,
                           timeout=TOOL_S, check=False)
        if p.returncode:
            raise VmError(f"{' '.join(words)}: {p.stderr}")
        print(p.stderr, end='', file=sys.stderr)
        return p.stdout

    def kill(self):
        """All, as if their hosts had crashed."""
        for vm in self.vms:
            vm.process.kill() if vm.process else os.kill(vm.pid,
                                                         signal.SIGKILL)
        for vm in self.vms:
            vm.close()
        self.vms = []

    def restore(self, name, binary=env.STOCK_QEMU, more=()):
        """In other QEMUs.  @more: options"""
        self.kill()
        vms = [self._vm(Restored, i, binary)
               for i in range(len(self.guests))]
        path = os.path.join(self.sockets, 'restore.toml')
        with open(path, 'w', encoding='utf-8') as f:
            for vm in vms:
                f.write(f'[vm.{vm.name}]\ncommand = {json.dumps(vm.command)}\n')
        done = json.loads(self.run(self.words(
            'restore', '--json', '--config', path, *more, name)))
        for vm, told in zip(vms, done['vms'], strict=True):
            vm.told = told
            self.vms.append(vm)
            vm.connect()
        return done

    # How they are

    def check(self):
        for guest, vm in zip(self.guests, self.vms, strict=True):
            if not vm.alive():
                raise VmError(f'{vm.name} has ended: {vm.messages()}')
            found = guest.corruption(vm)
            if found:
                raise VmError(f'{vm.name}: the guest reports: {found}')
        return True

    def goes_on(self, key='work', count=1, beats=BEATS):
        """Whether the first guest, which needs the others, does: True as soon
        as it has, False once all have lived for so long without it.  Raises
        VmError if one finds that something is wrong."""
        start = self._counters()
        first = start[0][key] + count

        def over():
            self.check()
            now = self._counters()
            return now[0][key] >= first or all(
                n['alive'] >= s['alive'] + beats
                for n, s in zip(now, start, strict=True))
        wait_until(over, 300, 'the guests live')
        return self._counters()[0][key] >= first

    def _counters(self):
        return [g.counter(vm) for g, vm in zip(self.guests, self.vms,
                                               strict=True)]

    def verify(self):
        """The first one comes to an end, and says what it has seen."""
        self.check()
        return self.guests[0].verify(self.vms[0], 300)
