#!/usr/bin/python3
#
# The protocols, as models in Promela, checked by spin: each holds, and when one
# of its rules is taken away (BREAK_...) spin finds what goes wrong
#
# TLM_MODEL_FULL=1 adds larger searches: a quarter of an hour, up to 4 GB.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import concurrent.futures
import os
import re
import shutil
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = ('WRITES=1', 'EPOCHS=1')
TWICE = ('WRITES=2', 'EPOCHS=2')
TROUBLE = ('FAILURES', 'CRASHES')

HOLDS = (
    ('epoch', 'WRITES=2', 'EPOCHS=1'),
    ('epoch', 'WRITES=1', 'EPOCHS=2'),
    ('epoch', 'CHECKPOINT', *SMALL),
    ('epoch', 'STALL', 'WRITES=0', 'EPOCHS=1'),
    ('epoch', 'BROKEN_LANE', 'WRITES=0', 'EPOCHS=1'),
    ('cluster',),
    ('cluster', *TROUBLE),
    ('cluster', 'BUFFER', *TROUBLE),
    ('cluster', 'SERVERS', *TROUBLE),
    ('chain',),
)
FULL = (
    ('epoch', *TWICE),
    ('epoch', 'CHECKPOINT', *TWICE),
    ('epoch', 'WRITES=3', 'EPOCHS=1'),
    ('epoch', 'STALL', *SMALL),
    ('epoch', 'STALL', 'CHECKPOINT', *SMALL),
    ('epoch', 'BROKEN_LANE', *SMALL),
    ('chain', 'WRITES=6', 'CHECKPOINTS=4'),
)
# The size at which most breaks show; others need more, or something else
FINDS = {'epoch': SMALL, 'cluster': TROUBLE, 'chain': ()}
NEEDS = {
    'BREAK_READ_BEFORE_ARM': TWICE,
    'BREAK_SYNC_DROPS': TWICE,
    'BREAK_TAKEN_STAYS': TWICE,
    'BREAK_ERROR_IGNORED': ('BROKEN_LANE',),
    'BREAK_READ_RUNNING_GUEST': ('CHECKPOINT',),
    'BREAK_SYNC_IN_FLUSH': ('CHECKPOINT',),
    'BREAK_LET_OUT_EARLY': ('BUFFER',),
    'BREAK_TICK_IGNORED': ('BUFFER',),
    'BREAK_SESSION_GOES_ON': ('SERVERS',),
    'BREAK_CLEARED_BEFORE_CANCEL': ('SERVERS',),
    'BREAK_COMMITTED_CLEARED': ('SERVERS',),
}


def search(model, *flags, optimise='-O1'):
    """Returns what spin's verifier says; all has been searched, or it has
    found an error."""
    with tempfile.TemporaryDirectory(prefix='tlm-model-') as place:
        def run(*command):
            p = subprocess.run(command, cwd=place, check=False, text=True,
                               stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
            if p.returncode:
                raise RuntimeError(f'{command}: {p.stdout}')
            return p.stdout
        run('spin', '-a', *(f'-D{flag}' for flag in flags),
            os.path.join(HERE, model + '.pml'))
        run('gcc', '-w', optimise, '-DSAFETY', '-DCOLLAPSE', '-o', 'pan',
            'pan.c')
        said = run('./pan', '-m200000')
    if not re.search(r'errors: \d', said) or re.search(
            'max search depth too small|out of memory|aborting', said):
        raise RuntimeError(said)
    return said


def errors(said):
    return int(re.search(r'errors: (\d+)', said)[1])


def breaks(model):
    with open(os.path.join(HERE, model + '.pml'), encoding='ascii') as f:
        return sorted(set(re.findall(r'\bBREAK_[A-Z_]+', f.read())))


@unittest.skipUnless(shutil.which('spin'), 'no spin (scripts/install-deps)')
class Models(unittest.TestCase):
    def search_all(self, cases, **options):
        """Yields each case with what was said of it."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            todo = {case: pool.submit(search, *case, **options)
                    for case in cases}
            for case, future in todo.items():
                with self.subTest(case=' '.join(case)):
                    yield case, future.result()

    def test_holds(self):
        cases = HOLDS + (FULL if os.environ.get('TLM_MODEL_FULL') else ())
        for case, said in self.search_all(cases):
            self.assertEqual(errors(said), 0, said)
            states = float(re.search(r'(\S+) states, stored', said)[1])
            print(f"{' '.join(case)}: {states:.0f} states")

    def test_breaks_are_found(self):
        cases = [(model, *size, *NEEDS.get(name, ()), name)
                 for model, size in FINDS.items() for name in breaks(model)]
        self.assertGreater(len(cases), 15)
        for case, said in self.search_all(cases, optimise='-O0'):
            self.assertEqual(errors(said), 1, said)
            print(f"{' '.join(case)}:", re.search(r'pan:\d+: (.*)', said)[1])


if __name__ == '__main__':
    unittest.main()
