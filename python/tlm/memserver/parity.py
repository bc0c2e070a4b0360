# SPDX-License-Identifier: GPL-2.0-or-later
"""Parity of a checkpoint in parts: the servers make it, and lost parts from
it; here is who is told what."""

import contextlib

from ..errors import MigrateError
from . import client, sets

PROTECTED, DURABLE = 'protected', 'durable'     # levels
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


def protect(opened, addresses, others, shown, redundancy, tls,
            on_poll=_nothing):
    """Parity of a set at @redundancy of @others, or at none.  @addresses: of
    its parts; @shown: what their servers show.  Returns the servers that have
    it, connected for as long as @opened, an ExitStack, is: it is tentative
    until settle()."""
    head = shown[0]
    source = {k: v for k, v in head['source'].items() if k in (
        'uuid', 'qemu', 'command', 'directory', 'domain', 'disks') and v}
    done, failures = [], []
    try:
        for address in others:
            if len(done) == redundancy:
                return done
            try:
                server = opened.enter_context(client.MemServer(address, tls))
                _ask(server, on_poll, 'protect', vm=head['vm'],
                     name=head['name'], set=head['set'], ram=head['ram'],
                     index=len(done), redundancy=redundancy,
                     level=head['level'], source=source,
                     **{'from': addresses})
                done.append(server)
            except MigrateError as e:
                failures.append(str(e))
        if len(done) == redundancy:
            return done
        raise MigrateError('\n'.join([
            f'{len(done)} of {redundancy} servers have parity', *failures]))
    except BaseException:
        forget(done, head)
        raise


def _name(head, index):
    return f"{head['name']}.parity{index}"


def forget(servers, head):
    """Parity that was made in vain."""
    for index, server in enumerate(servers):
        with contextlib.suppress(MigrateError):
            server('remove', vm=head['vm'], set=head['set'],
                   name=_name(head, index))


def settle(parts, parities, head):
    """All pieces are there: they stay when their clients go.  In two steps:
    what is settled is of a set that has all its pieces.  @parts, @parities:
    the servers that have them, connected since they began."""
    pieces = [(server, head['name']) for server in parts] + \
        [(server, _name(head, i)) for i, server in enumerate(parities)]
    for ready in True, False:
        for server, name in pieces:
            server('settle', vm=head['vm'], name=name, set=head['set'],
                   ready=ready)


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
    """Lets the server at @address make @part.  Returns numbers of parts that
    it has found damaged."""
    with client.MemServer(address, tls) as server:
        told = _ask(server, _nothing, 'rebuild', vm=whole.vm, name=whole.name,
                    set=whole.id, part=part, index=index, **{'from': pieces})
        whole.add(address, server('show', vm=whole.vm, name=whole.name))
        return told['damaged']


def _pieces(whole, parities):
    """The address of each; '' if it is not there."""
    _, shown = next(iter(parities.values()))
    at = {n: where for n, (where, _) in whole.at.items()}
    at.update({whole.parts + i: where for i, (where, _) in parities.items()})
    return [at.get(n, '') for n in range(whole.parts + shown['redundancy'])]


def mend(addresses, tls, whole):
    """Lets servers make the parts again that @whole, a Set, lacks, and those
    that are damaged, if that is found out; each at a server of parity.  Raises
    MigrateError if there is parity, and that cannot be."""
    parities = of(addresses, tls, whole)
    if not parities:
        return
    failures, free, damaged = [], dict(parities), []
    while whole.missing():
        if len(whole.at) + len(parities) < whole.parts:
            raise MigrateError('\n'.join([_too_few(whole, parities),
                                          *failures]))
        part = whole.missing()[0]
        index = next((i for i, (address, _) in free.items()
                      if address not in _holders(whole)), None)
        if index is None:
            raise MigrateError('\n'.join([
                f"part {part} of '{whole.name}' of {whole.vm} cannot be "
                'made again', *failures]))
        address, _ = free.pop(index)
        try:
            for bad in _rebuild(whole, part, address, index,
                                _pieces(whole, parities), tls):
                damaged.append(whole.drop(bad))
                failures.append(f'part {bad} at {damaged[-1][0]} is damaged')
        except MigrateError as e:
            failures.append(str(e))
    _discard(damaged, tls)


def compare(parities, tls, whole):
    """Lets a server of parity read all parts.  Returns those that are not as
    they were: part -> how many pages differ.  @parities: see of()"""
    index, (address, _) = next(iter(parities.items()))
    with client.MemServer(address, tls) as server:
        told = _ask(server, _nothing, 'compare', vm=whole.vm, name=whole.name,
                    set=whole.id, index=index, **{'from': whole.addresses()})
    return {part: wrong for part, wrong in enumerate(told['wrong']) if wrong}


def verify_files(parities, tls):
    """Of parity that is on disks.  @parities: see of()"""
    for address, shown in parities.values():
        if shown['level'] == DURABLE:
            with client.MemServer(address, tls) as server:
                server('verify', vm=shown['vm'], name=shown['name'])


def repair(addresses, tls, whole, wrong):
    """Lets servers make parts again that are damaged (@wrong), and removes
    those then."""
    parities, bad = of(addresses, tls, whole), []
    while wrong:
        bad += [whole.drop(part) for part in wrong]
        mend(addresses, tls, whole)
        wrong = compare(parities, tls, whole)
    _discard(bad, tls)


def _discard(parts, tls):
    """Pairs that others have taken the place of."""
    for address, shown in parts:
        with client.MemServer(address, tls) as server:
            server('remove', vm=shown['vm'], name=shown['name'],
                   set=shown['set'])
