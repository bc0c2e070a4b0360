#!/usr/bin/python3
#
# TLM migrations by virsh between two hosts with unmodified libvirt
#
# TLM_REPEAT: how many domains play ping-pong from each of the hosts (default
# 1; 4 are all combinations); more than 1 also breaks migrations in every
# combination of failure, stage and mode, instead of two for each failure.
# Meson's time limit is for 1. By hand, without one:
#   TLM_REPEAT=20 tests/lib/run-unittest tests/integration/test_libvirt.py \
#       PingPong
# TLM_LIBVIRT: see tlmtest/virt.py.
#
# Nothing here is a race with a migration: what has to happen in the middle of
# one happens on a link that would need minutes for the rest of it.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import unittest

from tlmtest import env
from tlmtest.guests import LinuxGuest
from tlmtest.virt import Domain, Pair, missing_libvirt
from tlmtest.vm import VmError, wait_until

TOOL = (os.path.join(env.ROOT, 'scripts/tlm'), 'virsh-migrate')
REPEAT = int(os.environ.get('TLM_REPEAT', '1'))
# Mbit/s.  At HOLD the working set alone takes more than two minutes
FAST, HOLD = 2400, 8
# Pages/s: stock pre-copy ends, too, on the way back
STEADY = 20000
P2P = ('--p2p',)
DIRECT = ()                     # managed by the client, virsh
# The disk is shared, but libvirt cannot tell that of a local file system
ALWAYS = ('--unsafe',)

pair = None


def setUpModule():
    global pair
    reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU) or missing_libvirt()
    if reason:
        raise unittest.SkipTest(reason)
    pair = Pair(rate=FAST)


def tearDownModule():
    if pair:
        pair.close()


def child_of(process):
    """nsenter's child: what was to be run."""
    def look():
        path = f'/proc/{process.pid}/task/{process.pid}/children'
        with open(path) as f:
            return f.read().split()
    return int(wait_until(look, 60, 'nsenter has a child')[0])


