#!/usr/bin/python3
#
# tlm cluster with domains of unmodified libvirts on two hosts
#
# TLM_REPEAT: all cases; each starts two Linux guests
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import re
import signal
import subprocess
import unittest

from tlmtest import env
from tlmtest.case import CRAWL
from tlmtest.domains import IMAGES, TOOL, DomainCase
from tlmtest.guests import LinuxGuest
from tlmtest.memserver import BINARY, MemServer
from tlmtest.virt import Domain
from tlmtest.vm import wait_until

WINDOW = ('--window', '5s')
REQUESTS = 200                  # of each thread, to be sure that it goes on
WITH_IMAGES = {**os.environ, 'PATH': f"{IMAGES}:{os.environ['PATH']}"}
LONG = unittest.skipUnless('TLM_REPEAT' in os.environ,
                           'takes long: TLM_REPEAT=1')
NOBODY = '10.213.0.9'           # on the network of the hosts
EVENT = re.compile(r'^(?P<time>\S+ \S+): event (?P<kind>STOP|RESUME) for',
                   re.M)


class HostsCase(DomainCase):
    """Domain "guest" at one host and "other" at the other one; the command is
    given at the first."""

    settings = {}

    def setUp(self):
        super().setUp()
        if not os.path.exists(BINARY):
            self.skipTest(f'{BINARY} is missing')
        self.far = self.pair.hosts[1]
        self.far.use_emulator(env.QEMU)
        self.residents = []
        for name, host in (('guest', self.host), ('other', self.far)):
            guest = LinuxGuest(mem_mb=256, ws=32, vcpus=1, rate=2000,
                               **self.settings)
            domain = Domain(self.pair, guest, name=name)
            self.addCleanup(domain.close)
            domain.start(host)
            self.residents.append((guest, domain, host))
        self.named = ('a=domain:guest', f'b=domain:other@{self.far.uri}')

    def serve(self):
        """At the first host, to whoever is on its network."""
        self.server = MemServer(
            {'data': {'listen': f'tcp:{self.host.address}:0'},
             'tls': {'allow-plain': 'true'}},
            prefix=self.host.command())
        self.addCleanup(self.server.close)
        return '--server', self.server.address

    def words(self, command, *more):
        return self.host.command(TOOL, 'cluster', command, '--dir', self.dir,
                                 *more)

    def saving(self, *more):
        return self.words('save', *WINDOW, '--no-lock-manager', '--json',
                          *more, *self.named)

    @staticmethod
    def run_tool(words):
        return subprocess.run(words, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=600,
                              check=False, env=WITH_IMAGES)

    def tool(self, command, *more):
        run = self.run_tool(self.words(command, *more))
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout

    def saved(self, *more):
        run = self.run_tool(self.saving(*more))
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def assert_refused(self, why, words):
        run = self.run_tool(words)
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertRegex(run.stderr, why)

    def settings_of(self, name, host):
        return (host.qmp(name, 'query-migrate-capabilities'),
                host.qmp(name, 'query-migrate-parameters'),
                host.qmp(name, 'query-named-block-nodes', flat=True))

    def all_settings(self):
        return [self.settings_of(d.name, host)
                for _, d, host in self.residents]

    def assert_all_well(self):
        for guest, domain, host in self.residents:
            place = domain.at[host]
            wait_until(lambda d=domain, h=host: h.domain_state(d.name) ==
                       'running', 60, 'libvirt says that it runs')
            guest.wait_alive(place)
            guest.wait_scans(place)

    def destroy(self):
        for _, domain, host in self.residents:
            host.virsh('destroy', domain.name)
            host.use_emulator(env.STOCK_QEMU)

    def restored(self, name, *more):
        return [vm['status'] for vm in json.loads(self.tool(
            'restore', '--json', '--allow-plain', *more, name))['vms']]

    def config(self, text):
        path = os.path.join(self.dir, 'config.toml')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)
        return '--config', path


