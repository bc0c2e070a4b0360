#!/usr/bin/python3
#
# tlm cluster: all RAM of each member of a set, as stock QEMUs restore it, is
# compared with what it was at the cut
#
# TLM_REPEAT: in files, too
#
# SPDX-License-Identifier: GPL-2.0-or-later

import asyncio
import concurrent.futures
import os
import sys
import unittest
from unittest import mock

import test_cluster_servers
from tlm import options, parser
from tlm.cluster import config, coordinator, save
from tlm.cluster.sets import Sets
from tlm.progress import Display
from tlmtest.case import STEADY
from tlmtest.guests import RomGuest
from tlmtest.ram import FrozenRam, compare_ram

LONG = '10min'                  # all RAM is read meanwhile


class Ram(test_cluster_servers.ServersCase):
    """All RAM of each member, page by page, as it was at the cut."""

    def save_frozen(self, name, *more):
        """Returns the RAM of all while they stand still, and the manifest."""
        args = parser.of_command(
            options.COMMANDS['cluster save']).parse_args(
                ['--dir', self.dir, *self.options, '--window', LONG, *more,
                 name])
        release, frozen = coordinator.Coordinator._release, []

        def read():
            frozen.extend(FrozenRam(vm) for vm in self.cluster.vms)

        def read_and_release(one):
            # Monitors have a loop of their own, one in each thread
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                thread.submit(read).result()
            release(one)
        with mock.patch.object(coordinator.Coordinator, '_release',
                               read_and_release):
            return frozen, asyncio.run(save.save(
                Sets(self.dir), [config.Vm(f'vm{i}', self.cluster.socket(i))
                                 for i in range(len(self.cluster.vms))],
                args, name, Display(sys.stderr)))

    def compared(self, frozen):
        return [compare_ram(then, vm) for then, vm in
                zip(frozen, self.cluster.vms, strict=True)]

    def save_and_compare(self):
        self.cluster = self.nodes([RomGuest(ws_mb=32, rate=STEADY)
                                   for _ in range(2)])
        self.cluster.start()
        frozen = {}
        for name, more in (('copied', ('--mode', 'copy')),
                           ('protected', ('--mode', 'write-protect')),
                           ('first', ('--incremental',)),
                           ('second', ('--incremental',))):
            frozen[name], content = self.save_frozen(name, *more)
            for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                                 strict=True):
                guest.wait_alive(vm)
        for name, then in frozen.items():
            self.cluster.restore(name, more=('--paused',))
            for result in self.compared(then):
                self.assertTrue(result.equal(), f'{name}: {result}')
        # What would be seen if it were another one
        for result in self.compared(frozen['first']):
            self.assertGreater(result.differing, 0)
        return content

    def test_at_servers(self):
        self.serve()
        self.assertEqual([m['since'] for m in
                          self.save_and_compare()['members']], ['first'] * 2)

    @unittest.skipUnless('TLM_REPEAT' in os.environ,
                         'takes long: TLM_REPEAT=1')
    def test_in_files(self):
        self.options = ()
        self.assertEqual([m['parent'] for m in
                          self.save_and_compare()['members']], ['first'] * 2)


if __name__ == '__main__':
    unittest.main()
