# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint commit: shorter chains of images."""

import json
import os
import sys
import time

from ..errors import MigrateError
from ..figures import duration
from ..progress import Display
from . import blockjobs, durable, merge, place, serverdisks, source
from .catalogue import Catalogue
from .machine import describe
from .records import Records
from .signals import Interrupted, Signals
from .toserver import vm_name


def _remove(images, into, above, used):
    """What is now in @into, on the disk too.  Returns those that are gone."""
    for path in (into, above):
        if path:
            durable.sync_file(path)
    gone = [p for p in images if p not in used and os.path.exists(p)]
    for path in gone:
        durable.discard(path)
    for directory in {os.path.dirname(p) for p in gone}:
        durable.sync_directory(directory)
    return gone


def _bring_to_its_end(records, jobs):
    """A merge whose command was killed: remove what it has made superfluous,
    if it has; else it is as if it had not begun.  Returns what is removed."""
    last = records.pending()
    if not last:
        return []
    gone, tops = [], jobs.tops()
    images, into, above = last['images'], last['into'], last['above']
    if above:
        done = os.path.exists(above) and merge.backing(above) == into
    else:
        done = into in tops         # else it is not known here
    if done:
        gone = _remove(images, into, above, jobs.in_use())
    records.end_merge()
    return gone


def _begin(display, chain, check):
    start = time.monotonic()

    def on_poll(done, total):
        check()
        if not display or not total:
            return
        passed = time.monotonic() - start
        left = passed * (total - done) / done if done else None
        display.show('merge', 100 * done / total, [
            chain.device or chain.node,
            *(() if left is None else (f'ETA {duration(1000 * left)}',))])
    return on_poll


def run(records, entries, vm, display=None, check=lambda: None):
    """Of a VM of source.py; the caller holds the lock.  @entries() returns all
    checkpoints.  Returns what there is to be told."""
    jobs = blockjobs.of(vm, describe(vm.qmp)['directory'])
    jobs.settle(records.pending())
    told = {'merged': [], 'kept': {},
            'removed': _bring_to_its_end(records, jobs)}
    for device in [chain.node for chain in jobs.chains()]:
        _one_disk(records, entries, jobs, device, told, display, check)
    return told


def _one_disk(records, entries, jobs, node, told, display, check):
    while True:
        check()
        chain = next((c for c in jobs.chains() if c.node == node), None)
        if not chain:
            return                  # nothing is below it any more
        merges, kept = merge.plan(chain.files, entries(),
                                  records.overlays())
        if not merges:
            told['kept'].update(kept)
            return
        one = merges[-1]
        records.begin_merge({'images': one.images, 'into': one.into,
                             'above': one.above})
        freed = blockjobs.size_of(one.images)
        try:
            jobs.run(chain, one, _begin(display, chain, check))
        except BaseException:
            _bring_to_its_end(records, jobs)
            raise
        gone = _remove(one.images, one.into, one.above, jobs.in_use())
        records.end_merge()
        told['merged'].append({'into': one.into, 'images': one.images,
                               'size': freed, 'active': one.above is None})
        told['removed'] += gone
        if not one.above:
            return                  # it has another node at the top now


def of_directory(catalogue, vm, display, check):
    with catalogue.locked():
        return run(Records(catalogue.directory), catalogue.entries, vm,
                   display, check)


def of_servers(args, vm, display, check):
    known = vm.describe()
    called = vm_name(args, known)
    records = serverdisks.of(args, vm, called, known['directory'])
    with records.locked():
        records.check_servers()
        return run(records, lambda: serverdisks.entries(args, called), vm,
                   display, check)


def merged(one):
    """In words."""
    number = len(one['images'])
    return f"Merged {number} image{'s'[:number > 1]} ({one['size']}) into " \
        f"{one['into']}" + \
        (', in which the guest goes on' if one['active'] else '')


def lines(told):
    yield from map(merged, told['merged'])
    for path in told['removed']:
        yield f'Removed {path}'
    if not told['merged']:
        yield 'Nothing can be merged'
    for path, why in told['kept'].items():
        yield f'  {path}: {why}'


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    source.check(parser, args)
    place.check(parser, args)
    try:
        catalogue = Catalogue(args.dir) if args.dir else None
        with Signals() as signals, Display(sys.stderr) as display, \
                source.of(args) as vm:
            told = of_servers(args, vm, display, signals.check) \
                if args.server else \
                of_directory(catalogue, vm, display, signals.check)
    except (Interrupted, KeyboardInterrupt):
        print('Ended: the disks are as they were, or as far as it was said',
              file=sys.stderr)
        return 130
    except (MigrateError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    print(json.dumps(told, indent=2) if args.json else
          '\n'.join(lines(told)))
    return 0
