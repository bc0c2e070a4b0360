#!/usr/bin/python3
#
# scripts/tlm-virsh-migrate without libvirt: arguments, the conversation with
# virsh, and the vCPU threads that it moves
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
import threading
import types
import unittest

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))

sys.dont_write_bytecode = True
tool = types.ModuleType('tlm_virsh_migrate')
tool.__file__ = os.path.join(ROOT, 'scripts/tlm-virsh-migrate')
importlib.machinery.SourceFileLoader(
    tool.__name__, tool.__file__).exec_module(tool)

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
    *domstate*) printf 'running\n\n' ;;
    *unknown*) echo "error: failed to get domain 'unknown'" >&2 ;;
    *migrate-set*) echo '{"id":"libvirt-8","error":{"desc":"bad epoch"}}' ;;
    *gone*) exit 1 ;;
    *lost*) echo "error: Disconnected from qemu:///system" >&2 ;;
    *) echo '{"return":{"status":"active"},"id":"libvirt-7"}' ;;
    esac
done
'''

# One domain.  query-migrate tells in turn what TOLD has; "virsh migrate" ends
# when all of it is told, as libvirt's does some time after QEMU
MIGRATING_VIRSH = r'''#!/usr/bin/python3
import json, os, sys, time
HELP = {help!r}
os.chdir(os.path.dirname(sys.argv[0]))
if sys.argv[1:2] == ['help']:
    print(HELP)
elif sys.argv[1:2] == ['migrate']:
    with open('migrate', 'w') as f:
        f.write(' '.join(sys.argv[1:]))
    while not os.path.exists('over'):
        time.sleep(0.01)
    sys.exit(os.path.exists('failure'))
else:
    with open('told') as f:
        told = json.load(f)
    for line in sys.stdin:
        if line.startswith('echo'):
            print(line[4:].strip().replace('"', ''))
        elif 'domstate' in line:
            print('shut off' if os.path.exists('over') and
                  not os.path.exists('failure') else 'running')
        elif 'domjobinfo' in line:
            print('Job type:         Unbounded')
        elif 'query-migrate-capabilities' in line:
            print('{{"return":[{{"capability":"tlm","state":false}}]}}')
        elif 'query-migrate-parameters' in line:
            print('{{"return":{{}}}}')
        elif 'migrate-set-capabilities' in line:
            with open('set', 'a') as f:
                f.write('on ' if 'true' in line else 'off ')
            print('{{"return":{{}}}}')
        else:
            assert 'query-migrate' in line, line
            if told:
                print(json.dumps({{'return': told.pop(0)}}))
            else:
                print('error: domain is not running', file=sys.stderr,
                      flush=True)
            if not told:
                open('over', 'w').close()
        sys.stdout.flush()
