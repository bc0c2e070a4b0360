#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU must link on hosts other than Linux, where stubs.c stands for TLM.

This host being Linux, QEMU is not built there. Its objects tell what they
want of the files that are for Linux only: stubs.c must have it."""

import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.environ.get('TLM_BUILD', os.path.join(ROOT, 'build'))
COMMANDS = os.path.join(BUILD, 'qemu/compile_commands.json')
TLM = os.path.join(ROOT, 'migration/tlm')
# Options with which gcc writes dependencies into the build directory
DEPENDENCIES = {'-MD': 1, '-MQ': 2, '-MF': 2}


def source_lists():
    """The files that meson.build has for Linux, and for other hosts."""
    with open(os.path.join(TLM, 'meson.build'), encoding='utf-8') as f:
        m = re.search(r"^if host_os == 'linux'\n(.*?)^else\n(.*?)^endif\n",
                      f.read(), re.DOTALL | re.MULTILINE)
    linux, elsewhere = [set(re.findall(r"'([\w/-]+\.c)'", part))
                        for part in m.groups()]
    # Takes the place of placement-stub.c
    linux.add('placement.c')
    return linux, elsewhere


def symbols(objects, cwd):
    """The names that OBJECTS define for others, and those they lack."""
    defined, lacked = set(), set()
    out = subprocess.run(['nm', '-g', '-P', *objects], cwd=cwd, check=True,
                         capture_output=True, text=True).stdout
    for line in out.splitlines():
        fields = line.split()
        if len(fields) > 1:         # else the name of an object
            (lacked if fields[1] in 'Uwv' else defined).add(fields[0])
    return defined, lacked


def compile_as(entry, source, output):
    """Compile SOURCE as the build does the file of ENTRY."""
    args, skip = [], 0
    for arg in shlex.split(entry['command']):
        skip = skip or DEPENDENCIES.get(arg, 0)
        if skip:
            skip -= 1
        else:
            args.append({entry['output']: output,
                         entry['file']: source}.get(arg, arg))
    subprocess.run(args + ['-Werror'], cwd=entry['directory'], check=True)


@unittest.skipUnless(os.path.exists(COMMANDS), f'no {COMMANDS}')
class Stubs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        linux, elsewhere = source_lists()
        with open(COMMANDS, encoding='utf-8') as f:
            commands = json.load(f)
        cwd = commands[0]['directory']
        inside, outside = {}, []
        for entry in commands:
            name = entry['file'].partition('migration/tlm/')[2]
            # overcommit/ is taken in by the list for Linux
            if name in linux or name.startswith('overcommit/'):
                inside[name] = entry
            elif re.match(r'lib(common|qemuutil|qemu-.*-softmmu)\.a\.p/',
                          entry['output']):
                outside.append(entry['output'])
        # Objects of a build that has not been run, or was broken off
        outside = [o for o in outside if os.path.exists(os.path.join(cwd, o))]

        cls.linux = symbols([e['output'] for e in inside.values()], cwd)[0]
        cls.wanted = symbols(outside, cwd)[1] & cls.linux
        with tempfile.TemporaryDirectory(prefix='tlm-test-') as tmp:
            objects = []
            for name in elsewhere:
                objects.append(os.path.join(tmp, name + '.o'))
                compile_as(inside['check.c'], os.path.join(TLM, name),
                           objects[-1])
            cls.stubs, cls.lacked = symbols(objects, cwd)

    def test_looks_at_the_right_objects(self):
        self.assertLessEqual({'tlm_ram_setup',              # ram.c
                              'tlm_check_start',            # migration.c
                              'tlm_channel_group',          # multifd.c
                              'tlm_hmp_show_parameters',    # HMP
                              'qmp_tlm_estimate'},          # QAPI
                             self.wanted)

    def test_nothing_is_missing(self):
        self.assertEqual(self.wanted - self.stubs, set())

    def test_nothing_is_superfluous(self):
        self.assertEqual(self.stubs - self.wanted, set())

    def test_stubs_need_nothing_of_linux(self):
        self.assertEqual(self.lacked & self.linux - self.stubs, set())

    def test_no_file_is_forgotten(self):
        linux, elsewhere = source_lists()
        files = {name for name in os.listdir(TLM) if name.endswith('.c')}
        self.assertEqual(files - linux - elsewhere,
                         {'data-address.c', 'decision.c', 'hmp.c'})


if __name__ == '__main__':
    unittest.main()
