# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm estimate: what a migration would take, without one."""

import json
import sys
import time

from .errors import MigrateError
from .figures import duration, memory, rate
from .qmp import Qmp

POLL_S = 0.05
# A measurement may take longer than its window: arming the dirty log of a
# large guest does, and so does each sync
PATIENCE_S = 600


def check_source(qmp):
    """Raises MigrateError unless QEMU can measure."""
    if 'tlm-estimate' not in {c['name'] for c in qmp('query-commands')}:
        raise MigrateError("this QEMU has no command 'tlm-estimate': it is "
                           'not the one with TLM')


def measure(qmp, bandwidth, window):
    """Run the measurement to its end; raises MigrateError if it fails."""
    arguments = {'bandwidth': bandwidth}
    if window is not None:
        arguments['window'] = window
    qmp('tlm-estimate', **arguments)
    deadline = time.monotonic() + (window or 0) / 1000 + PATIENCE_S
    while True:
        answer = qmp('query-tlm-estimate')
        if answer['status'] == 'failed':
            raise MigrateError(answer['error'])
        if answer['status'] == 'measured':
            return
        if time.monotonic() > deadline:
            raise MigrateError('the measurement does not end')
        time.sleep(POLL_S)


def predict(qmp, bound, downtime_limit):
    wanted = {'time-bound': bound, 'downtime-limit': downtime_limit}
    return qmp('query-tlm-estimate',
               **{k: v for k, v in wanted.items() if v is not None})


def reachable(answer):
    """Whether the bound can be kept in any way."""
    return any(p['bound-reachable'] for p in answer['predictions'])


def _took(ms):
    return duration(ms) if ms else 'never ends'


def _mode(p):
    name = 'plain TLM' if p['converge'] == 'none' else \
        f"converge={p['converge']}"
    if not p['total']:
        return f'{name:<14} never ends'
    text = f"{name:<14} {duration(p['total']):>7}, " \
           f"down {duration(p['downtime'])}"
    if not p['downtime-reachable']:
        text += ' (more than the downtime limit)'
    return text


def report(e, params, bound, downtime_limit):
    """Lines that say what was measured, and what is predicted."""
    known = 'populated-bytes' in e
    text = f"This VM: {memory(e['total-bytes'])} RAM"
    if known:
        text += f", {memory(e['populated-bytes'])} of it not zero"
    yield text
    yield f"  writes to {memory(e['working-set-bytes'])} in " \
          f"{duration(e['window'])}, makes {rate(e['dirty-rate'])} dirty"
    yield f"Over {rate(e['bandwidth'])}, " \
          f'downtime limit {duration(downtime_limit)}:'
    for p in e['predictions']:
        yield '  ' + _mode(p)
    best = e['predictions'][0]
    yield f"  smallest bound {_took(best['smallest-bound'])}"
    if bound:
        yield f'  bound {duration(bound)}: ' + \
            ('can be kept' if best['bound-reachable'] else 'cannot be kept')
    cap = params['max-bandwidth']
    if cap and cap < e['bandwidth']:
        yield f"Parameter 'max-bandwidth' holds the live stage down to " \
              f'{rate(cap)}.'
    if not known:
        yield 'How much of RAM is zero could not be told: all of it counts.'


def main(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    if not args.bandwidth:
        parser.error('--bandwidth must be more than 0')
    try:
        qmp = Qmp(args.qmp)
        check_source(qmp)
        measure(qmp, args.bandwidth, args.window)
        answer = predict(qmp, args.bound, args.downtime)
        params = qmp('query-migrate-parameters')
        qmp.close()
    except MigrateError as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

    bound = params['tlm-time-bound'] if args.bound is None else args.bound
    limit = params['downtime-limit'] if args.downtime is None else \
        args.downtime
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        print('\n'.join(report(answer, params, bound, limit)))
    return 0 if reachable(answer) else 3
