#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint without a virtual machine: manifests, checksums, the
catalogue, command lines; and saving from a QEMU that is played here."""

import contextlib
import fcntl
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from tlm import options, parser
from tlm.checkpoint import (checksums, launch, libvirt, look, machine,
                            manifest, mappedram, newdomain, prune, restore,
                            save, tidy, verify, watch)
from tlm.checkpoint.catalogue import Catalogue
from tlm.checkpoint.commands import (LIST, PRUNE, RESTORE, SAVE, SHOW,
                                     VERIFY, WATCH)
from tlm.checkpoint.run import LEASE_MS
from tlm.errors import MigrateError
from tlm.units import Bad, checkpoint_name

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
TOOL = os.path.join(ROOT, 'scripts/tlm')
CHUNK = checksums.CHUNK
HOLE = CHUNK + (8 << 20)        # there is nothing from here on
SIZE = 2 * CHUNK + 12345
DATA = ((0, 300_000), (CHUNK - 5000, 5000), (CHUNK + (1 << 20), 70_000),
        (SIZE - 10, 10))


class Case(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.catalogue = Catalogue(self.dir)
        self.random = random.Random(self.id())

    def path(self, name):
        return os.path.join(self.dir, name)

    def write_sparse(self, path):
        with open(path, 'wb') as f:
            f.truncate(SIZE)
            for at, length in DATA:
                f.seek(at)
                f.write(self.random.randbytes(length))

    def add(self, name, created, **members):
        """A checkpoint of which nobody reads more than this."""
        part = self.path(name + '.part')
        with open(part, 'wb') as f:
            f.write(b'what it holds')
        with open(part, 'rb') as f:
            stat = os.fstat(f.fileno())
            sums = checksums.of_file(f.fileno(), stat.st_size)
        return self.catalogue.add(name, {
            'name': name, 'created': created, 'pause-us': 12000,
            'machine': {'status': 'running', 'running': True},
            'file': manifest.of_file(stat, sums), **members})

    def files(self):
        return sorted(f for f in os.listdir(self.dir) if f != '.lock')

    def call(self, main, name, *words):
        """(exit status, standard output, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(parser.of_command(options.COMMANDS[name]),
                        ['--dir', self.dir, *words])
        return code, out.getvalue(), err.getvalue()


class Checksums(Case):
    def setUp(self):
        super().setUp()
        self.file = self.path('file')
        self.write_sparse(self.file)
        self.before = self.sums()

    def sums(self, workers=1, algorithm=checksums.FASTEST):
        with open(self.file, 'rb') as f:
            return checksums.of_file(f.fileno(), SIZE, workers,
                                     algorithm=algorithm)

    def differing(self):
        with open(self.file, 'rb') as f:
            return checksums.differing(f.fileno(), self.before, SIZE)

    def flip(self, at, bit):
        with open(self.file, 'r+b') as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1 << bit]))

    def assert_flip_is_found(self, at, bit):
        self.flip(at, bit)
        self.assertEqual(self.differing(), [at // CHUNK], (at, bit))
        self.flip(at, bit)
        self.assertEqual(self.differing(), [], (at, bit))

    def test_file_has_holes(self):
        """Else the tests of holes would be none."""
        self.assertLess(os.stat(self.file).st_blocks * 512, SIZE // 10)

    def test_flips_in_data(self):
        for _ in range(12):
            at, length = self.random.choice(DATA)
            self.assert_flip_is_found(at + self.random.randrange(length),
                                      self.random.randrange(8))

    def test_flips_in_holes(self):
        for _ in range(12):
            self.assert_flip_is_found(
                self.random.randrange(HOLE, 2 * CHUNK),
                self.random.randrange(8))

    def test_edges(self):
        for at in (0, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, SIZE - 1):
            self.assert_flip_is_found(at, 7)

    def test_blocks_change_places(self):
        """The same blocks in the same order, and another hole before one."""
        with open(self.file, 'r+b') as f:
            at = CHUNK + (1 << 20)
            f.seek(at)
            block = f.read(2 * checksums.BLOCK)
            f.seek(at)
            f.write(bytes(len(block)))
            f.seek(at + 16 * checksums.BLOCK)
            f.write(block)
        self.assertEqual(self.differing(), [1])

    def test_a_hole_is_zeros(self):
        """A copy without holes is as good."""
        with open(self.file, 'r+b') as f:
            content = f.read()
            f.seek(0)
            f.write(content)
        self.assertGreaterEqual(os.stat(self.file).st_blocks * 512, SIZE)
        self.assertEqual(self.differing(), [])

    def test_holes_are_not_read(self):
        read = []

        def pread(fd, length, at):
            read.append(length)
            return real(fd, length, at)
        real = os.pread
        with mock.patch('os.pread', pread):
            self.sums()
        self.assertLess(sum(read), 2 << 20)

    def test_workers(self):
        self.assertEqual(self.sums(workers=3), self.before)
        self.assertEqual(len(self.before), 3)
        self.assertEqual(len(set(self.before)), 3)

    def test_algorithms(self):
        found = {tuple(self.sums(algorithm=a))
                 for a, there in checksums.ALGORITHMS.items() if there}
        self.assertEqual(len(found), sum(map(
            bool, checksums.ALGORITHMS.values())))

    def test_interrupted(self):
        def stop(done, _count):
            raise KeyboardInterrupt
        with open(self.file, 'rb') as f, \
                self.assertRaises(KeyboardInterrupt):
            checksums.of_file(f.fileno(), SIZE, on_chunk=stop)


class Manifest(Case):
    def setUp(self):
        super().setUp()
        self.written = self.add('one', '2026-01-01T00:00:00.000000Z')
        self.file = self.path('one.json')

    def assert_broken(self, text, why):
        with open(self.file, 'w') as f:
            f.write(text)
        with self.assertRaisesRegex(manifest.BadManifest, why):
            manifest.read(self.file)

    def test_read_as_written(self):
        self.assertEqual(manifest.read(self.file), self.written)

    def test_each_change_is_found(self):
        with open(self.file) as f:
            text = f.read()
        changed = 0
        for _ in range(300):
            at = self.random.randrange(len(text))
            broken = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1:]
            with contextlib.suppress(ValueError):
                if json.loads(broken) == self.written:
                    continue            # white space
            changed += 1
            self.assert_broken(broken, 'manifest')
        self.assertGreater(changed, 200)

    def test_broken(self):
        self.assert_broken('', 'cannot be read')
        self.assert_broken('{"format": 1', 'cannot be read')
        self.assert_broken('[]', 'no object')
        self.assert_broken('{"format": 3}', 'format is 3, not 2 or 1')
        manifest.write(self.file, {'file': {}})
        with self.assertRaisesRegex(manifest.BadManifest, 'cannot be read'):
            manifest.read(self.file)
        manifest.write(self.file, {'file': {
            **self.written['file'], 'size': 5 * CHUNK}})
        with self.assertRaisesRegex(manifest.BadManifest, 'checksums'):
            manifest.read(self.file)
        os.unlink(self.file)
        with self.assertRaisesRegex(manifest.BadManifest, 'No such file'):
            manifest.read(self.file)

    def test_format_1(self):
        """It had no other checksums than SHA-256."""
        with open(self.path('one.checkpoint'), 'rb') as f:
            sums = checksums.of_file(f.fileno(), 13, algorithm='sha256')
        old = {**self.written['file'], 'sha256': sums}
        del old['sums'], old['algorithm']
        content = {**self.written, 'file': old, 'format': 1}
        del content['checksum']
        manifest.write(self.file, content)
        self.assertEqual(manifest.sums(manifest.read(self.file)),
                         ('sha256', sums))
        entry = self.catalogue.get('one')
        self.assertIsNone(verify.problem(self.catalogue, entry))
        with open(self.path('one.checkpoint'), 'r+b') as f:
            f.write(b'W')
        self.assertIn('1 of 1 chunks', verify.problem(self.catalogue, entry))

    def test_checksums_that_cannot_be_made_here(self):
        with mock.patch.dict(checksums.ALGORITHMS, {'xxh3-128': None}), \
                self.assertRaisesRegex(MigrateError, 'python3-xxhash'), \
                open(self.path('one.checkpoint'), 'rb') as f:
            checksums.of_file(f.fileno(), 13, algorithm='xxh3-128')

    def test_a_write_that_fails_leaves_the_old_one(self):
        with mock.patch('os.fsync', side_effect=OSError(28, 'full')), \
                self.assertRaises(OSError):
            manifest.write(self.file, {'file': {}})
        self.assertEqual(manifest.read(self.file), self.written)
        self.assertEqual(self.files(), ['one.checkpoint', 'one.json'])


class Names(Case):
    def test_names(self):
        for good in ('a', 'before-upgrade_2.1', '20260101T000000Z', 'x' * 100,
                     'a.json', 'a.part'):
            self.assertEqual(checkpoint_name(good), good)
        for bad in ('', '.', '..', '.a', '-a', 'a/b', '../a', 'a b', 'a\n',
                    'ä', 'x' * 101):
            with self.assertRaises(Bad):
                checkpoint_name(bad)

    def test_names_that_look_like_files(self):
        self.add('a', '1')
        self.add('a.json', '2')
        self.add('a.checkpoint', '3')
        self.assertEqual([e.name for e in self.catalogue.entries()],
                         ['a', 'a.json', 'a.checkpoint'])
        self.assertEqual(self.catalogue.leftovers(), [])

    def test_new_names(self):
        self.assertEqual(self.catalogue.new_name('one'), 'one')
        with mock.patch('time.gmtime', return_value=time.gmtime(0)):
            for wanted in ('19700101T000000Z', '19700101T000000Z-2',
                           '19700101T000000Z-3'):
                name = self.catalogue.new_name()
                self.assertEqual(name, wanted)
                self.add(name, '1')
        with self.assertRaisesRegex(MigrateError, 'already'):
            self.catalogue.new_name('19700101T000000Z')

    def test_none_leads_out_of_the_directory(self):
        os.mkdir(self.path('inner'))
        self.add('one', '1')
        inner = Catalogue(self.path('inner'))
        with self.assertRaisesRegex(MigrateError, 'no checkpoint'):
            inner.get('../one')


class Tidy(Case):
    """list, show, verify, prune."""

    def setUp(self):
        super().setUp()
        for i, name in enumerate(('d', 'a', 'c', 'b')):
            self.add(name, f'2026-01-0{i + 1}T00:00:00.000000Z')

    def break_some(self):
        with open(self.path('a.json'), 'w') as f:
            f.write('{}')
        with open(self.path('b.checkpoint'), 'ab') as f:
            f.write(b'x')
        for left in ('z.part', 'y.checkpoint', '.x.json.new'):
            with open(self.path(left), 'w'):
                pass

    def test_list(self):
        code, out, _ = self.call(look.main_list, LIST)
        self.assertEqual(code, 0)
        self.assertEqual([line.split()[0] for line in out.splitlines()],
                         ['d', 'a', 'c', 'b'])
        self.assertIn('pause   12 ms  was running', out)

    def test_list_tells_what_is_broken(self):
        self.break_some()
        _, out, _ = self.call(look.main_list, LIST)
        self.assertIn('a: the manifest', out)
        self.assertIn('b: the file has 14 bytes instead of 13', out)
        for left in ('z.part', 'y.checkpoint', '.x.json.new'):
            self.assertIn(f'{left}: no checkpoint', out)
        code, out, _ = self.call(look.main_list, LIST, '--json')
        told = json.loads(out)
        self.assertEqual(told['left-over'],
                         ['z.part', 'y.checkpoint', '.x.json.new'])
        self.assertEqual({c['name'] for c in told['checkpoints']
                          if c['problem']}, {'a', 'b'})

    def test_show(self):
        for words, wanted in (((), 'b'), (('d',), 'd')):
            code, out, _ = self.call(look.main_show, SHOW, '--json', *words)
            self.assertEqual((code, json.loads(out)['name']), (0, wanted))
        code, _, err = self.call(look.main_show, SHOW, 'e')
        self.assertEqual(code, 1)
        self.assertIn("no checkpoint 'e'", err)

    def test_prune(self):
        code, out, _ = self.call(tidy.main_prune, PRUNE, '--keep', '2')
        self.assertEqual((code, out), (0, 'Removed d\nRemoved a\n'))
        self.assertEqual(self.files(), ['b.checkpoint', 'b.json',
                                        'c.checkpoint', 'c.json'])
        self.call(tidy.main_prune, PRUNE, '--keep', '9')
        self.assertEqual(len(self.files()), 4)

    def test_clock_set_back(self):
        """What was saved last stays the newest one."""
        self.assertLess(max(e.age[0] for e in self.catalogue.entries()),
                        self.catalogue.now())
        self.add('e', '2999-12-31T23:59:59.999999Z')
        for name, created in (('f', '3000-01-01T00:00:00.000000Z'),
                              ('g', '3000-01-01T00:00:00.000001Z')):
            self.assertEqual(self.catalogue.now(), created)
            self.add(name, self.catalogue.now())
        self.assertEqual(self.catalogue.newest().name, 'g')
        self.call(tidy.main_prune, PRUNE, '--keep', '1')
        self.assertEqual(self.files(), ['g.checkpoint', 'g.json'])

    def test_prune_leaves_what_is_broken(self):
        self.break_some()
        code, out, err = self.call(tidy.main_prune, PRUNE, '--keep', '1',
                                   '--json')
        self.assertEqual(json.loads(out), {
            'checkpoints': ['d'],
            'left-over': ['z.part', 'y.checkpoint', '.x.json.new']})
        self.assertIn('a is left as it is', err)
        self.assertIn('b is left as it is', err)
        self.assertEqual(self.files(), [
            'a.checkpoint', 'a.json', 'b.checkpoint', 'b.json',
            'c.checkpoint', 'c.json'])

    def test_prune_killed_half_way(self):
        """What is left of it is no checkpoint, and goes the next time."""
        with mock.patch('tlm.checkpoint.durable.sync_directory',
                        side_effect=KeyboardInterrupt), \
                self.assertRaises(KeyboardInterrupt):
            prune.run(self.catalogue, 3)
        self.assertEqual(len(self.catalogue.entries()), 3)
        self.assertEqual(self.catalogue.leftovers(), ['d.checkpoint'])

    def test_one_at_a_time(self):
        with open(self.path('.lock'), 'w') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            code, _, err = self.call(tidy.main_prune, PRUNE, '--keep', '1')
        self.assertEqual(code, 1)
        self.assertIn('another "tlm checkpoint" is at work', err)
        self.assertEqual(len(self.files()), 8)

    def test_verify(self):
        code, out, _ = self.call(tidy.main_verify, VERIFY)
        self.assertEqual((code, out), (0, 'd: good\na: good\nc: good\n'
                                       'b: good\n'))

    def test_verify_finds(self):
        def flip(path):
            with open(path, 'r+b') as f:
                f.seek(5)
                f.write(b'!')

        for what, change, why in (
                ('flip', flip, '1 of 1 chunks'),
                ('truncated', lambda p: os.truncate(p, 12), '12 bytes'),
                ('extended', lambda p: os.truncate(p, 14), '14 bytes'),
                ('gone', os.unlink, 'No such file')):
            with self.subTest(what):
                self.add(what, '2027')
                change(self.path(f'{what}.checkpoint'))
                code, out, _ = self.call(tidy.main_verify, VERIFY, '--json',
                                         what)
                self.assertEqual(code, 1)
                self.assertRegex(json.loads(out)[what], why)
                code, _, _ = self.call(tidy.main_verify, VERIFY, 'c')
                self.assertEqual(code, 0)
        code, _, _ = self.call(tidy.main_verify, VERIFY)
        self.assertEqual(code, 1)

    def test_no_directory(self):
        with self.assertRaisesRegex(MigrateError, 'no such directory'):
            Catalogue('/nowhere/at/all')


class Libvirt(Case):
    XML = ("<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/"
           "qemu/1.0'><name>vm1</name><metadata><a:b xmlns:a='u:a'/>"
           '</metadata>%s</domain>')

    def lock_manager(self, text):
        with open(self.path('qemu.conf'), 'w') as f:
            f.write(text)
        libvirt.check_locking(self.path('qemu.conf'))

    def test_lock_managers(self):
        libvirt.check_locking(self.path('none.conf'))
        for good in ('', '# lock_manager = "lockd"\n',
                     'lock_manager = "nop"\n'):
            self.lock_manager(good)
        for bad in ('lock_manager = "lockd"\n',
                    "a = 1\n  lock_manager='sanlock'\n"):
            with self.assertRaisesRegex(MigrateError, 'has a lock manager'):
                self.lock_manager(bad)

    def test_lock_manager_that_is_not_known(self):
        with mock.patch('builtins.open', side_effect=PermissionError(13, '')), \
                self.assertRaisesRegex(MigrateError, 'cannot be read'):
            libvirt.check_locking('/etc/libvirt/qemu.conf')

    def test_connections(self):
        for uri, kind in (('qemu:///system', 'system'),
                          ('qemu+unix:///session', 'session')):
            self.assertEqual(libvirt.check_local(lambda _: uri + '\n'), kind)
        for uri in ('qemu+ssh://host/system', 'qemu+tcp://h/system',
                    'xen:///system', ''):
            with self.assertRaisesRegex(MigrateError, 'local socket'):
                libvirt.check_local(lambda _: uri + '\n')

    def words(self, text):
        return re.findall(r'<qemu:arg value="(.*?)"', text)

    def test_description(self):
        text = newdomain.waiting(self.XML % '', 'vm1')
        self.assertEqual(self.words(text), ['-incoming', 'defer'])
        self.assertIn('="u:a"', text)
        self.assertEqual(newdomain.waiting(text, 'vm1'), text)
        more = '<qemu:commandline><qemu:arg value="-S"/></qemu:commandline>'
        self.assertEqual(self.words(newdomain.waiting(
            self.XML % more, 'vm1')), ['-S', '-incoming', 'defer'])
        with self.assertRaisesRegex(MigrateError, "'vm1', not 'vm2'"):
            newdomain.waiting(self.XML % '', 'vm2')


class Launch(unittest.TestCase):
    QEMU = ['qemu-system-x86_64', '-m', '1G', '-name', 'launch-test']

    def recorded(self, *more, running=None):
        with mock.patch.object(launch, '_running', return_value=running):
            return launch.recorded({'command': [*self.QEMU, *more],
                                    'directory': '/srv'})

    def test_what_is_left_out(self):
        self.assertEqual(
            self.recorded('-S', '-incoming', 'tcp:0:4444', '--daemonize',
                          '-loadvm', 'x', '-vnc', ':1'),
            ([*self.QEMU, '-vnc', ':1'], '/srv'))

    def test_what_is_refused(self):
        for words in (('-netdev', 'tap,id=n,fd=21'),
                      ('-netdev', 'tap,id=n,vhostfds=3:4'),
                      ('-chardev', 'socket,id=c,fd=9'),
                      ('-drive', 'file=/dev/fdset/1'),
                      ('-add-fd', 'fd=3,set=2'), ('-serial', 'fd:7')):
            with self.subTest(words=words), \
                    self.assertRaisesRegex(MigrateError, 'had opened'):
                self.recorded(*words)
        self.recorded('-drive', 'file=/srv/fdisk,if=virtio')
        with self.assertRaisesRegex(MigrateError, 'not known'):
            launch.recorded({'command': None})
        with self.assertRaisesRegex(MigrateError, 'process 77'):
            self.recorded(running='77')

    def test_who_runs_it(self):
        words = [sys.executable, '-c', 'input()', 'launch-test', str(id(self))]
        for extra in ((), ('-S', '-incoming', 'defer')):
            with subprocess.Popen([*words, *extra],
                                  stdin=subprocess.PIPE) as p:
                # what a process is says its exec, which is later
                deadline = time.monotonic() + 30
                while launch._running(words) != str(p.pid):
                    self.assertLess(time.monotonic(), deadline)
                p.stdin.close()
        self.assertIsNone(launch._running(words))

    def test_qemu_that_does_not_start(self):
        for command, why in ((['/nowhere/qemu'], 'No such file'),
                             (['/bin/sh', '-c', 'echo such a pity; exit 3'],
                              'such a pity'), (['false'], 'status 1')):
            with self.subTest(command=command), \
                    self.assertRaisesRegex(MigrateError, why):
                with launch.Qemu(command) as qemu:
                    self.fail(f'{qemu} runs')


class Qemu(threading.Thread):
    """A QMP monitor, and what QEMU would do to the file."""

    PARTS = {'vm-stop': 5000, 'sync': 60, 'ram': 7000, 'hold': 0,
             'device': 900, 'switchover': 0}

    def __init__(self, path, end='completed', ram=64 << 20, image=''):
        super().__init__(daemon=True)
        self.image = image
        self.end, self.ram, self.file = end, ram, None
        self.status, self.asked = 'none', []
        self.params = {'max-bandwidth': 128 << 20, 'tlm-time-bound': 0,
                       'multifd-channels': 2}
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        self.start()

    def run(self):
        while True:
            client, _ = self.socket.accept()
            with contextlib.suppress(OSError), client, \
                    client.makefile('rw') as f:
                self.say(f, {'QMP': {}})
                for line in f:
                    request = json.loads(line)
                    arguments = request.get('arguments', {})
                    self.asked.append((request['execute'], arguments))
                    if self.file and self.end == 'killed':
                        break
                    self.say(f, {'return': self.answer(request['execute'],
                                                       arguments)})

    @staticmethod
    def say(f, what):
        f.write(json.dumps(what) + '\n')
        f.flush()

    def answer(self, command, arguments):
        if command == 'migrate-set-parameters':
            self.params.update(arguments)
        elif command == 'tlm-checkpoint':
            self.file = arguments['uri'].removeprefix('file:')
            with open(self.file, 'wb') as f:
                f.write(b'RAM and devices')
            self.status = 'active' if self.end == 'cancelled' else self.end
        elif command == 'migrate_cancel':
            self.status = 'cancelled'
        return {
            'query-commands': [{'name': 'tlm-checkpoint'}],
            'query-version': {'qemu': {'major': 10, 'minor': 0, 'micro': 13},
                              'package': ''},
            'query-memory-size-summary': {'base-memory': self.ram},
            'query-status': {'status': 'running', 'running': True},
            'query-name': {'name': 'played'}, 'query-uuid': {'UUID': '0-0'},
            'qom-get': 'pc-i440fx-10.0-machine',
            'human-monitor-command':
                'Block Name PSize Offset Used Total HVA RO\n'
                f'   pc.ram  4 KiB  0x00 0x{self.ram:016x} 0x00 0x00  rw\n',
            'query-named-block-nodes': [
                {'node-name': name, 'drv': drv, 'file': file, 'image': {}} for
                name, drv, file in (('disk0', 'raw', self.image),
                                    ('over0', 'qcow2', '/srv/over0'))],
            'query-migrate-capabilities': [],
            'query-migrate-parameters': dict(self.params),
            'query-migrate': {
                'status': self.status, 'total-time': 1234, 'downtime': 13,
                'error-desc': 'the disk is on fire',
                'ram': {'total': 1, 'transferred': 1, 'remaining': 0,
                        'dirty-sync-count': 1},
                'tlm': {'stage': 'done', 'progress': 100, 'bandwidth': 0,
                        'prediction': {'eta': 0, 'total': 0, 'downtime': 0,
                                       'downtime-reachable': True},
                        'guest': {'speed': 1, 'dirty-rate': 0},
                        'downtime': self.PARTS,
                        'checkpoint': {'method': 'copy', 'copied': 5 << 20}}},
        }.get(command, {})


class Save(Case):
    def setUp(self):
        super().setUp()
        sockets = tempfile.TemporaryDirectory()
        self.addCleanup(sockets.cleanup)
        self.qmp = os.path.join(sockets.name, 'qmp')

    def save(self, *words):
        return self.call(save.main, SAVE, '--qmp', self.qmp, *words)

    def test_saved(self):
        qemu = Qemu(self.qmp)
        before = dict(qemu.params)
        code, out, err = self.save('--name', 'one', '--json', '--bound', '9s',
                                   '--buffer', '1GiB')
        self.assertEqual(code, 0, err)
        content = json.loads(out)
        self.assertEqual(content, manifest.read(self.path('one.json')))
        self.assertEqual(self.files(), ['one.checkpoint', 'one.json'])
        self.assertEqual(content['pause-us'], 12960)
        self.assertEqual(content['copied'], 5 << 20)
        self.assertEqual(content['file']['size'], 15)
        self.assertEqual(content['machine'], {
            'type': 'pc-i440fx-10.0', 'qemu': '10.0.13', 'name': 'played',
            'uuid': '0-0', 'ram': 64 << 20, 'status': 'running',
            'running': True, 'command': None, 'directory': None})
        self.assertIn('pause 13 ms', err)
        self.assertIsNone(verify.problem(self.catalogue,
                                         self.catalogue.get('one')))
        sent = [a for c, a in qemu.asked if c == 'migrate-set-parameters']
        self.assertEqual(sent[0], {'max-bandwidth': 0,
                                   'tlm-time-bound': 9000})
        self.assertEqual(qemu.params, before)
        self.assertEqual([a for c, a in qemu.asked if c == 'tlm-checkpoint'],
                         [{'uri': f"file:{self.path('one.part')}",
                           'buffer-size': 1 << 30,
                           'client-timeout': LEASE_MS}])
        code, _, err = self.save('--name', 'one')
        self.assertEqual(code, 1)
        self.assertIn("a checkpoint 'one' already", err)

    def test_disks(self):
        """The manifest knows the image; restore notices a change of it."""
        image = self.path('disk.img')
        with open(image, 'wb') as f:
            f.truncate(1 << 20)
        qemu = Qemu(self.qmp, image=image)
        code, _, err = self.save('--name', 'one', '--disk', 'disk0=over0')
        self.assertEqual(code, 0, err)
        self.assertIn('disk.img, which nobody may write to', err or _)
        sent, = [a for c, a in qemu.asked if c == 'tlm-checkpoint']
        self.assertEqual(sent['disks'],
                         [{'node': 'disk0', 'overlay': 'over0'}])
        used, = manifest.read(self.path('one.json'))['disks']
        self.assertEqual((used['base'], used['format'], used['overlay-file'],
                          used['identity']['size']),
                         (image, 'raw', '/srv/over0', 1 << 20))
        code, _, err = self.call(restore.main, RESTORE, 'one')
        self.assertEqual(code, 1)
        self.assertIn(f'qemu-img create -f qcow2 -b {image} -F raw', err)
        with open(image, 'r+b') as f:
            f.write(b'!')
        for change, why in ((lambda: None, 'has changed'),
                            (lambda: os.unlink(image), 'is not there')):
            change()
            code, _, err = self.call(restore.main, RESTORE, 'one', '--',
                                     'false')
            self.assertEqual(code, 1)
            self.assertIn(why, err)
        code, _, err = self.save('--disk', 'disk0=over1')
        self.assertEqual(code, 1)
        self.assertIn("no block node 'over1'", err)

    def test_nothing_is_left_of_a_failure(self):
        for end, code, why in (('failed', 1, 'the disk is on fire'),
                               ('killed', 1, 'closed the connection')):
            with self.subTest(end):
                qemu = Qemu(self.qmp, end)
                got, _, err = self.save()
                self.assertEqual(got, code)
                self.assertIn(why, err)
                self.assertTrue(qemu.file.startswith(self.dir))
                self.assertEqual(self.files(), [])
                os.unlink(self.qmp)

    def test_cancelled_by_others(self):
        qemu = Qemu(self.qmp, 'cancelled')

        def cancel():
            while not qemu.file:
                time.sleep(0.01)
            qemu.answer('migrate_cancel', {})
        other = threading.Thread(target=cancel)
        other.start()
        code, _, err = self.save()
        other.join()
        self.assertEqual(code, 3, err)
        self.assertEqual(self.files(), [])

    def test_interrupted(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signum):
                qemu = Qemu(self.qmp, 'cancelled')
                p = subprocess.Popen(
                    [TOOL, 'checkpoint', 'save', '--qmp', self.qmp, '--dir',
                     self.dir], stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE, text=True)
                while not qemu.file:
                    self.assertIsNone(p.poll())
                    time.sleep(0.01)
                p.send_signal(signum)
                _, err = p.communicate(timeout=60)
                self.assertEqual(p.returncode, 130)
                self.assertIn('the guest runs on', err)
                self.assertEqual(qemu.params['max-bandwidth'], 128 << 20)
                self.assertEqual(self.files(), [])
                os.unlink(self.qmp)

    def test_too_little_space(self):
        qemu = Qemu(self.qmp, ram=1 << 50)
        code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertRegex(err, r'[\d.]+ .iB are free; the checkpoint may '
                         r'become 1048576\.0 GiB')
        self.assertIsNone(qemu.file)

    def test_space_of_all_blocks(self):
        lines = '''         Block Name    PSize     Offset     Used    Total HVA RO
     pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000 0x00007ff643e00000  rw
   /rom@etc/acpi/tables    4 KiB  0x0000000010080000 0x0000000000020000 0x0000000000200000 0x00007ff65b200000  ro
   0000:00:02.0/vga.vram    4 KiB  0x0000000010080000 0x0000000001000000 0x0000000001000000 0x00007ff65b200000  rw
'''
        needed = machine.space_needed(lambda *_, **__: lines)
        self.assertEqual(needed - 3 * machine.PER_BLOCK - machine.DEVICES,
                         0x10000000 + 0x20000 + 0x1000000)
        with self.assertRaises(MigrateError):
            machine.space_needed(lambda *_, **__: 'no blocks here')

    def test_two_at_once(self):
        Qemu(self.qmp)
        with self.catalogue.locked():
            code, _, err = self.save()
        self.assertEqual(code, 1)
        self.assertIn('another "tlm checkpoint" is at work', err)

    def test_leftover_of_the_same_name(self):
        """Its QEMU may still write to it: it must not be written over."""
        Qemu(self.qmp)
        with open(self.path('one.part'), 'w') as old:
            code, _, err = self.save('--name', 'one')
            self.assertEqual(code, 0, err)
            old.write('from a QEMU whose tool was killed')
        with open(self.path('one.checkpoint')) as f:
            self.assertEqual(f.read(), 'RAM and devices')

    def test_watch(self):
        """A failure does not end it; a signal does."""
        qemu = Qemu(self.qmp, 'failed')
        p = subprocess.Popen(
            [TOOL, 'checkpoint', 'watch', '--qmp', self.qmp, '--dir',
             self.dir, '--every', '1s', '--keep', '2'], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertIn('the disk is on fire', p.stderr.readline())
        qemu.end = 'completed'
        said = []
        while len(said) < 4:
            line = p.stdout.readline()
            self.assertTrue(line)
            if line.startswith(('Saved', 'Removed')):
                said.append(line.split()[0])
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, 0)
        self.assertEqual(said, ['Saved', 'Saved', 'Saved', 'Removed'])
        self.assertEqual(len(self.catalogue.entries()), 2)

    def test_watch_of_nothing(self):
        code, _, err = self.call(
            watch.main, WATCH, '--qmp', self.qmp, '--every', '1s', '--dir',
            '/nowhere')
        self.assertEqual(code, 1)
        self.assertIn('no such directory', err)


if __name__ == '__main__':
    unittest.main()