class VirtCase(unittest.TestCase):
    def setUp(self):
        self.a, self.b = pair.hosts
        self.roles(self.a, self.b)
        pair.link.set_rate(FAST)

    @contextlib.contextmanager
    def step(self, **what):
        """Names a part of a test that the next parts build on."""
        try:
            yield
        except Exception as e:
            e.add_note(f'step: {what}')
            raise

    def roles(self, source, destination):
        """Who has TLM, and who has not."""
        source.use_emulator(env.QEMU)
        destination.use_emulator(env.STOCK_QEMU)

    @staticmethod
    def make_domain(persistent=True, vcpus=1, shared=True, disk_mb=16,
                    **settings):
        settings.setdefault('rate', STEADY)
        guest = LinuxGuest(mem_mb=384, ws=128, vcpus=vcpus, **settings)
        return Domain(pair, guest, persistent=persistent, shared=shared,
                      disk_mb=disk_mb)

    def start(self, host, **settings):
        domain = self.make_domain(**settings)
        self.addCleanup(domain.close)
        return domain.start(host)

    def words(self, domain, host, *options):
        return (*options, *ALWAYS, *domain.options(), domain.name,
                pair.other(host).uri)

    def tool(self, domain, host, *options):
        """Migrate by "tlm virsh-migrate"; returns what it says at the end."""
        pair.link.set_rate(HOLD)
        p = host.popen(*TOOL, '--json',
                       *self.words(domain, host, *options),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.watch(p)
        # It is TLM, and the tool sees that
        said = self.wait_line(p.stderr, r' live +\d+ %')
        self.wait_stage(domain, host, 'live', p)
        pair.link.set_rate(FAST)
        said += p.stderr.read()
        out = p.stdout.read()
        self.assertEqual(p.wait(), 0, said)
        return json.loads(out)

    def watch(self, process):
        """It ends with the test at the latest."""
        for stream in filter(None, (process.stdout, process.stderr)):
            self.addCleanup(stream.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def wait_line(self, stream, regex):
        """Read the output of a command up to a line; returns it."""
        said = ''
        for line in stream:
            said += line
            if re.search(regex, line):
                return said
        self.fail(f'no {regex!r} in {said!r}')

    def begin(self, domain, host, *options):
        """The same, not waiting for its end."""
        return self.run_at(host, *TOOL, *self.words(domain, host, *options))

    def run_at(self, host, *command):
        p = host.popen(*command, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT)
        self.watch(p)
        return p

    def end(self, process):
        """(exit status, output that has not been read yet)"""
        out = process.stdout.read()
        return process.wait(), out

    def wait_stage(self, domain, host, stage, process):
        """Wait until the migration is in the middle of a stage, where it
        stays as long as the link is at HOLD."""
        def look(wanted, least):
            if process.poll() is not None:
                self.fail(f'ended early: {process.stdout.read()}')
            info = host.qmp(domain.name, 'query-migrate')
            if info.get('tlm', {}).get('stage') != wanted:
                return None
            sent = info['ram']['transferred']
            return sent if sent > least else None
        sent = wait_until(lambda: look('live', 1 << 20), 60, 'stage live')
        if stage == 'stop':
            host.qmp(domain.name, 'migrate-tlm-switchover')
            sent = wait_until(lambda: look('stop', 0), 60, 'stage stop')
            wait_until(lambda: look('stop', sent), 60,
                       'RAM is sent with the guest stopped')

    def settings(self, domain, host):
        """All capabilities and parameters of the source."""
        return (host.qmp(domain.name, 'query-migrate-capabilities'),
                host.qmp(domain.name, 'query-migrate-parameters'))

    def assert_lives_at(self, domain, host):
        """There and nowhere else, with all of its memory right."""
        other = pair.other(host)
        wait_until(lambda: domain.where() == [host], 60,
                   f'the guest runs at {host.name} only; it does at '
                   f'{domain.where()}')
        if other.alive():
            wait_until(lambda: other.qemu_pid(domain.name) is None, 60,
                       f'nothing is left at {other.name}')
        domain.guest.wait_alive(domain.at[host])
        domain.guest.wait_scans(domain.at[host])
        self.assertEqual(domain.twice(), set())
        disk = host.qmp(domain.name, 'query-block')[0]['inserted']
        self.assertTrue(disk.get('active', True), disk)

    def assert_figures(self, info):
        """What the tool has seen last.  libvirt may have ended QEMU before
        it could see the end."""
        self.assertIn('tlm', info)
        self.assertGreater(info['tlm']['ram']['mtx'], 0)
        if info['status'] == 'completed':
            self.assertEqual(info['tlm']['stage'], 'done')
            self.assertIn('downtime', info['tlm'])
        else:
            self.assertIn(info['status'],
                          ('active', 'pre-switchover', 'device'))

    def assert_as_before(self, domain, host, before):
        for now, then in zip(self.settings(domain, host), before):
            self.assertEqual(now, then)


class AtHome(VirtCase):
    """Tests that find and leave the domain at host A share one."""

    domain = None

    @classmethod
    def tearDownClass(cls):
        if cls.domain:
            cls.domain.close()

    def setUp(self):
        super().setUp()
        cls = type(self)
        if cls.domain is None or cls.domain.where() != [self.a]:
            self.tearDownClass()
            cls.domain = self.make_domain().start(self.a)
        self.before = self.settings(self.domain, self.a)
        pair.link.set_rate(HOLD)

    def assert_nothing_changed(self):
        self.assert_lives_at(self.domain, self.a)
        self.assert_as_before(self.domain, self.a, self.before)


class PingPong(VirtCase):
    """By TLM to a stock QEMU, and back as libvirt does without TLM."""

    mark = 0

    def hop(self, domain, source, migrate):
        """migrate() it to the other host; its disk is the same there."""
        self.mark += 1
        domain.disk_io(source, f'write -P {self.mark % 256} 0 64k')
        migrate()
        self.assert_lives_at(domain, pair.other(source))
        domain.disk_io(pair.other(source),
                       f'read -P {self.mark % 256} 0 64k')

    def play(self, run, home):
        away = pair.other(home)
        self.roles(home, away)
        # All combinations in two runs, and in one run from both sides
        even = (run + pair.hosts.index(home)) % 2 == 0
        ways = [(P2P, ()), (DIRECT, ('--tls',))] if even else \
            [(P2P, ('--tls',)), (DIRECT, ())]
        persistent = (run // 2 + pair.hosts.index(home)) % 2 == 0
        domain = self.start(home, persistent=persistent)
        for mode, tls in ways:
            with self.step(run=run, persistent=persistent, mode=mode,
                           tls=tls):
                self.hop(domain, home, lambda: self.assert_figures(
                    self.tool(domain, home, *mode, *tls)))
                self.assert_stock(domain, away)
                self.hop(domain, away, lambda: away.virsh(
                    'migrate', '--live', '--parallel',
                    *self.words(domain, away, *mode, *tls)))
        domain.close()

    def assert_stock(self, domain, host):
        exe = os.readlink(f'/proc/{host.qemu_pid(domain.name)}/exe')
        self.assertEqual(exe, os.path.realpath(env.STOCK_QEMU))

    def test_from_a(self):
        for run in range(REPEAT):
            self.play(run, self.a)

    def test_from_b(self):
        for run in range(REPEAT):
            self.play(run, self.b)


class Observed(VirtCase):
    def test_plain_virsh(self):
        """As the guide has it without the tool; domjobinfo and --verbose."""
        pair.link.set_rate(HOLD)
        domain = self.start(self.a)
        self.a.virsh('qemu-monitor-command', domain.name, '--hmp',
                     'migrate_set_capability tlm on')
        # A libvirt with this project's patches would turn it off
        known = '--tlm ' in self.a.virsh('help', 'migrate')
        p = self.run_at(self.a, 'virsh', 'migrate', '--live', '--parallel',
                        '--verbose', *(['--tlm'] if known else []),
                        *self.words(domain, self.a, *P2P))
        self.wait_stage(domain, self.a, 'live', p)
        job = self.a.virsh('domjobinfo', domain.name)
        self.assertRegex(job, r'Operation: +Outgoing migration')
        self.assertRegex(job, r'Memory processed: +[1-9]')
        self.assertRegex(job, r'Memory remaining: +[1-9]')
        pair.link.set_rate(FAST)
        code, out = self.end(p)
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r'Migration: \[ *\d+ *')
        self.assertRegex(out, r'Migration: \[100')
        self.assert_lives_at(domain, self.b)
        job = self.b.virsh('domjobinfo', '--completed', domain.name)
        self.assertRegex(job, r'Job type: +Completed')
        self.assertRegex(job, r'Total downtime: +\d+ +ms')

    def test_save_with_tlm_left_on(self):
        """By a tool that was killed, for instance: libvirt goes on as ever,
        to a file and to the other host."""
        domain = self.start(self.a)

        def leave_on():
            self.a.virsh('qemu-monitor-command', domain.name, '--hmp',
                         'migrate_set_capability tlm on')
        path = os.path.join(pair.dir, 'saved')
        leave_on()
        self.a.virsh('save', domain.name, path)
        self.a.virsh('restore', path)
        os.unlink(path)
        domain.guest.wait_alive(domain.at[self.a])
        leave_on()
        self.a.virsh('managedsave', domain.name)
        self.a.virsh('start', domain.name)
        domain.guest.wait_alive(domain.at[self.a])
        leave_on()
        self.a.virsh('migrate', '--live', *self.words(domain, self.a, *P2P))
        self.assert_lives_at(domain, self.b)

    def test_speed_can_be_set_meanwhile(self):
        domain = self.start(self.a)
        pair.link.set_rate(HOLD)
        p = self.begin(domain, self.a, *P2P, '--bandwidth', '4MiB/s')
        said = self.wait_line(p.stdout, r'live +\d+ %')
        self.wait_stage(domain, self.a, 'live', p)
        self.assertEqual(self.settings(domain, self.a)[1]['max-bandwidth'],
                         4 << 20)
        self.a.virsh('migrate-setspeed', domain.name, '200')
        self.assertEqual(self.settings(domain, self.a)[1]['max-bandwidth'],
                         200 << 20)
        pair.link.set_rate(FAST)
        code, out = self.end(p)
        self.assertEqual(code, 0, said + out)
        self.assertRegex(out, r'Completed( in .*, downtime|; QEMU ended)')
        self.assert_lives_at(domain, self.b)

    def test_timeout_suspends(self):
        domain = self.start(self.a, rate=0)
        pair.link.set_rate(HOLD)
        p = self.begin(domain, self.a, '--timeout', '1')
        wait_until(lambda: self.a.domain_state(domain.name) == 'paused', 60,
                   'virsh has suspended the guest')
        # ... not because that is all
        ram = self.a.qmp(domain.name, 'query-migrate')['ram']
        self.assertGreater(ram['remaining'], 64 << 20)
        pair.link.set_rate(FAST)
        code, out = self.end(p)
        self.assertEqual(code, 0, out)
        self.assert_lives_at(domain, self.b)


class Ended(AtHome):
    """Migrations that do not complete: all is as before."""

    def test_dry_run(self):
        p = self.begin(self.domain, self.a, '--dry-run', '--link',
                       '1Gbit/s', '--bound', '100ms')
        code, out = self.end(p)
        self.assertEqual(code, 3, out)
        self.assertIn('bound 100 ms: cannot be kept', out)
        self.assert_nothing_changed()

    def test_interrupted(self):
        for mode in (P2P, DIRECT):
            with self.step(mode=mode):
                p = self.begin(self.domain, self.a, *mode, '--bound',
                               '3000s')
                self.wait_stage(self.domain, self.a, 'live', p)
                self.assertNotEqual(self.settings(self.domain, self.a),
                                    self.before)
                os.kill(child_of(p), signal.SIGINT)
                code, out = self.end(p)
                self.assertEqual(code, 130, out)
                self.assertIn('The domain at the source is running', out)
                self.assert_nothing_changed()
        # ... and it can be migrated now
        pair.link.set_rate(FAST)
        self.assert_figures(self.tool(self.domain, self.a, *P2P))
        self.assert_lives_at(self.domain, self.b)

    def test_signal_to_the_process_group(self):
        """As from a terminal that is closed, or from timeout(1)."""
        cases = [(signal.SIGINT, P2P), (signal.SIGTERM, DIRECT),
                 (signal.SIGHUP, P2P)]
        if REPEAT > 1:
            cases = [(s, m) for s, _ in cases for m in (P2P, DIRECT)]
        for signum, mode in cases:
            with self.step(signum=signum, mode=mode):
                p = self.run_at(self.a, 'setsid', *TOOL,
                                *self.words(self.domain, self.a, *mode))
                self.wait_stage(self.domain, self.a, 'live', p)
                os.killpg(child_of(p), signum)
                code, out = self.end(p)
                self.assertEqual(code, 130, out)
                self.assert_nothing_changed()

    def test_virsh_is_killed(self):
        """... and, with p2p, the migration goes on without it."""
        for mode in (P2P, DIRECT):
            with self.step(mode=mode):
                p = self.begin(self.domain, self.a, *mode)
                self.wait_stage(self.domain, self.a, 'live', p)
                os.kill(self.a.pid_of(lambda comm, args: comm == 'virsh' and
                                      'migrate' in args), signal.SIGKILL)
                code, out = self.end(p)
                self.assertIn(code, (1, 3), out)
                self.assert_nothing_changed()

    def test_bound_out_of_reach(self):
        p = self.begin(self.domain, self.a, '--bound', '1s',
                       '--bound-action', 'cancel')
        code, out = self.end(p)
        self.assertEqual(code, 1, out)
        self.assertIn('The time bound of 1000 ms cannot be kept', out)
        self.assert_nothing_changed()

    def test_refused_parameter(self):
        p = self.begin(self.domain, self.a, '--set', 'tlm-epoch=5')
        code, out = self.end(p)
        self.assertEqual(code, 1, out)
        self.assertIn("'tlm-epoch' expects", out)
        self.assert_nothing_changed()

    def test_cancelled_by_somebody_else(self):
        p = self.begin(self.domain, self.a)
        self.wait_stage(self.domain, self.a, 'live', p)
        self.a.virsh('domjobabort', self.domain.name)
        code, out = self.end(p)
        self.assertEqual(code, 3, out)
        self.assert_nothing_changed()

    def test_virsh_that_does_not_return(self):
        """As virsh sometimes does if a migration fails soon."""
        fake = os.path.join(pair.dir, 'virsh')
        with open(fake, 'w') as f:
            f.write('#!/bin/sh\n'
                    '/usr/bin/virsh "$@"\n'
                    '[ "$1" != migrate ] || exec sleep 1000\n')
        os.chmod(fake, 0o755)
        code, out = self.end(self.run_at(
            self.a, 'env', f'PATH={pair.dir}:/usr/bin:/bin', *TOOL,
            '--bound', '1s', '--bound-action', 'cancel',
            *self.words(self.domain, self.a)))
        self.assertEqual(code, 1, out)
        self.assertIn('virsh did not notice', out)
        self.assertIn('The time bound of 1000 ms cannot be kept', out)
        self.assert_nothing_changed()


class Storage(VirtCase):
    """Each host has a disk of its own; libvirt copies it before QEMU
    migrates, and the bound is one of both together."""

    def setUp(self):
        super().setUp()
        self.domain = self.start(self.a, shared=False, disk_mb=32)
        self.domain.disk_io(self.a, 'write -P 5 0 32M')
        self.before = self.settings(self.domain, self.a)
        # The disk alone takes more than half a minute
        pair.link.set_rate(HOLD)

    def query(self, command):
        return self.a.qmp(self.domain.name, command)

    def assert_copying(self):
        self.assertEqual(self.query('query-migrate'), {})
        self.assertEqual([j['type'] for j in self.query('query-block-jobs')],
                         ['mirror'])

    def bound(self):
        return self.query('query-migrate-parameters')['tlm-time-bound']

    def assert_still_at_home(self):
        self.assert_lives_at(self.domain, self.a)
        self.assertEqual(self.query('query-block-jobs'), [])
        self.assertEqual(self.query('query-migrate'), {})   # never began
        self.assert_as_before(self.domain, self.a, self.before)

    def test_disks_are_in_the_bound(self):
        # The cap is for the memory, which is to last until it was looked at
        p = self.begin(self.domain, self.a, *P2P, '--copy-storage-all',
                       '--bandwidth', '4MiB/s', '--bound', '10min')
        said = self.wait_line(p.stdout, r'disks +\d+ %.* left.*bound in \d')
        begun = time.monotonic()        # or earlier
        self.assert_copying()
        first = self.bound()
        self.assertLessEqual(first, 600000)
        wait_until(lambda: self.bound() < first, 60, 'the bound goes down')
        pair.link.set_rate(FAST)
        copying = begun

        def memory():
            nonlocal copying
            now = time.monotonic()
            info = self.query('query-migrate')
            if not info:
                copying = now           # still
            return info
        wait_until(memory, 120, "QEMU's migration begins")
        left = 600000 - (copying - begun) * 1000
        wait_until(lambda: 0 < self.bound() <= left, 60,
                   'the time for the disks is off the bound')
        said += self.wait_line(p.stdout, r'live +\d+ %')
        self.a.virsh('migrate-setspeed', self.domain.name, '2000')
        code, out = self.end(p)
        self.assertEqual(code, 0, said + out)
        self.assertRegex(out, r'disks +\d.* copied before that, in \d')
        self.assert_lives_at(self.domain, self.b)
        self.domain.disk_io(self.b, 'read -P 5 0 32M')

    def test_bound_passes_while_disks_are_copied(self):
        """The guest writes as fast as is copied: that would never end."""
        p = self.begin(self.domain, self.a, '--copy-storage-all',
                       '--bound', '4s', '--bound-action', 'cancel')
        said = self.wait_line(p.stdout, r'disks +\d+ %')
        self.assert_copying()
        # from now on there is a job, or the tool has cancelled it
        with contextlib.suppress(VmError):
            while p.poll() is None:
                self.domain.disk_io(self.a, 'write -P 6 0 32M')
        code, out = self.end(p)
        self.assertEqual(code, 1, said + out)
        self.assertRegex(out, 'The time bound of 4.00 s has passed while '
                         'disks were copied: .* were left. Cancelled')
        self.assertRegex(out, 'The domain at the source is running')
        self.assert_still_at_home()

    def test_bound_that_may_be_overrun(self):
        p = self.begin(self.domain, self.a, *P2P, '--copy-storage-all',
                       '--bound', '2s')
        said = self.wait_line(p.stdout, r'The bound of 2.00 s has passed '
                              'while disks are copied')
        self.assert_copying()
        wait_until(lambda: self.bound() == 1, 60, 'nothing is left of it')
        pair.link.set_rate(FAST)
        code, out = self.end(p)
        self.assertEqual(code, 0, said + out)
        self.assert_lives_at(self.domain, self.b)
        self.domain.disk_io(self.b, 'read -P 5 0 32M')

    def test_interrupted_while_disks_are_copied(self):
        p = self.begin(self.domain, self.a, '--copy-storage-all')
        said = self.wait_line(p.stdout, r'disks +\d+ %')
        self.assert_copying()
        os.kill(child_of(p), signal.SIGINT)
        code, out = self.end(p)
        self.assertEqual(code, 130, said + out)
        self.assert_still_at_home()


class Refused(VirtCase):
    def test_options(self):
        """Said before anything is touched."""
        for words, why in (
                (['--tunnelled', '--p2p'], 'in one stream'),
                (['--postcopy'], 'post-copy'),
                (['--timeout', '9', '--timeout-postcopy'], '--bound'),
                (['--auto-converge'], '--converge'),
                (['--compressed'], 'xbzrle'),
                (['--comp-methods', 'mt,xbzrle'], "'mt'"),
                (['--offline'], 'no memory'),
                (['--migrateuri', 'rdma://192.0.2.1'], 'RDMA'),
                (['--parallel-connections', '1'], '2 --parallel-connections'),
                (['--no-such-option'], '--no-such-option'),
                (['x', 'x', 'x', 'x', 'x'], "what is 'x'")):
            with self.subTest(words=words):
                code, out = self.end(self.run_at(
                    self.a, *TOOL, 'guest', self.b.uri, *words))
                self.assertEqual(code, 2, out)
                self.assertIn(why, out)

    def test_source_without_tlm(self):
        self.roles(self.b, self.a)
        domain = self.start(self.a)
        code, out = self.end(self.begin(domain, self.a))
        self.assertEqual(code, 1, out)
        self.assertIn("this QEMU has no capability 'tlm'", out)
        code, out = self.end(self.run_at(self.a, *TOOL, 'nobody',
                                         self.b.uri))
        self.assertEqual(code, 1, out)
        self.assertIn('nobody', out)
        self.assert_lives_at(domain, self.a)


class Overcommit(VirtCase):
    """libvirt's sandbox forbids QEMU to move its vCPUs: the tool does."""

    VCPUS = 2

    def setUp(self):
        super().setUp()
        self.cpus = sorted(os.sched_getaffinity(0))
        if len(self.cpus) < 2:
            self.skipTest('needs two host CPUs')

    def placement(self, domain):
        """As the kernel tells it, by thread, and as libvirt does."""
        return self.masks(domain), self.a.virsh('vcpupin', domain.name)

    def masks(self, domain):
        pid = self.a.qemu_pid(domain.name)
        threads = {}
        for tid in os.listdir(f'/proc/{pid}/task'):
            # Other threads than vCPUs come and go
            with contextlib.suppress(OSError):
                with open(f'/proc/{pid}/task/{tid}/status') as f:
                    text = f.read()
                if re.match(r'Name:\s*CPU \d', text):
                    threads[tid] = re.search(
                        r'^Cpus_allowed_list:\s*(\S+)', text, re.M)[1]
        self.assertEqual(len(threads), self.VCPUS)
        return threads

    def begin_moved(self):
        """A migration with all vCPUs on one CPU, and where they were."""
        domain = self.start(self.a, vcpus=self.VCPUS)
        self.a.virsh('vcpupin', domain.name, '0', str(self.cpus[1]))
        before = self.placement(domain)
        self.assertEqual(len(set(before[0].values())), 2)
        pair.link.set_rate(HOLD)
        p = self.begin(domain, self.a, '--overcommit', '0.01-(1)',
                       '--set', f'tlm-overcommit-cpus={self.cpus[0]}')
        wait_until(lambda: len(set(self.masks(domain).values())) == 1,
                   60, 'all vCPUs are on one CPU')
        return domain, before, p

    def test_moved_and_back(self):
        domain, before, p = self.begin_moved()
        tlm = self.a.qmp(domain.name, 'query-migrate')['tlm']
        overcommit = tlm['overcommit']
        self.assertEqual((overcommit['method'], overcommit['cpus']),
                         ('event', 1))
        os.kill(child_of(p), signal.SIGINT)
        code, out = self.end(p)
        self.assertEqual(code, 130, out)
        self.assertEqual(self.placement(domain), before)
        self.assert_lives_at(domain, self.a)

    def test_back_before_libvirtd_is(self):
        domain, before, p = self.begin_moved()
        self.a.kill_libvirtd()
        wait_until(lambda: self.masks(domain) == before[0], 60,
                   'the vCPUs are where they were')
        self.a.start_libvirtd()
        code, out = self.end(p)
        self.assertIn(code, (1, 3), out)
        self.assertEqual(self.placement(domain), before)
        self.assert_lives_at(domain, self.a)


class Broken(AtHome):
    """A host, a daemon or the network fails in mid-migration: the guest is
    at one of the hosts afterwards, and well."""

    def cases(self, usual):
        """(stage, mode) of each migration that is to be broken."""
        return usual if REPEAT == 1 else [
            (s, m) for s in ('live', 'stop') for m in (P2P, DIRECT)]

    @contextlib.contextmanager
    def migration(self, stage, mode):
        """One that is in the middle of its stage."""
        with self.step(stage=stage, mode=mode):
            p = self.begin(self.domain, self.a, *mode)
            self.wait_stage(self.domain, self.a, stage, p)
            yield p

    def settle(self, process, *statuses):
        """The guest is at the source, and as it was before."""
        code, out = self.end(process)
        self.assertIn(code, statuses or (1,), out)
        self.assert_nothing_changed()

    def test_destination_crashes(self):
        for case in self.cases([('live', DIRECT), ('stop', P2P)]):
            with self.migration(*case) as p:
                self.b.crash()
                try:
                    # Whether QEMU or libvirt is the first to notice
                    self.settle(p, 1, 3)
                finally:
                    self.b.boot()
                self.assertEqual(self.domain.where(), [self.a])

    def test_source_libvirtd_is_killed(self):
        for case in self.cases([('live', P2P), ('stop', DIRECT)]):
            with self.migration(*case) as p:
                self.a.kill_libvirtd()
                self.restart_libvirtd(p)

    def test_source_libvirtd_is_stopped(self):
        """It closes its connections in order, and is away for a while."""
        for case in self.cases([('live', P2P)]):
            with self.migration(*case) as p:
                self.a.kill_libvirtd(signal.SIGTERM)
                time.sleep(2)
                self.assertIsNone(p.poll())
                self.restart_libvirtd(p)

    def restart_libvirtd(self, process):
        self.a.start_libvirtd()
        code, out = self.end(process)
        self.assertIn(code, (1, 3), out)
        # It finds the domain and puts back what it had changed
        wait_until(lambda: self.settings(self.domain, self.a) ==
                   self.before, 60, 'libvirtd has recovered')
        self.assert_nothing_changed()

    def test_network_is_cut(self):
        """libvirtd notices it if it has the connection (p2p); else somebody
        has to."""
        self.addCleanup(pair.mend)
        for stage, mode in self.cases([('live', P2P), ('stop', P2P)]):
            with self.migration(stage, mode) as p:
                pair.cut()
                if mode == DIRECT:
                    os.kill(child_of(p), signal.SIGINT)
                # libvirtd cancels
                self.settle(p, *((1, 3) if mode == P2P else (130,)))
                pair.mend()
                self.assert_lives_at(self.domain, self.a)


if __name__ == '__main__':
    unittest.main()
