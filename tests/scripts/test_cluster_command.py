#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster with QEMUs that are played: each failure of each VM in each
step, coordinators that are killed, and what is left then."""

import contextlib
import fcntl
import io
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from unittest import mock

from tlm import options, parser
from tlm.checkpoint import manifest
from tlm.checkpoint.catalogue import Catalogue
from tlm.cluster import (channel, config, coordinator, journal, look, member,
                         packets, recover, restore, save)
from tlm.cluster.sets import Sets
from tlm.errors import MigrateError
from tlmtest.played import STAGES, Cluster

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
TOOL = os.path.join(ROOT, 'scripts/tlm')
LIMIT_S = 60
VMS = ('a', 'b', 'c')
# What a coordinator says to a VM, until it has let it go on
COMMANDS = ('qmp_capabilities', 'query-commands', 'human-monitor-command',
            'query-status', 'query-migrate', 'query-migrate-capabilities',
            'query-migrate-parameters', 'migrate-set-capabilities',
            'migrate-set-parameters', 'tlm-checkpoint',
            'migrate-tlm-switchover', 'migrate-continue')
BUSY = ('setup', 'active', 'pre-switchover', 'device')


def wait_until(there):
    deadline = time.monotonic() + LIMIT_S
    while not there():
        if time.monotonic() > deadline:
            raise AssertionError('not in time')
        time.sleep(0.005)


class Case(unittest.TestCase):
    where = None                # the directory for all files

    def setUp(self):
        directory = tempfile.TemporaryDirectory(dir=self.where)
        self.addCleanup(directory.cleanup)
        self.sockets = os.path.join(directory.name, 's')
        self.dir = os.path.join(directory.name, 'sets')
        os.mkdir(self.sockets)
        os.mkdir(self.dir)
        self.sets = Sets(self.dir)

    def play(self, **settings):
        """Three VMs; @settings: {name: how}."""
        cluster = Cluster(self.sockets, {name: settings.get(name, {})
                                         for name in VMS})
        cluster.__enter__()
        self.addCleanup(cluster.__exit__)
        self.before = {name: (dict(vm.caps), dict(vm.params))
                       for name, vm in cluster.vms.items()}
        return cluster

    def words(self, command, *more):
        return [TOOL, 'cluster', command, '--dir', self.dir, *more]

    @property
    def named(self):
        return [f'{name}={self.sockets}/{name}' for name in VMS]

    def call(self, main, command, *words):
        """(exit status, standard output, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(parser.of_command(
                options.COMMANDS[f'cluster {command}']),
                ['--dir', self.dir, *words])
        return code, out.getvalue(), err.getvalue()

    def save(self, name='one', *words):
        return self.call(save.main, 'save', name, *self.named, '--window',
                         '5s', *words)

    def assert_saved(self, name='one'):
        code, _, err = self.save(name)
        self.assertEqual(code, 0, err)

    def files(self):
        return sorted(os.path.relpath(os.path.join(where, name), self.dir)
                      for where, _, names in os.walk(self.dir)
                      for name in names if name != '.lock')

    def of_set(self, name):
        return [*(f'{vm}/{name}.{end}' for vm in VMS
                  for end in ('checkpoint', 'json')), f'{name}.json']

    def assert_run_on(self, cluster, but=()):
        """As if nothing had been; all but these."""
        for name, vm in cluster.vms.items():
            if name not in but:
                wait_until(lambda vm=vm: vm.running)
                self.assertNotIn(vm.state, BUSY, name)
                self.assertEqual((vm.caps, vm.params), self.before[name],
                                 name)

    def assert_one_moment(self, cluster):
        """There was one at which all stood still."""
        vms = cluster.vms.values()
        self.assertLessEqual(max(vm.stopped_at for vm in vms),
                             min(vm.resumed_at for vm in vms))


class Saved(Case):
    def test_saved(self):
        cluster = self.play()
        code, out, err = self.save('one', '--json', '--bandwidth', '5MB/s')
        self.assertEqual(code, 0, err)
        content = json.loads(out)
        entry = self.sets.get('one')
        self.assertEqual((entry.manifest, entry.problem), (content, None))
        self.assertEqual([m['name'] for m in content['members']], list(VMS))
        self.assertEqual([m['dir'] for m in content['members']], list(VMS))
        self.assertEqual(self.files(), sorted(self.of_set('one')))
        for vm in VMS:
            part = Catalogue(os.path.join(self.dir, vm)).get('one')
            self.assertIsNone(part.problem)
            self.assertEqual(part.manifest['set'], content['id'])
        self.assert_one_moment(cluster)
        self.assert_run_on(cluster)
        self.assertEqual({vm.client_timeout for vm in cluster.vms.values()},
                         {member.LEASE_MS})
        self.assertIn('3 VMs, longest pause', err)
        code, _, err = self.save('one')
        self.assertEqual(code, 1)
        self.assertIn("a set 'one' already", err)

    def test_clock_set_back(self):
        """The set that is saved last is the newest one."""
        self.play()
        with mock.patch('tlm.checkpoint.catalogue._text',
                        lambda _: '2999-01-01T00:00:00.000000Z'):
            self.assert_saved('old')
        self.assert_saved('one')
        self.assertEqual(self.sets.newest().name, 'one')

    def test_late_and_slow(self):
        """The first to stop waits for the last."""
        cluster = self.play(a={'takes': {'live': 0.3}},
                            b={'takes': {'ready': 0.3}},
                            c={'takes': {'flush': 0.3}})
        self.assert_saved()
        self.assert_one_moment(cluster)
        for vm in cluster.vms.values():
            self.assertEqual(
                [c for c in vm.asked if c.startswith(('tlm-', 'migrate-'))
                 and 'set' not in c],
                ['tlm-checkpoint', 'migrate-tlm-switchover',
                 'migrate-continue'])

    def test_paused_guest(self):
        cluster = self.play()
        cluster.vms['b'].running = False
        self.assert_saved()
        self.assertFalse(cluster.vms['b'].running)
        self.assertEqual(self.sets.get('one').manifest['members'][1]
                         ['pause-us'], 0)

    def test_another_client_lets_one_go_on(self):
        """Before all had stopped: this is no moment of the cluster."""
        cluster = self.play(b={'takes': {'ready': 0.4}},
                            a={'takes': {'flush': 1}})
        a = cluster.vms['a']

        def meddle():
            if a.state == 'pre-switchover':
                a._migrate_continue('pre-switchover')
            else:
                cluster.loop.call_later(0.01, meddle)
        cluster.soon(meddle)
        code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn('a: migrate-continue: Migration not in expected', err)
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)

    def test_names(self):
        self.play()
        for name in ('../x', '', '.x', '-'):
            with self.assertRaises(SystemExit), \
                    contextlib.redirect_stderr(io.StringIO()):
                save.main(parser.of_command(
                    options.COMMANDS['cluster save']),
                    ['--dir', self.dir, '--', name, *self.named])
        os.makedirs(os.path.join(self.dir, 'b'))
        with open(os.path.join(self.dir, 'b/one.json'), 'w'):
            pass
        code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn("a checkpoint 'one' already", err)


