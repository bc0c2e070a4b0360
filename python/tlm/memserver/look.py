# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm memserver list, show, verify, prune and remove."""

import argparse
import contextlib
import itertools
import json

from ..errors import MigrateError, in_words
from ..figures import memory, size
from . import client, parity, removal, sets

PAGE = 4096
# What the server says of a piece that is not settled
TENTATIVE = {'pending': 'goes on', 'abandoned': 'has ended early'}


def bytes_of(shown):
    """What a checkpoint takes, on the disk or in memory."""
    return shown['allocated'] if 'allocated' in shown else \
        shown.get('pages', 0) * PAGE


def the_only_vm(server):
    """If the caller sees no other; raises MigrateError."""
    return _the_only(server.address, server('list'))


def _the_only(address, checkpoints):
    names = sorted({c['vm'] for c in checkpoints})
    if len(names) == 1:
        return names[0]
    raise MigrateError(f'{address}: ' + (
        f"there are {', '.join(names)}: name one by --vm" if names else
        'there is no checkpoint that you may see'))


def _row(shown):
    there = shown['level'] + (', in memory' if shown['in-memory'] and
                              shown['level'] != 'memory' else '')
    if sets.is_parity(shown):
        there += f", parity {shown['parity']} of {shown['parts']}+" \
            f"{shown['redundancy']}"
    elif 'set' in shown:
        there += f", part {shown['part']} of {shown['parts']}"
    if sets.is_tentative(shown):
        there += f", not protected: its save {TENTATIVE[shown['tentative']]}"
    return f"{shown['vm']:<16}  {shown['name']:<20}  " \
           f"{shown['created'][:19]}Z  {size(bytes_of(shown)):>8}  {there}"


def _shown(shown):
    vm = shown['source']
    yield f"{shown['name']} of {shown['vm']}, of {shown['created']}"
    yield f"  level     {shown['level']}"
    yield f"  takes     {size(bytes_of(shown)):>8}  of " \
          f"{memory(shown['ram'])} RAM"
    for part, address in shown.get('servers', {}).items():
        yield f"  part {part}    at {address}, of {shown['parts']} parts"
    for index, address in shown.get('parity-at', {}).items():
        yield f'  parity {index}  at {address}'
    if shown.get('file'):
        yield f"  file      {shown['file']}, at the server"
    yield f"  machine   {vm['type']}, QEMU {vm['qemu'] or 'not known'}"
    yield f"  VM        was {vm['status'] or 'in a state that is not known'}"
    yield '  command   ' + (' '.join(vm['command']) if vm['command']
                            else 'not known')


def _each(args):
    """A connection to each server, in turn."""
    for address in args.server:
        with client.MemServer(address, client.tls_of(args)) as server:
            yield server


def _pairs(found):
    """@found: address -> checkpoints"""
    return [(address, c) for address, checkpoints in found.items()
            for c in checkpoints]


def _of_vm(found, vm):
    """@found: server -> checkpoints; some may have none of the VM."""
    of_vm = {s: [c for c in has if c['vm'] == vm] for s, has in found.items()}
    if not any(of_vm.values()):
        raise MigrateError(f"there is no checkpoint of '{vm}'")
    return of_vm


def _list(args):
    found = {s.address: s('list') for s in _each(args)}
    if args.vm:
        found = _of_vm(found, args.vm)
    if args.json:
        return found
    for address, checkpoints in found.items():
        if len(found) > 1:
            print(f'{address}:')
        for checkpoint in checkpoints:
            print(_row(checkpoint))
    for problem in filter(None, (s.problem() for s in
                                 sets.sets_of(_pairs(found)))):
        print(problem)
    return None


def _one(args, command):
    """From the first server that has it: (address, what it shows)."""
    why = None
    with contextlib.closing(_each(args)) as servers:
        for server in servers:
            try:
                return server.address, server(
                    command, vm=args.vm or the_only_vm(server),
                    name=args.name)
            except MigrateError as e:
                why = why or e
    raise why


def _parts(args, shown):
    """The set that a part belongs to, or a better one of the same name.  If it
    has parity, servers may be lost."""
    found = []
    expected = MigrateError if shown.get('redundancy') else client.Refused
    for server in _each(args):
        with contextlib.suppress(expected):
            found.append((server.address, server(
                'show', vm=shown['vm'], name=shown['name'])))
    return sets.best(found)


