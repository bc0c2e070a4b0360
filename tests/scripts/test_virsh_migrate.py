#!/usr/bin/python3
#
# tlm virsh-migrate without libvirt: arguments, the conversation with virsh,
# and the vCPU threads that it moves
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from tlm import migration, units
from tlm.errors import MigrateError
from tlm.virsh import arguments, command
from tlm.virsh import placer as placers
from tlm.virsh.disks import Disks
from tlm.virsh.domain import Domain
from tlm.virsh.placer import Placer, cpu_list
from tlm.virsh.shell import Lost, Virsh, plain_language

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
TOOL = os.path.join(ROOT, 'scripts/tlm')


# As virsh 9.0 and 11.3 print it, but for what is in between
HELP = '''
  OPTIONS
    [--domain] <string>  domain name, id or uuid
    [--desturi] <string>  connection URI of the destination host
    --live           live migration
    --p2p            peer-2-peer migration
    --persistent     persist VM on destination
    --migrateuri <string>  migration URI, usually can be omitted
    --dname <string>  rename to new name during migration (if supported)
    --bandwidth <number>  migration bandwidth limit in MiB/s
    --timeout <number>  run action specified by --timeout-* option
    --parallel-connections <number>  number of connections
    --postcopy       enable post-copy migration
'''

FAKE_VIRSH = r'''#!/bin/bash
# Repeats its input after a prompt, as virsh does with readline
while printf 'virsh # ' && IFS= read -r line; do
    echo "$line"
    case $line in
    echo*) eval "$line" ;;
    *domstate*says*) echo "error: ${line//\'/}" >&2 ;;
    *domstate*) printf 'running\n\n' ;;
    *unknown*) echo "error: failed to get domain 'unknown'" >&2 ;;
    *migrate-set*) echo '{"id":"libvirt-8","error":{"desc":"bad epoch"}}' ;;
    *gone*) exit 1 ;;
    *says*) echo "error: ${line//\'/}" >&2 ;;
    *) echo '{"return":{"status":"active"},"id":"libvirt-7"}' ;;
    esac
done
'''

# One domain.  query-migrate tells in turn what TOLD has, and "virsh migrate"
# ends with the last of it, unless that is to go on until it is aborted (HOLD).
# LOST: how often libvirtd does not answer.  DEAF: it is asked to abort in vain.
MIGRATING_VIRSH = r'''#!/usr/bin/python3
import json, os, sys, time
HELP = {help!r}
os.chdir(os.path.dirname(sys.argv[0]))
exists = os.path.exists
def add(name, text=''):
    with open(name, 'a') as f:
        f.write(text)
def content(name, default):
    if not exists(name):
        return default
    with open(name) as f:
        return f.read()
told = json.loads(content('told', '[]'))
def at():
    return len(content('at', ''))
def info(begun):
    if exists('aborted'):
        return {{'status': 'cancelled'}}
    return told[min(at() + 1, len(told) - 1) if begun else 0]
def active():
    return exists('migrate') and not exists('over') and \
        not exists('aborted')
def reply(**what):
    print(json.dumps(what))
if sys.argv[1:2] == ['help']:
    if exists('no-help'):
        sys.exit('error: no help')
    print(HELP)
elif sys.argv[1:2] == ['migrate']:
    if exists('ask'):
        with open('/dev/tty') as f:
            add('answer', f.readline())
    add('migrate', ' '.join(sys.argv[1:]))
    add('pid.new', str(os.getpid()))
    os.rename('pid.new', 'pid')
    while active():
        time.sleep(0.01)
    sys.exit(exists('failure') or exists('aborted'))
else:
    for line in sys.stdin:
        left = int(content('lost', '0'))
        if line.startswith('echo'):
            print(line[4:].strip().replace('"', ''))
        elif left and active():
            os.unlink('lost')
            add('lost', str(left - 1))
            print('error: Failed to reconnect to the hypervisor',
                  'error: no valid connection', sep='\\n', file=sys.stderr,
                  flush=True)
        elif 'domstate' in line:
            print('shut off' if exists('over') and not exists('failure')
                  else 'running')
        elif 'domjobinfo' in line:
            print('Job type:  ', 'Unbounded' if active() else 'None')
        elif 'domjobabort' in line:
            if exists('deaf'):
                add('asked', '.')
            elif active():
                add('aborted')
        elif 'query-migrate-capabilities' in line:
            reply(**{{'return': [{{'capability': 'tlm', 'state':
                                  exists('was-on')}}]}})
        elif 'query-migrate-parameters' in line:
            reply(**{{'return': {{}}}})
        elif 'query-yank' in line:
            reply(**{{'return': []}})
        elif 'migrate-set-capabilities' in line:
            if active():
                reply(error={{'desc':
                             "There's a migration process in progress"}})
            else:
                add('set', 'on ' if 'true' in line else 'off ')
                reply(**{{'return': {{}}}})
        else:
            assert 'query-migrate' in line, line
            begun = exists('migrate')
            reply(**{{'return': info(begun)}})
            if begun:
                add('at', '.')
            if at() >= len(told) - 1 and not exists('hold'):
                add('over')
        sys.stdout.flush()
'''
TLM_INFO = {'progress': 40, 'decision': 'pass', 'bandwidth': 1 << 20,
            'prediction': {'total': 1000, 'downtime': 20, 'eta': 900,
                           'downtime-reachable': True},
            'ram': {'mtx': 1 << 20, 'dtx': 0, 'stop': 0, 'resent': 0,
                    'skipped': 0},
            'guest': {'speed': 1.0, 'dirty-rate': 0, 'lost-work': 5},
            'epochs': {'count': 3},
            'downtime': {'vm-stop': 0, 'sync': 0, 'ram': 7000, 'hold': 0,
                         'device': 0, 'switchover': 0}}