class Packets(Case):
    """Held, so that nobody waits with his guest stopped."""

    def hold(self, name='one'):
        return self.save(name, '--buffer-packets')

    def test_held(self):
        cluster = self.play(b={'takes': {'ready': 0.3}},
                            c={'takes': {'ready': 0.6}, 'vhost': True})
        code, out, err = self.hold()
        self.assertEqual(code, 0, err)
        a, b, c = cluster.vms.values()
        last = max(vm.stopped_at for vm in cluster.vms.values())
        # On before it stops, off after the last one has stopped
        for vm in (a, b):
            self.assertLess(vm.held_at, vm.stopped_at)
            self.assertGreaterEqual(vm.let_out_at, last)
            self.assertLess(vm.resumed_at, c.stopped_at)
            self.assertNotIn('migrate-continue', vm.asked)
        self.assertGreaterEqual(c.resumed_at, last)
        self.assertIn('c, waited for all: object-add: Vhost', out)
        self.assertEqual([vm.filters for vm in (a, b, c)], [{}, {}, {}])
        self.assert_run_on(cluster)
        self.assertIsNone(self.sets.get('one').problem)

    def test_another_client_lets_packets_out(self):
        cluster = self.play(c={'takes': {'ready': 0.4}})
        a = cluster.vms['a']

        def meddle():
            if a.stopped_at:
                a.filters = dict.fromkeys(a.filters, 'off')
            else:
                cluster.loop.call_later(0.01, meddle)
        cluster.soon(meddle)
        code, _, err = self.hold()
        self.assertEqual(code, 1)
        self.assertIn('a: another client has let its packets out', err)
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)

    def test_too_late(self):
        """All have stopped, but the filters may have let packets out: the
        coordinator did not run for a while."""
        cluster = self.play()
        real, calls = coordinator.clock, []

        def clock():
            calls.append(None)
            return real() + (10 if cluster.vms['c'].stopped_at else 0)
        with mock.patch.object(coordinator, 'clock', clock):
            code, _, err = self.hold()
        self.assertEqual(code, 1, err)
        self.assertIn('not all VMs stood still within 5000 ms', err)
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)
        self.assertEqual(cluster.vms['a'].filters, {})

    def test_killed(self):
        """Who comes next removes the filters."""
        cluster = self.play(b={'takes': {'ready': None}})
        p = subprocess.Popen(
            self.words('save', '--buffer-packets', '--window', '60s', 'one',
                       *self.named), stdout=subprocess.DEVNULL)
        self.addCleanup(p.kill)
        a = cluster.vms['a']
        wait_until(lambda: a.state == 'completed')
        self.assertEqual(set(a.filters.values()), {'on'})
        p.kill()
        p.wait()
        self.call(look.main_prune, 'prune', '--keep', '9')
        self.assertEqual([vm.filters for vm in cluster.vms.values()],
                         [{}, {}, {}])
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)

    def test_which(self):
        head = 'n{}: index=0,type=nic,model=e1000,macaddr=5\n'
        self.assertEqual(packets.netdevs(
            'unused: index=0,type=user,\r\n' + head.format(1) +
            ' \\ lan: index=0,type=tap,\nfilters:\n  - f: type=x\n' +
            head.format(2) + head.format(3) + ' \\ w: index=0,type=l2tpv3,\n',
            ['qemu', '-m', '1G']), ['lan', 'w'])
        for text, words, why in (
                (head.format(1), None, 'no network device'),
                ('hub 3\n \\ hp0: ' + head.format(2), None, 'on a hub'),
                (head.format(1) + ' \\ a: index=0,type=tap,',
                 ['q', '-icount'], '-icount')):
            with self.assertRaisesRegex(packets.Cannot, why):
                packets.netdevs(text, words)