'''
TLM_INFO = {'progress': 40, 'eta': 900, 'predicted-downtime': 20,
            'predicted-total': 1000, 'guest-speed': 1.0, 'dirty-rate': 0,
            'bandwidth': 1 << 20, 'downtime-reachable': True,
            'mtx-bytes': 1 << 20, 'dtx-bytes': 0, 'stop-bytes': 0,
            'resent-bytes': 0, 'skipped-bytes': 0, 'epochs': 3,
            'decision': 'as it happens', 'lost-work': 5,
            'downtime': {'vm-stop': 0, 'sync': 0, 'ram': 7000, 'device': 0,
                         'switchover': 0}}
RAM_INFO = {'transferred': 1 << 20, 'remaining': 1 << 20, 'total': 2 << 20}


class Arguments(unittest.TestCase):
    options = tool.known_options(HELP)

    def split(self, *words):
        return tool.split(words, self.options)

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
                    tool.check_mode(bad)
        tool.check_mode({'p2p': True, 'comp-methods': 'zstd',
                         'parallel-connections': '4',
                         'migrateuri': 'tcp://h'})

    def test_steps(self):
        self.assertEqual(tool.parse_steps('0.2-(4),.5-(2)'),
                         [{'progress': 20.0, 'cpus': 4},
                          {'progress': 50.0, 'cpus': 2}])
        for bad in ('50-(2)', '0.5-2', '0.5', ''):
            with self.subTest(bad=bad):
                with self.assertRaises(argparse.ArgumentTypeError):
                    tool.parse_steps(bad)

    def test_cpu_list(self):
        self.assertEqual(tool.cpu_list('0-3,8'), {0, 1, 2, 3, 8})
        self.assertEqual(tool.cpu_list(8), {8})
        self.assertEqual(tool.cpu_list(''), set())


class Conversation(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, 'virsh')
        with open(path, 'w') as f:
            f.write(FAKE_VIRSH)
        os.chmod(path, 0o755)
        self.virsh = tool.Virsh(None)
        self.virsh.command = [path]
        self.addCleanup(self.virsh.close)
        self.qmp = tool.Qmp(self.virsh, "it's")

    def test_answers(self):
        for _ in range(3):
            self.assertEqual(self.qmp('query-migrate'),
                             {'status': 'active'})
            self.assertEqual(self.qmp.state(), 'running')

    def test_errors(self):
        with self.assertRaisesRegex(tool.MigrateError,
                                    "failed to get domain 'unknown'"):
            self.virsh('dominfo', 'unknown')
        self.assertEqual(self.qmp.state(), 'running')
        with self.assertRaisesRegex(tool.MigrateError, 'bad epoch'):
            self.qmp('migrate-set-parameters', tlm_epoch=5)
        with self.assertRaises(tool.Lost):
            self.virsh('lost')

    def test_virsh_that_ends_is_started_again(self):
        with self.assertRaises(tool.Lost):
            self.virsh('gone')
        self.assertEqual(self.qmp.state(), 'running')


class WholeMigration(unittest.TestCase):
    """What is shown, set and returned, however QEMU and virsh end."""

    def run_tool(self, *statuses):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        told = [{}] + [{'status': status, 'total-time': 1234, 'downtime': 7,
                        'error-desc': 'no route', 'ram': RAM_INFO,
                        'tlm': {**TLM_INFO, 'stage': stage}}
                       for status, stage in statuses]
        with open(os.path.join(self.dir, 'told'), 'w') as f:
            json.dump(told, f)
        if statuses[-1][0] == 'failed':
            open(os.path.join(self.dir, 'failure'), 'w').close()
        path = os.path.join(self.dir, 'virsh')
        with open(path, 'w') as f:
            f.write(MIGRATING_VIRSH.format(help=HELP))
        os.chmod(path, 0o755)
        p = subprocess.run(
            [sys.executable, tool.__file__, 'vm1', 'qemu:///x', '--p2p'],
            env=dict(os.environ, PATH=f'{self.dir}:/usr/bin:/bin'),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        return p.returncode, p.stdout

    def content(self, name):
        with open(os.path.join(self.dir, name)) as f:
            return f.read()

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
        placer = tool.Placer(self.ids)
        self.assertEqual(self.masks(), before)
        placer.place(1)
        self.assertEqual(self.masks(), [{self.cpus[0]}] * 2)
        placer.place(2)
        self.assertEqual(self.masks()[0], {self.cpus[1]})
        placer.place(0)
        self.assertEqual(self.masks(), before)
        self.assertIsNone(placer.trouble)

    def test_named_cpus(self):
        placer = tool.Placer(self.ids, {self.cpus[1]})
        placer.place(1)
        self.assertEqual(self.masks(), [{self.cpus[1]}] * 2)
        placer.place(0)

    def test_thread_that_has_ended(self):
        placer = tool.Placer(self.ids)
        self.end.set()
        for t in self.threads:
            t.join()
        placer.place(1)
        placer.place(0)


if __name__ == '__main__':
    unittest.main()
