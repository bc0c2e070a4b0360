# Instant restore: a server of a checkpoint's file, and a QEMU that waits for it
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import signal
import subprocess
import threading

from . import env, migration
from .vm import die_with_parent, wait_until

SERVER = os.path.join(env.BUILD, 'tools/memserver/restore/tlm-serve-checkpoint')


def save(src, path):
    """The file of @src, which stands still and stays as it is."""
    migration.set_capabilities(src, mapped_ram=True, multifd=True)
    migration.start_to_file(src, path)
    migration.wait_status(src, 'completed')


def wait_for_server(dst, address):
    """@dst, started with "-incoming defer"; returns its address."""
    migration.set_capabilities(dst, postcopy_ram=True, events=True)
    if ':' in address:
        dst.qmp('migrate-incoming', uri=address)
        return address
    host, port = migration.listen(dst, address)
    return f'tcp:{host}:{port}'


class Server:
    """tlm-serve-checkpoint, and what it has said."""

    def __init__(self, path, to, *options, netns=None):
        self.said, self.ticket = [], None
        prefix = ['ip', 'netns', 'exec', netns] if netns else []
        self.process = subprocess.Popen(
            [*prefix, SERVER, path, '--to', to, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        env.register(self)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            told = json.loads(line)
            if 'ticket' in told:
                self.ticket = told['ticket']
            else:
                self.said.append(told)

    def last(self):
        return self.said[-1] if self.said else {'state': None}

    def wait_state(self, *states, timeout=60):
        wait_until(lambda: self.last()['state'] in states or
                   not self.alive(), timeout, lambda: f'server: {self.said}')
        return self.last()

    def alive(self):
        return self.process.poll() is None

    def wait(self, timeout=120):
        """(status, the last it has said, its messages)"""
        wait_until(lambda: not self.alive(), timeout,
                   lambda: f'the server ends; {self.last()}')
        self.reader.join()
        return self.process.returncode, self.last(), \
            self.process.stderr.read()

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)

    def close(self):
        env.unregister(self)
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