class Failures(Case):
    def each(self, how, whats, vms=lambda number: VMS):
        """An old set; then @how, at each of @whats, of each VM in turn."""
        for number, what in enumerate(whats):
            for name in vms(number):
                with self.subTest(what=what, vm=name):
                    try:
                        cluster = self.play()
                        self.assert_saved('old')
                        cluster.vms[name].asked.clear()
                        setattr(cluster.vms[name], how,
                                what if how == 'fails' else {what})
                        yield cluster, cluster.vms[name]
                    finally:
                        self.doCleanups()
                        self.setUp()

    def assert_failed(self, cluster, name, but=()):
        code, _, err = self.save()
        self.assertEqual(code, 1, err)
        self.assertIn(f'{name}: ', err)
        self.assertIsNone(self.sets.get('old').problem)
        self.assertEqual(set(self.files()) - {'one.log'},
                         set(self.of_set('old')))
        self.assert_run_on(cluster, but)
        return err

    def test_refused(self):
        for cluster, vm in self.each('refuses', COMMANDS):
            name = os.path.basename(vm.path)
            # What it refuses may be what would have put it back
            err = self.assert_failed(cluster, name, but=(name,))
            self.assertIn('it does not want to', err)
            vm.refuses = ()
            self.assert_recovers(cluster)

    def test_died(self):
        for cluster, vm in self.each('dies', COMMANDS):
            name = os.path.basename(vm.path)
            self.assert_failed(cluster, name, but=(name,))
            self.assertTrue(vm.dead)
            self.assertEqual(self.files(), sorted(self.of_set('old')))

    def test_died_when_told_to_cancel(self):
        """Another one's failure is told of, and nothing is left."""
        cluster = self.play()
        self.assert_saved('old')
        cluster.vms['a'].fails = 'ready'
        cluster.vms['b'].dies = {'migrate_cancel'}
        err = self.assert_failed(cluster, 'a', but=('b',))
        self.assertNotIn('prune', err)
        self.assertTrue(cluster.vms['b'].dead)
        self.assertEqual(self.files(), sorted(self.of_set('old')))

    def test_hung(self):
        """Until it wakes up: then the next one finds it in order."""
        def one(number):
            return VMS[number % len(VMS)]
        for cluster, vm in self.each('hangs', COMMANDS, one):
            name = os.path.basename(vm.path)
            with self.short_limits():
                err = self.assert_failed(cluster, name, but=(name,))
            self.assertRegex(err, 'no answer|no greeting|not within')

            def wake(vm=vm):
                vm.hung, vm.hangs = False, ()
                if vm.state == 'pre-switchover':
                    vm._gate_passed()
            cluster.soon(wake)
            self.assert_recovers(cluster)

    @staticmethod
    def short_limits(seconds=1.5):
        """To find out that a VM hangs."""
        stack = contextlib.ExitStack()
        for module, name in ((channel, 'ANSWER_S'), (channel, 'CONNECT_S'),
                             (member, 'ABORT_S'), (recover, 'LIMIT_S')):
            stack.enter_context(mock.patch.object(module, name, seconds))
        return stack

    def assert_recovers(self, cluster):
        code, _, err = self.call(look.main_prune, 'prune', '--keep', '9')
        self.assertEqual(code, 0, err)
        self.assertEqual(self.files(), sorted(self.of_set('old')))
        self.assert_run_on(cluster)
        self.assert_saved('two')

    def test_its_checkpoint_fails(self):
        for cluster, vm in self.each('fails', STAGES):
            err = self.assert_failed(cluster, os.path.basename(vm.path))
            self.assertIn('the disk is on fire', err)
            self.assertEqual(self.files(), sorted(self.of_set('old')))

    def test_slow_to_stop(self):
        cluster = self.play(b={'takes': {'ready': None}})
        code, _, err = self.save('one', '--window', '100ms')
        self.assertEqual(code, 1)
        self.assertIn('not all VMs stood still within 100 ms: not b', err)
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)
        # At the gate for no longer than that
        for name in ('a', 'c'):
            vm = cluster.vms[name]
            self.assertLess(vm.resumed_at - vm.stopped_at, 2)

    def test_slow_to_report(self):
        """QEMU gives up at the gate before the coordinator does."""
        cluster = self.play(b={'takes': {'ready': 1}})
        real = save.Coordinator

        def impatient(sets, members, window, arguments, *more):
            return real(sets, members, window,
                        {**arguments, 'gate-timeout': 100}, *more)
        with mock.patch.object(save, 'Coordinator', impatient):
            code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn('nobody has let the guest go on', err)
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)

    def test_full_disk(self):
        """At each thing that is made durable."""
        self.play()
        real, after = os.fsync, None

        def fsync(fd):
            nonlocal after
            after -= 1
            if after < 0:
                raise OSError(28, 'No space left on device')
            real(fd)
        for count in range(100):
            after = count
            with mock.patch('os.fsync', fsync):
                code, _, err = self.save()
            if code == 0:
                break
            self.assertIn('No space left', err)
            self.assertEqual(set(self.files()) - {'one.log'}, set(), count)
        self.assertGreater(count, 10)
        self.assertIsNone(self.sets.get('one').problem)

    def test_too_little_space(self):
        cluster = self.play(c={'ram': 1 << 50})
        code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn('the checkpoint may become', err)
        self.assertNotIn('tlm-checkpoint', cluster.vms['a'].asked)

    def test_migration_under_way(self):
        cluster = self.play()
        cluster.vms['a'].state = 'active'
        cluster.vms['a'].stage = 'live'
        code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn('a: a migration is under way', err)
        self.assertNotIn('migrate_cancel', cluster.vms['a'].asked)

    def test_file_is_not_here(self):
        """QEMU writes elsewhere."""
        cluster = self.play()
        with mock.patch('tlmtest.played.Played._complete', lambda vm:
                        vm._end('completed')):
            code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn('No such file', err)
        self.assertEqual(self.files(), [])
        self.assert_run_on(cluster)


