# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain at the source: its monitor, its state, libvirt's job."""

import json
import re
import subprocess

from ..errors import Gone, MigrateError, Refused
from .shell import ANSWER_S, Lost, plain_language

GONE = re.compile(
    r'failed to get domain|Domain not found|no domain with matching')


class Domain:
    """Call it to speak QMP: domain('query-migrate')."""

    def __init__(self, virsh, name):
        self.virsh, self.name = virsh, name

    def __call__(self, command, **arguments):
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        out = self.virsh('qemu-monitor-command', self.name, json.dumps(
            {'execute': command, 'arguments': arguments}))
        # members in any order; what virsh repeats begins with "execute"
        found = re.findall(r'\{"(?:return|error|id)":.*\}', out)
        if not found:
            raise MigrateError(f'{command}: no answer from QEMU: {out!r}')
        reply = json.loads(found[-1])
        if 'error' in reply:
            raise Refused(f"{command}: {reply['error']['desc']}")
        return reply['return']

    def pass_fd(self, fd, fdset):
        """For QEMU's /dev/fdset/@fdset, by a virsh that has inherited it."""
        try:
            p = subprocess.run(
                [*self.virsh.command, 'qemu-monitor-command', '--domain',
                 self.name, '--pass-fds', str(fd), json.dumps(
                     {'execute': 'add-fd', 'arguments': {'fdset-id': fdset}})],
                pass_fds=[fd], env=plain_language(), capture_output=True,
                text=True, check=False, timeout=ANSWER_S)
        except subprocess.TimeoutExpired:
            raise Lost('no answer from libvirt') from None
        why = re.search(r'"desc":"([^"]*)"', p.stdout)
        if p.returncode or why:
            raise MigrateError('the file cannot be passed to QEMU: ' +
                               (why[1] if why else p.stderr.strip()))

    def xml(self):
        """What it can be made from again, secrets included."""
        return self._dumpxml('--security-info', '--migratable')

    def live_xml(self):
        """What it is at present."""
        return self._dumpxml()

    def _dumpxml(self, *options):
        out = self.virsh('dumpxml', self.name, *options)
        found = re.search(r'<domain\b.*</domain>', out, re.S)
        if not found:
            raise MigrateError(f'dumpxml: no description: {out!r}')
        return found[0]

    def state(self):
        """As "virsh domstate" has it; None: there is no such domain."""
        try:
            out = self.virsh('domstate', self.name)
        except MigrateError as e:
            if isinstance(e, Lost) or not GONE.search(str(e)):
                raise Lost(str(e)) from None
            return None
        # what virsh repeats of its input is no state
        found = re.search(r'(?:^|# |> )(running|idle|paused|in shutdown|'
                          r'shut off|crashed|pmsuspended)\s*$', out, re.M)
        if not found:
            raise Lost(f'domstate: {out!r}')
        return found[1]

    def check_runs(self):
        """Raises MigrateError if there is nothing to migrate."""
        if self.state() not in ('running', 'idle', 'paused'):
            try:
                self.virsh('domstate', self.name)   # its message, if any
            except MigrateError as e:
                raise e if isinstance(e, Lost) else Gone(str(e)) from None
            raise Gone(f"domain '{self.name}' does not run")

    def job(self):
        """Whether libvirt does something with it."""
        try:
            out = self.virsh('domjobinfo', self.name)
        except Lost:
            raise
        except MigrateError as e:
            if 'domain is not running' in str(e) or GONE.search(str(e)):
                return False
            raise
        return not re.search(r'Job type: +None', out)

    def abort_job(self):
        """If there is one, and libvirt is there."""
        try:
            self.virsh('domjobabort', self.name)
        except MigrateError:
            pass