def _show(args):
    _, shown = _one(args, 'show')
    found = _parts(args, shown) if 'set' in shown else None
    if found:
        shown = {**found.head(), 'servers': {
            n: address for n, (address, _) in sorted(found.at.items())},
            'parity-at': {n: address for n, (address, _) in sorted(
                parity.of(args.server, client.tls_of(args), found).items())}}
    if not args.json:
        print('\n'.join(_shown(shown)))
        if found and found.missing():
            print(found.problem())
    return shown


def _compare(args, shown):
    """Parts in memory with the checksums that servers of parity have; None:
    there are none."""
    tls = client.tls_of(args)
    whole = _parts(args, shown)
    if all(sets.is_tentative(s) for _, s in whole.at.values()):
        raise MigrateError(
            f"'{whole.name}' of {whole.vm} is not protected: its save "
            f"{TENTATIVE[whole.head()['tentative']]}. If that is over, "
            'prune, or a save of that name, removes it')
    parities = parity.of(args.server, tls, whole)
    if not parities:
        return None
    if args.repair:
        parity.mend(args.server, tls, whole)
    wrong = parity.compare(parities, tls, whole)
    text = ', '.join(f'{pages} pages of part {part} at {whole.at[part][0]}'
                     for part, pages in wrong.items())
    if wrong and not args.repair:
        raise MigrateError(f"'{whole.name}' of {whole.vm} is damaged: {text}. "
                           'To make that again of the others, say --repair')
    if wrong:
        parity.repair(args.server, tls, whole, wrong)
    parity.verify_files(parities, tls)
    found = {address: part for address, part in whole.at.values()}
    if not args.json:
        print(f'{whole.name} of {whole.vm}: ' +
              (f'made again: {text}' if wrong else 'good'))
    return found


def _verify(args):
    """On all servers, or those that have its parts."""
    address, shown = _one(args, 'show')
    if 'set' in shown and (shown['level'] == 'memory' or
                           shown.get('redundancy')):
        found = _compare(args, shown)
        if found:
            return found
    if 'set' in shown:
        addresses = _parts(args, shown).addresses()
        args = argparse.Namespace(**{
            **vars(args), 'server': addresses, 'vm': shown['vm'],
            'name': shown['name']})
    found = {s.address: s('verify', vm=args.vm or the_only_vm(s),
                          name=args.name) for s in _each(args)}
    if not args.json:
        for address, shown in found.items():
            part = f"part {shown['part']} of " if 'set' in shown else ''
            print(f"{part}{shown['name']} of {shown['vm']} at {address}: good")
    return found


@contextlib.contextmanager
def _together(args):
    """All servers at once: server -> what it has of the VM."""
    with contextlib.ExitStack() as opened:
        servers = [opened.enter_context(client.MemServer(
            address, client.tls_of(args))) for address in args.server]
        found = {s: s('list') for s in servers}
        yield _of_vm(found, args.vm or _the_only(
            ','.join(args.server), itertools.chain(*found.values())))


def _prune(args):
    with _together(args) as found:
        removed = removal.prune(found, args.keep)
    return _removed(args, removed)


def _remove(args):
    """From all servers, whatever is whole."""
    with _together(args) as found:
        pairs = [(s.address, c) for s, has in found.items() for c in has
                 if args.name in (c['name'], c.get('parity-of'))]
        if not pairs:
            raise MigrateError(f"there is no checkpoint '{args.name}'")
        removed = removal.remove(found, pairs)
    return _removed(args, removed)


def _removed(args, removed):
    if not args.json:
        for address, names in removed.items():
            for name in names:
                print(f'Removed {name} from {address}')
    return removed


def _main(run):
    @in_words
    def main(parser, words):
        """Returns the exit status."""
        args = parser.parse_args(words)
        client.check(parser, args)
        found = run(args)
        if args.json:
            print(json.dumps(found, indent=2))
        return 0
    return main


main_list, main_show = _main(_list), _main(_show)
main_verify, main_prune = _main(_verify), _main(_prune)
main_remove = _main(_remove)
