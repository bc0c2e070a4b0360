# IS by MPI over two Linux guests: the first one's migration is measured, then
# the second one migrates in the same mode, and then the program must verify
#
# The guests are joined by a network of their own beside the shaped link: a
# multicast group in which all the QEMUs are, wherever they run.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import subprocess
import time

from tlmtest import env, migration
from tlmtest.vm import Vm, VmError, wait_until

from .linux import BenchGuest

GROUP = '239.215.0.1'
ADDRESSES = {'src_netns': '10.214.0.1', 'dst_netns': '10.214.0.2'}


def _ip(netns, *command):
    p = subprocess.run(['ip', '-n', netns, *command], capture_output=True,
                       text=True)
    if p.returncode:
        raise VmError(f"ip {' '.join(command)}: {p.stderr.strip()}")


class MpiGuest(BenchGuest):
    """Node 1, where the program is started; node 2 comes with it."""

    def __init__(self, mem_mb, vcpus=1, **settings):
        self.node = settings.pop('node', 1)
        self.peer = None if self.node == 2 else MpiGuest(
            mem_mb, vcpus, node=2, **settings)
        super().__init__('mpi', mem_mb, vcpus=vcpus, node=self.node,
                         **settings)
        self.vms = []

    def close(self):
        for vm in self.vms:
            vm.close()
        self.vms.clear()

    def nic(self, side):
        # A port beyond those that are given out by chance
        return ['-netdev', f'socket,id=lan,mcast={GROUP}:1215,'
                f'localaddr={ADDRESSES[side]}',
                '-device', 'virtio-net-pci,netdev=lan,romfile=,'
                f'mac=52:54:00:d7:00:{self.node:02x}']

    def prepare(self, link):
        """Join the sides of the link by a second network, start node 2."""
        if not link.src_netns:
            raise VmError('MPI guests need a shaped link')
        _ip(link.src_netns, 'link', 'add', 'lan0', 'type', 'veth', 'peer',
            'name', 'lan0', 'netns', link.dst_netns)
        for side, address in ADDRESSES.items():
            netns = getattr(link, side)
            _ip(netns, 'addr', 'add', f'{address}/24', 'dev', 'lan0')
            _ip(netns, 'link', 'set', 'lan0', 'up')
            _ip(netns, 'route', 'add', '239.0.0.0/8', 'dev', 'lan0')
        self.link = link
        self.start(env.QEMU, 'src_netns')

    def start(self, binary, side, *extra):
        """One QEMU of node 2."""
        vm = Vm('peer-' + side[:3], binary, [
            *self.peer.args('tcg'), *self.peer.nic(side), *extra],
            getattr(self.link, side)).start()
        self.vms.append(vm)
        return vm

    def corruption(self, vm):
        found = super().corruption(vm)
        for peer in self.vms[-1:]:
            found = found or self.peer.corruption(peer)
        return found

    def migrate_peer(self, set_up, stop_first, limit_s):
        """set_up(src, dst): sets capabilities and parameters.  Returns what
        became of it."""
        src, = self.vms
        dst = self.start(env.STOCK_QEMU, 'dst_netns', '-incoming', 'defer')
        set_up(src, dst)
        address = migration.listen(dst, self.link.address)
        if stop_first:
            src.qmp('stop')
        t0 = time.monotonic()
        migration.start(src, *address)
        while True:
            info = src.qmp('query-migrate')
            if info['status'] in migration.FINAL:
                break
            if time.monotonic() - t0 > limit_s:
                # It must verify all the same
                src.qmp('migrate_cancel')
                migration.wait_status(src, 'cancelled')
                self.vms.remove(dst)
                dst.close()
                return {'status': 'not ended'}
            time.sleep(0.02)
        if info['status'] != 'completed':
            raise VmError(f"node 2: {info['status']}: "
                          f"{info.get('error-desc')}")
        migration.wait_status(dst, 'completed')
        if stop_first:
            dst.qmp('cont')
        wait_until(lambda: dst.qmp('query-status')['running'], 30,
                   'node 2 runs at the destination')
        self.vms.remove(src)
        src.close()
        return {'status': 'completed', 'total_ms': info['total-time'],
                'downtime_ms': info['downtime']}
