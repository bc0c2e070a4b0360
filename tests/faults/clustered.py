# What happens in one case with a cluster: where, what, how; from a seed
#
# SPDX-License-Identifier: GPL-2.0-or-later

import collections
import random

from scenario import LONG_S

# aim: which of the two members, or which server.  how: seconds
Scenario = collections.namedtuple(
    'Scenario', 'seed kind where what how aim servers mode converge bound '
    'pattern rate')

MEMBERS = 2
WHERE = ('setup', 'live', 'gate', 'flush', 'end')
TO_THE_COORDINATOR = ('kill-coordinator', 'stop-coordinator',
                      'end-coordinator')
TO_A_MEMBER = ('kill-member', 'stop-member', 'cancel', 'yank', 'guest-reset',
               'qmp-lost', 'hot-plug', 'balloon')
TO_A_SERVER = ('kill-server', 'stop-server')
LONG = ('stop-coordinator', 'stop-member', 'stop-server')


def draw(seed, _kvm=True):
    """The same scenario for the same seed, always."""
    r = random.Random(f'cluster {seed}')
    where = r.choice(WHERE)
    servers = r.choice((0, 0, MEMBERS))
    whats = [*4 * TO_THE_COORDINATOR[:2], *4 * TO_A_MEMBER[:2],
             TO_THE_COORDINATOR[-1], *TO_A_MEMBER[2:], 'cpu-hog', 'nothing']
    if servers:
        whats += 4 * TO_A_SERVER
    if where == 'gate':         # RAM would be of no one moment
        whats.remove('guest-reset')
    what = r.choice(whats)
    return Scenario(
        seed=seed, kind='cluster', where=where, what=what,
        how=r.choice(LONG_S) if what in LONG else 0,
        aim=r.randrange(MEMBERS), servers=servers,
        mode=r.choice(('auto', 'copy', 'write-protect')), converge='none',
        bound='none', pattern=r.choice(('seq', 'uniform', 'hotcold')),
        rate=r.choice((2000, 20000)))


def text(s):
    what = s.what
    if s.what in TO_A_MEMBER + TO_A_SERVER:
        what += f' {s.aim}'
    if s.what in LONG:
        what += f' for {s.how} s'
    place = f'{s.servers} servers' if s.servers else 'files'
    return f'cluster {s.where}: {what} ({place}, {s.mode}, {s.rate} pages/s)'
