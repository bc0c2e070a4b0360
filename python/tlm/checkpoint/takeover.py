# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint takeover: the paused QEMU of "standby" runs, once it is sure
that the VM that was saved does not."""

import contextlib
import json
import subprocess
import sys
import time

from ..errors import Gone, MigrateError, Silent, in_words
from ..figures import duration
from ..qmp import Qmp
from .standby import Place, age_ms, runs


def _fence(command):
    """The operator's way to be sure that the source does not run."""
    status = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL,
                            stdout=sys.stderr, check=False).returncode
    if status:
        raise MigrateError(f'--fence: the command ended with status {status}. '
                           'Nothing was started')


def _check_source(args):
    """Raises MigrateError if it may run."""
    if not args.source:
        return
    try:
        qmp = Qmp(args.source)
    except Gone:
        return
    except Silent as e:
        if args.fence:
            return              # which has said that it does not run
        raise MigrateError(f'{e}. It may run all the same: give a command '
                           'that ends it with --fence, or --force') from None
    qmp.close()
    raise MigrateError(f'{args.source}: the source answers. Two of the same '
                       'VM would destroy its disks: end it first, or give '
                       '--fence or --force')


def _take_over(args):
    start = time.monotonic()
    if args.fence:
        _fence(args.fence)
    if not args.force:
        _check_source(args)
    fenced = time.monotonic()
    place = Place(args.dir)
    with place.locked():
        state = place.read()
        if not state:
            raise MigrateError(f'{place.directory}: no QEMU is ready')
        if 'taken' in state:
            raise MigrateError(f"'{state['name']}' was taken over already")
        if not runs(state):
            raise MigrateError('the QEMU that was ready has ended: see '
                               f"{state['log']}, or use \"restore --server\"")
        with contextlib.closing(Qmp(state['qmp'])) as qmp:
            # Even if it fails now: it may run, and nobody may end it
            place.write({**state, 'taken': True})
            if not args.paused:
                qmp('cont')
            status = qmp('query-status')['status']
    return {'name': state['name'], 'vm': state['vm'], 'status': status,
            'created': state['created'],
            'age-ms': round(age_ms(state['created'])),
            'fence-ms': round(1000 * (fenced - start)),
            'total-ms': round(1000 * (time.monotonic() - start)),
            **{k: state[k] for k in ('pid', 'qmp', 'log', 'disks')}}


def _text(done):
    yield f"Took over {done['vm']} from {done['name']}: {done['status']} " \
        f"after {duration(done['total-ms'])}"
    yield f"  age       {duration(done['age-ms']):>8}  of the state: what " \
        'the guest did since then is lost'
    yield f"  fence     {duration(done['fence-ms']):>8}  until it was sure " \
        'that the source does not run'
    yield f"  process   {done['pid']}, QMP socket {done['qmp']},"
    yield f"            messages in {done['log']}"
    for disk in done['disks']:
        yield f'  disk      {disk}'


@in_words
def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    if not (args.source or args.fence or args.force):
        parser.error('how is it known that the source does not run? Give '
                     '--fence, --source or --force')
    done = _take_over(args)
    print(json.dumps(done, indent=2) if args.json else
          '\n'.join(_text(done)))
    return 0
