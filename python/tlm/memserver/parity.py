# SPDX-License-Identifier: GPL-2.0-or-later
"""Parity of a checkpoint in parts: the servers make it, and lost parts from
it; here is who is told what."""

import contextlib

from ..errors import MigrateError
from . import client, sets

PROTECTED = 'protected'         # a level
POLL_S = 0.2


def _ask(server, on_poll, command, **arguments):
    """For as long as the server works, calling @on_poll meanwhile.  It fails
    by itself if another one says nothing any more."""
    server.send(command, **arguments)
    while (answer := server.answer(POLL_S)) is None:
        on_poll()
    return answer


def _nothing():
    pass


def protect(addresses, others, shown, redundancy, tls, on_poll=_nothing):
    """Parity of a set at @redundancy of @others, or at none.  @addresses: of
    its parts; @shown: what their servers show.  Returns where it is."""
    head = shown[0]
    source = {k: v for k, v in head['source'].items() if k in (
        'uuid', 'qemu', 'command', 'directory', 'domain', 'disks') and v}
    done, failures = [], []
    try:
        for address in others:
            if len(done) == redundancy:
                return done
            try:
                with client.MemServer(address, tls) as server:
                    _ask(server, on_poll, 'protect', vm=head['vm'],
                         name=head['name'], set=head['set'], ram=head['ram'],
                         index=len(done), redundancy=redundancy,
                         source=source, **{'from': addresses})
                done.append(address)
            except MigrateError as e:
                failures.append(str(e))
        if len(done) == redundancy:
            return done
        raise MigrateError('\n'.join([
            f"there is no level {PROTECTED}: {len(done)} of {redundancy} "
            'servers have parity', *failures]))
    except BaseException:
        _forget(done, tls, head)
        raise


def _forget(addresses, tls, head):
    """What was made of parity in vain."""
    for index, address in enumerate(addresses):
        with contextlib.suppress(MigrateError), \
                client.MemServer(address, tls) as server:
            server('remove', vm=head['vm'], set=head['set'],
                   name=f"{head['name']}.parity{index}")


def of(addresses, tls, whole):
    """Of @whole, a Set: index -> (address, what that server shows)"""
    found = {}
    for address in addresses:
        with contextlib.suppress(MigrateError), \
                client.MemServer(address, tls) as server:
            for shown in server('list', vm=whole.vm):
                if sets.is_parity(shown) and shown['set'] == whole.id:
                    found.setdefault(shown['parity'], (address, shown))
    return found


def _too_few(whole, parities):
    """Why it cannot be made whole."""
    _, shown = next(iter(parities.values()))
    lost = [f"part {n} (it was at {shown['from'][n]})"
            for n in whole.missing()]
    there = len(whole.at) + len(parities)
    pieces = whole.parts + shown['redundancy']
    return f"'{whole.name}' of {whole.vm} is not whole, and cannot be made " \
        f"whole: {', '.join(lost)}. {whole.parts} of its {pieces} pieces " \
        f'are needed, and {there} are at these servers: bring back, or name, ' \
        f'{whole.parts - there} more of those that have one'


def _holders(whole):
    return [address for address, _ in whole.at.values()]


def _rebuild(whole, part, address, index, pieces, tls):
    """Lets the server at @address make @part."""
    with client.MemServer(address, tls) as server:
        _ask(server, _nothing, 'rebuild', vm=whole.vm, name=whole.name,
             set=whole.id, part=part, index=index, **{'from': pieces})
        whole.add(address, server('show', vm=whole.vm, name=whole.name))


def mend(addresses, tls, whole):
    """Lets servers make the parts again that @whole, a Set, lacks; each at a
    server of parity.  Raises MigrateError if there is parity, and that cannot
    be."""
    parities = of(addresses, tls, whole)
    if not parities or not whole.missing():
        return
    if len(whole.at) + len(parities) < whole.parts:
        raise MigrateError(_too_few(whole, parities))
    failures, free = [], dict(parities)
    for part in whole.missing():
        while part not in whole.at:
            index = next((i for i, (address, _) in free.items()
                          if address not in _holders(whole)), None)
            if index is None:
                raise MigrateError('\n'.join([
                    f"part {part} of '{whole.name}' of {whole.vm} cannot be "
                    'made again', *failures]))
            address, shown = free.pop(index)
            at = {n: where for n, (where, _) in whole.at.items()}
            at.update({whole.parts + i: where
                       for i, (where, _) in parities.items()})
            pieces = [at.get(n, '') for n in range(
                whole.parts + shown['redundancy'])]
            try:
                _rebuild(whole, part, address, index, pieces, tls)
            except MigrateError as e:
                failures.append(str(e))


def compare(parities, tls, whole):
    """Lets a server of parity read all parts.  Returns those that are not as
    they were: part -> how many pages differ.  @parities: see of()"""
    index, (address, _) = next(iter(parities.items()))
    with client.MemServer(address, tls) as server:
        told = _ask(server, _nothing, 'compare', vm=whole.vm, name=whole.name,
                    set=whole.id, index=index, **{'from': whole.addresses()})
    return {part: wrong for part, wrong in enumerate(told['wrong']) if wrong}


def repair(addresses, tls, whole, wrong):
    """Lets servers make parts again that are damaged (@wrong), and removes
    those then."""
    bad = {part: whole.at.pop(part) for part in wrong}
    mend(addresses, tls, whole)
    for address, shown in bad.values():
        with client.MemServer(address, tls) as server:
            server('remove', vm=shown['vm'], name=shown['name'],
                   set=shown['set'])