class Killed(Case):
    """A coordinator that is gone."""

    # A step, and the VM that keeps it there
    STEPS = {'connect': {}, 'prepare': {'takes': {'live': None}},
             'cut': {'takes': {'ready': None}},
             'complete': {'takes': {'flush': None}}}

    def start(self, *words):
        p = subprocess.Popen(
            self.words('save', '--window', '300ms', *words, 'one',
                       *self.named), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.kill)
        return p

    def until_step(self, p, step):
        while step not in (line := p.stdout.readline()):
            self.assertTrue(line, p.stderr.read() if p.poll() else None)

    def killed_at(self, step, signum):
        cluster = self.play()
        self.assert_saved('old')
        how = self.STEPS[step]
        cluster.vms['b'].takes = dict(how.get('takes', {}))
        if step == 'connect':
            cluster.vms['b'].hangs = {'query-version'}
        p = self.start('--window', '60s') if signum == signal.SIGINT else \
            self.start()
        self.until_step(p, step)
        if step == 'cut':
            wait_until(lambda: cluster.vms['a'].state == 'pre-switchover')
        if step == 'complete':
            wait_until(lambda: cluster.vms['a'].state == 'completed')
        p.send_signal(signum)
        p.wait(LIMIT_S)
        return cluster, p

    def test_killed(self):
        for step in self.STEPS:
            with self.subTest(step):
                cluster, _ = self.killed_at(step, signal.SIGKILL)
                self.assertIsNone(self.sets.get('old').problem)
                # Nobody has told them so: within the gate's time
                for vm in cluster.vms.values():
                    wait_until(lambda vm=vm: vm.running)
                if step != 'connect':
                    _, out, _ = self.call(look.main_list, 'list')
                    self.assertIn('one: no set', out)
                cluster.soon(lambda: self.unblock(cluster.vms['b']))
                code, out, err = self.call(look.main_prune, 'prune',
                                           '--keep', '9')
                self.assertEqual(code, 0, err)
                self.assertEqual(self.files(), sorted(self.of_set('old')))
                self.assert_run_on(cluster)
                self.assert_saved('two')
                self.doCleanups()
                self.setUp()

    @staticmethod
    def unblock(vm):
        """What kept it from going on has an end."""
        vm.takes, vm.hangs, vm.hung = {}, set(), False
        if vm.stage == 'live':
            vm._ready()
        elif vm.stage == 'flush':
            vm._complete()

    def test_next_save_finds_it(self):
        cluster, _ = self.killed_at('cut', signal.SIGKILL)
        cluster.soon(lambda: self.unblock(cluster.vms['b']))
        self.assert_saved('one')
        self.assert_run_on(cluster)

    def test_interrupted(self):
        for step in self.STEPS:
            if step == 'connect':
                continue
            for signum in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(step=step, signum=signum):
                    cluster, p = self.killed_at(step, signum)
                    self.assertIn('nothing is left', p.stderr.read())
                    self.assertEqual(p.returncode, 130)
                    self.assertEqual(self.files(), sorted(self.of_set('old')))
                    self.assert_run_on(cluster)
                    self.doCleanups()
                    self.setUp()

    def test_log_that_cannot_be_read(self):
        cluster = self.play()
        for text in ('nonsense\n', '{"step": 1}\n', '[]\n', '{"step": "begin"',
                     ''):
            with open(os.path.join(self.dir, 'x.log'), 'w') as f:
                f.write(text)
            _, _, err = self.call(look.main_prune, 'prune', '--keep', '9')
            if 'x.log' in self.files():
                self.assertIn('x: what is left over could not be', err)
            self.assert_saved(f'n{len(text)}')
        self.assert_run_on(cluster)

    def test_killed_while_it_removes(self):
        self.play()
        self.assert_saved()
        with mock.patch.object(Sets, 'remove_members',
                               side_effect=KeyboardInterrupt), \
                self.assertRaises(KeyboardInterrupt):
            self.sets.remove('one')
        self.assertEqual(self.sets.entries(), [])
        self.assertEqual(self.sets.leftovers(), ['one'])
        self.call(look.main_prune, 'prune', '--keep', '9')
        self.assertEqual(self.files(), [])

    def test_anothers_checkpoint_of_the_same_name(self):
        cluster, _ = self.killed_at('prepare', signal.SIGKILL)
        catalogue = Catalogue(os.path.join(self.dir, 'a'))
        part = catalogue.path('one', '.part')
        with open(part, 'w'):
            pass
        catalogue.add('one', {'name': 'one', 'created': '2026', 'file':
                              manifest.of_file(os.stat(part), [])})
        cluster.soon(lambda: self.unblock(cluster.vms['b']))
        self.call(look.main_prune, 'prune', '--keep', '9')
        self.assertIsNone(catalogue.get('one').problem)

    def test_two_coordinators(self):
        cluster = self.play(b={'takes': {'live': None}})
        p = self.start()
        self.until_step(p, 'prepare')
        code, _, err = self.save('two')
        self.assertEqual(code, 1)
        self.assertIn('another "tlm cluster" is at work', err)
        code, _, err = self.call(look.main_prune, 'prune', '--keep', '1')
        self.assertEqual(code, 1)
        with tempfile.TemporaryDirectory() as other, \
                mock.patch.object(channel, 'CONNECT_S', 0.5):
            # Another directory: the monitors are taken
            code, _, err = self.call(
                save.main, 'save', 'two', *self.named, '--dir', other)
        self.assertEqual(code, 1)
        self.assertIn('another client', err)
        p.send_signal(signal.SIGINT)
        p.wait(LIMIT_S)
        self.assert_run_on(cluster)


