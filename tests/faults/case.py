# One case: a guest, a migration or checkpoint, a fault, and the verdict
#
# The verdict: the guest runs on exactly one side, and finds its memory as it
# has written it; RAM is the same, where it stands still; nothing of the
# migration is left in the source; and the next migration from there works.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import os
import subprocess
import tempfile

from tlmtest import env, migration
from tlmtest.guests import RomGuest
from tlmtest.ram import FrozenRam, compare_ram
from tlmtest.vm import Vm, VmError, wait_until

import leftovers
from faults import Faults
from proxy import Proxy
from scenario import TO_A_CHANNEL

MB = 1 << 20
CAP = 20 * MB                   # some epochs for the working set
WS_MB = 16
HANGS_S = 10                    # what does not answer for so long
GATE_MS = 600_000               # it is opened here, or the case is over
BOUND_MS = 3000
FULL_MB = 8                     # of a disk that is too small
# Of those the migration takes no notice
HARMLESS = ('nothing', 'qmp-lost', 'parameters', 'switchover', 'hot-plug',
            'memory-plug', 'balloon', 'block-resize', 'savevm',
            'migrate-again', 'dirty-rate', 'stop-cont', 'powerdown', 'nmi',
            'guest-reset', 'cpu-hog', 'stop-source', 'stop-destination',
            'stall-for-a-moment', 'slow', 'file-removed')


class Wrong(Exception):
    """The verdict."""


