# The nested guest: a machine under TCG, in which QEMU runs under kvm-amd
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import subprocess

from . import env
from .vm import PATIENCE, Vm

NESTED = os.path.join(env.ROOT, 'tests/guest/nested')


class NoKernel(Exception):
    """There is none for the guest, and none can be fetched."""


def machine(cases):
    """(Vm, not yet started, and the file to which it writes TAP).  @cases:
    names of methods of tests/guest/nested/cases.py."""
    p = subprocess.run([os.path.join(NESTED, 'build.sh')],
                       capture_output=True, text=True)
    if p.returncode == 2:
        raise NoKernel('no kernel for the nested guest: ' + p.stderr.strip())
    if p.returncode:
        raise RuntimeError('tests/guest/nested/build.sh: ' + p.stderr.strip())
    kernel, image = p.stdout.splitlines()
    vm = Vm('nested', env.STOCK_QEMU, [])
    tap = os.path.join(vm.dir, 'tap')
    vm.command += [
        '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2',
        '-m', '1024', '-no-reboot', '-kernel', kernel, '-initrd', image,
        '-serial', f'file:{tap}', '-append',
        # what the kernel does not know becomes init's environment
        'console=ttyS0 quiet panic=-1 '
        f'TLM_TEST_PATIENCE={PATIENCE} '
        f"TLM_NESTED_CASES={','.join(cases)}"]
    return vm, tap
