#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The command "tlm": units, options, what is made of them, the package, the
single file and the installation; with a QEMU that is played here."""

import argparse
import ast
import glob
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import tlm
from tlm import completion, errors, figures, manpage, options
from tlm import parser as parsers
from tlm import programs, progress, units
from tlm.checkpoint import commands as checkpoints
from tlm.cluster import commands as clusters
from tlm.memserver import commands as memservers
from tlm.status import Status

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
BUILD = os.environ.get('TLM_BUILD', os.path.join(ROOT, 'build'))
PACKAGE = os.path.join(ROOT, 'python/tlm')
LAUNCHER = os.path.join(ROOT, 'scripts/tlm')
MODULE_LINES = 300

COMMANDS = tuple(options.COMMANDS)


def read(path):
    with open(path, encoding='utf-8') as f:
        return f.read()


def modules():
    """{name of a module: path}, as "virsh.disks"."""
    found = {}
    for path in glob.glob(os.path.join(PACKAGE, '**/*.py'), recursive=True):
        name = os.path.relpath(path, PACKAGE).removesuffix('.py')
        found[name.replace(os.sep, '.')] = path
    return found


class Units(unittest.TestCase):
    def check(self, parse, good, bad):
        for text, wanted in good:
            with self.subTest(text=text):
                self.assertEqual(parse(text), wanted)
        for text, why in bad:
            with self.subTest(text=text), \
                    self.assertRaisesRegex(argparse.ArgumentTypeError, why):
                parse(text)

    def test_duration(self):
        self.check(units.Duration(), (
            ('20s', 20_000), ('500ms', 500), ('2min', 120_000),
            ('1h', 3_600_000), ('0.5s', 500), ('.5 s', 500), ('1.s', 1000),
            (' 20s ', 20_000), ('0', 0), ('0s', 0), ('1.4ms', 1)),
            [(text, 'write a time') for text in (
                '', 's', '-1s', '-1', '1e3s', 'inf', 'nan', '20sec', '20 s s',
                '1.2.3s', '1,5s', '20S', '20m', '١s', '1_0s')] +
            [('20', 'which unit'), ('2.5', 'which unit'),
             ('0.1ms', 'at least 1 ms')])
        self.check(units.Duration(least=1), (('1ms', 1),),
                   (('0', 'at least'), ('0s', 'at least')))

    def test_bandwidth(self):
        self.check(units.Bandwidth(), (
            ('10Gbit/s', 1_250_000_000), ('2.4Gbit/s', 300_000_000),
            ('300MB/s', 300_000_000), ('1.5GiB/s', 3 << 29),
            ('286MiB/s', 286 << 20), ('8kb/s', 1000),
            ('10Gbps', 1_250_000_000), ('8 kbits/s', 1000),
            ('1Tbit/s', 125_000_000_000), ('5B/s', 5),
            ('300MB', 300_000_000), ('300mB/s', 300_000_000), ('0', 0)),
            [(text, 'write a bandwidth') for text in (
                '', '-1MB/s', '1.2.3', '5 horses', '1 B/h', 'inf', 'MB/s',
                '300M', '300M/s', '10G', '1XB/s', '10GB/min', '1e9B/s')] +
            [('1000', 'which unit'), ('1bit/s', 'at least 1 B/s')])
        self.check(units.Bandwidth(least=1), (), (('0', 'at least'),))

    def test_size(self):
        self.check(units.Size(), (
            ('512MiB', 512 << 20), ('1.5GiB', 3 << 29), ('1GB', 10**9),
            ('4096B', 4096), ('0', 0)),
            [(text, 'write a size') for text in (
                '', 'x', '1G', '8Mbit', '1GiB/s', '-1B')] +
            [('512', 'which unit')])
        self.check(units.Size(least=1 << 20), (), (('1B', '1.0 MiB'),))

    def test_bare_numbers_of_old_names(self):
        self.check(units.Duration(bare='s'), (('20', 20_000), ('20ms', 20),
                                              ('0', 0)),
                   (('20x', 'write a time'),))
        self.check(units.Duration(bare='ms'), (('20', 20), ('20s', 20_000)),
                   ())
        self.check(units.Bandwidth(bare='B/s'),
                   (('1000', 1000), ('2.4G', 2_400_000_000), ('1Ki', 1024)),
                   ())
        self.check(units.Bandwidth(bare='MiB/s'),
                   (('4', 4 << 20), ('4MB/s', 4_000_000)), ())

    def test_count(self):
        self.check(units.Count(least=2), (('2', 2), ('16', 16)),
                   (('1', 'at least 2'), ('-2', 'whole'), ('2.5', 'whole'),
                    ('', 'whole'), ('two', 'whole')))

    def test_steps(self):
        self.check(units.steps, (
            ('0.2-(4),.5-(2)', [{'progress': 20.0, 'cpus': 4},
                                {'progress': 50.0, 'cpus': 2}]),
            ('1-(1)', [{'progress': 100.0, 'cpus': 1}])),
            [(text, 'write 0.5')
             for text in ('50-(2)', '0.5-2', '0.5', '', '1.5-(2)')])

    def test_addresses(self):
        self.check(units.addresses, (
            ('h:1', ['tcp:h:1']), ('tcp:h:1,[::1]:22', ['tcp:h:1',
                                                        'tcp:[::1]:22']),
            ('/run/c', ['unix:/run/c']), ('unix:c', ['unix:c'])),
            [(text, 'write HOST:PORT') for text in (
                '', 'h', 'h:', ':1', 'h:x', 'unix:', 'h:1,', '::1:22',
                'udp:h:1')])

    def test_setting(self):
        self.check(units.setting, (
            ('tlm-dtx=off', ('tlm-dtx', False)), ('a=on', ('a', True)),
            ('tlm-epoch=100', ('tlm-epoch', 100)),
            ('tls-creds=tls0', ('tls-creds', 'tls0')),
            ('a=b=c', ('a', 'b=c')), ('a=', ('a', ''))),
            (('tlm-dtx', 'NAME=VALUE'),))


class Options(unittest.TestCase):
    NEEDED = {'migrate': ['--qmp', 's', 'uri'],
              'estimate': ['--qmp', 's', '--bandwidth', '1GB/s'],
              'virsh-migrate': [],
              **dict.fromkeys(checkpoints.CHECKPOINT, ['--dir', 'd']),
              'checkpoint watch': ['--dir', 'd', '--every', '9s'],
              'checkpoint standby': ['--dir', 'd', '--server', 'a:1'],
              'checkpoint takeover': ['--dir', 'd'],
              'checkpoint prune': ['--dir', 'd', '--keep', '9'],
              'checkpoint restore': ['--dir', 'd', 'name'],
              **dict.fromkeys(clusters.CLUSTER,
                              ['--dir', 'd', '--keep', '9']),
              **dict.fromkeys((clusters.LIST, clusters.SHOW, clusters.VERIFY),
                              ['--dir', 'd']),
              'cluster save': ['--dir', 'd', 'name'],
              'cluster watch': ['--dir', 'd', '--every', '9s'],
              'cluster restore': ['--dir', 'd', 'name'],
              **dict.fromkeys(memservers.MEMSERVER, ['--server', 'h:1']),
              'memserver prune': ['--server', 'h:1', '--keep', '9'],
              'memserver remove': ['--server', 'h:1', 'x']}
    SAMPLES = {'TIME': '20s', 'RATE': '300MB/s', 'N': '3',
               'K': '3', 'SIZE': '1GiB',
               'STEPS': '0.5-(2)', 'NAME=VALUE': 'a=1',
               'auto|virsh|NODE=OVERLAY': 'auto', 'N|all': '2',
               'URI': 'tcp:h:1',
               'ADDRESS[,ADDRESS...]': 'h:1'}

    def parse(self, command, *words, old_name=None):
        p = parsers.of_command(options.COMMANDS[command], old_name)
        p.error = self.refuse
        return p.parse_args([*self.NEEDED[command], *words])

    @staticmethod
    def refuse(message):
        raise ValueError(message)

    def test_each_is_defined_once(self):
        names = [o.name for o in options.OPTIONS]
        self.assertEqual(sorted(names), sorted(set(names)))
        for o in options.OPTIONS:
            with self.subTest(option=o.name):
                self.assertLessEqual(set(o.commands), set(COMMANDS))
                self.assertLessEqual(set(o.required), set(o.commands))
                self.assertLessEqual(set(o.old), set(options.OLD_NAMES))
                self.assertTrue(o.parse is None or o.value)
                for command in o.commands:
                    self.assertTrue(o.help_for(command))

    def test_each_is_understood(self):
        for o in options.OPTIONS:
            sample = [] if o.parse is None else [
                o.choices[0] if o.choices else
                self.SAMPLES.get(o.metavar, 'x')]
            for command, old_name in itertools.product(
                    o.commands, (None, *options.OLD_NAMES)):
                if old_name and options.OLD_NAMES[old_name] != command:
                    continue
                for flag in o.flags(old_name):
                    with self.subTest(command=command, flag=flag):
                        args = self.parse(command, flag, *sample,
                                          old_name=old_name)
                        self.assertNotEqual(getattr(args, o.dest),
                                            [] if o.many else o.default)

    def test_units_are_the_same_everywhere(self):
        for command in options.ALL:
            args = self.parse(command, '--bound', '20s', '--downtime',
                              '300ms', '--bandwidth', '2.4Gbit/s')
            self.assertEqual((args.bound, args.downtime, args.bandwidth),
                             (20_000, 300, 300_000_000))
            for words in (('--bound', '20'), ('--downtime', '300'),
                          ('--bandwidth', '1000')):
                with self.subTest(command=command, words=words), \
                        self.assertRaisesRegex(ValueError, 'which unit'):
                    self.parse(command, *words)

    def test_old_names_keep_their_units(self):
        for old_name, words, wanted in (
                ('tlm-migrate', '--bound 20000 --downtime-limit 300 '
                 '--bandwidth 1000', (20_000, 300, 1000)),
                ('tlm-estimate', '--bound 6000 --downtime-limit 300 '
                 '--bandwidth 1000', (6000, 300, 1000)),
                ('tlm-virsh-migrate', '--tlm-bound 20 --tlm-downtime 300 '
                 '--bandwidth 4', (20_000, 300, 4 << 20))):
            with self.subTest(old_name=old_name):
                args = self.parse(options.OLD_NAMES[old_name],
                                  *words.split(), old_name=old_name)
                self.assertEqual((args.bound, args.downtime, args.bandwidth),
                                 wanted)
        args = self.parse('estimate', '--window', '200',
                          old_name='tlm-estimate')
        self.assertEqual(args.window, 200)
        args = self.parse('virsh-migrate', '--tlm-link', '1000',
                          '--tlm-json', '--tlm-dry-run', '--tlm-set', 'a=1',
                          old_name='tlm-virsh-migrate')
        self.assertEqual((args.link, args.json, args.dry_run, args.set),
                         (1000, True, True, [('a', 1)]))
        for command, flag in (('migrate', '--downtime-limit'),
                              ('virsh-migrate', '--tlm-bound')):
            with self.subTest(flag=flag), self.assertRaises(ValueError):
                self.parse(command, flag, '20s')

    def test_no_abbreviations(self):
        with self.assertRaises(ValueError):
            self.parse('migrate', '--down', '300ms')


class Generated(unittest.TestCase):
    """Help, completion and manual pages have every option."""

    def test_help(self):
        for name, command in options.COMMANDS.items():
            text = parsers.of_command(command).format_help()
            for o in options.of(name):
                self.assertIn(f'--{o.name}', text)
            for code, meaning in command.exits:
                self.assertIn(f'{code} {meaning}', ' '.join(text.split()))
            self.assertIn(command.summary, parsers.of_all().format_help())

    def complete(self, *words):
        """What bash offers for the last of @words."""
        script = completion.bash() + '''
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            compopt() { :; }
            _tlm "$1" "${COMP_WORDS[COMP_CWORD]}" \
                "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\\n' "${COMPREPLY[@]}"'''
        run = subprocess.run(['bash', '-c', script, 'bash', *words],
                             capture_output=True, text=True, check=True)
        self.assertEqual(run.stderr, '')
        return run.stdout.split()

    def test_completion(self):
        self.assertEqual(self.complete('tlm', 'vi'), ['virsh-migrate'])
        self.assertEqual(self.complete('tlm', '--completion', ''), ['bash'])
        self.assertLessEqual({c.split()[0] for c in COMMANDS},
                             set(self.complete('tlm', '')))
        self.assertEqual(self.complete('tlm', 'checkpoint', 's'),
                         ['save', 'show', 'standby'])
        for command in COMMANDS:
            starts = [('tlm', *command.split())]
            if command in options.ALL:
                starts.append((f'/usr/bin/tlm-{command}',))
            for start in starts:
                offered = self.complete(*start, '--')
                for o in options.of(command):
                    self.assertIn(f'--{o.name}', offered)
                    if o.choices:
                        self.assertEqual(
                            self.complete(*start, f'--{o.name}', ''),
                            list(o.choices))
        self.assertEqual(self.complete('tlm', 'migrate', '--bound', ''), [])
        self.assertEqual(self.complete('tlm', 'estimate', '--conv'), [])

    def test_completion_is_printed(self):
        run = subprocess.run([LAUNCHER, '--completion', 'bash'], text=True,
                             capture_output=True, check=True)
        self.assertEqual(run.stdout, completion.bash())
        run = subprocess.run([LAUNCHER, '--completion', 'fish'], text=True,
                             capture_output=True)
        self.assertEqual(run.returncode, 2)

    def test_manual_pages(self):
        for name in manpage.PAGES:
            text = manpage.page(name).replace('\\-', '-')
            with self.subTest(page=name):
                self.assertRegex(text, rf'^\.TH {name.upper()} 1 ')
                self.assertRegex(text, rf'(?m)^{name} - ')
                for metavar, _ in options.UNITS:
                    self.assertIn(metavar, text)
        for name, command in options.COMMANDS.items():
            text = manpage.page(command.page).replace('\\-', '-')
            for o in options.of(name):
                self.assertIn(f'\\fB--{o.name}\\fR', text)
            for code, meaning in command.exits:
                self.assertIn(f'.TP\n{code}\n', text)
            self.assertIn(command.page, manpage.page('tlm').replace(
                '\\-', '-'))

    @unittest.skipUnless(shutil.which('groff'), 'no groff')
    def test_manual_pages_are_good_roff(self):
        for name in manpage.PAGES:
            with self.subTest(page=name):
                run = subprocess.run(
                    ['groff', '-ww', '-man', '-Tutf8', '-z'], text=True,
                    input=manpage.page(name), capture_output=True)
                self.assertEqual((run.returncode, run.stderr), (0, ''))

    def test_roff_is_escaped(self):
        self.assertEqual(manpage.escape('.a-b\\'), '\\&.a\\-b\\e')


class Package(unittest.TestCase):
    def test_version(self):
        self.assertRegex(read(os.path.join(ROOT, 'meson.build')),
                         rf"version: '{re.escape(tlm.__version__)}'")

    def test_all_is_installed(self):
        listed = read(os.path.join(ROOT, 'python/meson.build'))
        for path in modules().values():
            self.assertIn(f"'{os.path.relpath(path, ROOT + '/python')}'",
                          listed)
        for page in manpage.PAGES:
            self.assertIn(f"'{page}'", listed)
        for old_name in options.OLD_NAMES:
            self.assertIn(f"'{old_name}'", listed)
            self.assertEqual(os.readlink(f'{LAUNCHER}{old_name[3:]}'), 'tlm')

    def imports(self, name, path):
        """Modules of the package that one imports, and other top-level
        modules."""
        own, others = set(), set()
        package = name.split('.')[:-1]
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.Import):
                others |= {a.name.split('.')[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                others.add(node.module.split('.')[0])
            elif isinstance(node, ast.ImportFrom):
                base = package[:len(package) + 1 - node.level]
                base += node.module.split('.') if node.module else []
                own |= {'.'.join([*base, a.name]) for a in node.names} | \
                    {'.'.join(base)}
        return own & set(modules()), others

    def test_order(self):
        """Each module imports only what the map has below it: no circles."""
        chapter = read(os.path.join(ROOT, 'docs/building.md')).partition(
            '| module of `python/tlm` |')[2].partition('\n\n')[0]
        order = [name.replace('/', '.')
                 for row in re.findall(r'^\| (`.*?) \|', chapter, re.M)
                 for name in re.findall(r'`(.*?)`', row)]
        found = {name: path for name, path in modules().items()
                 if not name.endswith('__init__')}
        self.assertEqual(sorted(order), sorted(found))
        needs = {name: self.imports(name, path)[0]
                 for name, path in found.items()}
        self.assertIn('units', needs['options'])
        self.assertIn('virsh.shell', needs['virsh.domain'])
        for i, name in enumerate(order):
            self.assertLessEqual(needs[name], set(order[i + 1:]), name)

    def test_programs(self):
        """build/tlm finds those of its build directory; an installed one
        those beside it first."""
        name, folder = 'no-such-program', 'tools/some'
        with tempfile.TemporaryDirectory() as build, \
                mock.patch.object(sys, 'argv', [os.path.join(build, 'tlm')]):
            with self.assertRaisesRegex(errors.MigrateError,
                                        'NO_SUCH_PROGRAM'):
                programs.find(name, folder)
            os.makedirs(os.path.join(build, folder))
            for place in (os.path.join(build, folder), build):
                path = os.path.join(place, name)
                with open(path, 'w', encoding='utf-8'):
                    os.chmod(path, 0o755)
                self.assertEqual(programs.find(name, folder), path)

    def test_standard_library_only(self):
        """But for what it does without, if it is not there."""
        for name, path in modules().items():
            self.assertLessEqual(self.imports(name, path)[1],
                                 {*sys.stdlib_module_names, 'xxhash'}, name)

    def test_modules_are_short(self):
        for name, path in modules().items():
            self.assertLess(read(path).count('\n'), MODULE_LINES, name)

    def test_one_reader_of_query_migrate(self):
        status = os.path.join(PACKAGE, 'status.py')
        text = read(status)
        members = set(re.findall(
            r"(?:_members|_bound|_overcommit)(?:\[|\.get\()'([-a-z]+)'", text))
        members |= set(re.findall(r"\]\['([-a-z]+)'\]", text))
        self.assertLessEqual({'prediction', 'eta', 'slack', 'cpus'}, members)
        # what other answers have, too: that of query-tlm-estimate, events
        members -= {'downtime', 'bandwidth', 'total', 'dirty-rate', 'cpus',
                    'downtime-reachable', 'ram', 'reachable'}
        for name, path in modules().items():
            if path == status or name == 'options':
                continue
            for member in members:
                self.assertNotRegex(
                    read(path), rf"\[['\"]{member}['\"]\]|"
                    rf"get\(['\"]{member}['\"]", name)


class Progress(unittest.TestCase):
    TLM = {'stage': 'live', 'progress': 40, 'decision': 'pass',
           'bandwidth': 1 << 20,
           'prediction': {'total': 1000, 'downtime': 20, 'eta': 900,
                          'downtime-reachable': False},
           'guest': {'speed': 0, 'dirty-rate': 5_000_000, 'lost-work': 5}}
    RAM = {'transferred': 1 << 20, 'remaining': 5_000_000,
           'total': 2 << 20, 'dirty-sync-count': 3}

    def describe(self, limits=False, status='active', downtime=True,
                 **members):
        return progress.describe(
            Status({'status': status, 'ram': self.RAM,
                    'tlm': {**self.TLM, **members}}), None, limits,
            downtime)

    def test_speed_of_the_guest(self):
        for speed, wanted in ((0, 'guest at 0 % speed'),
                              (0.351, 'guest at 35 % speed'),
                              (1, 'guest dirties 5 MB/s')):
            with self.subTest(speed=speed):
                self.assertEqual(
                    self.describe(guest={**self.TLM['guest'],
                                         'speed': speed}),
                    ('live', 40, ['ETA 900 ms', 'downtime 20 ms', wanted]))

    def test_limits(self):
        self.assertIn('downtime limit out of reach', self.describe(True)[2])
        self.assertNotIn('downtime limit out of reach', self.describe()[2])
        for reachable, wanted in ((True, 'slack -1.5 s'),
                                  (False, 'bound out of reach')):
            self.assertIn(wanted, self.describe(
                bound={'reachable': reachable, 'slack': -1500})[2])

    def test_stop(self):
        self.assertEqual(
            self.describe(stage='stop', overcommit={'cpus': 1}),
            ('stop', 40, ['5 MB left', 'ETA 900 ms', 'vCPUs on 1 host CPUs']))

    def test_checkpoint(self):
        """Nothing is predicted of a pause in which nothing is sent."""
        self.assertNotIn('downtime', str(self.describe(downtime=False)))
        self.assertIn('downtime', str(self.describe()))

    def test_without_tlm(self):
        self.assertEqual(
            progress.describe(Status({'status': 'active', 'ram': self.RAM}),
                              2e6, False),
            ('active', None, ['2 MB/s', '1.05 MB sent', '5 MB left',
                              'round 3']))
        self.assertTrue(Status({'status': 'active',
                                'ram': self.RAM}).without_tlm)

    def test_figures(self):
        for ms, wanted in ((0, '0 ms'), (0.2, '< 1 ms'), (999, '999 ms'),
                           (1000, '1.00 s'), (12_340, '12.3 s'),
                           (100_000, '100 s')):
            self.assertEqual(figures.duration(ms), wanted)


class Qemu(threading.Thread):
    """A QMP monitor for one client after the other.  A migration takes
    @looks looks at it, or ends when it is cancelled if that is 0."""

    INFO = {**Progress.TLM, 'stage': 'done', 'progress': 100,
            'decision': 'pass-ended',
            'ram': {'mtx': 1, 'dtx': 0, 'stop': 0, 'resent': 0, 'skipped': 0},
            'epochs': {'count': 3},
            'downtime': {'vm-stop': 0, 'sync': 0, 'ram': 7000, 'hold': 0,
                         'device': 0, 'switchover': 0}}

    POSTCOPY = {'owed': 8 << 20, 'remaining': 0, 'time': 450, 'requests': 33,
                'bandwidth': 1, 'downtime': 21_000}

    def __init__(self, path, looks=2, postcopy=False):
        super().__init__(daemon=True)
        self.looks, self.status = looks, 'none'
        self.active = 'postcopy-active' if postcopy else 'active'
        self.more = {'postcopy': self.POSTCOPY} if postcopy else {}
        self.asked = []
        self.params = {'tlm-time-bound': 0, 'downtime-limit': 300,
                       'max-bandwidth': 0, 'multifd-channels': 2,
                       'tlm-converge': 'none', 'tlm-overcommit': [],
                       'tlm-bound-action': 'complete'}
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        self.start()

    def run(self):
        while True:
            client, _ = self.socket.accept()
            with client, client.makefile('rw') as f:
                self.say(f, {'QMP': {}})
                for line in f:
                    request = json.loads(line)
                    arguments = request.get('arguments', {})
                    self.asked.append((request['execute'], arguments))
                    self.say(f, {'event': 'BESIDE'})
                    self.say(f, self.answer(request['execute'], arguments))

    @staticmethod
    def say(f, what):
        f.write(json.dumps(what) + '\n')
        f.flush()

    def answer(self, command, arguments):
        if command == 'query-migrate-parameters':
            return {'return': dict(self.params)}
        if command == 'migrate-set-parameters':
            self.params.update(arguments)
        if command == 'query-migrate-capabilities':
            return {'return': [{'capability': c, 'state': False}
                               for c in ('multifd', 'tlm', 'return-path',
                                         'postcopy-ram')]}
        if command == 'query-commands':
            return {'return': [{'name': 'tlm-estimate'}]}
        if command == 'query-tlm-estimate':
            return {'return': {
                'status': 'measured', 'total-bytes': 1 << 30,
                'working-set-bytes': 1 << 20, 'window': 1000,
                'dirty-rate': 1000, 'bandwidth': 100_000_000,
                'predictions': [{
                    'converge': 'none', 'total': 5000, 'downtime': 20,
                    'smallest-bound': 4000, 'downtime-reachable': True,
                    'bound-reachable': arguments.get('time-bound',
                                                     9999) >= 4000}]}}
        if command == 'query-status':
            return {'return': {'status': 'running'}}
        if command == 'migrate':
            self.status = self.active
        if command == 'migrate_cancel':
            self.status = 'cancelled'
        if command == 'query-migrate':
            return {'return': self.info()}
        return {'return': {}}

    def info(self):
        if self.status == self.active and self.looks:
            self.looks -= 1
            self.status = self.active if self.looks else 'completed'
        tlm = self.INFO if self.status == 'completed' else Progress.TLM
        return {'status': self.status, 'total-time': 1234, 'downtime': 7,
                'ram': Progress.RAM, 'tlm': {**tlm, **self.more}}


class Running(unittest.TestCase):
    """The command as it is called."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.qmp = self.path('qmp')
        # neither this checkout nor its tests may be found by accident
        self.env = {'PATH': '/usr/bin:/bin'}

    def path(self, name):
        return os.path.join(self.dir, name)

    def run_tool(self, *words):
        return subprocess.run(words, cwd=self.dir, env=self.env, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=60)

    def check_subcommands(self, tool):
        run = self.run_tool(tool, '--version')
        self.assertEqual((run.stdout, run.returncode),
                         (f'tlm {tlm.__version__}\n', 0), run.stderr)
        for words in ((), *(name.split() for name in COMMANDS)):
            with self.subTest(words=words):
                run = self.run_tool(tool, *words, '--help')
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertIn(' '.join(['usage: tlm', *words]), run.stdout)
        run = self.run_tool(tool)
        self.assertEqual(run.returncode, 2)
        run = self.run_tool(tool, 'bake')
        self.assertEqual(run.returncode, 2)

    def check_estimate(self, *tool):
        self.qemu = Qemu(self.qmp)
        words = (*tool, '--qmp', self.qmp, '--bandwidth', '100MB/s')
        run = self.run_tool(*words)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stdout, r'plain TLM +5.00 s, down 20 ms')
        run = self.run_tool(*words, '--bound', '3s', '--json')
        self.assertEqual(run.returncode, 3, run.stderr)
        self.assertEqual(json.loads(run.stdout)['status'], 'measured')

    def test_checkout(self):
        self.check_subcommands(LAUNCHER)
        self.check_estimate(LAUNCHER, 'estimate')

    def test_single_file(self):
        """It is copied alone to an empty directory."""
        tool = self.path('tlm')
        subprocess.run([os.path.join(ROOT, 'python/make-single-file'), tool],
                       check=True)
        self.assertEqual(os.stat(tool).st_mode & 0o777, 0o755)
        self.assertEqual(read_line(tool), b'#!/usr/bin/env python3\n')
        self.check_subcommands(tool)
        self.check_estimate(tool, 'estimate')
        run = self.run_tool(tool, 'virsh-migrate', 'vm1', 'u', '--link',
                            '1Gbit/s')
        self.assertEqual(run.returncode, 2)
        os.symlink('tlm', self.path('tlm-migrate'))
        run = self.run_tool(self.path('tlm-migrate'), '--help')
        self.assertIn("the old name of 'tlm migrate'",
                      ' '.join(run.stdout.split()))

    @unittest.skipUnless(os.path.exists(os.path.join(BUILD, 'python/tlm.1')),
                         'not built')
    def test_built_and_installed(self):
        self.check_subcommands(os.path.join(BUILD, 'tlm'))
        for page in manpage.PAGES:
            self.assertEqual(read(os.path.join(BUILD, f'python/{page}.1')),
                             manpage.page(page))
        conf = dict(re.findall(r'^(\w+)=(.*)$',
                               read(os.path.join(BUILD, 'tlm.conf')), re.M))
        subprocess.run([conf['MESON'], 'install', '-C', BUILD, '--no-rebuild',
                        '--tags', 'tlm', '--destdir', self.dir], check=True,
                       stdout=subprocess.DEVNULL)
        top = self.dir + conf['PREFIX']
        self.check_subcommands(f'{top}/bin/tlm')
        self.check_estimate(f'{top}/bin/tlm-estimate')
        for name in ('share/man/man1/tlm-virsh-migrate.1',
                     'share/bash-completion/completions/tlm-migrate',
                     'bin/tlm-virsh-migrate'):
            self.assertTrue(os.path.exists(f'{top}/{name}'), name)
        self.assertEqual(
            read(f'{top}/share/bash-completion/completions/tlm'),
            completion.bash())

    def migrate(self, *options_):
        return (LAUNCHER, 'migrate', '--qmp', self.qmp, *options_,
                'tcp:192.0.2.20:4444')

    def test_migrate(self):
        qemu = Qemu(self.qmp)
        before = dict(qemu.params)
        run = self.run_tool(*self.migrate(
            '--bound', '20s', '--downtime', '100ms', '--bandwidth',
            '10Gbit/s', '--converge', 'auto', '--overcommit', '0.5-(2)'))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('Completed in 1.23 s, downtime 7 ms', run.stdout)
        self.assertIn('guest at 0 % speed', run.stdout)
        sent = [a for c, a in qemu.asked if c == 'migrate-set-parameters']
        self.assertEqual(sent[0], {
            'tlm-time-bound': 20_000, 'downtime-limit': 100,
            'max-bandwidth': 1_250_000_000, 'tlm-converge': 'auto',
            'tlm-overcommit': [{'progress': 50.0, 'cpus': 2}]})
        self.assertEqual(qemu.params, before)
        self.assertEqual([a for c, a in qemu.asked if c == 'migrate'],
                         [{'uri': 'tcp:192.0.2.20:4444'}])

    def test_migrate_by_postcopy(self):
        for option in ('--converge', '--bound-action'):
            with self.subTest(option=option):
                qemu = Qemu(self.qmp, looks=3, postcopy=True)
                run = self.run_tool(*self.migrate(option, 'postcopy'))
                self.assertEqual(run.returncode, 0, run.stderr)
                # not what QEMU calls downtime
                self.assertIn('Completed in 1.23 s, downtime 21 ms',
                              run.stdout)
                self.assertRegex(run.stdout, r'post-copy +8.39 MB +in 450 ms, '
                                 'guest at the destination; it has asked for '
                                 '33 pages')
                caps = [c['capability'] for command, a in qemu.asked
                        if command == 'migrate-set-capabilities'
                        for c in a['capabilities'] if c['state']]
                self.assertIn('postcopy-ram', caps)
                os.unlink(self.qmp)

    def test_migrate_not_cancelled_in_postcopy(self):
        qemu = Qemu(self.qmp, looks=0, postcopy=True)
        p = subprocess.Popen(self.migrate('--converge', 'postcopy'),
                             env=self.env, text=True, stdout=subprocess.PIPE)
        while not any(c == 'query-migrate' for c, _ in qemu.asked):
            self.assertIsNone(p.poll())
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        seen = len(qemu.asked)
        while len(qemu.asked) < seen + 5:
            self.assertIsNone(p.poll())
            time.sleep(0.01)
        qemu.looks = 1
        out, _ = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 0, out)
        self.assertNotIn('migrate_cancel', [c for c, _ in qemu.asked])

    def test_migrate_in_json(self):
        Qemu(self.qmp)
        run = self.run_tool(*self.migrate('--json'))
        self.assertEqual(json.loads(run.stdout)['status'], 'completed')
        self.assertIn('Completed in', run.stderr)

    def test_migrate_interrupted(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signum=signum):
                qemu = Qemu(self.qmp, looks=0)
                p = subprocess.Popen(self.migrate(), env=self.env, text=True,
                                     stdout=subprocess.PIPE)
                while not any(c == 'query-migrate' for c, _ in qemu.asked):
                    self.assertIsNone(p.poll())
                    time.sleep(0.01)
                p.send_signal(signum)
                out, _ = p.communicate(timeout=60)
                self.assertEqual(p.returncode, 130, out)
                self.assertIn('Migration cancelled; the guest at the source '
                              'is running', out)
                os.unlink(self.qmp)

    def test_migrate_without_qemu(self):
        run = self.run_tool(*self.migrate())
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr, f'tlm migrate: {self.qmp}: No such file '
                         'or directory\n')


def read_line(path):
    with open(path, 'rb') as f:
        return f.readline()


if __name__ == '__main__':
    unittest.main()
