# QEMUs that are played, as far as a coordinator of checkpoints sees them: any
# number of monitors in one thread, each of which can misbehave at any step
#
#   python3 -m tlmtest.played DIR N     N of them, in a process of their own
#
# SPDX-License-Identifier: GPL-2.0-or-later

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import uuid

RAM = 1 << 20
PARTS = {'vm-stop': 100, 'sync': 60, 'ram': 700, 'hold': 0, 'device': 900,
         'switchover': 0}
STAGES = ('live', 'ready', 'gate', 'flush')
# A process that ends closes its files one after the other: for a moment
# somebody may still get a connection, which is closed then
DIES_S = 0.05
# Turns of the event loop until it serves whom it has accepted.  If its server
# is closed before, asyncio forgets the connection, and leaves it open
ACCEPT_TURNS = 3


class Played:
    """One QEMU.

    refuses, hangs, dies   commands at which it says no, says nothing any more
                           (and does nothing), or is gone
    fails                  stage in which its checkpoint fails
    vhost                  whether its network is by vhost
    chains                 whether it can save incrementally
    takes                  {stage: seconds until it is over}; None: for ever.
                           "live" until it is ready, "ready" from the request
                           to the stop, "flush" until it is complete
    """

    def __init__(self, path, refuses=(), hangs=(), dies=(), fails=None,
                 takes=None, ram=RAM, chains=True, vhost=False):
        self.vhost, self.filters = vhost, {}
        self.held_at = self.let_out_at = None
        self.path, self.ram, self.chains = path, ram, chains
        # Generations, as QEMU's chain has them
        self.newest = self.older = self.generation = self.parent = None
        self.full_reason = None
        self.refuses, self.hangs, self.dies = set(refuses), set(hangs), dies
        self.fails, self.takes = fails, dict(takes or {})
        self.caps = dict.fromkeys(('events', 'pause-before-switchover', 'tlm',
                                   'multifd', 'mapped-ram', 'xbzrle'), False)
        self.params = {'max-bandwidth': 128 << 20, 'tlm-time-bound': 0,
                       'multifd-channels': 2}
        self.state, self.stage, self.error = 'none', None, None
        self.running, self.hung, self.dead = True, False, False
        self.stopped_at = self.resumed_at = None
        self.asked, self.client_timeout = [], None
        self.run = 0                # of the checkpoint, for late timers
        self.client = self.server = None
        self.arguments = {}

    async def listen(self):
        self.server = await asyncio.start_unix_server(self._serve, self.path)

    def die(self, in_s=0):
        """Its monitor is gone at once, its socket @in_s later."""
        self.dead = True
        if self.client:
            self.client.transport.abort()
        if in_s:
            asyncio.get_running_loop().call_later(in_s, self._gone)
        else:
            self._gone()

    def _gone(self, turns=ACCEPT_TURNS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        if turns:
            asyncio.get_running_loop().call_soon(self._gone, turns - 1)
        else:
            self.server.close()

    async def _serve(self, reader, writer):
        if self.client:             # one at a time, as QEMU
            while self.client and not self.dead:
                await asyncio.sleep(0.01)
        if self.dead:
            writer.transport.abort()
            return
        self.client = writer
        self._say({'QMP': {'version': {}, 'capabilities': []}})
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        self.client = None
        writer.close()

    def _say(self, what):
        if self.client and not self.hung and not self.dead:
            self.client.write(json.dumps(what).encode() + b'\n')

    def _event(self, name, **data):
        now = time.time_ns() // 1000
        self._say({'event': name, 'data': data, 'timestamp': {
            'seconds': now // 1_000_000, 'microseconds': now % 1_000_000}})

    def _hear(self, request):
        command = request['execute']
        arguments = request.get('arguments', {})
        self.asked.append(command)
        if command in self.hangs:
            self.hung = True
        if self.hung or self.dead:
            return
        if command in self.dies:
            self.die(DIES_S)
            return
        try:
            if command in self.refuses:
                raise ValueError('it does not want to')
            act = getattr(self, '_' + command.replace('-', '_'), None)
            result = act(**{k.replace('-', '_'): v for k, v in
                            arguments.items()}) if act else None
            self._say({'return': {} if result is None else result})
        except ValueError as e:
            self._say({'error': {'class': 'GenericError', 'desc': str(e)}})

    # The checkpoint

    def _set(self, state=None, stage=None):
        if stage:
            self.stage = stage
            self._event('MIGRATION_TLM_STAGE', stage=stage)
        if state:
            self.state = state
            if self.caps['events']:
                self._event('MIGRATION', status=state)

    def _end(self, state, error=None):
        self.error = error
        self.run += 1
        self.caps.update(self.kept)
        if not self.running and self.was_running:
            self._resume()
        self._set(state)

    def _later(self, stage, act):
        """@act when the stage is over, if it is not all over by then."""
        seconds, run = self.takes.get(stage, 0), self.run
        loop = asyncio.get_running_loop()
        if self.fails == stage:
            loop.call_soon(self._if, run, self._end, 'failed',
                           'the disk is on fire')
        elif seconds is not None:
            loop.call_later(seconds, self._if, run, act)

    def _if(self, run, act, *arguments):
        if run == self.run and not self.hung and not self.dead:
            act(*arguments)

    def _stop(self):
        self.running = False
        self.stopped_at = time.monotonic()
        self._event('STOP')

    def _resume(self):
        self.running = True
        self.resumed_at = time.monotonic()
        self._event('RESUME')

    def _ask_chain(self, incremental, parent):
        if incremental and not self.chains:
            raise ValueError('Incremental checkpoints do not go with this')
        known = parent in (self.newest, self.older)
        self.parent = parent if parent and known else None
        self.full_reason = None if known or not parent else \
            f'Generation {parent} is not known'
        self.generation = str(uuid.uuid4()) if incremental else None

    def _tlm_checkpoint(self, uri, hold=False, gate_timeout=1000,
                        incremental=False, parent=None,
                        client_timeout=0, **_):
        if self.state not in ('none', 'completed', 'failed', 'cancelled'):
            raise ValueError("There's a migration process in progress")
        self._ask_chain(incremental, parent)
        self.run += 1
        self.was_running = self.running
        self.kept = {c: self.caps[c] for c in ('tlm', 'multifd',
                                               'mapped-ram')}
        self.caps.update(dict.fromkeys(self.kept, True))
        self.file, self.gate_timeout = uri.removeprefix('file:'), gate_timeout
        self.client_timeout = client_timeout
        self._set('setup', 'setup')
        self._set('active', 'live')
        self._later('live', self._ready if hold else self._at_gate)

    def _ready(self):
        self._set(stage='ready')
        if self.fails == 'ready':
            self._later('ready', None)

    def _migrate_tlm_switchover(self):
        if self.state != 'active':
            raise ValueError('no migration is under way')
        self._later('ready', self._at_gate)

    def _at_gate(self):
        if self.was_running:
            self._stop()
        self._set(stage='stop')
        if self.caps['pause-before-switchover']:
            self._set('pre-switchover')
            if self.gate_timeout:
                asyncio.get_running_loop().call_later(
                    self.gate_timeout / 1000, self._if, self.run,
                    self._gate_passed)
            self._later('gate', lambda: None)
        else:
            self._go_on()

    def _gate_passed(self):
        if self.state == 'pre-switchover':
            self._end('failed', 'nobody has let the guest go on')

    def _migrate_continue(self, state):
        if state != self.state:
            raise ValueError('Migration not in expected state: ' + self.state)
        self._go_on()

    def _go_on(self):
        if self.was_running:
            self._resume()
        self._set('device', 'flush')
        self._later('flush', self._complete)

    def _complete(self):
        with open(self.file, 'wb') as f:
            f.write(self.path.encode())
        self.newest, self.older = self.generation, self.parent
        self._set(stage='done')
        self._end('completed')

    def _migrate_cancel(self):
        if self.state in ('setup', 'active', 'pre-switchover', 'device'):
            self._end('cancelled')

    # What it is asked

    def _migrate_set_capabilities(self, capabilities):
        if self.state in ('setup', 'active', 'pre-switchover', 'device'):
            raise ValueError("There's a migration process in progress")
        self.caps.update({c['capability']: c['state'] for c in capabilities})

    def _migrate_set_parameters(self, **params):
        self.params.update({k.replace('_', '-'): v for k, v in
                            params.items()})

    def _query_migrate_capabilities(self):
        return [{'capability': c, 'state': on} for c, on in self.caps.items()]

    def _query_migrate_parameters(self):
        return dict(self.params)

    def _query_commands(self):
        return [{'name': 'tlm-checkpoint'}]

    def _query_version(self):
        return {'qemu': {'major': 10, 'minor': 0, 'micro': 13},
                'package': ''}

    def _query_memory_size_summary(self):
        return {'base-memory': self.ram}

    def _query_status(self):
        return {'status': 'running' if self.running else 'paused',
                'running': self.running}

    def _query_name(self):
        return {'name': 'played'}

    def _query_uuid(self):
        return {'UUID': '0-0'}

    def _qom_get(self, path, **_):
        name = os.path.basename(path)
        if name in self.filters:
            return self.filters[name]
        return 'pc-i440fx-10.0-machine'

    def _object_add(self, id, status, interval, **_):
        if self.vhost:
            raise ValueError('Vhost is not supported')
        self.filters[id] = status

    def _object_del(self, id):
        del self.filters[id]

    def _qom_list(self, path):
        return [{'name': name} for name in ('type', *self.filters)]

    def _qom_set(self, path, value, **_):
        self.filters[os.path.basename(path)] = value
        if value == 'on':
            self.held_at = time.monotonic()
        else:
            self.let_out_at = time.monotonic()

    def _human_monitor_command(self, command_line, **_):
        if command_line == 'info network':
            return 'n: index=0,type=nic,model=virtio-net-pci\r\n' \
                ' \\ lan: index=0,type=socket,\r\n'
        return 'Block Name PSize Offset Used Total HVA RO\n' \
            f'   pc.ram  4 KiB  0x00 0x{self.ram:016x} 0x00 0x00  rw\n'

    def _query_migrate(self):
        if self.state == 'none':
            return {}
        return {
            'status': self.state, 'total-time': 1234, 'downtime': 13,
            **({'error-desc': self.error} if self.error else {}),
            'ram': {'total': self.ram, 'transferred': self.ram,
                    'remaining': 0, 'dirty-sync-count': 1},
            'tlm': {'stage': self.stage, 'progress': 100, 'bandwidth': 0,
                    'prediction': {'eta': 0, 'total': 0, 'downtime': 0,
                                   'downtime-reachable': True},
                    'guest': {'speed': 1, 'dirty-rate': 0},
                    'downtime': PARTS,
                    'checkpoint': {'method': 'copy', 'copied': 5 << 20,
                                   **self._chain()}}}

    def _chain(self):
        told = {'generation': self.generation, 'parent': self.parent,
                'full-reason': self.full_reason}
        return {k: v for k, v in told.items() if v}


class Cluster(threading.Thread):
    """Some of them, in a "with"; @settings: {name: arguments of Played}."""

    def __init__(self, directory, settings):
        super().__init__(daemon=True)
        self.vms = {name: Played(os.path.join(directory, name), **how)
                    for name, how in settings.items()}
        self.loop = asyncio.new_event_loop()
        self.listening = threading.Event()

    def run(self):
        self.loop.create_task(self._listen())
        self.loop.run_forever()

    async def _listen(self):
        for vm in self.vms.values():
            await vm.listen()
        self.listening.set()

    def __enter__(self):
        self.start()
        self.listening.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self._end)
        self.join()

    def _end(self):
        for vm in self.vms.values():
            vm.die()
        self.loop.stop()

    def soon(self, act):
        """Calls it in the thread of the VMs."""
        self.loop.call_soon_threadsafe(act)


def main(directory, count):
    with Cluster(directory, {f'vm{i}': {} for i in range(int(count))}):
        print('listening', flush=True)
        sys.stdin.read()


if __name__ == '__main__':
    main(*sys.argv[1:])
