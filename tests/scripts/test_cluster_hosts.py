#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster with VMs on several hosts, as far as no host is needed: how they
are named, where they are found, and a virsh that says nothing any more."""

import asyncio
import os
import tempfile
import types
import unittest
from unittest import mock

from tlm.cluster import config, domain, hosts
from tlm.errors import MigrateError
from tlm.units import Bad

# Answers two questions, and hangs then, with a child that has its pipes
DEAF_VIRSH = r'''#!/bin/bash
while IFS= read -r line; do
    case $line in
    echo*) eval "$line" ;;
    *uri*) echo qemu+ssh://hostb/system ;;
    *domstate*) printf 'running\n\n' ;;
    *) sleep 600 ;;
    esac
done
'''


class Names(unittest.TestCase):
    def test_domains(self):
        for text, name, uri in (
                ('a=domain:x', 'x', None),
                ('a=domain:x@qemu+ssh://b/system', 'x',
                 'qemu+ssh://b/system'),
                ('a=domain:x@y@qemu+ssh://root@b/system', 'x@y',
                 'qemu+ssh://root@b/system'),
                ('a=domain:x@qemu:///session', 'x', 'qemu:///session')):
            vm = config.member(text, None)
            self.assertEqual((vm.domain, vm.connect), (name, uri))
        self.assertEqual(config.member('a=domain:x', 'qemu:///u').connect,
                         'qemu:///u')
        with self.assertRaises(Bad):
            config.member('a=domain:', None)

    def arguments(self, *vms, **more):
        return types.SimpleNamespace(**{
            'config': None, 'connect': None, 'disk': [], 'server': None,
            'no_lock_manager': False, 'vm': vms, **more})

    def test_file(self):
        with tempfile.NamedTemporaryFile('w', suffix='.toml') as f:
            f.write('[vm.a]\ndomain = "x"\nconnect = "qemu+ssh://b/system"\n'
                    'lock-manager = "none"\naddress = "b:5000"\n'
                    'sender = "x509:CN=b"\ndisk = "auto"\n')
            f.flush()
            vm, = config.to_save(self.arguments(config=f.name))
            self.assertEqual(vm, config.Vm(
                'a', domain='x', connect='qemu+ssh://b/system', disk='virsh',
                address='b:5000', lock_manager='none', sender='x509:CN=b'))
            f.write('[vm.b]\ndomain = "y"\nlock-manager = "sanlock"\n')
            f.flush()
            with self.assertRaisesRegex(MigrateError, "can only be 'none'"):
                config.to_save(self.arguments(config=f.name))

    def test_the_same_name_at_two_hosts(self):
        first, second = config.to_save(self.arguments(
            'a=domain:x@qemu+ssh://b/system',
            'b=domain:x@qemu+ssh://c/system', no_lock_manager=True))
        self.assertEqual({first.lock_manager, second.lock_manager}, {'none'})
        with self.assertRaisesRegex(MigrateError, 'two VMs have the domain x '
                                    'at qemu.ssh'):
            config.to_save(self.arguments(
                'a=domain:x@qemu+ssh://b/system',
                'b=domain:x@qemu+ssh://b/system'))

    def test_hosts(self):
        for uri, host in (('qemu:///system', None), ('qemu:///session', None),
                          ('qemu+unix:///system?socket=/x', None),
                          ('qemu+ssh://root@hostb:22/system', 'hostb'),
                          ('qemu+tcp://10.0.0.2/system', '10.0.0.2'),
                          ('qemu+tls://[fd00::2]/system', 'fd00::2')):
            self.assertEqual(hosts.of_uri(uri), host)
        for uri in ('lxc:///', 'qemu+ext:///system', None):
            with self.assertRaisesRegex(MigrateError, 'on which host'):
                hosts.of_uri(uri)
        for address, host in (('/run/vm.qmp', None), ('hostb:4444', 'hostb'),
                              ('localhost:4444', None),
                              ('127.0.0.1:4444', None),
                              ('[::1]:4444', None),
                              ('[fd00::2]:4444', 'fd00::2')):
            self.assertEqual(hosts.of_socket(address), host)


class Found(unittest.TestCase):
    def test_where_qemu_waits(self):
        for at, waits, found in (
                ('hostb', 'tcp:0.0.0.0:0', 'tcp:hostb:41000'),
                ('10.0.0.2:5000', 'tcp:10.0.0.2:5000', 'tcp:10.0.0.2:41000'),
                ('fd00::2', 'tcp:[fd00::2]:0', 'tcp:[fd00::2]:41000')):
            where = hosts.Elsewhere(at)
            self.assertEqual(where.wait_at, waits)
            self.assertEqual(where.found_at(lambda _: {'socket-address': [
                {'type': 'inet', 'host': '0.0.0.0', 'port': '41000'}]}),
                found)
        with self.assertRaisesRegex(MigrateError, 'at which port'):
            hosts.Elsewhere('hostb').found_at(lambda _: {})

    def test_servers_that_listen_here_alone(self):
        for uri in ('tcp:127.0.0.1:5000', 'unix:/run/data', 'tcp:[::1]:5000'):
            hosts.check_reached(uri, None, 'a')
            with self.assertRaisesRegex(MigrateError, 'hostb does not find'):
                hosts.check_reached(uri, 'hostb', 'a')
        hosts.check_reached('tcp:10.0.0.1:5000', 'hostb', 'a')

    def test_lock_managers(self):
        """Of another host, or of a socket, nothing is known."""
        for uri in ('qemu+ssh://b/system', 'qemu+unix:///system?socket=/x'):
            with self.assertRaisesRegex(MigrateError, '--no-lock-manager'):
                hosts.check_locking(lambda _, u=uri: u + '\n', False)
            hosts.check_locking(lambda _, u=uri: u + '\n', True)
        with mock.patch('tlm.checkpoint.libvirt.check_locking') as check:
            hosts.check_locking(lambda _: 'qemu:///system\n', True)
        check.assert_called_once_with('/etc/libvirt/qemu.conf')


class Deaf(unittest.TestCase):
    def test_nobody_waits(self):
        """Not for its answer, nor for its end."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, 'virsh')
            with open(path, 'w', encoding='utf-8') as f:
                f.write(DEAF_VIRSH)
            os.chmod(path, 0o755)
            asyncio.run(self.ask(path))

    async def ask(self, path):
        channel = domain.DomainChannel(config.Vm('a', domain='x'))
        channel.virsh.command = [path]
        await channel.open()
        self.assertEqual(channel.elsewhere, 'hostb')
        asked = channel.send('query-migrate')
        later = channel.send('query-status')
        while not channel.virsh.process:
            await asyncio.sleep(0.01)
        channel.close()
        for answer in (asked, later):
            with self.assertRaises(MigrateError):
                await answer
        while channel.virsh.process:
            await asyncio.sleep(0.01)
        with self.assertRaisesRegex(MigrateError, 'ended'):
            channel.virsh('uri')


if __name__ == '__main__':
    unittest.main()
