# One case with memory servers: a checkpoint to one, or in parts to two
#
# The verdict of case.py, and: what a server had is still there; what was said
# to be saved is there, and so is nothing that is half saved; it restores with
# all RAM as it was in the pause; the next checkpoint does so, too; and when all
# is removed the servers have no memory, files, threads and descriptors that
# they did not have before.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import subprocess
import time
import uuid

from tlm.checkpoint.receivers import channel
from tlmtest import env, migration
from tlmtest.link import ShapedLink
from tlmtest.memserver import MemServer
from tlmtest.ram import FrozenRam
from tlmtest.vm import VmError, wait_until

import leftovers
from case import CAP, GATE_MS, HARMLESS, MB, Case, Wrong
from faults import Faults
from proxy import Proxy

TOOL = os.path.join(env.ROOT, 'scripts/tlm')
TOOL_S = 300
RAM = 128 * MB                  # that is announced: more than there is
ENDS_S = 60                     # a checkpoint that nobody disturbs any more
SMALL_DISK_MB = 30              # room for one checkpoint, not for two
RESTORE_CHANNELS = 2            # at least as many as there are parts
OVER = 'done', 'failed'


class ServerFaults(Faults):
    def _server(self):
        return self.case.servers[self.case.s.aim]

    def kill_server(self):
        self._server().kill()

    def stop_server(self):
        self._for_a_moment(self._server().process.pid)

    def link_down(self):
        """Nobody is told, but by what does not come."""
        self.case.link.cut()
        time.sleep(self.case.s.how)
        self.case.link.cut(False)

    def session_cancelled(self):
        case = self.case
        case.controls[case.s.aim]('cancel',
                                  session=case.sessions[case.s.aim])


