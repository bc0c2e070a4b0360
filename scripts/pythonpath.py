# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this project's Python packages are: the one place that says so.

Importing this makes them importable, here and in Python programs that are
started from here: tlm and tlmtest (python/), bench (scripts/lib).  Scripts of
this directory import it first; tests/lib/run-unittest does it for all tests.
A file that is run without either of them needs PYTHONPATH=python.
tlmtest.env adds what is not in packages: QEMU's own QMP library, and the
makers of guests.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PLACES = [os.path.join(ROOT, 'python'), os.path.join(ROOT, 'scripts/lib')]

sys.dont_write_bytecode = True
sys.path[:0] = PLACES
os.environ['PYTHONPATH'] = os.pathsep.join(
    PLACES + [p for p in os.environ.get('PYTHONPATH', '').split(os.pathsep)
              if p and p not in PLACES])