class Incremental(Case):
    # Where files share no data: what is played cannot be joined
    where = '/dev/shm'

    def increment(self, name):
        code, _, err = self.save(name, '--incremental')
        self.assertEqual(code, 0, err)
        return {m['name']: m for m in self.sets.get(name).manifest['members']}

    def parents(self, name):
        return {vm: m.get('parent') for vm, m in self.increment(name).items()}

    def names(self):
        self.assertEqual([e.problem for e in self.sets.entries() if e.problem],
                         [])
        return [e.name for e in self.sets.entries()]

    def prune(self, keep):
        """Returns what is said of those that stay."""
        code, _, err = self.call(look.main_prune, 'prune', '--keep', str(keep))
        self.assertEqual(code, 0, err)
        return err

    def test_chain(self):
        self.play()
        for name, parent in (('one', None), ('two', 'one'), ('three', 'two')):
            self.assertEqual(self.parents(name), dict.fromkeys(VMS, parent))
        self.assertIn('a/two.overlay', self.files())
        self.assertEqual(self.call(look.main_verify, 'verify')[0], 0)
        with open(os.path.join(self.dir, 'b/one.checkpoint'), 'r+b') as f:
            f.write(b'!')
        _, out, _ = self.call(look.main_verify, 'verify', '--json')
        for why in json.loads(out).values():
            self.assertRegex(why, 'b: .*is not as it was written')

    def test_prune(self):
        self.play()
        for name in ('one', 'two', 'three'):
            self.increment(name)
        err = self.prune(1)
        self.assertIn('one stays', err)
        self.assertIn('two stays', err)
        self.assertEqual(self.names(), ['one', 'two', 'three'])
        self.assert_saved('four')
        self.assertEqual(self.prune(2).count('stays'), 2)
        self.assertEqual(self.prune(1), '')
        self.assertEqual(self.files(), sorted(self.of_set('four')))

    def test_parent_that_is_lost(self):
        self.play()
        for name in ('one', 'two'):
            self.increment(name)
        os.unlink(os.path.join(self.dir, 'c/one.checkpoint'))
        self.assertIn("not whole: c: its parent 'one'",
                      self.sets.get('two').problem)

    def test_chain_of_one_has_ended(self):
        """The set is one all the same."""
        cluster = self.play()
        self.increment('one')
        cluster.vms['b'].newest = 'anothers'
        members = self.increment('two')
        self.assertIn('is not known', members['b']['full-reason'])
        self.assertEqual([members[vm].get('parent') for vm in VMS],
                         ['one', None, 'one'])
        _, out, _ = self.call(look.main_show, 'show')
        self.assertIn('b, whole: Generation', out)
        self.assertIn('c, needs one', out)
        # "a" of "one" is needed: all of the set stays
        self.assertIn('one stays', self.prune(1))
        self.assertEqual(self.names(), ['one', 'two'])

    def test_one_cannot(self):
        self.play(c={'chains': False})
        self.increment('one')
        members = self.increment('two')
        self.assertIn('do not go with this', members['c']['full-reason'])
        self.assertEqual(members['a']['parent'], 'one')

    def test_one_refuses(self):
        """For another reason: that it was incremental is not to blame."""
        self.play(c={'refuses': {'tlm-checkpoint'}})
        code, _, err = self.save('one', '--incremental')
        self.assertEqual(code, 1)
        self.assertIn('c: tlm-checkpoint: it does not want to', err)
        self.assertEqual(self.files(), [])

    def test_a_set_that_failed(self):
        """Some of its VMs had come to their end."""
        cluster = self.play()
        self.increment('one')
        cluster.vms['b'].fails = 'flush'
        self.assertEqual(self.save('two', '--incremental')[0], 1)
        self.assertEqual(self.files(), sorted(self.of_set('one')))
        cluster.vms['b'].fails = None
        self.assertEqual(self.parents('two'), dict.fromkeys(VMS, 'one'))

    def test_what_is_left_over_is_no_parent(self):
        """It will be removed."""
        self.play()
        self.increment('one')
        self.increment('two')
        begin = {k: self.sets.get('two').manifest[k]
                 for k in ('name', 'id', 'members')}
        os.unlink(self.sets.path('two', '.json'))
        log = journal.Journal(self.sets.path('two', '.log'))
        log.begin(**begin)
        log.note('settings', of={'a': {}})
        log.close()
        with mock.patch.object(recover, 'release', side_effect=MigrateError(
                'nobody knows')):
            self.assertEqual(self.parents('three'), dict.fromkeys(VMS, 'one'))
        with mock.patch.object(recover, 'release'):
            self.prune(9)
        self.assertEqual(self.names(), ['one', 'three'])

    def test_watch(self):
        """There are not more and more of them."""
        self.play()
        p = subprocess.Popen(
            self.words('watch', '--every', '1s', '--keep', '2', '--json',
                       '--incremental', *self.named),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.kill)
        whole = []
        for _ in range(5):
            member = json.loads(p.stdout.readline())['members'][0]
            whole.append('parent' not in member)
            if whole[-1] and len(whole) > 1:
                self.assertEqual(member['full-reason'],
                                 '2 in a row need each other')
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=LIMIT_S)
        self.assertEqual(whole, [True, False, True, False, True])
        self.prune(2)
        self.assertLessEqual(len(self.names()), 3)