RAM_INFO = {'transferred': 1 << 20, 'remaining': 1 << 20, 'total': 2 << 20,
            'dirty-sync-count': 1}


class Arguments(unittest.TestCase):
    options = arguments.known_options(HELP)

    def split(self, *words):
        return arguments.split(words, self.options)

    def test_options_and_places_in_any_order(self):
        wanted = {'domain': 'vm1', 'desturi': 'qemu:///x', 'p2p': True,
                  'timeout': '9'}
        for words in ('--p2p vm1 qemu:///x --timeout 9',
                      'vm1 --timeout=9 qemu:///x --p2p',
                      '--desturi qemu:///x --timeout 9 --p2p vm1'):
            with self.subTest(words=words):
                self.assertEqual(self.split(*words.split()), wanted)

    def test_wrong_usage(self):
        for words, why in (('vm1', 'desturi is missing'),
                           ('vm1 u m g l d more', "what is 'more'"),
                           ('vm1 u --timeout', 'needs a value'),
                           ('vm1 u --rdma', "no option '--rdma'")):
            with self.subTest(words=words):
                with self.assertRaisesRegex(ValueError, why):
                    self.split(*words.split())

    def test_modes(self):
        for bad in ({'tunnelled': True}, {'postcopy': True},
                    {'migrateuri': 'rdma://h'}, {'comp-methods': 'xbzrle'},
                    {'parallel-connections': '1'}):
            with self.subTest(bad=bad):
                with self.assertRaises(ValueError):
                    arguments.check_mode(bad)
        arguments.check_mode({'p2p': True, 'comp-methods': 'zstd',
                         'parallel-connections': '4',
                         'migrateuri': 'tcp://h'})

    def test_names_of_the_old_command(self):
        """A virsh with patches would know some of them."""
        with self.assertRaisesRegex(ValueError, "'--bound' here"):
            self.split('vm1', 'u', '--tlm-bound', '20')
        for old_name, flag in ((None, '--converge'),
                               ('tlm-virsh-migrate', '--tlm-converge')):
            with self.subTest(old_name=old_name):
                with self.assertRaisesRegex(ValueError, f' {flag}$'):
                    arguments.check_mode({'auto-converge': True}, old_name)

    def test_bandwidth(self):
        """libvirt has it in MiB/s."""
        for rate, wanted in ((0, '0'), (300_000_000, '286'), (1 << 20, '1')):
            self.assertEqual(arguments.mib(rate), wanted)
        with self.assertRaises(ValueError):
            arguments.mib((1 << 20) - 1)

    def test_cpu_list(self):
        self.assertEqual(cpu_list('0-3,8'), {0, 1, 2, 3, 8})
        self.assertEqual(cpu_list(8), {8})
        self.assertEqual(cpu_list(''), set())