class Saved(HostsCase):
    def events(self):
        """Of both domains, from now on: returns what reads them."""
        logs = []
        for _, domain, host in self.residents:
            path = os.path.join(self.dir, f'{domain.name}.events')
            with open(path, 'w', encoding='utf-8') as f:
                p = host.popen('virsh', 'qemu-monitor-event', '--loop',
                               '--timestamp', '--domain', domain.name,
                               stdout=f, stderr=subprocess.STDOUT)
            self.addCleanup(p.wait)
            self.addCleanup(p.kill)
            logs.append((path, host))

        def read():
            found = []
            for path, host in logs:
                with open(path, encoding='utf-8') as f:
                    found.append(EVENT.findall(f.read()))
            return found
        return read

    def test_to_a_server(self):
        """All stand still before one goes on.  Stock QEMUs go on, where they
        were, and both at one host."""
        server = self.serve()
        self.assert_refused("a|b: it cannot be seen from here whether libvirt "
                            'at qemu.tcp.*has a lock manager',
                            self.words('save', *server, 'one', *self.named))
        before, events = self.all_settings(), self.events()
        content = self.saved(*server, 'one')
        self.assertEqual([m.get('connect') for m in content['members']],
                         [None, self.far.uri])
        for member in content['members']:
            self.assertGreater(member['pause-us'], 0)
        wait_until(lambda: all(len(e) == 2 for e in events()), 60,
                   'libvirt has told of all events')
        stops, resumes = zip(*(
            [time_ for time_, _ in sorted(seen)] for seen in events()))
        self.assertLess(max(stops), min(resumes))
        self.assertEqual(self.all_settings(), before)
        self.assert_all_well()
        self.assertEqual(self.tool('verify'), 'one: good\n')
        self.destroy()
        self.assertEqual(self.restored('one'), ['running'] * 2)
        self.assert_all_well()
        self.destroy()
        more = self.config('[vm.b]\ndomain = "other"\n'
                           'connect = "qemu:///system"\n')
        self.assertEqual(self.restored('one', '--paused', *more),
                         ['paused'] * 2)
        for name in ('guest', 'other'):
            self.host.virsh('destroy', name)
        # At a port and an address that the user wants
        more = self.config(f'[vm.b]\ndomain = "other"\n'
                           f'connect = "{self.far.uri}"\n'
                           f'address = "{self.far.address}:49999"\n')
        self.assertEqual(self.restored('one', *more), ['running'] * 2)
        self.assert_all_well()

    @LONG
    def test_to_a_directory(self):
        """That both hosts have; and one that they have not is refused."""
        before = self.all_settings()
        content = self.saved('one')
        self.assertEqual([m['dir'] for m in content['members']], ['a', 'b'])
        self.assertEqual(self.all_settings(), before)
        self.assert_all_well()
        self.far.run('mount', '-t', 'tmpfs', 'none', f'{self.dir}/b')
        try:
            self.assert_refused('b: .*/b: its QEMU does not see what this '
                                'host has there', self.saving('two'))
        finally:
            self.far.run('umount', f'{self.dir}/b')
        self.assertEqual(self.all_settings(), before)
        self.assertEqual(self.tool('verify'), 'one: good\n')
        self.destroy()
        self.assertEqual(self.restored('one'), ['running'] * 2)
        self.assert_all_well()


@LONG
class Tls(HostsCase):
    def test_own_certificates(self):
        """Of each host, in a directory that has the same name on all."""
        certificates = os.path.join(self.pair.certificates, 'tlm-a')
        self.server = MemServer(
            {'control': {'listen': f'tcp:{self.host.address}:0'},
             'data': {'listen': f'tcp:{self.host.address}:0'},
             'tls': {'credentials': 'x509', 'dir': certificates,
                     'client-credentials': 'x509',
                     'client-dir': certificates}},
            prefix=self.host.command())
        self.addCleanup(self.server.close)
        options = ('--server', self.server.address.removeprefix('tcp:'),
                   '--tls', 'x509', '--tls-dir', '/etc/libvirt/tls')
        before = self.all_settings()
        # Whom the server does not know as the one who may send
        run = self.run_tool(self.saving(*options, 'one'))
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertEqual(self.all_settings(), before)
        self.named = self.config(
            '[vm.a]\ndomain = "guest"\n[vm.b]\ndomain = "other"\n'
            f'connect = "{self.far.uri}"\nsender = "x509:CN=tlm-b"\n')
        self.saved(*options, 'one')
        self.assertEqual(self.all_settings(), before)
        self.assert_all_well()
        self.destroy()
        self.tool('restore', 'one')
        self.assert_all_well()


