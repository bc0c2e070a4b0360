# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint in words, from its manifest."""

from ..figures import duration, memory, size

SHOWN_US = 1000             # parts of the pause below it are "the rest"
IN_WORDS = {'RAM': 'keeping RAM'}
WHEN = {'copy': 'in the pause',
        'write-protect': 'after the pause, write-protected in it',
        'mixed': 'in the pause and, what was write-protected in it, after it'}


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
            *figures(content), *_on_disk(content),
            f'  file      {path}']


def figures(content):
    """What QEMU has said of it."""
    yield f'  pause     {pause(content)}'
    if content['copied']:
        yield f"  copied    {size(content['copied']):>8}  of RAM " \
              f"{WHEN[content['kept-by']]}, written while the guest ran"
    if content.get('parent'):
        yield f"  needs     {content['parent']}, of which it has the changes"
    if content.get('full-reason'):
        yield f"  whole     {content['full-reason']}"
    for disk in content.get('disks', []):
        yield f"  disk      {disk['base']}, which nobody may write to; it " \
              f"goes on in {disk['overlay-file']}"
    if content['note']:
        yield f"  note      {content['note']}"


def _on_disk(content):
    file = content['file']
    yield f"  on disk   {size(file['allocated']):>8}  of " \
          f"{memory(content['machine']['ram'])} RAM, durable after " \
          f"{duration(content['flushed-ms'])}"


def shown(content, path):
    """All that the manifest says."""
    vm = content['machine']
    return [f"{content['name']}, of {content['created']}", *figures(content),
            *_on_disk(content), f'  file      {path}',
            f"  machine   {vm['type']}, {memory(vm['ram'])} RAM, QEMU "
            f"{vm['qemu']}",
            f"  VM        {vm['name'] or 'without a name'}, UUID "
            f"{vm['uuid']}, was {vm['status']}",
            '  command   ' + (' '.join(vm['command']) if vm['command']
                              else 'not known')]
