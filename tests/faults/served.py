# What happens in one case with memory servers: where, what, how; from a seed
#
# SPDX-License-Identifier: GPL-2.0-or-later

import collections
import random

from scenario import LONG_S, TO_A_CHANNEL, TO_THE_LINK

# aim: the server of that part; as many as there are parts: the connection
# between them.  how: number of the connection, or seconds
Scenario = collections.namedtuple(
    'Scenario', 'seed kind where what how aim accel transport level parts '
    'mode converge bound channels compression pattern rate '
    'patched_destination vcpus')

WHERE = ('setup', 'live', 'gate', 'flush', 'commit')
BY_THE_USER = ('cancel', 'yank', 'qmp-lost', 'parameters', 'balloon', 'savevm',
               'hot-plug', 'migrate-again', 'stop-cont', 'session-cancelled',
               'nothing')
BY_THE_GUEST = ('guest-reset',)
LONG = ('stop-server', 'stop-source', 'link-down')
AIMED = ('kill-server', 'stop-server', 'session-cancelled', *TO_A_CHANNEL,
         *TO_THE_LINK)
CHANNELS_HIT = 3                # the main stream and some others


def _connections(aim, parts, channels):
    """How many the relay in front of it has."""
    if aim == parts:
        return parts - 1
    data = len(range(aim, channels, parts))
    return data + 1 if aim == 0 else data


def _faults(transport, where, level, parts):
    """Those of the servers, of which this is about, as often as the others."""
    result = ['kill-server', 'stop-server'] * 4
    result += ['kill-source', 'stop-source', 'cpu-hog', *BY_THE_USER]
    # RAM of a guest that was reset in the pause is of no one moment
    if where != 'gate':
        result += BY_THE_GUEST
    if transport == 'veth':
        return result + 8 * ['link-down']
    if where == 'setup' and level == 'durable' and parts == 1:
        result += 2 * ['disk-full']
    # What is damaged on the way is noticed only if it is signed, or at once
    return result + [what for what in 2 * (TO_A_CHANNEL + TO_THE_LINK)
                     if what != 'corrupt' or transport == 'tls']


def draw(seed, kvm=True):
    """The same scenario for the same seed, always."""
    r = random.Random(f'server {seed}')
    where = r.choice(WHERE)
    transport = r.choice(('tcp', 'tcp', 'unix', 'tls', 'veth'))
    parts = 1 if transport == 'tls' else r.choice((1, 2))
    level = r.choice(('memory', 'durable'))
    what = r.choice(_faults(transport, where, level, parts))
    channels = r.choice((2, 8))
    targets = parts
    if parts > 1 and what in TO_A_CHANNEL + TO_THE_LINK:
        targets += 1
    aim = r.randrange(targets)
    accel = r.choice(('tcg', 'tcg', 'tcg', 'kvm'))
    return Scenario(
        seed=seed, kind='checkpoint', where=where, what=what,
        how=r.choice(LONG_S) if what in LONG else
        r.randrange(min(CHANNELS_HIT, _connections(aim, parts, channels)))
        if what in TO_A_CHANNEL else 0,
        aim=aim, accel=accel if kvm else 'tcg', transport=transport,
        level=level, parts=parts,
        mode=r.choice(('auto', 'copy', 'write-protect')), converge='none',
        bound='none', channels=channels,
        compression=r.choice(('none', 'none', 'zlib', 'zstd')),
        pattern=r.choice(('seq', 'uniform', 'hotcold')),
        rate=r.choice((0, 2000, 20000)), patched_destination=False,
        vcpus=r.choice((1, 1, 2)))


def text(s):
    what = s.what
    if s.what in TO_A_CHANNEL:
        what += f' {s.how}'
    elif s.what in LONG:
        what += f' {s.how} s'
    if s.parts > 1 and s.what in AIMED:
        what += f' of {s.aim}' if s.aim < s.parts else ' between servers'
    return (f'server {s.where}: {what} ({s.accel}, {s.transport}, {s.level}, '
            f'{s.parts} parts, {s.mode}, {s.channels} channels, '
            f'{s.compression})')