class Conversation(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, 'virsh')
        with open(path, 'w') as f:
            f.write(FAKE_VIRSH)
        os.chmod(path, 0o755)
        self.virsh = Virsh(None)
        self.virsh.command = [path]
        self.addCleanup(self.virsh.close)
        self.domain = Domain(self.virsh, "it's")

    def test_answers(self):
        for _ in range(3):
            self.assertEqual(self.domain('query-migrate'),
                             {'status': 'active'})
            self.assertEqual(self.domain.state(), 'running')

    def test_errors(self):
        with self.assertRaisesRegex(MigrateError,
                                    "failed to get domain 'unknown'"):
            self.virsh('dominfo', 'unknown')
        self.assertEqual(self.domain.state(), 'running')
        with self.assertRaisesRegex(MigrateError, 'bad epoch'):
            self.domain('migrate-set-parameters', tlm_epoch=5)

    def test_libvirt_gone_or_domain_gone(self):
        for message in ('Disconnected from qemu:///system due to end of file',
                        'Failed to reconnect to the hypervisor',
                        'Failed to connect socket to /run/libvirt/x: No such '
                        'file or directory',
                        'unable to connect to server at host:16509: '
                        'Connection refused',
                        'no valid connection'):
            with self.subTest(message=message):
                with self.assertRaises(Lost):
                    self.virsh('says', message)
                with self.assertRaises(Lost):
                    Domain(self.virsh, 'says ' + message).state()
        for message in ("failed to get domain 'vm1'", 'Domain not found: x',
                        'no domain with matching name'):
            with self.subTest(message=message):
                self.assertIsNone(Domain(self.virsh,
                                           'says ' + message).state())
        # Whatever else it may be
        with self.assertRaises(Lost):
            Domain(self.virsh, 'says Timed out during operation').state()

    def test_language(self):
        with mock.patch.dict(os.environ, LANGUAGE='de', LC_ALL='de_DE'):
            env = plain_language()
        self.assertNotIn('LANGUAGE', env)
        self.assertEqual(env['LC_ALL'], 'C.UTF-8')

    def test_virsh_that_ends_is_started_again(self):
        with self.assertRaises(Lost):
            self.virsh('gone')
        self.assertEqual(self.domain.state(), 'running')


