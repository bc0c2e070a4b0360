#!/usr/bin/python3
#
# tlm cluster with memory servers: sets whose checkpoints servers keep
#
# TLM_REPEAT: how often a coordinator is killed at a random moment, times 2
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import unittest

import test_cluster
from test_cluster import REPEAT, WINDOW, ClusterCase
from test_memserver_command import TCP
from tlm.cluster.sets import Sets
from tlmtest import migration
from tlmtest.case import CRAWL, STEADY
from tlmtest.guests import RomGuest
from tlmtest.memserver import BINARY, MemServer
from tlmtest.virt import make_certificates
from tlmtest.vm import VmError, wait_until

SMALL = 16                      # MiB


class ServersCase(ClusterCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not os.path.exists(BINARY):
            raise unittest.SkipTest(f'{BINARY} is missing')

    def serve(self, count=2, **config):
        self.servers = [MemServer(config) for _ in range(count)]
        for server in self.servers:
            self.addCleanup(server.close)
        self.options = ('--server', ','.join(s.address
                                             for s in self.servers), *WINDOW)

    def saving(self, *more):
        p = subprocess.Popen(self.cluster.saving('save', *more, 'one'),
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.kill)
        return p

    def there(self):
        """What each server has: (VM, which set's)."""
        found = []
        for server in self.servers:
            control = server.control()
            found.append({(c['vm'], c['name'][:-37])
                          for c in control('list')})
            control.close()
        return found


class Talking(ServersCase):
    def test_echo(self):
        """The members are at two servers, and of one moment."""
        self.serve()
        nodes = self.talking('echo')
        for name in ('one', 'two'):
            self.assertTrue(nodes.goes_on(count=100))
            content = nodes.save(name, *self.options)
            self.assert_one_moment(content)
            self.assertEqual(
                [m['server']['address'] for m in content['members']],
                [s.address for s in self.servers])
        self.assertEqual(self.there(), [
            {(f'vm{i}', name) for name in ('one', 'two')} for i in range(2)])
        self.assertEqual(nodes.run(nodes.words('verify')),
                         'one: good\ntwo: good\n')
        for name in ('two', 'one', 'two'):
            nodes.restore(name)
            self.assertTrue(nodes.goes_on(count=100))
        self.assertIn('ECHO VERIFIED', nodes.verify())


class Disks(ServersCase, test_cluster.Disks):
    """All cases with disks, at servers: increments are whole there."""

    since = 'since'

    def setUp(self):
        super().setUp()
        self.serve()

    @unittest.skipUnless('TLM_REPEAT' in os.environ,
                         'takes long: TLM_REPEAT=1')
    def test_saved_and_restored(self):
        super().test_saved_and_restored()


class Tls(ServersCase):
    def start(self):
        keys = tempfile.TemporaryDirectory(prefix='tlm-keys-')
        self.addCleanup(keys.cleanup)
        self.keys = keys.name
        make_certificates(self.keys, dict.fromkeys(
            ('a', 'alice', 'mallory'), '127.0.0.1'))
        self.serve(1, **TCP, tls={'credentials': 'x509',
                                  'dir': os.path.join(self.keys, 'a')})
        self.cluster = self.nodes([RomGuest(ws_mb=64, rate=STEADY)
                                   for _ in range(2)])
        self.cluster.start()

    def of(self, user):
        return (*self.options, '--tls', 'x509', '--tls-dir',
                os.path.join(self.keys, user))

    def assert_as_it_was(self):
        """The QEMUs have no credentials, and settings as they were."""
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            params = vm.qmp('query-migrate-parameters')
            self.assertEqual((params['tls-creds'], params['tls-hostname']),
                             ('', ''))
            self.assertNotIn('tls-creds', str(vm.qmp('qom-list',
                                                     path='/objects')))
            self.assert_runs_on(guest, vm)

    def test_saved_and_restored(self):
        self.start()
        with self.assertRaisesRegex(VmError, 'vm[01]: '):
            self.cluster.save('one', *self.options)     # without TLS
        self.cluster.save('one', *self.of('alice'))
        self.assert_as_it_was()
        # Not another user's to see, nor to remove
        run = self.servers[0].call(
            '--tls', 'x509', '--tls-dir',
            os.path.join(self.keys, 'mallory'), 'list')
        self.assertEqual(json.loads(run.stdout), [])
        self.cluster.restore('one')
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            self.assert_guest_well(guest, vm)

    def test_coordinator_killed(self):
        """Who comes next removes the credentials."""
        self.start()
        p = self.saving(*self.of('alice'), '--bandwidth', f'{CRAWL}B/s')
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'live')
        p.kill()
        p.wait()
        for vm in self.cluster.vms:
            self.assertIn('tls-creds', str(vm.qmp('qom-list',
                                                  path='/objects')))
            self.wait_stage(vm, 'ready')
        self.cluster.run(self.cluster.words('prune', '--keep', '9'))
        self.assert_as_it_was()


