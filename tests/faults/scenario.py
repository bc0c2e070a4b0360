# What happens in one case of the fault matrix: where, what, how; from a seed
#
# SPDX-License-Identifier: GPL-2.0-or-later

import collections
import random

Scenario = collections.namedtuple(
    'Scenario', 'seed kind where what how accel transport converge bound '
    'channels compression pattern rate patched_destination vcpus')

WHERE = {
    'migrate': ('setup', 'live', 'throttled', 'gate', 'device', 'stop'),
    'checkpoint': ('setup', 'live', 'gate', 'flush'),
}
# Those with a number do it to the connection of that number
TO_A_CHANNEL = ('close', 'connection-reset', 'truncate', 'corrupt')
TO_THE_LINK = ('stall', 'stall-for-a-moment', 'slow')
TO_A_PROCESS = ('kill-destination', 'kill-source', 'stop-destination',
                'stop-source')
LONG_S = (1, 10)                # that these may be stopped
TO_THE_FILE = ('disk-full', 'file-removed')
BY_THE_USER = ('cancel', 'yank', 'qmp-lost', 'parameters', 'switchover',
               'hot-plug', 'memory-plug', 'balloon', 'block-resize', 'savevm',
               'migrate-again', 'dirty-rate', 'stop-cont', 'nothing')
BY_THE_GUEST = ('guest-reset', 'powerdown', 'nmi')
BY_THE_HOST = ('cpu-hog',)


def faults(transport, where):
    result = list(BY_THE_USER + BY_THE_GUEST + BY_THE_HOST)
    result += ['kill-source', 'stop-source']
    if transport == 'file':
        return result + (['disk-full'] if where == 'setup' else
                         ['file-removed'])
    result += TO_THE_LINK + ('kill-destination', 'stop-destination')
    # What is damaged on the way is noticed only if it is signed, or at once
    result += [f'{what} {n}' for what in TO_A_CHANNEL for n in (0, 1, 2)
               if what != 'corrupt' or transport == 'tls']
    return result


def draw(seed, kvm=True):
    """The same scenario for the same seed, always."""
    r = random.Random(seed)
    kind = r.choice(('migrate', 'migrate', 'checkpoint'))
    where = r.choice(WHERE[kind])
    transport = r.choice(('tcp', 'tcp', 'unix', 'tls', 'file'))
    if kind == 'migrate' and where in ('throttled', 'gate'):
        transport = r.choice(('tcp', 'unix', 'tls'))
    accel = r.choice(('tcg', 'tcg', 'tcg', 'kvm'))
    what = r.choice(faults(transport, where))
    return Scenario(
        seed=seed, kind=kind, where=where, what=what.split()[0],
        how=int(what.split()[1]) if ' ' in what else 0,
        accel=accel if kvm else 'tcg', transport=transport,
        converge='auto' if where == 'throttled' else
        r.choice(('none', 'auto')),
        bound=r.choice(('none', 'none', 'complete', 'cancel')),
        channels=r.choice((2, 8)),
        compression='none' if transport == 'file' else
        r.choice(('none', 'none', 'zlib', 'zstd')),
        pattern=r.choice(('seq', 'uniform', 'hotcold')),
        rate=0 if where == 'throttled' else r.choice((0, 2000, 20000)),
        patched_destination=r.random() < 0.3,
        vcpus=r.choice((1, 1, 2)))


def draw_stop(seed, kvm=True):
    """As draw(), but one of the two stands still for longer."""
    r = random.Random(f'stop {seed}')
    s = draw(seed, kvm)
    sides = ('source',) if s.transport == 'file' else (
        'source', 'destination', 'destination')
    return s._replace(what=f'stop-{r.choice(sides)}', how=r.choice(LONG_S))


def text(s):
    return (f'{s.kind} {s.where}: {s.what}' +
            (f' {s.how}' if s.what in TO_A_CHANNEL else
             f' {s.how} s' if s.how else '') +
            f' ({s.accel}, {s.transport}, converge {s.converge}, bound '
            f'{s.bound}, {s.channels} channels, {s.compression})')
