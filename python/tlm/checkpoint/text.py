# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint in words, from its manifest."""

from ..figures import duration, memory, size

SHOWN_US = 1000             # parts of the pause below it are "the rest"
IN_WORDS = {'RAM': 'keeping RAM'}
WHEN = {'copy': 'in the pause',
        'write-protect': 'after the pause, write-protected in it'}


def pause(content):
    parts = content['pause-parts-us']
    long = [f'{IN_WORDS.get(name, name)} {duration(us / 1000)}'
            for name, us in parts.items() if us >= SHOWN_US]
    return ' + '.join(long + ['the rest < 1 ms'] * (len(long) < len(parts)))


def brief(content):
    return f"pause {duration(content['pause-us'] / 1000)}, " \
           f"{size(content['file']['allocated'])} on disk"


def saved(content, path):
    """Lines, after it has been saved."""
    return [f"Saved {content['name']} in {duration(content['total-ms'])}, "
            f"pause {duration(content['pause-us'] / 1000)}:",
            *_figures(content),
            f'  file      {path}']


def _figures(content):
    file = content['file']
    yield f'  pause     {pause(content)}'
    if content['copied']:
        yield f"  copied    {size(content['copied']):>8}  of RAM " \
              f"{WHEN[content['kept-by']]}, written while the guest ran"
    if content['note']:
        yield f"  note      {content['note']}"
    yield f"  on disk   {size(file['allocated']):>8}  of " \
          f"{memory(content['machine']['ram'])} RAM, durable after " \
          f"{duration(content['flushed-ms'])}"


def shown(content, path):
    """All that the manifest says."""
    vm = content['machine']
    return [f"{content['name']}, of {content['created']}", *_figures(content),
            f'  file      {path}',
            f"  machine   {vm['type']}, {memory(vm['ram'])} RAM, QEMU "
            f"{vm['qemu']}",
            f"  VM        {vm['name'] or 'without a name'}, UUID "
            f"{vm['uuid']}, was {vm['status']}",
            '  command   ' + (' '.join(vm['command']) if vm['command']
                              else 'not known')]
