# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a running QEMU: what it is, and how much RAM it has."""

import os
import re
import socket
import struct

from ..errors import MigrateError

MIB = 1 << 20
# Beside RAM: blocks begin at whole MiB, and there is the devices' state
PER_BLOCK = MIB
DEVICES = 8 * MIB
BLOCK_LINE = re.compile(r' *(?P<name>\S.*?) +\d+ \w+ +0x[0-9a-f]+ '
                        r'+0x(?P<used>[0-9a-f]+) +0x[0-9a-f]+', re.M)


def describe(qmp):
    """A part of the manifest."""
    version = qmp('query-version')
    memory = qmp('query-memory-size-summary')
    state = qmp('query-status')
    command, directory = _command_line(qmp)
    numbers = [version['qemu'][part] for part in ('major', 'minor', 'micro')]
    return {'type': qmp('qom-get', path='/machine',
                        property='type').removesuffix('-machine'),
            'qemu': '.'.join(map(str, numbers)) +
            (f" ({version['package']})" if version['package'] else ''),
            'name': qmp('query-name').get('name'),
            'uuid': qmp('query-uuid')['UUID'],
            'ram': memory['base-memory'] + memory.get('plugged-memory', 0),
            'status': state['status'], 'running': state['running'],
            'command': command, 'directory': directory}


def _command_line(qmp):
    """(words, directory where it was started) of the QEMU that listens; None,
    None if that cannot be told: another host, another PID namespace, or a
    manager that has opened the socket."""
    if not hasattr(qmp, 'sock'):
        return None, None
    try:
        pid = pid_of(qmp)
        return words_of(pid), os.readlink(f'/proc/{pid}/cwd')
    except (MigrateError, OSError, UnicodeDecodeError):
        return None, None


def pid_of(qmp):
    """The process of the QEMU that listens at a Unix socket."""
    try:
        pid, _, _ = struct.unpack('iII', qmp.sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize('iII')))
        words = words_of(pid)
    except (OSError, UnicodeDecodeError):
        words = []
    if not words or 'qemu' not in os.path.basename(words[0]):
        raise MigrateError("QEMU's process is not known")
    return pid


def words_of(pid):
    """A process's command line; raises OSError."""
    with open(f'/proc/{pid}/cmdline', 'rb') as f:
        return f.read().decode().split('\0')[:-1]


def ram_blocks(qmp):
    """Bytes of each RAM block."""
    blocks = [int(m['used'], 16) for m in BLOCK_LINE.finditer(
        qmp('human-monitor-command', command_line='info ramblock'))]
    if not blocks:
        raise MigrateError('"info ramblock" does not tell how much RAM '
                           'there is')
    return blocks


def space_needed(qmp):
    """Bytes that a checkpoint has at most."""
    blocks = ram_blocks(qmp)
    return sum(blocks) + PER_BLOCK * len(blocks) + DEVICES
