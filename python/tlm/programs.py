# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the build that this command starts."""

import os
import shutil
import sys

from .errors import MigrateError

CHECKOUT = os.path.join(os.path.dirname(__file__), '../../build')


def find(name, folder):
    """$TLM_..., or beside the command, or in the build directory that it was
    made in (@folder), or on PATH, or in a checkout's build directory."""
    variable = name.upper().replace('-', '_')
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    for path in (os.environ.get(variable), os.path.join(beside, name),
                 os.path.join(beside, folder, name), shutil.which(name),
                 os.path.join(CHECKOUT, folder, name)):
        if path and os.access(path, os.X_OK):
            return os.path.realpath(path)
    raise MigrateError(f'{name} is not installed: it is made by the build of '
                       f'TLM (or set {variable})')