class Disks(HostsCase):
    """Guests that write to their disks, read them past their caches, and know
    in RAM what must be there: RAM and disk of one instant."""

    settings = {'disk': 2}

    def assert_all_well(self):
        super().assert_all_well()
        for guest, domain, host in self.residents:
            place = domain.at[host]
            done = guest.requests(place)
            wait_until(lambda g=guest, p=place, d=done: g._ok(p) and
                       g.requests(p) > d + REQUESTS, 120,
                       'the guest uses its disk')

    def images(self):
        """Of both hosts."""
        return sorted(f for f in os.listdir(self.pair.dir)
                      if re.fullmatch(r'(guest|other)\.img.*', f))

    def remove_images(self):
        for name in self.images():
            os.unlink(os.path.join(self.pair.dir, name))

    def save_and_restore(self, *more):
        self.addCleanup(self.remove_images)
        self.assert_all_well()
        first = self.images()
        for name, overlays in (('one', 2), ('two', 4)):
            content = self.saved('--disk', 'virsh', '--incremental', *more,
                                 name)
            self.assertEqual([len(m['disks']) for m in content['members']],
                             [1, 1])
            self.assertEqual(len(self.images()), len(first) + overlays)
            self.assert_all_well()
            for m, (_, domain, host) in zip(content['members'],
                                            self.residents, strict=True):
                disk, = m['disks']
                self.assertIn(f' {disk["overlay-file"]}\n',
                              host.virsh('domblklist', domain.name) + '\n')
        for name in ('two', 'one'):
            self.destroy()
            told = json.loads(self.tool('restore', '--json', '--allow-plain',
                                        name))['vms']
            self.assertEqual([len(vm['disks']) for vm in told], [1, 1])
            self.assert_all_well()
        return content

    def test_to_servers(self):
        content = self.save_and_restore(*self.serve())
        self.assertEqual([m['since'] for m in content['members']],
                         ['one', 'one'])

    @LONG
    def test_to_a_directory(self):
        content = self.save_and_restore()
        self.assertEqual([m['parent'] for m in content['members']],
                         ['one', 'one'])

    @LONG
    def test_libvirt_refuses(self):
        """In the pause: all run on, on the disks that they had, and the
        overlays of the others are said to be in use, or gone."""
        self.addCleanup(self.remove_images)
        other = self.residents[1][1]
        self.far.virsh('snapshot-create-as', 'other', 'own', '--disk-only',
                       '--no-metadata')
        self.far.virsh('blockcommit', 'other', 'vda', '--active', '--shallow',
                       '--wait')
        self.assert_refused('b: libvirt cannot put overlays on the disks',
                            self.saving('--disk', 'virsh', 'one'))
        self.far.virsh('blockjob', 'other', 'vda', '--pivot')
        self.assertIn(f' {other.disk}\n',
                      self.far.virsh('domblklist', 'other') + '\n')
        self.assert_all_well()
        self.assertEqual(self.tool('list'), '')
        self.saved('--disk', 'virsh', 'one')
        self.assert_all_well()


class Trouble(HostsCase):
    @LONG
    def test_refused(self):
        """With the reason; all run on, and the old set is as it was."""
        server = self.serve()
        self.saved(*server, 'old')
        before = self.all_settings()
        for words, why in (
                ((*server, 'one', self.named[0],
                  f'b=domain:nobody@{self.far.uri}'),
                 "b: .*nobody"),
                ((*server, 'one', self.named[0],
                  f'b=domain:other@qemu+tcp://{NOBODY}/system'),
                 f'b: failed to connect.*; unable to connect to server at '
                 f'.{NOBODY}|b: virsh: no answer from libvirt'),
                (('--server', self.hidden_server(), 'one', *self.named),
                 'b: .*where a QEMU on 10.213.0.2 does not find it')):
            self.assert_refused(why, self.words(
                'save', *WINDOW, '--no-lock-manager', *words))
        self.assertEqual(self.all_settings(), before)
        self.assert_all_well()
        self.assertEqual(self.tool('verify'), 'old: good\n')

    def hidden_server(self):
        """That listens for this host alone."""
        server = MemServer(prefix=self.host.command())
        self.addCleanup(server.close)
        return server.address

    @LONG
    def test_libvirt_hangs(self):
        """In the middle: it is said, nobody waits for it for long, and the
        next command puts things in order."""
        server = self.serve()
        self.saved(*server, 'old')
        before = self.all_settings()
        p = subprocess.Popen(
            self.saving(*server, '--bandwidth', f'{CRAWL}B/s', 'one'),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.kill)
        for _, domain, host in self.residents:
            wait_until(lambda d=domain, h=host: h.qmp(
                d.name, 'query-migrate').get('tlm', {}).get('stage') ==
                'live', 120, 'it is saved')
        libvirtd = self.far.libvirtd_pid()
        os.kill(libvirtd, signal.SIGSTOP)
        try:
            _, err = p.communicate(timeout=600)
            self.assertEqual(p.returncode, 1, err)
            self.assertRegex(err, 'b: .*no answer from libvirt')
            self.assertRegex(err, 'b: it is not known whether it runs on')
            # Its QEMU needs nobody for that
            guest, domain, host = self.residents[1]
            guest.wait_alive(domain.at[host])
            guest, domain, host = self.residents[0]
            self.assertEqual(self.settings_of(domain.name, host), before[0])
            guest.wait_alive(domain.at[host])
        finally:
            os.kill(libvirtd, signal.SIGCONT)
        self.tool('prune', '--keep', '9')
        self.assertEqual(self.all_settings(), before)
        self.assert_all_well()
        self.assertEqual(self.tool('verify'), 'old: good\n')
        self.assertEqual(os.listdir(self.dir).count('one.log'), 0)
        self.saved(*server, 'two')


if __name__ == '__main__':
    unittest.main()
