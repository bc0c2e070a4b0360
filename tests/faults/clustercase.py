# One case with a cluster of two, which the command "tlm cluster" saves
#
# The verdict: the guests that have a QEMU run, and find their memory as they
# have written it; the sets that the command lists are whole, and what it said
# to be saved is there; a set restores, with all RAM as it was at the gate; the
# next one is saved; nothing is left in QEMUs, directories and servers.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import signal
import subprocess
import time

from tlmtest import env, migration
from tlmtest.cluster import Nodes
from tlmtest.guests import RomGuest
from tlmtest.memserver import MemServer
from tlmtest.ram import FrozenRam
from tlmtest.vm import PATIENCE, Vm, die_with_parent, wait_until

import leftovers
from case import CAP, HARMLESS, MB, WS_MB, Case, Wrong
from clustered import MEMBERS
from faults import Faults
from scenario import LONG_S

# A guest whose coordinator is dead is stopped for twice as long
WINDOW_S = 10
ENDS_S = 60
TICK_S = 0.01
GATHER_TICKS = 100              # for the others to come to the gate as well
TOLD_CHARS = 2000
UUID_CHARS = 37                 # and a hyphen, behind the name of a set


class ClusterFaults(Faults):
    def kill_coordinator(self):
        self.case.tool.kill()

    def stop_coordinator(self):
        if self.case.tool.poll() is None:
            self._for_a_moment(self.case.tool.pid)

    def end_coordinator(self):
        self.case.tool.send_signal(signal.SIGTERM)

    def kill_member(self):
        self.case.src.kill()

    def stop_member(self):
        self._for_a_moment(self.case.src.pid)

    def kill_server(self):
        self.case.servers[self.case.s.aim].kill()

    def stop_server(self):
        self._for_a_moment(self.case.servers[self.case.s.aim].process.pid)