class Look(Case):
    def setUp(self):
        super().setUp()
        self.cluster = self.play()
        for name in ('one', 'two', 'three'):
            self.assert_saved(name)

    def test_list_and_show(self):
        _, out, _ = self.call(look.main_list, 'list')
        self.assertEqual([line.split()[0] for line in out.splitlines()],
                         ['one', 'two', 'three'])
        for words, wanted in (((), 'three'), (('one',), 'one')):
            code, out, _ = self.call(look.main_show, 'show', '--json', *words)
            self.assertEqual((code, json.loads(out)['name']), (0, wanted))

    def test_not_whole(self):
        for damage, why in (
                (lambda p: os.unlink(p + '.json'), 'there is no checkpoint'),
                (lambda p: os.unlink(p + '.checkpoint'), 'No such file'),
                (lambda p: os.truncate(p + '.checkpoint', 1), 'has 1 bytes'),
                (lambda p: os.truncate(p + '.json', 9), 'cannot be read'),
                (self.replace, 'not the one of the set')):
            self.assert_saved('x')
            damage(os.path.join(self.dir, 'b/x'))
            entry = self.sets.get('x')
            self.assertRegex(entry.problem, f'not whole: b: .*{why}')
            _, out, _ = self.call(look.main_list, 'list')
            self.assertIn('x: not whole', out)
            code, _, err = self.call(restore.main, 'restore', 'x')
            self.assertEqual(code, 1)
            self.assertIn('not whole', err)
            code, out, _ = self.call(look.main_verify, 'verify', 'x')
            self.assertEqual(code, 1)
            self.sets.remove('x')

    def replace(self, path):
        content = manifest.read(path + '.json')
        del content['checksum']
        manifest.write(path + '.json', {**content, 'created': '2020'})

    def test_verify(self):
        self.assertEqual(self.call(look.main_verify, 'verify')[0], 0)
        with open(os.path.join(self.dir, 'c/two.checkpoint'), 'r+b') as f:
            f.write(b'!')
        code, out, _ = self.call(look.main_verify, 'verify', '--json')
        found = json.loads(out)
        self.assertEqual((code, found['one'], found['three']), (1, None, None))
        self.assertIn('c: the file is not as it was', found['two'])

    def test_prune(self):
        os.unlink(os.path.join(self.dir, 'a/two.json'))
        code, out, err = self.call(look.main_prune, 'prune', '--keep', '1')
        self.assertEqual((code, out), (0, 'Removed one\n'))
        self.assertIn('two is left as it is', err)
        self.assertIsNone(self.sets.get('three').problem)
        self.assertNotIn('a/one.checkpoint', self.files())

    def test_prune_leaves_what_is_needed(self):
        """By an incremental checkpoint of one of the VMs."""
        catalogue = Catalogue(os.path.join(self.dir, 'b'))
        part = catalogue.path('child', '.part')
        with open(part, 'w'):
            pass
        catalogue.add('child', {
            'name': 'child', 'created': '2027', 'parent': 'one',
            'parent-generation': None,
            'file': manifest.of_file(os.stat(part), [])})
        self.assertIsNone(catalogue.get('child').problem)
        code, out, err = self.call(look.main_prune, 'prune', '--keep', '1')
        self.assertEqual((code, out), (0, 'Removed two\n'))
        self.assertIn('one stays', err)
        self.assertIsNone(self.sets.get('one').problem)
        with self.assertRaisesRegex(MigrateError, 'in b an incremental'):
            self.sets.remove('one')
        catalogue.remove('child')
        code, _, err = self.call(look.main_prune, 'prune', '--keep', '1')
        self.assertEqual(code, 0, err)

    def test_moved(self):
        """Members within the directory go with it."""
        other = self.dir + '-moved'
        os.rename(self.dir, other)
        self.assertIsNone(Sets(other).get('one').problem)
        os.rename(other, self.dir)

    def test_manifest_that_was_changed(self):
        path = os.path.join(self.dir, 'one.json')
        with open(path) as f:
            text = f.read()
        with open(path, 'w') as f:
            f.write(text.replace('"dir": "b"', '"dir": "a"'))
        self.assertIn('not as it was written', self.sets.get('one').problem)

    def test_watch(self):
        self.cluster.vms['b'].refuses = {'tlm-checkpoint'}
        p = subprocess.Popen(
            self.words('watch', '--every', '1s', '--keep', '2', *self.named),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertIn('Not saved: b: ', p.stderr.readline())
        self.cluster.vms['b'].refuses = ()
        said = []
        while said.count('Saved') < 2:
            line = p.stdout.readline()
            self.assertTrue(line)
            said.append(line.split()[0])
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=LIMIT_S)
        self.assertEqual(p.returncode, 0)
        code, _, _ = self.call(look.main_prune, 'prune', '--keep', '2')
        self.assertEqual(len(self.sets.entries()), 2)
        self.assert_run_on(self.cluster)

    def test_restore_of_vms_that_run(self):
        """Or whose command line is not known."""
        code, _, err = self.call(restore.main, 'restore', 'one')
        self.assertEqual(code, 1)
        self.assertIn('command line', err)

    def test_lock_of_a_member(self):
        with open(os.path.join(self.dir, 'b/.lock'), 'w') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            code, _, err = self.save('four')
        self.assertEqual(code, 1)
        self.assertIn('another "tlm checkpoint" is at work', err)


