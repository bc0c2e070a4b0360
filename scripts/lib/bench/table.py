# Results as tables: medians with their spread, and ratios within the run
#
# SPDX-License-Identifier: GPL-2.0-or-later

from statistics import median

NONE = '–'


def values(results, key):
    return [r[key] for r in results if r.get(key) is not None and
            r['status'] == 'completed']


def fixed(fmt, x):
    """x in that format."""
    text = fmt.format(x)
    return text.lstrip('-') if not float(text) else text     # no "-0.00"


def spread(results, key, scale=1.0, fmt='{:.2f}'):
    v = [x * scale for x in values(results, key)]
    if not v:
        return NONE
    text = fixed(fmt, median(v))
    if len(v) > 1:
        text += f' ({fixed(fmt, min(v))}–{fixed(fmt, max(v))})'
    return text


def ratio(results, base, key):
    a, b = values(results, key), values(base, key)
    if not a or not b or not median(b):
        return NONE
    return f'{median(a) / median(b):.3f}'


def number(result):
    """Of the run, among those of its mode."""
    return result['key'].rsplit('/', 1)[1]


def pair_ratios(results, base, key):
    """The ratios of runs with the same number, made one after the other."""
    others = {number(r): r for r in base}
    pairs = [(r, others[number(r)]) for r in results if number(r) in others]
    return [a[key] / b[key] for a, b in pairs
            if a.get(key) and b.get(key) and
            a['status'] == b['status'] == 'completed']


def paired_ratio(results, base, key):
    pairs = pair_ratios(results, base, key)
    return f'{median(pairs):.3f}' if pairs else NONE


def resent_percent(results):
    """Pages sent more than once, in percent of all RAM."""
    v = []
    for r in results:
        t = r.get('tlm')
        if t and r['status'] == 'completed':
            ram = t['ram']
            sent = ram['mtx'] + ram['dtx'] + ram['stop']
            v.append(100.0 * ram['resent'] / max(1, sent - ram['resent']))
    return f'{median(v):.1f}' if v else NONE


def outcome(results):
    """What became of a mode of which no run was completed."""
    r = results[-1]
    seconds = r.get('total_ms', 0) / 1e3
    words = {'not ended': f'not ended, cut after {seconds:.0f} s',
             'not possible': 'not possible here'}
    text = words.get(r['status'], r['status'])
    # QEMU's message without the name of the side and the command
    why = (r.get('error') or '').strip().splitlines()
    if why:
        text += ': ' + why[0].removeprefix('src: migrate-set-capabilities: ')
    return text


def arrived(result):
    """Whether there was a guest at the destination to be judged: also if it
    was found wrong, or failed, afterwards."""
    return result['status'] == 'completed' or \
        result.get('downtime_ms') is not None


def verdict(results):
    """How many guests that arrived had all their memory right."""
    there = [r for r in results if arrived(r)]
    well = sum(r.get('guest') == 'well' for r in there)
    return f'{well}/{len(there)}'


def slowed_ms(result):
    """What TLM says to have taken from vCPUs that were not stopped."""
    lost = result.get('tlm', {}).get('guest', {}).get('lost-work')
    if lost is None or result['status'] != 'completed':
        return None
    return max(0, lost - result['downtime_ms'])


def throttled(results):
    """How long in all vCPUs were held back while the guest ran, where that is
    known, and how hard at most."""
    slow = [x for x in map(slowed_ms, results) if x is not None]
    hard = [r['throttle_percent'] for r in results
            if r.get('throttle_percent') is not None]
    if slow and median(slow) <= UNTHROTTLED_MS:
        return 'none'
    parts = [f'{median(slow) / 1e3:.2f} s'] if slow else []
    if hard and (slow or median(hard)):
        parts.append(f'up to {median(hard):.0f} %')
    return ', '.join(parts) or ('none' if hard else NONE)


UNTHROTTLED_MS = 20     # is what rounding and the last step may seem to take
HEAD = ('mode', 'n', 'total s', '×', 'downtime ms', 'guest silent ms',
        'MB sent', '×', 'resent %', 'lost work s', 'throttled', 'CPU s',
        'guest well')


def rows(by_mode, base):
    """[[cell]] of HEAD for {mode name: [result]}; × is against @base."""
    ref = by_mode.get(base) or next(iter(by_mode.values()))
    table = []
    for results in by_mode.values():
        ended = [r for r in results if r['status'] == 'completed']
        cells = [results[0]['mode'], f'{len(ended)}/{len(results)}']
        if not ended:
            sent = results[-1].get('bytes') or 0
            table.append(cells + [outcome(results), '', '', '',
                                  f'{sent / 1e6:.0f}' if sent else '',
                                  '', '', throttled(results), '',
                                  verdict(results) if any(
                                      map(arrived, results)) else ''])
            continue
        table.append(cells + [
            spread(results, 'total_ms', 1e-3),
            paired_ratio(results, ref, 'total_ms'),
            spread(results, 'downtime_ms', fmt='{:.0f}'),
            spread(results, 'guest_down_ms', fmt='{:.0f}'),
            spread(results, 'bytes', 1e-6, '{:.0f}'),
            ratio(results, ref, 'bytes'), resent_percent(results),
            spread(results, 'guest_lost_ms', 1e-3),
            throttled(results), spread(results, 'cpu_s', fmt='{:.1f}'),
            verdict(results)])
    return table


def to_markdown(head, body):
    lines = [head, ['---'] * len(head), *body]
    return '\n'.join('| ' + ' | '.join(str(c).replace('|', '\\|')
                                       for c in line) + ' |'
                     for line in lines)
