# Libraries that a QEMU is started with, to have system calls err
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import subprocess

HERE = os.path.dirname(os.path.realpath(__file__))


def build(directory, name):
    """Compiles the file @name.c beside this one; returns what LD_PRELOAD
    gets."""
    path = os.path.join(directory, f'{name}.so')
    subprocess.run(['gcc', '-O2', '-Wall', '-Wextra', '-Werror', '-shared',
                    '-fPIC', '-o', path, os.path.join(HERE, f'{name}.c')],
                   check=True)
    return path
