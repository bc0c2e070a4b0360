#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be known before the work begins is said before it."""

import os
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

# Work that begins all the same should fail at once
NOWHERE = 'http://127.0.0.1:9/'
# A QEMU as far as the demo looks at it
EMULATOR = '''#!/bin/sh
echo "Supported machines are:"
echo "pc-i440fx-{version}      Standard PC (i440FX + PIIX, 1996)"
'''


class Early(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix='tlm-test-')
        self.addCleanup(shutil.rmtree, self.tmp)

    def path(self, name):
        return os.path.join(self.tmp, name)

    def run_script(self, name, *args, **env):
        return subprocess.run(
            [os.path.join(ROOT, name), *args], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
            env={**{k: v for k, v in os.environ.items()
                    if k not in ('CC', 'TLM_QEMU', 'TLM_STOCK_QEMU')},
                 'TLM_BUILD': self.path('build'),
                 'TLM_CACHE': self.path('cache'),
                 'TLM_DEBIAN_MIRROR': NOWHERE, **env})

    def assert_refused(self, run, message):
        self.assertNotEqual(run.returncode, 0)
        self.assertRegex(run.stderr, message)
        self.assertNotIn('==', run.stdout)      # a step of the work
        self.assertEqual(os.listdir(self.tmp), self.before)

    def refused(self, message, name, *args, **env):
        self.before = os.listdir(self.tmp)
        self.assert_refused(self.run_script(name, *args, **env), message)

    def emulator(self, version):
        path = self.path(f'qemu-{version}')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(EMULATOR.format(version=version))
        os.chmod(path, 0o755)
        return path

    def test_demo_destination(self):
        self.refused('--destination /no/qemu: there is no such file',
                     'scripts/demo', '--destination', '/no/qemu')
        self.refused('--destination /bin/true: this is no QEMU',
                     'scripts/demo', '--destination', '/bin/true')
        self.refused("this is no QEMU that knows the machine "
                     "'pc-i440fx-10.0'",
                     'scripts/demo', '--destination', self.emulator('9.2'))
        self.refused('Permission denied', 'scripts/demo', '--destination',
                     '/usr')

    def test_demo_destination_that_will_do(self):
        run = subprocess.run(
            ['/usr/bin/python3', os.path.join(ROOT, 'scripts/lib/demo.py'),
             '--only-parse', '--destination', self.emulator('10.0')],
            capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_demo_other_binaries(self):
        self.refused('TLM_QEMU=/no/qemu: there is no such file',
                     'scripts/demo', TLM_QEMU='/no/qemu')
        self.refused('TLM_STOCK_QEMU=/no/qemu: there is no such file',
                     'scripts/demo', TLM_STOCK_QEMU='/no/qemu')

    def test_demo_numbers(self):
        self.refused('--dtx-channels must be less than --channels',
                     'scripts/demo', '--dtx-channels', '2')
        self.refused("--bound: '-1': write a time as 20s",
                     'scripts/demo', '--bound', '-1')
        self.refused("--memory: '100MiB': must be at least 512",
                     'scripts/demo', '--memory', '100MiB')

    def test_check_suite(self):
        self.refused("there is no suite 'units'",
                     'scripts/check', '--suite', 'units')
        self.refused("there is no suite 'units'",
                     'scripts/check', '--suite=unit', '--suite=units')

    def test_check_minutes(self):
        self.refused('--minutes 0: not a number', 'scripts/check',
                     '--minutes', '0')

    def test_check_release(self):
        self.refused('--qemu-version 9.2.0: the series is for', 'scripts/check',
                     '--qemu-version', '9.2.0')
        self.refused('--also-10.2 is for a first pass with 10.0',
                     'scripts/check', '--also-10.2', '--qemu-version=10.2.2')

    def test_configure(self):
        self.refused("'x86_64' is no system emulator", 'configure',
                     '--target-list=x86_64-softmmu,x86_64')
        self.refused("there is no 'no-such-cc'", 'configure',
                     CC='ccache no-such-cc -m64')

    def test_build_libvirt(self):
        self.refused('no such file or directory: /no/libvirt',
                     'scripts/build-libvirt', '--source', '/no/libvirt')


if __name__ == '__main__':
    unittest.main()
