# Runs one case: a guest, a migration, how it ended, and whether all is well
#
# The source is a QEMU with TLM or without, the destination one without.  The
# verdict: the guest runs at the one side where it belongs, RAM is the same
# while it stands still at both, and it finds its memory as it has written it.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import os
import tempfile
import time

from tlmtest import env, migration
from tlmtest.guests import RomGuest
from tlmtest.ram import compare_ram
from tlmtest.vm import Vm, VmError, wait_until

MB = 1 << 20
ENDS_S = 60                     # what is not over by then hangs
# What a guest writes faster than it can be sent ends only without limits
LIMITED_S = 4
NO_LIMIT_MS = 60000             # of downtime
CHANGED_BANDWIDTH = 50 * MB
CHANGED_DOWNTIME_MS = 100
CHANGED_BOUND_MS = 100
BALLOON_MB = 24


class Wrong(Exception):
    """What must not be.  kind: 'ram', 'guest', 'side', 'silent' or 'hang'."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Refused(Exception):
    """What QEMU said against the migration, before it began."""


class Ending:
    """How a migration ended.  how: 'completed', 'failed', 'cancelled',
    'refused' or 'wrong'; said: QEMU's reason, or what is wrong; kind: of a
    Wrong, or None"""

    def __init__(self, how, said='', kind=None):
        self.how, self.said, self.kind = how, said, kind

    def __str__(self):
        return self.how + (f' ({self.said})' if self.said else '')


class Move:
    """sabotage: see sabotage.py, or None"""

    def __init__(self, case, tlm, sabotage=None):
        self.case, self.tlm, self.sabotage = case, tlm, sabotage
        self.exits = contextlib.ExitStack()
        self.done = False       # what is done meanwhile
        self.stopped = False    # by the user

    def run(self):
        """Returns an Ending, and raises nothing that a QEMU can be blamed
        for."""
        with self.exits:
            self.dir = self.exits.enter_context(
                tempfile.TemporaryDirectory(prefix='tlm-differ-'))
            try:
                ending = self._end()
            except Wrong as e:
                return Ending('wrong', str(e), e.kind)
            except VmError as e:        # it has ended, or does not go on
                return Ending('wrong', str(e), 'hang')
        if self.sabotage:
            ending = self.sabotage.ending(ending)
        if ending.how in ('refused', 'failed') and not ending.said.strip():
            return Ending('wrong', f'{ending.how} without a reason', 'silent')
        return ending

    # The machines

    def _guest(self):
        case = self.case
        ram, numa = int(case['ram']), case['memory'] == 'numa'
        return RomGuest(
            mem_mb=ram, machine=case['machine'], vcpus=int(case['vcpus']),
            shared=case['memory'] == 'memfd',
            numa=(ram // 2, ram // 2) if numa else (),
            ws_mb=int(case['ws']), pattern=case['pattern'],
            rate=int(case['rate']), scan_ms=50, heartbeat_ms=20)

    def _devices(self):
        case = self.case
        for key, device in (('balloon', 'virtio-balloon-pci,id=balloon'),
                            ('rng', 'virtio-rng-pci'),
                            ('serial', 'virtio-serial-pci'),
                            ('vga', 'VGA,romfile=')):
            if case[key] == 'on':
                yield from ('-device', device)
        if case['dimm'] != '0':
            yield from ('-m', f"{case['ram']}M,slots=1,maxmem=1G",
                        '-object', 'memory-backend-ram,id=more,size=' +
                        case['dimm'] + 'M', '-device', 'pc-dimm,memdev=more')

    def _vm(self, name, binary, extra=()):
        vm = Vm(name, binary, [*self.guest.args('tcg'), *self._devices(),
                               *extra])
        self.exits.callback(vm.close)
        vm.start()
        # The guest's own: not the largest, if there are more
        vm.rom_block = vm.blocks()['pc.ram' if self.case['memory'] == 'plain'
                                   else 'ram0']
        return vm

    def _start(self):
        self.guest = self._guest()
        self.exits.callback(self.guest.close)
        self.src = self._vm('src', env.QEMU if self.tlm else env.STOCK_QEMU)
        self.dst = self._vm('dst', env.STOCK_QEMU,
                            ('-S', '-incoming', 'defer'))
        begin = self.case['begin']
        if begin == 'filled':
            self.guest.wait_filled(self.src)
        elif begin == 'filling':
            self.guest.wait_alive(self.src, 1)
        time.sleep(int(self.case['delay']) / 1000)

    # Settings

    @staticmethod
    def _asked(vm, command, **arguments):
        """Raises Refused, for what comes before the migration."""
        try:
            return vm.qmp(command, **arguments)
        except VmError as e:
            if not vm.alive():
                raise
            raise Refused(str(e).removeprefix(f'{vm.name}: {command}: ')) \
                from e

    def _set(self, vm, caps, params):
        self._asked(vm, 'migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': value == 'on'}
            for name, value in caps.items()])
        self._asked(vm, 'migrate-set-parameters', **params)

    def _set_both(self):
        case = self.case
        caps = {'multifd': 'on', 'return-path': case['return-path'],
                'switchover-ack': case['switchover-ack']}
        params = {'multifd-channels': int(case['channels']),
                  'multifd-compression': case['compression']}
        more_caps = {'pause-before-switchover': case['pause'],
                     'auto-converge': case['auto-converge']}
        more = {'zero-page-detection': case['zero-page'],
                'max-bandwidth': int(case['bandwidth']) * MB,
                'downtime-limit': int(case['downtime'])}
        if self.tlm:
            more_caps['tlm'] = 'on'
            more |= {'tlm-converge': case['converge'],
                     'tlm-time-bound': int(case['bound']),
                     'tlm-bound-action': case['action'],
                     'tlm-dtx': case['dtx'] == 'on',
                     'tlm-dtx-channels': int(case['dtx-channels']),
                     'tlm-epoch': int(case['epoch'])}
        self._set(self.src, caps | more_caps, params | more)
        self._set(self.dst, caps, params)

    def _listen(self):
        if self.case['transport'] == 'unix':
            uri = 'unix:' + os.path.join(self.dir, 'socket')
            self.dst.qmp('migrate-incoming', uri=uri)
            return uri
        return 'tcp:%s:%d' % migration.listen(self.dst)

    # The migration

    def _end(self):
        self._start()
        try:
            self._set_both()
            self._asked(self.src, 'migrate', uri=self._listen())
        except Refused as e:
            self._judge_stays()
            return Ending('refused', str(e))
        info = self._follow()
        if info['status'] == 'completed':
            self._judge_moved()
        else:
            migration.wait_idle(self.src)
            self._judge_stays()
        return Ending(info['status'], info.get('error-desc', ''))

    def _follow(self):
        """Returns the last query-migrate."""
        begin = None            # of the live stage
        limited = True

        def over():
            nonlocal begin, limited
            info = self.src.qmp('query-migrate')
            now = info.get('status')
            if now == 'active':
                begin = begin or time.monotonic()
            if now == 'active' and not self.done and \
                    info['ram']['transferred'] >= int(self.case['at']) * MB:
                self.done = True
                self._meanwhile()
            if now == 'pre-switchover':
                # It may fail, or be over, before it hears of it
                with contextlib.suppress(VmError):
                    self.src.qmp('migrate-continue', state=now)
            if limited and begin and time.monotonic() - begin > LIMITED_S:
                limited = False
                self.done = True        # or it would limit it again
                migration.set_parameters(self.src, max_bandwidth=0,
                                         downtime_limit=NO_LIMIT_MS)
            return info if now in migration.FINAL else None
        return wait_until(over, ENDS_S, lambda: 'it does not end: '
                          f"{self.src.qmp('query-migrate')}")

    def _meanwhile(self):
        what, src = self.case['meanwhile'], self.src
        params = {'bandwidth': {'max_bandwidth': CHANGED_BANDWIDTH},
                  'downtime': {'downtime_limit': CHANGED_DOWNTIME_MS}}
        if self.tlm:
            params |= {'bound': {'tlm_time_bound': CHANGED_BOUND_MS},
                       'converge': {'tlm_converge': 'auto'}}
        migration.set_parameters(src, **params.get(what, {}))
        if what == 'stop':
            src.qmp('stop')
            self.stopped = True
        elif what == 'balloon' and self.case['balloon'] == 'on':
            src.qmp('balloon', value=BALLOON_MB * MB)
        elif what == 'dirty-rate':
            src.qmp('calc-dirty-rate', calc_time=1)
        elif what == 'cancel':
            src.qmp('migrate_cancel')
        elif what == 'switchover' and self.tlm:
            with contextlib.suppress(VmError):      # it is over
                src.qmp('migrate-tlm-switchover')

    # The verdict

    def _well(self, vm):
        try:
            self.guest.wait_alive(vm)
            if self.case['begin'] != 'filled':
                self.guest.wait_filled(vm)
            self.guest.wait_scans(vm)
        except VmError as e:
            raise Wrong('guest', str(e)) from e

    def _judge_moved(self):
        src, dst = self.src, self.dst
        if src.qmp('query-status')['running']:
            raise Wrong('side', 'the guest runs at the source as well')
        migration.wait_loaded(dst)
        if self.sabotage:
            self.sabotage.loaded(dst)
        result = compare_ram(src, dst)
        if not result.equal():
            raise Wrong('ram', str(result))
        if self.sabotage:
            self.sabotage.compared(self.guest, dst)
        dst.qmp('cont')
        self._well(dst)

    def _judge_stays(self):
        src, dst = self.src, self.dst
        if self.stopped:
            src.qmp('cont')
        wait_until(lambda: src.status() == 'running', ENDS_S,
                   lambda: f'the guest runs on at the source: {src.status()}')
        self._well(src)
        # By what the guest says: this QEMU may be gone, as its peer is
        if self.guest.beats(dst):
            raise Wrong('side', 'the guest runs at the destination as well')