class ServedCase(Case):
    faults = ServerFaults
    missing = staticmethod(ShapedLink.missing)

    def __init__(self, scenario, stock=False):
        super().__init__(scenario, stock)
        self.link = None
        self.servers, self.controls = [], []
        self.sessions = []
        self.proxies = {}       # by the number of the part, as s.aim

    # The machines

    def _start(self):
        s = self.s
        if s.transport == 'veth':
            self.link = ShapedLink()
            self.exits.callback(self.link.close)
            self.netns = self.link.src_netns
        super()._start()
        for number in range(s.parts):
            self._start_server(number)
        self._save('old')
        self.before = leftovers.look(self.src)
        self.servers_before = [leftovers.look_at_server(server.process.pid)
                               for server in self.servers]

    def _start_server(self, number):
        s = self.s
        config, prefix = {'store': {'keep': 9}}, ()
        if s.transport == 'unix':
            place = os.path.join(self.dir, f'data{number}')
            os.mkdir(place)
            config['data'] = {'socket-dir': place}
        elif s.transport == 'tls':
            config['tls'] = {'credentials': 'psk', 'dir': self.dir}
        elif s.transport == 'veth':
            config['data'] = {'listen': f'tcp:{self.link.address}:0'}
            config['tls'] = {'allow-plain': 'true'}
            prefix = ('ip', 'netns', 'exec', self.link.dst_netns)
        if s.what == 'disk-full':
            config['store']['dir'] = self._small_store()
        server = MemServer(config, prefix=prefix)
        self.exits.callback(server.close)
        self.servers.append(server)
        self.controls.append(self._control(server))

    def _control(self, server):
        control = server.control()
        self.exits.callback(control.close)
        return control

    @staticmethod
    def _store(server):
        return server.groups['store']['dir']

    def _small_store(self):
        place = os.path.join(self.dir, 'store')
        os.mkdir(place)
        self._mount(place, f'size={SMALL_DISK_MB}m')
        self.exits.callback(subprocess.run, ['umount', '-l', place],
                            check=True)
        return place

    @staticmethod
    def _mount(place, options):
        subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', place],
                       check=True)

    # Saving

    def _relay(self, number, uri):
        """In front of what the server has said that it listens on."""
        kind, where = uri.split(':', 1)
        if kind == 'unix':
            far, path = where, os.path.join(self.dir, f'relay{number}')
        else:
            host, port = where.rsplit(':', 1)
            far, path = (host, int(port)), None
        self.proxies[number] = proxy = Proxy(far, path)
        self.exits.callback(proxy.close)
        return proxy.uri

    @staticmethod
    def _straight(_, uri):
        return uri

    def _announce(self, name, relay):
        """Returns tlm-checkpoint's arguments.  relay: _relay or _straight"""
        s = self.s
        wish = {'name': name, 'ram': RAM, 'level': s.level,
                'channels': s.channels}
        if s.parts > 1:
            wish |= {'set': str(uuid.uuid4()), 'parts': s.parts}
        self.sessions, uris = [], []
        for part, control in enumerate(self.controls):
            if s.parts > 1:
                wish['part'] = part
            session = control.announce(**wish)
            self.sessions.append(session['session'])
            uris.append(relay(part, session['uri']))
            if s.parts > 1 and part == 0:
                wish['head'] = relay(s.parts, session['uri'])
        if s.parts == 1:
            return {'uri': uris[0]}
        return {'channels': [channel('main', uris[0]),
                             *(channel('data', uri) for uri in uris)]}

    def _start_saving(self, name, relay, **params):
        self._set(self.src, 'tcp:', True, **params)
        migration.set_capabilities(self.src, pause_before_switchover=True)
        self._use_tlm(False)
        migration.wait_idle(self.src)
        self.frozen = None
        self.src.qmp('tlm-checkpoint', mode=self.s.mode, gate_timeout=GATE_MS,
                     **self._announce(name, relay))

    def _save(self, name):
        """Without any fault."""
        self._start_saving(name, self._straight, max_bandwidth=0)
        end = self._to_the_end()
        if end != 'completed':
            raise Wrong(f"'{name}' is {end}: "
                        f"{self.src.qmp('query-migrate').get('error-desc')}")
        for state in self._sessions_over():
            if state != 'done':
                raise Wrong(f"'{name}' is saved, but {state} at the server")

    def _at_gate(self):
        if not self.frozen:
            self.frozen = FrozenRam(self.src)
        self._go_on()

    def _to_the_end(self):
        def over():
            now = migration.status(self.src)
            if now == 'pre-switchover':
                self._at_gate()
            return now if now in migration.FINAL else None
        return wait_until(over, ENDS_S, lambda: 'it does not end: '
                          f"{self.src.qmp('query-migrate')}")

    def _sessions_over(self):
        """Of the servers that run, how theirs has ended."""
        for server, control, session in zip(self.servers, self.controls,
                                            self.sessions, strict=True):
            if server.process.poll() is None:
                yield control.wait(session)['state']

    # With the fault

    def _begin(self):
        self.by_tlm = True
        self._start_saving(
            'new', self._straight if self.link else self._relay,
            max_bandwidth=CAP, downtime_limit=300)

    @property
    def proxy(self):
        return self.proxies[self.s.aim]

    @proxy.setter
    def proxy(self, _):
        pass                    # there are several

    def _reach(self):
        where = self.s.where
        if where == 'setup':
            return True
        if where == 'live':
            # If it has come to the gate before, it cannot be sent any more
            return self._until(
                lambda i: i['status'] == 'pre-switchover' or
                i.get('ram', {}).get('transferred', 0) > MB) and \
                migration.status(self.src) == 'active'
        if not self._until(lambda i: i['status'] == 'pre-switchover'):
            return False
        self.frozen = FrozenRam(self.src)
        if where == 'gate':
            return True
        if where == 'flush':
            migration.set_parameters(self.src, max_bandwidth=MB)
        self._go_on()
        if where == 'flush':
            return self._until(
                lambda i: i.get('tlm', {}).get('stage') == 'flush')
        control, session = self.controls[0], self.sessions[0]
        return self._until(
            lambda _: control('status', session=session)['state'] in
            ('storing', *OVER))

    def _settle(self):
        if not self.src.alive():
            end = 'source gone'
        else:
            migration.set_parameters(self.src, max_bandwidth=0)
            end = self._to_the_end()
        for proxy in self.proxies.values():
            proxy.stalled = False
        self.states = list(self._sessions_over())
        for proxy in self.proxies.values():
            proxy.close()
        return end

    # The verdict

    def _is_harmless(self):
        return self.s.what in (*HARMLESS, 'stop-server', 'link-down')

    def _names(self):
        """Of what all servers have: a part that others lack is of no use."""
        return set.intersection(*(
            {found['name'] for found in control('list')}
            for control in self.controls))

    def _servers_back(self):
        for n, server in enumerate(self.servers):
            if server.process.poll() is not None:
                if self.s.what != 'kill-server':
                    raise Wrong(f'the server has ended: {server.messages()}')
                server.start()
                self.controls[n] = self._control(server)
        if self.s.what == 'disk-full':
            self._mount(self._store(self.servers[0]), 'remount,size=1g')

    def _judge(self, end):
        s = self.s
        if s.what == 'disk-full' and end == 'completed':
            raise Wrong('it has completed on a disk that is too small')
        if self._is_harmless() and end != 'completed':
            raise Wrong(f"{end}: "
                        f"{self.src.qmp('query-migrate').get('error-desc')}")
        self._servers_back()
        names = self._names()
        lost = s.what == 'kill-server' and s.level == 'memory'
        if 'old' not in names and not lost:
            raise Wrong(f'what was there is gone: {names}')
        if end == 'completed' and 'new' not in names and not lost:
            raise Wrong(f'it was saved, and is not there: {self.states}')
        self._verify(names)
        if 'new' in names:
            self._judge_restored('new')
        if end == 'source gone':
            self._go_on_elsewhere(names)
        else:
            self._runs_on()
        self._save('next')
        self._judge_restored('next')
        self._judge_servers()
        self._migrate_again(self.src)

    def _verify(self, names):
        """What is on disks; memory has no checksums."""
        for name in names if self.s.level == 'durable' else ():
            for control in self.controls:
                control('verify', vm='vm1', name=name)

    def _restored(self, name, binary):
        """A QEMU that has it, and stands still."""
        vm = self._vm('restored', binary, (
            *self._tls('client'), '-S', '-incoming', 'defer'))
        migration.set_capabilities(vm, multifd=True)
        migration.set_parameters(vm, multifd_channels=RESTORE_CHANNELS)
        to = f'unix:{os.path.join(vm.dir, "incoming")}'
        vm.qmp('migrate-incoming', uri=to)
        servers = ','.join(server.address for server in self.servers)
        run = subprocess.run(
            [TOOL, 'checkpoint', 'restore', '--server', servers,
             '--channels', str(RESTORE_CHANNELS), '--to', to, name],
            capture_output=True, text=True, timeout=TOOL_S, check=False)
        if run.returncode:
            raise Wrong(f"'{name}' is not restored: {run.stderr}")
        migration.wait_loaded(vm)
        return vm

    def _judge_restored(self, name):
        vm = self._restored(name, env.STOCK_QEMU)
        if self.frozen:
            self._same(self.frozen, vm)
        self._runs(vm)
        vm.close()

    def _go_on_elsewhere(self, names):
        """The host of the guest has crashed; it goes on from what there is,
        or, if its server has crashed as well, anew."""
        if 'old' not in names:
            raise VmError('source and server: two faults')
        self.src = self._restored('new' if 'new' in names else 'old', env.QEMU)
        self._runs(self.src)

    def _judge_servers(self):
        """With all checkpoints removed."""
        for n, (server, control) in enumerate(zip(
                self.servers, self.controls, strict=True)):
            control('prune', vm='vm1', keep=0)
            left = [file for _, _, files in os.walk(self._store(server))
                    for file in files if not file.startswith('.')]
            if left:
                raise Wrong(f'files are left: {left}')
            wait_until(lambda control=control: self._held(control) == 0,
                       leftovers.PATIENCE_S, lambda control=control:
                       f'memory is left: {self._held(control)} bytes')
            leftovers.compare_server(server.process.pid,
                                     self.servers_before[n])

    @staticmethod
    def _held(control):
        return next(int(line.split()[1])
                    for line in control('metrics').splitlines()
                    if line.startswith('tlm_memserver_memory_bytes '))