class Trouble(ServersCase):
    """Guests that check their memory, and something that goes wrong."""

    def start(self, **config):
        self.serve(**config)
        self.cluster = self.nodes([RomGuest(ws_mb=64, rate=STEADY)
                                   for _ in range(2)])
        self.cluster.start()
        self.cluster.save('old', *self.options)
        for vm in self.cluster.vms:         # what comes is not of this one
            vm.pull_events()
            vm.events.clear()

    def assert_all_well(self, names=('old',)):
        """All run on, and the servers have these sets alone."""
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            wait_until(lambda vm=vm: migration.status(vm) in
                       ('none', *migration.FINAL), 60, 'all is over')
            self.assert_runs_on(guest, vm)
            self.assertEqual({c['capability'] for c in vm.qmp(
                'query-migrate-capabilities') if c['state']}, set())
        self.assertEqual(self.there(), [{(f'vm{i}', name) for name in names}
                                        for i in range(2)])
        self.assertEqual(
            self.cluster.run(self.cluster.words('verify')),
            ''.join(f'{name}: good\n' for name in names))

    def prune(self, keep=9):
        return self.cluster.run(self.cluster.words('prune', '--keep',
                                                   str(keep)))

    def live(self):
        p = self.saving(*self.options, '--bandwidth', f'{CRAWL}B/s')
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'live')
        return p

    def restores(self, name):
        self.cluster.restore(name)
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            self.assert_guest_well(guest, vm)

    def test_coordinator_killed_in_the_live_stage(self):
        self.start()
        p = self.live()
        p.kill()
        p.wait()
        self.assertIn('one: no set', self.cluster.run(
            self.cluster.words('list')))
        for vm in self.cluster.vms:
            self.wait_stage(vm, 'ready')
        self.prune()
        self.assert_all_well()
        self.cluster.save('two', *self.options)
        self.assert_all_well(('old', 'two'))
        self.restores('old')

    def test_coordinator_killed_at_any_time(self):
        """There is a whole set, or none, and all run on."""
        self.start()
        chance = random.Random(self.id())
        for _ in range(2 * REPEAT):
            p = self.saving(*self.options)
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(chance.uniform(0.3, 3))
            p.kill()
            p.wait()
            self.prune()
            names = [e['name'] for e in json.loads(self.cluster.run(
                self.cluster.words('list', '--json')))['sets']]
            self.assertIn(names, (['old'], ['old', 'one']))
            self.assert_all_well(names)
            if 'one' in names:
                Sets(self.dir).remove('one')
        self.assert_all_well()

    def test_server_killed(self):
        """The VMs run on; what it has is as it was, once it is back."""
        self.start()
        p = self.live()
        self.servers[1].kill()
        _, err = p.communicate(timeout=180)
        self.assertEqual(p.returncode, 1, err)
        self.assertRegex(err, 'vm1: ')
        self.assertIn('it is not known whether a checkpoint is left', err)
        for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                             strict=True):
            self.assert_runs_on(guest, vm)
        self.assertRegex(self.cluster.run(self.cluster.words('list')),
                         'old: not whole: vm1: ')
        self.servers[1].start()
        self.prune()
        self.assert_all_well()
        self.restores('old')

    def test_server_hangs(self):
        self.start()
        p = self.live()
        os.kill(self.servers[1].process.pid, signal.SIGSTOP)
        try:
            _, err = p.communicate(timeout=180)
            self.assertEqual(p.returncode, 1, err)
            self.assertRegex(err, 'vm1: .*has not answered')
            for guest, vm in zip(self.cluster.guests, self.cluster.vms,
                                 strict=True):
                self.assert_runs_on(guest, vm)
        finally:
            os.kill(self.servers[1].process.pid, signal.SIGCONT)
        self.prune()
        self.assert_all_well()

    def test_full_server(self):
        self.start()
        for server, memory in zip(self.servers, ('1G', f'{SMALL}M'),
                                  strict=True):
            server.stop()
            server.groups['store'].update({'memory': memory,
                                           'vm-memory': memory})
            open(server.log_path, 'wb').close()
            server.start()
        # It refuses so much RAM, and the other one takes it
        content = self.cluster.save('one', *self.options)
        self.assertEqual({m['server']['address'] for m in content['members']},
                         {self.servers[0].address})
        self.restores('one')

    def test_pruned(self):
        """A set goes with its members, and no member alone, though servers
        keep one only; what is lost is told of."""
        self.start(store={'keep': 1})
        for name in ('one', 'two'):
            self.cluster.save(name, *self.options)
        self.assertEqual(self.prune(2), 'Removed old\n')
        self.assert_all_well(('one', 'two'))
        control = self.servers[0].control()
        lost = next(c for c in control('list') if c['name'][:-37] == 'one')
        control('remove', vm=lost['vm'], name=lost['name'])
        control.close()
        self.assertRegex(self.cluster.run(self.cluster.words('list')),
                         'one: not whole: vm0: .*there is no one-')
        with self.assertRaisesRegex(VmError, 'not whole'):
            self.cluster.restore('one')

    def test_watched(self):
        """Old sets go from the servers too."""
        self.start()
        p = subprocess.Popen(
            self.cluster.saving('watch', *self.options, '--every', '1s',
                                '--keep', '2', '--json'),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.kill)
        names = [json.loads(p.stdout.readline())['name'] for _ in range(3)]
        p.send_signal(signal.SIGTERM)
        more, _ = p.communicate(timeout=180)
        self.assertEqual(p.returncode, 0)
        names += [json.loads(line)['name'] for line in more.splitlines()]
        self.prune(2)           # it may have ended before it did that
        self.assert_all_well(tuple(names[-2:]))

    def test_into_waiting_qemus(self):
        self.start()
        self.cluster.kill()
        path = os.path.join(self.cluster.sockets, 'waiting.toml')
        vms = [self.start_destination(
            guest, extra=('-qmp', f'unix:{self.cluster.socket(i)},server=on,'
                          'wait=off'))
               for i, guest in enumerate(self.cluster.guests)]
        with open(path, 'w', encoding='utf-8') as f:
            f.writelines(f'[vm.vm{i}]\nwaiting = "{self.cluster.socket(i)}"\n'
                         for i in range(2))
        self.cluster.run(self.cluster.words('restore', '--config', path,
                                            'old'))
        for guest, vm in zip(self.cluster.guests, vms, strict=True):
            self.assert_guest_well(guest, vm)


if __name__ == '__main__':
    unittest.main()
