# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes checkpoints from memory servers, sets as wholes.

Part 0 of a set is what commits it, and it is removed first: so whatever fails
meanwhile, a set without its part 0 is nobody's any more.
"""

import contextlib

from ..errors import MigrateError
from . import client, sets

ANSWER_S = 15                   # of a server that is asked what it knows


def remove(servers, pairs):
    """@pairs: (address, what that server shows).  Returns address -> names."""
    at = {s.address: s for s in servers}
    removed = {address: [] for address in at}
    for address, shown in sorted(pairs, key=lambda p: sets.number(p[1])):
        at[address]('remove', vm=shown['vm'], name=shown['name'],
                    set=shown.get('set'))
        removed[address].append(shown['name'])
    return removed


def prune(found, keep):
    """@found: server -> what it has of one VM.  Returns address -> names of
    what was removed.  A server alone does not know which of its parts belong
    to sets that are whole."""
    pairs = _pairs(found)
    if not any('set' in shown for _, shown in pairs):
        return {s.address: s('prune', vm=has[0]['vm'], keep=keep)
                if has else [] for s, has in found.items()}
    lost = _uncommitted(found) + abandoned(pairs)
    rest = [pair for pair in pairs if pair not in lost and
            not sets.is_tentative(pair[1])]
    return remove(found, lost + sets.to_prune(rest, keep))


def named(server, vm, name):
    """What it has under this name, and parity of it."""
    try:
        return [c for c in server('list', vm=vm)
                if name in (c['name'], c.get('parity-of'))]
    except client.Refused:
        return []                   # it has had nothing of this VM


def make_way(found, others, tls, vm, name, protected=False):
    """For another checkpoint called @name: parts that have this name go if
    their set was never committed, and pieces that an earlier save has left.
    @found: server -> named(); @others: addresses of servers that may know, and
    may have parity of a @protected one.  Returns address -> names."""
    if not protected and not sets.sets_of(_pairs(found)):
        return {}
    with contextlib.ExitStack() as opened:
        for address in others:
            with contextlib.suppress(MigrateError):
                other = opened.enter_context(client.MemServer(address, tls))
                other.patience = ANSWER_S
                found[other] = named(other, vm, name)
        return remove(found, _uncommitted(found) + abandoned(_pairs(found)))


def _pairs(found):
    return [(s.address, shown) for s, has in found.items() for shown in has]


def abandoned(pairs):
    """Those of sets that are protected, but were never said to be: their save
    has ended early, and no piece is settled."""
    states = {}
    for _, shown in pairs:
        if 'set' in shown:
            states.setdefault(shown['set'], set()).add(shown.get('tentative'))
    return [(address, shown) for address, shown in pairs
            if states.get(shown.get('set')) == {'abandoned'}]


def _uncommitted(found):
    """Pairs, of sets whose head says that it has not committed them, or has
    been removed.  If the head is not asked, nobody knows.  Of those with
    parity the head may be lost: see abandoned()."""
    pairs = _pairs(found)
    heads = {_asked(s, 'whoami').get('id'): s for s in found}
    lost = [s.id for s in sets.sets_of(pairs) if sets.HEAD not in s.at and
            not s.head().get('redundancy') and _outcome(heads, s) == 'none']
    return [(address, shown) for address, shown in pairs
            if shown.get('set') in lost]


def _asked(server, command, **arguments):
    """Its answer; {}: it knows none."""
    try:
        return server(command, **arguments)
    except MigrateError:
        return {}


def _outcome(heads, of):
    head_id = of.head().get('head-id')
    if not head_id or head_id not in heads:
        return None
    return _asked(heads[head_id], 'outcome', set=of.id,
                  head_id=head_id).get('outcome')
