# Save one guest by one way, and measure what it costs the guest
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import os
import tempfile
import time

from tlmtest import env, migration
from tlmtest.link import Loopback, ShapedLink
from tlmtest.memserver import MemServer
from tlmtest.vm import Vm, VmError

from ..host import describe
from ..run import guest_rate
from .ways import WAYS, Place, tidy_up
from .workloads import LINK_MBIT, SERVERS

MB = 1 << 20
ROM_BYTES = 64 * MB     # at most, of the blocks besides RAM
CHANNELS = 2            # QEMU's default
AFTER_S = 1.0           # that the guest is watched after the end
CALIBRATE_S = 1.0


def stands_ms(events):
    """How long the guest stood still, by what QEMU told."""
    total = begin = 0
    for event in events:
        stamp = event['timestamp']
        at = 1e3 * stamp['seconds'] + stamp['microseconds'] / 1e3
        if event['event'] == 'STOP':
            begin = at
        elif event['event'] == 'RESUME' and begin:
            total, begin = total + at - begin, 0
    return total


class Running:
    """A guest at work, to be saved again and again."""

    def __init__(self, workload, to, directories):
        self.workload, self.to, self.dirs = workload, to, directories
        self.stack = contextlib.ExitStack()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self):
        enter = self.stack.enter_context
        self.link = enter(ShapedLink(rate=LINK_MBIT) if 'link' in self.to
                          else Loopback())
        self.guest = enter(contextlib.closing(self.workload.guest()))
        self.vm = enter(Vm('bench', env.QEMU, self.guest.args('tcg'),
                           self.link.src_netns))
        self.guest.wait_filled(self.vm, 300)
        migration.set_parameters(self.vm, max_bandwidth=0)
        self.host = describe(self.vm, self.vm)

    def close(self):
        self.stack.close()

    def _work(self):
        return self.guest.progress(self.vm)['pages']

    @contextlib.contextmanager
    def _receiver(self):
        """An unpatched QEMU that keeps what it is sent."""
        with Vm('dst', env.STOCK_QEMU, [
                *self.guest.args('tcg'), '-S', '-incoming', 'defer'],
                self.link.dst_netns) as dst:
            migration.set_capabilities(dst, multifd=True)
            host, port = migration.listen(dst, self.link.address)
            yield Place(f'tcp:{host}:{port}', None)
            migration.wait_loaded(dst)

    @contextlib.contextmanager
    def _file(self, to):
        with tempfile.TemporaryDirectory(
                prefix='tlm-bench-', dir=self.dirs[to]) as directory:
            path = os.path.join(directory, 'vm')
            yield Place(f'file:{path}', path)

    @contextlib.contextmanager
    def _server(self, level):
        """A tlm-memserver; it writes to /dev/shm, if at all."""
        ram = self.guest.mem_mb * MB + ROM_BYTES
        with tempfile.TemporaryDirectory(
                prefix='tlm-bench-', dir=self.dirs['memory']) as directory, \
                contextlib.closing(MemServer({'store': {
                    'dir': directory, 'memory': 2 * ram,
                    'vm-memory': 2 * ram}})) as server, \
                contextlib.closing(server.control()) as control:
            session = control.announce(ram=ram, channels=CHANNELS, level=level)
            try:
                yield Place(session['uri'], None)
            finally:
                ended = control.wait(session['session'])
                if ended['state'] != 'done':
                    raise VmError(f'the server: {ended}')

    def _place(self, to):
        if to == 'link':
            return self._receiver()
        return self._server(SERVERS[to]) if to in SERVERS else self._file(to)

    def measure(self, way, to):
        """Returns a dict; what went wrong is in it."""
        result = {'way': way, 'to': to, 'loadavg': round(os.getloadavg()[0], 2),
                  'host': self.host}
        try:
            with self._place(to) as where:
                self._measure(way, where, result)
            result['status'] = 'completed'
        except VmError as e:
            if not self.vm.alive():
                raise
            result.update(status='failed', error=str(e))
        tidy_up(self.vm)
        return result

    def _measure(self, way, place, result):
        self.guest.wait_alive(self.vm, beats=5)     # it has its speed again
        base = guest_rate(self.guest, self.vm, CALIBRATE_S)
        self.vm.pull_events()
        self.vm.events.clear()
        start, work = time.monotonic(), self._work()
        result.update(WAYS[way](self.vm, place))
        end = time.monotonic()
        if place.path:
            result['bytes'] = os.stat(place.path).st_blocks * 512
        time.sleep(AFTER_S)
        done, seconds = self._work() - work, time.monotonic() - start
        self.vm.pull_events()
        result.update(
            pause_ms=stands_ms(self.vm.events), total_ms=1e3 * (end - start))
        if self.workload.works:
            result.update(base_rate=base,
                          lost_ms=1e3 * (seconds - done / base))