class Config(Case):
    def read(self, text):
        path = os.path.join(self.dir, 'c.toml')
        with open(path, 'w') as f:
            f.write(text)
        return config.read(path)

    def test_file(self):
        vms = self.read('[vm.a]\nqmp = "/x"\ndir = "d"\ndisk = "auto"\n'
                        '[vm.b]\nqmp = "h:1"\ncommand = ["q", "-S"]\n'
                        'waiting = "h:2"\n')
        self.assertEqual(vms, [
            config.Vm('a', '/x', dir=os.path.join(self.dir, 'd'),
                      disk='auto'),
            config.Vm('b', 'h:1', command=('q', '-S'), waiting='h:2')])

    def test_bad_files(self):
        for text, why in (('x', 'c.toml'), ('[a]', "'a' is not known"),
                          ('vm = 3', 'no table'), ('vm.a = 3', 'no table'),
                          ('[vm.a]\nq = 1', "'q' is not known"),
                          ('[vm.a]\nqmp = 1', 'cannot have'),
                          ('[vm.a]\ncommand = []', 'cannot have'),
                          ('[vm.a]\ncommand = [1]', 'cannot have'),
                          ('[vm."../a"]\nqmp = "x"', 'write a name')):
            with self.subTest(text), \
                    self.assertRaisesRegex(MigrateError, why):
                self.read(text)
        with self.assertRaisesRegex(MigrateError, 'No such file'):
            config.read('/nowhere')

    def test_words(self):
        for words, why in (((), 'name the VMs'),
                           (('a=/x', 'a=/y'), 'two VMs have the name a'),
                           (('a=/x', 'b=/x'), 'two VMs have the QMP socket'),
                           (('a=domain:x', 'b=domain:x'),
                            'two VMs have the domain'),
                           (('--disk', 'virsh', 'a=/x', 'b=domain:x'),
                            "a: 'virsh' is for the disks of domains"),
                           (('--disk', 'auto', '--disk', 'virsh', 'a=/x'),
                            'only --disk auto'),
                           (('--disk', 'n=o', 'a=/x'), 'only --disk auto')):
            code, _, err = self.call(save.main, 'save', 'one', *words)
            self.assertEqual(code, 1)
            self.assertIn(why, err)
        run = subprocess.run(self.words('save', 'one', '/x'), text=True,
                             capture_output=True, check=False)
        self.assertEqual(run.returncode, 2)
        self.assertIn('write NAME=SOCKET', run.stderr)


if __name__ == '__main__':
    unittest.main()