class ClusterCase(Case):
    faults = ClusterFaults

    # The machines

    def _start(self):
        s = self.s
        self.sets = os.path.join(self.dir, 'sets')
        os.mkdir(self.sets)
        self.servers = [MemServer({'store': {'keep': 9}})
                        for _ in range(s.servers)]
        for server in self.servers:
            self.exits.callback(server.close)
        self.options = ('--server', ','.join(
            server.address for server in self.servers)) if s.servers else ()
        self.cluster = Nodes([self._guest(n) for n in range(MEMBERS)],
                             self.sets)
        self.exits.callback(self.cluster.close)
        self.cluster.start()
        self.src = self.cluster.vms[s.aim]
        self.frozen = None
        self._save('old')
        self.before = [leftovers.look(vm) for vm in self.cluster.vms]

    def _guest(self, n):
        s = self.s
        return RomGuest(mem_mb=64, ws_mb=WS_MB, pattern=s.pattern, rate=s.rate,
                        scan_ms=50, heartbeat_ms=20,
                        seed=(2 * s.seed + n) & 0xffff)

    # Saving

    def _words(self, name, *more):
        return self.cluster.saving(
            'save', *self.options, '--mode', self.s.mode, '--window',
            f'{WINDOW_S}s', *more, name)

    def _save(self, name):
        """Without any fault."""
        self.cluster.run(self._words(name))

    def _begin(self):
        self.messages = os.path.join(self.dir, 'messages')
        with open(self.messages, 'wb') as f:
            self.tool = subprocess.Popen(
                self._words('new', '--bandwidth', f'{CAP}B/s'),
                stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                preexec_fn=die_with_parent)
        self.exits.callback(self._end_tool)

    def _end_tool(self):
        self.tool.kill()
        self.tool.wait()

    def _states(self):
        return {migration.status(vm) for vm in self.cluster.vms}

    def _reach(self):
        """Returns whether it has come so far, or was over before."""
        where = self.s.where
        reached = {
            'setup': lambda: True,
            'live': lambda: self._states() == {'active'},
            'gate': lambda: self.frozen,
            'flush': lambda: any(
                vm.qmp('query-migrate').get('tlm', {}).get('stage') == 'flush'
                for vm in self.cluster.vms) and self.frozen,
            # Of the new one: the old one is over as well
            'end': lambda: self.frozen and 'completed' in self._states(),
        }[where]
        deadline = time.monotonic() + ENDS_S * PATIENCE
        while time.monotonic() < deadline:
            if reached():
                return True
            if self.tool.poll() is not None:
                return False
            if not self.frozen:
                self._freeze()
        raise Wrong(f'never reached: {self._told()}')

    def _freeze(self):
        """If a member is at the gate, the coordinator is stopped there until
        all are, and their RAM has been read."""
        if 'pre-switchover' not in self._states():
            return
        vms = self.cluster.vms
        self.tool.send_signal(signal.SIGSTOP)
        for _ in range(GATHER_TICKS):
            if self._states() == {'pre-switchover'}:
                # One that has been told to go on, and has not heard of it yet
                with contextlib.suppress(ValueError):
                    self.frozen = [FrozenRam(vm) for vm in vms]
                if self._states() != {'pre-switchover'}:
                    self.frozen = None
                if self.frozen and self.s.where == 'flush':
                    for vm in vms:
                        migration.set_parameters(vm, max_bandwidth=MB)
                break
            time.sleep(TICK_S)
        if not (self.frozen and self.s.where == 'gate'):
            self.tool.send_signal(signal.SIGCONT)

    def _alive(self):
        return [n for n, vm in enumerate(self.cluster.vms) if vm.alive()]

    def _settle(self):
        """Returns what the command has said."""
        if self.s.where == 'flush':
            for n in self._alive():
                migration.set_parameters(self.cluster.vms[n], max_bandwidth=0)
        # If the fault was for the time that it was stopped
        self.tool.send_signal(signal.SIGCONT)
        wait_until(lambda: self.tool.poll() is not None, ENDS_S,
                   lambda: f'the command does not end: {self._told()}')
        return {0: 'saved', 1: 'failed', -signal.SIGKILL: 'killed'}.get(
            self.tool.returncode, f'status {self.tool.returncode}')

    def _told(self):
        with open(self.messages, errors='replace', encoding='utf-8') as f:
            return f.read()[-TOLD_CHARS:]

    # The verdict

    def _is_harmless(self):
        """Of longer stops a cluster may take notice."""
        s = self.s
        return s.what in (*HARMLESS, 'stop-coordinator', 'stop-member',
                          'stop-server') and s.how <= min(LONG_S) and \
            s.what != 'stop-cont'

    def _judge(self, end):
        s = self.s
        if self._is_harmless() and end != 'saved':
            raise Wrong(f'{end}: {self._told()}')
        if s.what == 'kill-server':
            self.servers[s.aim].kill()
            self.servers[s.aim].start()
        whole = len(self._alive()) == MEMBERS
        if whole:
            self.cluster.run(self.cluster.words('prune', '--keep', '9'))
        for n in self._alive():
            self._judge_member(n)
        names = self._names()
        if 'old' not in names or end == 'saved' and 'new' not in names:
            raise Wrong(f'{end}, and there are {names}: {self._told()}')
        self.cluster.run(self.cluster.words('verify'))
        if whole:
            self._save('next')
            names.append('next')
        self._judge_restored('new' if 'new' in names else 'old')
        # A restored guest's QEMU knows nothing of what was left over
        self.cluster.run(self.cluster.words('prune', '--keep', '9'))
        self._judge_places(names)

    def _judge_member(self, n):
        vm, guest = self.cluster.vms[n], self.cluster.guests[n]
        wait_until(lambda: migration.status(vm) in ('none', *migration.FINAL),
                   ENDS_S, lambda: 'it does not end: '
                   f"{vm.qmp('query-migrate')}")
        migration.wait_idle(vm)
        wait_until(lambda: vm.status() == 'running', ENDS_S,
                   f'{vm.name} runs on: {vm.status()}')
        guest.wait_alive(vm)
        guest.wait_scans(vm)
        on = [c['capability'] for c in vm.qmp('query-migrate-capabilities')
              if c['state']]
        if on or vm.qmp('query-fdsets'):
            raise Wrong(f"{vm.name} is left with {on}, "
                        f"{vm.qmp('query-fdsets')}")
        leftovers.compare(vm, self.before[n])

    def _names(self):
        """Of the sets that are whole."""
        return [found['name'] for found in json.loads(self.cluster.run(
            self.cluster.words('list', '--json')))['sets']
            if not found['problem']]

    def _judge_restored(self, name):
        """By QEMUs that wait: the guests are of the moment of the gate."""
        self.cluster.kill()
        vms = []
        path = os.path.join(self.dir, 'waiting.toml')
        with open(path, 'w', encoding='utf-8') as f:
            for n, guest in enumerate(self.cluster.guests):
                vm = Vm(f'vm{n}', env.STOCK_QEMU, [
                    *guest.args('tcg'), '-S', '-incoming', 'defer', '-qmp',
                    f'unix:{self.cluster.socket(n)},server=on,wait=off'])
                self.exits.callback(vm.close)
                vms.append(vm.start())
                f.write(f'[vm.vm{n}]\nwaiting = "{self.cluster.socket(n)}"\n')
        self.cluster.run(self.cluster.words('restore', '--paused', '--config',
                                            path, name))
        for n, vm in enumerate(vms):
            migration.wait_loaded(vm)
            if self.frozen and name == 'new':
                self._same(self.frozen[n], vm)
            vm.qmp('cont')
            self.cluster.guests[n].wait_alive(vm)
            self.cluster.guests[n].wait_scans(vm)

    def _judge_places(self, names):
        """Each set is kept once, and nothing else is there."""
        files = sorted(
            f for _, _, found in os.walk(self.sets) for f in found
            if not f.startswith('.'))
        kept = 0 if self.s.servers else MEMBERS
        wanted = sorted((1 + kept) * [f'{name}.json' for name in names] +
                        kept * [f'{name}.checkpoint' for name in names])
        if files != wanted:
            raise Wrong(f'there are {files}, not {wanted}')
        for server in self.servers:
            control = server.control()
            found = sorted(c['name'][:-UUID_CHARS] for c in control('list'))
            control.close()
            if found != sorted(names):
                raise Wrong(f'a server has {found}, not {names}')
