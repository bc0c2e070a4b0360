#!/usr/bin/python3
#
# What the series allocates is free again when QEMU ends: a build with a leak
# sanitizer is to exit with 0
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import re
import subprocess
import unittest

from tlmtest import env

COMMANDS = (
    ('qmp_capabilities', {}),
    ('migrate-set-parameters',
     {'tlm-cgroup': '/a', 'tlm-overcommit-cpus': '0',
      'tlm-overcommit': [{'progress': 50, 'cpus': 1}]}),
    # Instead of what was set before
    ('migrate-set-parameters',
     {'tlm-cgroup': '/b', 'tlm-overcommit-cpus': '0-1',
      'tlm-overcommit': [{'progress': 20, 'cpus': 2},
                         {'progress': 50, 'cpus': 1}]}),
    ('query-migrate-parameters', {}),
    ('migrate-set-capabilities',
     {'capabilities': [{'capability': 'multifd', 'state': True},
                       {'capability': 'tlm', 'state': True}]}),
    # Refused: 'multifd-channels' is too small for it
    ('migrate-set-parameters', {'tlm-dtx-channels': 100}),
    ('migrate', {'uri': 'tcp:127.0.0.1:1'}),
    ('query-migrate', {}),
    ('quit', {}),
)


class Leaks(unittest.TestCase):
    def test_parameters(self):
        reason = env.missing_qemu(env.QEMU)
        if reason:
            self.skipTest(reason)
        script = ''.join(
            json.dumps({'execute': name, 'arguments': arguments}) + '\n'
            for name, arguments in COMMANDS)
        p = subprocess.run(
            ['valgrind', '--leak-check=full', '--num-callers=24',
             '--show-leak-kinds=definite,indirect', env.QEMU,
             '-machine', 'none', '-display', 'none', '-S', '-qmp', 'stdio'],
            input=script, capture_output=True, text=True, check=False)
        self.assertEqual(p.returncode, 0, p.stderr[-2000:])
        # All of it was taken but what is to be refused
        answers = [json.loads(line) for line in p.stdout.splitlines()]
        taken = [a for a in answers if 'return' in a]
        self.assertEqual(len(taken), len(COMMANDS) - 1, p.stdout)
        self.assertIn('LEAK SUMMARY', p.stderr)
        records = re.split(r'^==\d+== \n', p.stderr, flags=re.M)
        lost = [r for r in records
                if re.search(r'(definitely|indirectly) lost in loss record',
                             r) and 'tlm_' in r]
        self.assertEqual(lost, [])


if __name__ == '__main__':
    unittest.main()
