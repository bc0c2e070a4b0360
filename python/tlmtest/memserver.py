# A tlm-memserver and its control connection
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile

from . import env
from .vm import PATIENCE, VmError, die_with_parent, wait_until

BINARY = os.path.join(env.BUILD, 'tools/memserver/tlm-memserver')
SMALL = {'store': {'memory': '1G', 'vm-memory': '1G', 'threads': 2},
         'data': {'stall-timeout': 60}}


class Refused(VmError):
    """What the server has answered to a command."""


class Control:
    """A connection to the server; @tls: an ssl.SSLContext."""

    def __init__(self, address, tls=None):
        kind, where = address.split(':', 1)
        if kind == 'unix':
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where)
        else:
            host, port = where.rsplit(':', 1)
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(60 * PATIENCE)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.file = self.socket.makefile('rwb')

    def raw(self, line):
        self.file.write(line)
        self.file.flush()
        return json.loads(self.file.readline())

    def __call__(self, command, **arguments):
        reply = self.raw(json.dumps({
            'execute': command,
            'arguments': {k.replace('_', '-'): v
                          for k, v in arguments.items()}}).encode() + b'\n')
        if 'error' in reply:
            raise Refused(f"{command}: {reply['error']['desc']}")
        return reply['return']

    def announce(self, vm='vm1', name='one', ram=1 << 30, **more):
        return self('announce', vm=vm, name=name, ram=ram, **more)

    def wait(self, session, timeout=60):
        """Returns how the session has ended."""
        wait_until(lambda: self('wait', session=session, timeout_ms=500)
                   ['state'] in ('done', 'failed'), timeout,
                   lambda: f"the session ends: "
                   f"{self('status', session=session)}")
        return self('status', session=session)

    def close(self):
        self.file.close()
        self.socket.close()


class MemServer:
    """@config: groups of options, over those that are good for tests."""

    def __init__(self, config=None, binary=BINARY, prefix=()):
        self.dir = tempfile.mkdtemp(prefix='tlm-memserver-')
        env.register(self)
        self.store = os.path.join(self.dir, 'store')
        os.mkdir(self.store)
        self.address = f'unix:{self.dir}/control'
        self.groups = {'control': {'listen': self.address},
                       'store': {'dir': self.store}}
        for more in (SMALL, config or {}):
            for group, options in more.items():
                self.groups.setdefault(group, {}).update(options)
        self.binary, self.prefix = binary, prefix
        self.log_path = os.path.join(self.dir, 'log')
        self.process = None
        self.start()

    def write_config(self):
        path = os.path.join(self.dir, 'config')
        with open(path, 'w') as f:
            for group, options in self.groups.items():
                f.write(f'[{group}]\n')
                f.writelines(f'{k}={v}\n' for k, v in options.items()
                             if v is not None)
        return path

    def start(self):
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen(
                [*self.prefix, self.binary, '--config', self.write_config()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent)
        wait_until(lambda: self.process.poll() is not None or
                   self.messages().count('listening on') >= 1, 30,
                   'the server listens')
        if self.process.poll() is not None:
            raise VmError(f'tlm-memserver has ended: {self.messages()}')
        # Port 0 is any one.
        self.address = re.findall(r'listening on (\S+)', self.messages())[-1]
        return self

    def messages(self):
        with open(self.log_path, errors='replace') as f:
            return f.read()

    def control(self, tls=None):
        return Control(self.address, tls)

    def call(self, *words):
        """By the program itself; returns what it prints."""
        return subprocess.run(
            [self.binary, '--control', self.address, *words], check=False,
            capture_output=True, text=True, timeout=60 * PATIENCE)

    def path(self, vm, name, suffix='checkpoint'):
        return os.path.join(self.store, vm, f'{name}.{suffix}')

    def kill(self):
        """As a crash would."""
        self.process.kill()
        self.process.wait()
        with open(self.log_path, 'wb'):
            pass

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60 * PATIENCE)

    def close(self):
        env.unregister(self)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def client_tls(directory):
    context = ssl.create_default_context(cafile=f'{directory}/ca-cert.pem')
    context.load_cert_chain(f'{directory}/client-cert.pem',
                            f'{directory}/client-key.pem')
    return context
