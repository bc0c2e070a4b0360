# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the VM that is watched is there; once it is not, that is told, and
the operator's command is started.  Nothing else is done about it.
"""

import contextlib
import os
import select
import subprocess
import sys
import time

from ..errors import Gone, MigrateError, Silent
from . import machine, source

# A QEMU that does not answer may be busy, or its monitor may be in use
SILENT_TURNS = 2
DOMAIN_S = 5                    # how often libvirt is asked


def why_gone(args):
    """Raises Gone, Silent, or another MigrateError."""
    with source.of(args) as vm:
        vm.qmp('query-status')


class Source:
    """@args: of "watch"; @known: what the operator's command is told:
    {variable of the environment: value}"""

    def __init__(self, args):
        self.args, self.known = args, {}
        self.told, self.silent, self.asked = False, 0, 0
        self.pidfd = None

    def close(self):
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def saved(self, **known):
        """It was there just now."""
        self.known = known
        if self.told:
            print('The source answers again', file=sys.stderr, flush=True)
        self.told, self.silent = False, 0
        if self.pidfd is None and self.args.qmp:
            with contextlib.suppress(MigrateError, OSError), \
                    source.of(self.args) as vm:
                self.pidfd = os.pidfd_open(machine.pid_of(vm.qmp))

    def has_ended(self):
        """Between two checkpoints, without its monitor: QEMU's process, or
        libvirt's domain."""
        if self.told:
            return False
        if self.pidfd is not None:
            return bool(select.select([self.pidfd], (), (), 0)[0])
        now = time.monotonic()
        if not self.args.domain or now - self.asked < DOMAIN_S:
            return False
        self.asked = now
        try:
            why_gone(self.args)
        except Gone:
            return True
        except MigrateError:
            pass                # the next checkpoint will tell
        return False

    def look(self):
        """After trouble: tells if it is because of the source."""
        if self.told:
            return
        try:
            why_gone(self.args)
            self.silent = 0
        except Gone as e:
            self._tell('gone', e)
        except Silent as e:
            self.silent += 1
            if self.silent >= SILENT_TURNS:
                self._tell('silent', e)
        except (MigrateError, OSError):
            self.silent = 0     # that was said already

    def _tell(self, state, why):
        self.told, self.silent = True, 0
        self.close()
        last = self.known.get('TLM_CHECKPOINT')
        print(f'The source is {state}: {why}. ' +
              (f'The last checkpoint is {last}' if last else
               'There is no checkpoint of it'), file=sys.stderr, flush=True)
        if self.args.on_dead:
            try:
                subprocess.Popen(
                    self.args.on_dead, shell=True, stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    stdout=sys.stderr, env={**os.environ, **self.known,
                                            'TLM_SOURCE': state,
                                            'TLM_WHY': str(why)})
            except OSError as e:
                print(f'--on-dead: {e.strerror}', file=sys.stderr, flush=True)