class Case:
    cap = CAP
    faults = Faults
    netns = None                # where its QEMUs are

    @staticmethod
    def missing():
        """Why it cannot be done here, or None."""
        return None

    def __init__(self, scenario, stock=False):
        self.stock = stock      # a source without TLM, to compare
        self.s = scenario
        self.exits = contextlib.ExitStack()
        self.dst = self.proxy = self.path = self.frozen = None
        self.refused = []
        self.by_hand = False

    def run(self):
        """Returns how the migration ended, or raises."""
        with self.exits:
            self.dir = self.exits.enter_context(
                tempfile.TemporaryDirectory(prefix='tlm-faults-'))
            self._start()
            self._begin()
            reached = self._reach()
            if self.faults(self).do(self.s.what) is False:
                reached = False
            end = self._settle()
            self._judge(end)
        return end + (' by hand' if self.by_hand else '') + \
            ('' if reached else ' before')

    # The machines

    def _vm(self, name, binary, extra=()):
        vm = Vm(name, binary, [
            *self.guest.args(self.s.accel), '-device', 'virtio-balloon-pci',
            '-blockdev', 'driver=file,node-name=disk,locking=off,filename=' +
            self.disk, '-device', 'virtio-blk-pci,drive=disk', *extra],
            self.netns)
        self.exits.callback(vm.close)
        return vm.start()

    def _tls(self, endpoint):
        if self.s.transport != 'tls':
            return ()
        with open(os.path.join(self.dir, 'keys.psk'), 'w',
                  encoding='ascii') as f:
            f.write('qemu:' + 32 * 'ab' + '\n')
        return ('-object', f'tls-creds-psk,id=tls0,endpoint={endpoint},'
                f'dir={self.dir}')

    def _start(self):
        s = self.s
        self.guest = RomGuest(mem_mb=64, ws_mb=WS_MB, pattern=s.pattern,
                              rate=s.rate, vcpus=s.vcpus, scan_ms=50,
                              heartbeat_ms=20, seed=s.seed & 0xffff)
        self.exits.callback(self.guest.close)
        self.disk = os.path.join(self.dir, 'disk')
        with open(self.disk, 'wb') as f:
            f.truncate(MB)
        self.src = self._vm('src', env.STOCK_QEMU if self.stock else env.QEMU,
                           self._tls('client'))
        self.guest.wait_filled(self.src)
        self.before = leftovers.look(self.src)

    def _destination(self, name, uri):
        binary = env.QEMU if self.s.patched_destination and name == 'dst' \
            else env.STOCK_QEMU
        dst = self._vm(name, binary, (
            *(self._tls('server') if name == 'dst' else ()),
            '-S', '-incoming', 'defer'))
        self._set(dst, uri, name == 'dst')
        dst.qmp('migrate-incoming', uri=uri)
        return dst

    def _set(self, vm, uri, as_drawn, **params):
        """as_drawn: not the plain migration that follows."""
        s = self.s
        file = uri.startswith('file:')
        tls = 'tls0' if as_drawn and s.transport == 'tls' else ''
        migration.set_capabilities(vm, multifd=True, mapped_ram=file,
                                   return_path=not file, events=True)
        migration.set_parameters(
            vm, multifd_channels=s.channels if as_drawn else 2, tls_creds=tls,
            multifd_compression=s.compression if as_drawn else 'none',
            **params)

    def _uri(self):
        """Where the source is to send it to."""
        s = self.s
        self.path = os.path.join(self.dir, 'file')
        if s.transport == 'file':
            if s.what == 'disk-full':
                self._small_disk()
            return f'file:{self.path}'
        if s.transport == 'unix':
            there = os.path.join(self.dir, 'there')
            self.dst = self._destination('dst', f'unix:{there}')
            self.proxy = Proxy(there, os.path.join(self.dir, 'here'))
        else:
            self.dst = self._destination('dst', 'tcp:127.0.0.1:0')
            at = self.dst.qmp('query-migrate')['socket-address'][0]
            self.proxy = Proxy((at['host'], int(at['port'])))
        self.exits.callback(self.proxy.close)
        return self.proxy.uri

    def _small_disk(self):
        place = os.path.join(self.dir, 'small')
        os.mkdir(place)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={FULL_MB}m',
                        'tmpfs', place], check=True)
        self.exits.callback(subprocess.run, ['umount', '-l', place],
                            check=True)
        self.path = os.path.join(place, 'file')

    # The migration

    def _begin(self):
        s, src = self.s, self.src
        uri = self._uri()
        bound = {} if s.bound == 'none' else {
            'tlm_time_bound': BOUND_MS, 'tlm_bound_action': s.bound}
        bound['tlm_converge'] = s.converge
        self._set(src, uri, True, max_bandwidth=CAP,
                  downtime_limit=20 if s.where == 'throttled' else 300,
                  **({} if self.stock else bound))
        migration.set_capabilities(
            src, pause_before_switchover=s.where in ('gate', 'device'))
        self.by_tlm = not self.stock and (s.kind == 'checkpoint' or
                                          s.transport != 'file')
        self._use_tlm(self.by_tlm and s.kind == 'migrate')
        if s.kind == 'checkpoint':
            # It brings its capabilities along
            migration.set_capabilities(src, multifd=False, mapped_ram=False)
            src.qmp('tlm-checkpoint', uri=uri, **(
                {'gate_timeout': GATE_MS} if s.where == 'gate' else {}))
        else:
            src.qmp('migrate', uri=uri)

    def _use_tlm(self, use):
        if not self.stock:
            migration.set_capabilities(self.src, tlm=use)

    def _reach(self):
        """Returns whether it has come so far, or was over before."""
        where = self.s.where
        if where == 'setup':
            return True
        if not self.by_tlm and where in ('gate', 'device', 'stop'):
            # It cannot be told to stop the guest now
            migration.set_parameters(self.src, downtime_limit=60000)
        if where in ('gate', 'device', 'stop', 'flush'):
            self._until(lambda info: info['status'] == 'active')
            if where == 'flush':
                migration.set_parameters(self.src, max_bandwidth=MB)
            with contextlib.suppress(VmError):      # over, or without TLM
                self.src.qmp('migrate-tlm-switchover')
        reached = where == 'stop' or self._until({
            'live': lambda i: i['status'] == 'active' and
            i['ram']['transferred'] > MB,
            'throttled': lambda i: i.get('tlm', {}).get(
                'guest', {'speed': 1})['speed'] < 1,
            'flush': lambda i: i.get('tlm', {}).get('stage') == 'flush',
        }.get(where, lambda i: i['status'] == 'pre-switchover'))
        if where == 'gate' and reached:
            reached = self._freeze()
        if where == 'device':
            self._go_on()
        return reached

    def _freeze(self):
        """Returns False if the time bound has ended it at the gate."""
        try:
            self.frozen = FrozenRam(self.src)
        except ValueError:      # the guest runs
            if self.s.bound != 'cancel':
                raise
            return self._until(lambda _: False)
        return True

    def _until(self, reached):
        def look():
            info = self.src.qmp('query-migrate')
            if info['status'] in migration.FINAL:
                return 'over'
            return 'reached' if reached(info) else None
        return wait_until(look, 20, lambda: 'never reached: '
                          f"{self.src.qmp('query-migrate')}") == 'reached'

    def _go_on(self):
        with contextlib.suppress(VmError):          # over
            self.src.qmp('migrate-continue', state='pre-switchover')

    def _settle(self):
        src = self.src
        if not src.alive():
            return 'source gone'
        if self.s.where == 'gate':
            self._go_on()
        migration.set_parameters(src, max_bandwidth=0)
        if self.s.what in TO_A_CHANNEL and \
                self._until(lambda info: info['status'] == 'device'):
            self._end_by_hand()
        wait_until(lambda: migration.status(src) in migration.FINAL, 20,
                   lambda: f"it does not end: {src.qmp('query-migrate')}")
        return migration.status(src)

    def _end_by_hand(self):
        """A destination of which a channel has died behind the last page waits
        for it for ever, with or without TLM: see docs/reliability.md."""
        with contextlib.suppress(VmError):
            wait_until(lambda: migration.status(self.src) != 'device',
                       HANGS_S, 'it ends by itself')
            return
        self.by_hand = True
        self.src.qmp('migrate_cancel')

    # The verdict

    def _judge(self, end):
        s = self.s
        if s.what == 'disk-full' and end == 'completed' and s.where == 'setup':
            raise Wrong('it has completed on a disk that is too small')
        if self._is_harmless() and end != 'completed':
            raise Wrong(f"{end}: "
                        f"{self.src.qmp('query-migrate').get('error-desc')}")
        if end == 'source gone':
            self._judge_destination_alone()
        elif end == 'completed' and s.kind == 'migrate':
            self._judge_moved()
        else:
            if end == 'completed':
                self._judge_checkpoint()
            elif self._runs_at_destination():
                raise Wrong('the guest runs at the destination as well')
            self._judge_stays()

    def _is_harmless(self):
        """RAM of a guest that was reset in the pause is of no one moment."""
        s = self.s
        return s.what in HARMLESS and s.bound != 'cancel' and \
            not self._outlasts_bound() and \
            (s.kind, s.what, s.where) != ('checkpoint', 'guest-reset', 'gate')

    def _outlasts_bound(self):
        """Stopped for longer than there is time to connect, which no action
        of the bound prolongs."""
        s = self.s
        return s.what.startswith('stop-') and s.where == 'setup' and \
            s.bound != 'none' and 1000 * s.how > BOUND_MS

    def _runs_at_destination(self):
        """By what the guest says: a QEMU that waits in its main loop for a
        channel that is gone does not answer (see docs/reliability.md)."""
        return self.dst and self.guest.beats(self.dst) > 0

    def _judge_destination_alone(self):
        """Its source has died: it has all, or it does not run."""
        dst = self.dst
        if not dst:
            return
        self.proxy.close()
        dst.monitor.settimeout(HANGS_S)
        try:
            wait_until(lambda: not dst.alive() or
                       migration.status(dst) in migration.FINAL, 20,
                       'the destination notices')
            complete = dst.alive() and migration.status(dst) == 'completed'
        except VmError:         # it has ended, or waits in its main loop
            complete = False
        if complete:
            self._runs(dst)
        elif self._runs_at_destination():
            raise Wrong('half a guest runs at the destination')

    def _runs(self, vm):
        wait_until(lambda: vm.status() != 'inmigrate', 20, 'it is loaded')
        if vm.status() != 'running':
            vm.qmp('cont')
        self.guest.wait_alive(vm)
        self.guest.wait_scans(vm)

    def _same(self, src, dst):
        result = compare_ram(src, dst)
        if not result.equal():
            raise Wrong(str(result))

    def _load(self):
        dst = self._destination('restored', f'file:{self.path}')
        return dst

    def _judge_moved(self):
        src = self.src
        if src.qmp('query-status')['running']:
            raise Wrong('the guest runs at the source as well')
        leftovers.compare(src, self.before)
        if self.s.what == 'file-removed':
            return
        dst = self.dst or self._load()
        migration.wait_loaded(dst)
        self._same(src, dst)
        self._runs(dst)
        if self.s.patched_destination and self.dst:
            self._migrate_again(dst)

    def _judge_checkpoint(self):
        if self.s.what in ('file-removed', 'kill-destination'):
            return
        dst = self.dst or self._load()
        migration.wait_loaded(dst)
        if self.frozen:
            self._same(self.frozen, dst)
        self._runs(dst)
        dst.close()

    def _judge_stays(self):
        self._runs_on()
        self._migrate_again(self.src)

    def _runs_on(self):
        src = self.src
        migration.wait_idle(src)
        wait_until(lambda: src.status() == 'running', 20,
                   f'the guest runs on at the source: {src.status()}')
        self._runs(src)
        leftovers.compare(src, self.before)

    def _migrate_again(self, src):
        """Without any fault."""
        dst = self._destination('next', 'tcp:127.0.0.1:0')
        port = dst.qmp('query-migrate')['socket-address'][0]['port']
        migration.set_capabilities(src, mapped_ram=False,
                                   pause_before_switchover=False)
        self._set(src, 'tcp:', False, max_bandwidth=0, downtime_limit=300)
        if not self.stock:
            migration.set_parameters(src, tlm_time_bound=0,
                                     tlm_converge='none')
            migration.set_capabilities(src, tlm=True)
        src.qmp('migrate', uri=f'tcp:127.0.0.1:{port}')
        migration.wait_status(src, 'completed', 30)
        migration.wait_loaded(dst)
        self._same(src, dst)
        self._runs(dst)