class WholeMigration(unittest.TestCase):
    """What is shown, set and returned, however QEMU and virsh end."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.write('virsh', MIGRATING_VIRSH.format(help=HELP))
        os.chmod(self.path('virsh'), 0o755)
        self.env = dict(os.environ, PATH=f'{self.dir}:/usr/bin:/bin')
        self.tool = (TOOL, 'virsh-migrate')

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text=''):
        with open(self.path(name), 'w') as f:
            f.write(text)

    def content(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def wait_until(self, predicate, what):
        deadline = time.monotonic() + 60
        while not predicate():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)

    def wait_for(self, name, size=0):
        self.wait_until(lambda: os.path.exists(self.path(name)) and
                        len(self.content(name)) >= size, f'no {name}')
        return self.content(name)

    def tell(self, *statuses, tlm=True):
        told = [{}] + [{'status': status, 'total-time': 1234, 'downtime': 7,
                        'error-desc': 'no route', 'ram': RAM_INFO,
                        **({'tlm': {**TLM_INFO, 'stage': stage}} if tlm
                           else {})}
                       for status, stage in statuses]
        self.write('told', json.dumps(told))
        if statuses[-1][0] == 'failed':
            self.write('failure')

    def start(self, *options, **kwargs):
        p = subprocess.Popen(
            [sys.executable, *self.tool,
             *(options or ('vm1', 'qemu:///x', '--p2p'))], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, process_group=0, **kwargs)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p

    def end(self, p):
        out = p.stdout.read()
        return p.wait(), out

    def run_tool(self, *statuses):
        self.tell(*statuses)
        return self.end(self.start())

    def hold(self, **kwargs):
        """One that goes on until it is aborted, and its virsh."""
        self.tell(('active', 'live'), **kwargs)
        self.write('hold')
        p = self.start()
        return p, int(self.wait_for('pid'))

    def assert_cleaned_up(self):
        self.assertTrue(os.path.exists(self.path('aborted')))
        self.assertEqual(self.content('set'), 'on off ')

    def test_completed(self):
        code, out = self.run_tool(
            ('active', 'live'), ('active', 'stop'), ('completed', 'done'))
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r' live +40 %')
        self.assertRegex(out, r' stop +40 %')
        self.assertIn('Completed in 1.23 s, downtime 7 ms', out)
        self.assertEqual(
            set(self.content('migrate').split()),
            {'migrate', '--domain', 'vm1', '--desturi', 'qemu:///x',
             '--p2p', '--live', '--parallel'})
        self.assertEqual(self.content('set'), 'on ')    # it has gone

    def test_end_not_seen(self):
        code, out = self.run_tool(('active', 'live'))
        self.assertEqual(code, 0, out)
        self.assertIn('Completed; QEMU ended before', out)

    def test_failed(self):
        code, out = self.run_tool(('active', 'live'), ('failed', 'done'))
        self.assertEqual(code, 1, out)
        self.assertIn('QEMU: no route', out)
        self.assertIn('The domain at the source is running', out)
        self.assertEqual(self.content('set'), 'on off ')

    def test_on_before(self):
        """Whoever has left it on: the next migration is not by TLM."""
        self.write('was-on')
        code, out = self.run_tool(('active', 'live'), ('failed', 'done'))
        self.assertEqual(code, 1, out)
        self.assertEqual(self.content('set'), 'off ')

    def test_signals_to_the_process_group(self):
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signum=signum):
                p, virsh = self.hold()
                self.assertNotEqual(os.getpgid(virsh), p.pid)
                os.killpg(p.pid, signum)
                code, out = self.end(p)
                self.assertEqual(code, 130, out)
                self.assert_cleaned_up()
            self.setUp()

    def test_second_interrupt(self):
        """virsh is not waited for, but the migration is."""
        p, virsh = self.hold()
        self.write('deaf')
        os.killpg(p.pid, signal.SIGINT)
        self.wait_for('asked')
        os.killpg(p.pid, signal.SIGINT)
        self.wait_until(lambda: not os.path.exists(f'/proc/{virsh}'),
                        'virsh is waited for')
        self.assertIsNone(p.poll())
        os.unlink(self.path('deaf'))
        code, out = self.end(p)
        self.assertEqual(code, 130, out)
        self.assert_cleaned_up()

    def test_virsh_ends_without_the_migration(self):
        for signum in (signal.SIGKILL, signal.SIGINT):
            with self.subTest(signum=signum):
                p, virsh = self.hold()
                os.kill(virsh, signum)
                code, out = self.end(p)
                self.assertEqual(code, 1, out)
                self.assert_cleaned_up()
            self.setUp()

    def test_output_that_nobody_reads(self):
        p, _ = self.hold()
        p.stdout.close()
        # a line a second, and 20 looks a second: two lines at least
        self.wait_for('at', len(self.wait_for('at')) + 50)
        self.assertIsNone(p.poll())
        os.kill(p.pid, signal.SIGTERM)
        self.assertEqual(p.wait(), 130)
        self.assert_cleaned_up()

    def test_libvirtd_away_for_a_while(self):
        p, virsh = self.hold()
        self.write('lost', '3')
        os.kill(virsh, signal.SIGKILL)
        code, out = self.end(p)
        self.assertEqual(code, 1, out)
        self.assert_cleaned_up()

    def test_libvirtd_away_for_good(self):
        for name in ('scripts/tlm', 'python/tlm'):
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            path = os.path.join(ROOT, name)
            (shutil.copytree if os.path.isdir(path) else shutil.copy)(
                path, self.path(name))
        name = 'python/tlm/virsh/migration.py'
        source = self.content(name)
        impatient = source.replace('RETURN_S = 180 ', 'RETURN_S = 1 ')
        self.assertNotEqual(impatient, source)
        self.write(name, impatient)
        self.tool = (self.path('scripts/tlm'), 'virsh-migrate')
        p, virsh = self.hold()
        self.write('lost', '1000000')
        os.kill(virsh, signal.SIGKILL)
        code, out = self.end(p)
        self.assertEqual(code, 1, out)
        self.assertIn("virsh domjobabort 'vm1'", out)
        self.assertIn('migrate_set_capability tlm off', out)

    def test_libvirtd_turns_tlm_off(self):
        p, _ = self.hold(tlm=False)
        code, out = self.end(p)
        self.assertEqual(code, 1, out)
        self.assertIn('was not by TLM', out)
        self.assert_cleaned_up()

    def test_libvirtd_turns_tlm_off_for_a_short_migration(self):
        self.tell(('completed', 'done'), tlm=False)
        code, out = self.end(self.start())
        self.assertEqual(code, 0, out)
        self.assertIn('was not by TLM', out)

    def test_password(self):
        """ssh reads it from the terminal, from a process group of its own."""
        self.tell(('active', 'live'), ('completed', 'done'))
        self.write('ask')
        pid, fd = pty.fork()
        if not pid:
            os.execve(sys.executable, [sys.executable, *self.tool, 'vm1',
                                       'qemu:///x'], self.env)
        self.addCleanup(os.close, fd)
        os.write(fd, b'secret\n')
        out = b''
        try:
            while True:
                out += os.read(fd, 4096)
        except OSError:                 # no process has the terminal open
            pass
        _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0, out)
        self.assertEqual(self.content('answer'), 'secret\n')

    def test_wrong_usage(self):
        self.tell(('active', 'live'))
        for words, why in ((['--converge', 'vm1', 'u'], 'invalid choice'),
                           (['vm1', 'u', '--bound', 'inf'], 'write a time'),
                           (['vm1', 'u', '--bound', '20'], 'which unit'),
                           (['vm1', 'u', '-k', '5'], "'-k' is no option"),
                           (['vm1', 'u', '--', '--p2p'], "'--' is not"),
                           (['vm1', 'u', '--link', '1Gbit/s'],
                            '--link is for --dry-run only'),
                           (['vm1', 'u', '--bandwidth', '1kB/s'], 'no cap')):
            with self.subTest(words=words):
                code, out = self.end(self.start(*words))
                self.assertEqual(code, 2, out)
                self.assertIn(why, out)
        self.tool = (os.path.join(ROOT, 'scripts/tlm-virsh-migrate'),)
        for words, why in ((['vm1', 'u', '--tlm-link', '1Gbit/s'],
                            '--tlm-link is for --tlm-dry-run only'),
                           (['vm1', 'u', '--tlm-bound', 'x'],
                            'write a time')):
            with self.subTest(words=words):
                code, out = self.end(self.start(*words))
                self.assertEqual(code, 2, out)
                self.assertIn(why, out)
        self.write('no-help')
        code, out = self.end(self.start())
        self.assertEqual(code, 2, out)
        self.assertIn('error: no help', out)
        self.assertFalse(os.path.exists(self.path('set')))

    def test_dry_run_without_a_rate(self):
        self.tell(('active', 'live'))
        for words, wanted, why in (
                ([], 1, 'what the link carries'),
                (['--bandwidth', 'x'], 2, 'write a bandwidth')):
            with self.subTest(words=words):
                code, out = self.end(self.start('vm1', 'u', '--dry-run',
                                                *words))
                self.assertEqual(code, wanted, out)
                self.assertIn(why, out)


class CopiedDisks(unittest.TestCase):
    """What is made of query-block-jobs."""

    @staticmethod
    def job(offset, length):
        return {'type': 'mirror', 'offset': offset, 'len': length}

    def look(self, *samples):
        disks = Disks()
        for now, *jobs in samples:
            self.assertTrue(disks.look([self.job(*j) for j in jobs], now))
        return disks

    def test_nothing_yet(self):
        disks = Disks()
        self.assertFalse(disks.look([], 3))
        self.assertIsNone(disks.began)

    def test_all_disks_together(self):
        disks = self.look((0, (0, 300), (100, 100)))
        self.assertEqual((disks.copied, disks.left), (100, 300))
        self.assertEqual(disks.percent(), 25)
        self.assertEqual(disks.details(), ['300 B left'])   # nothing else yet

    def test_empty_disk(self):
        self.assertEqual(self.look((0, (0, 0))).percent(), 0)

    def test_end_foreseen(self):
        disks = self.look((0, (0, 10**9)), (2, (5 * 10**8, 10**9)))
        self.assertEqual(disks.details(),
                         ['250 MB/s', '500 MB left', 'ETA 2.00 s'])

    def test_guest_writes_as_fast(self):
        disks = self.look((0, (0, 10**9)), (2, (5 * 10**8, 15 * 10**8)))
        self.assertEqual(disks.details(), [
            '250 MB/s', '1 GB left', 'the guest writes as fast as is copied'])

    def test_trend_is_of_the_last_seconds(self):
        slow = [(t, (0, 10**9)) for t in range(20)]
        disks = self.look(*slow, (20, (10**8, 10**9)), (24, (5 * 10**8,
                                                            10**9)))
        self.assertIn('100 MB/s', disks.details())


class Settings(unittest.TestCase):
    def test_text_that_looks_like_a_number(self):
        known = {'tlm-overcommit-cpus': '', 'tlm-epoch': 0, 'tlm-dtx': True,
                 'tlm-cgroup': ''}
        sent = {}

        def qmp(command, **arguments):
            if command == 'migrate-set-parameters':
                sent.update(arguments)
            return known if command == 'query-migrate-parameters' else []
        with migration.Migration(qmp, {}, dict(map(
                units.setting,
                ('tlm-overcommit-cpus=1', 'tlm-epoch=100', 'tlm-dtx=off',
                 'tlm-cgroup=on')))):
            self.assertEqual(sent, {'tlm-overcommit-cpus': '1',
                                    'tlm-epoch': 100, 'tlm-dtx': False,
                                    'tlm-cgroup': 'on'})
        self.assertEqual(sent, known)

    def migrate(self, placer, **params):
        """command.migrate() with nothing behind it; what happens in turn."""
        events = []
        if placer:
            placer.place.side_effect = lambda n: events.append(f'place {n}')
        fake = mock.MagicMock()
        fake.__exit__.side_effect = lambda *_: events.append('settle')
        with mock.patch.multiple(
                command, run=mock.Mock(side_effect=KeyboardInterrupt),
                Migration=mock.Mock(return_value=fake)), \
             mock.patch.object(placers.Placer, 'for_domain',
                               return_value=placer), \
             mock.patch.object(signal, 'signal'), \
             self.assertRaises(KeyboardInterrupt):
            command.migrate(mock.MagicMock(), None, {}, params, sys.stdout)
        return events

    def test_vcpus_are_back_before_libvirtd(self):
        placer = mock.Mock(spec=Placer, trouble=None)
        for params in ({'tlm-overcommit': [{}]},
                       {'tlm-overcommit-method': 'event'}):
            with self.subTest(params=params):
                events = self.migrate(placer, **params)
                self.assertEqual(events, ['place 0', 'settle'])

    def test_event_that_nobody_answers(self):
        with self.assertRaisesRegex(MigrateError, 'only root'):
            self.migrate(None, **{'tlm-overcommit-method': 'event'})


@unittest.skipIf(len(os.sched_getaffinity(0)) < 2, 'needs two host CPUs')
class Threads(unittest.TestCase):
    """With threads of this process in the place of vCPUs."""

    def setUp(self):
        self.end = threading.Event()
        self.threads = []
        for _ in range(2):
            t = threading.Thread(target=self.end.wait)
            t.start()
            self.threads.append(t)
            self.addCleanup(t.join)
        self.addCleanup(self.end.set)
        self.ids = [t.native_id for t in self.threads]
        self.cpus = sorted(os.sched_getaffinity(0))

    def masks(self):
        return [os.sched_getaffinity(t) for t in self.ids]

    def test_there_and_back(self):
        os.sched_setaffinity(self.ids[0], {self.cpus[1]})
        before = self.masks()
        placer = Placer(self.ids)
        self.assertEqual(self.masks(), before)
        placer.place(1)
        self.assertEqual(self.masks(), [{self.cpus[0]}] * 2)
        placer.place(2)
        self.assertEqual(self.masks()[0], {self.cpus[1]})
        placer.place(0)
        self.assertEqual(self.masks(), before)
        self.assertIsNone(placer.trouble)

    def test_named_cpus(self):
        placer = Placer(self.ids, {self.cpus[1]})
        placer.place(1)
        self.assertEqual(self.masks(), [{self.cpus[1]}] * 2)
        placer.place(0)

    def test_thread_of_somebody_else(self):
        """QEMU has ended, and its thread's number is in use again."""
        placer = Placer(self.ids)
        placer.started[self.ids[0]] = '1'
        before = self.masks()
        placer.place(1)
        self.assertEqual(self.masks(), [before[0], {self.cpus[0]}])
        placer.place(0)
        self.assertEqual(self.masks(), before)

    def test_thread_that_has_ended(self):
        placer = Placer(self.ids)
        self.end.set()
        for t in self.threads:
            t.join()
        placer.place(1)
        placer.place(0)


if __name__ == '__main__':
    unittest.main()
