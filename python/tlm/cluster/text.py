# SPDX-License-Identifier: GPL-2.0-or-later
"""A set in words, from its manifest."""

from ..figures import duration, size


def us(value):
    return duration(value / 1000) if value >= 10_000 else \
        f'{value / 1000:.1f} ms'


def longest(content):
    return max(m['pause-us'] for m in content['members'])


def brief(content):
    return f"{len(content['members'])} VMs, longest pause " \
           f'{us(longest(content))}'


def row(entry):
    if entry.problem:
        return f'{entry.name}: {entry.problem}'
    return f"{entry.name:<20}  {entry.manifest['created'][:19]}Z  " \
           f'{brief(entry.manifest)}'


def shown(content, head=None):
    """Lines."""
    return [head or f"{content['name']}, of {content['created']}",
            f"  ready     after {duration(content['ready-ms'])}",
            f"  cut       all stood still after "
            f"{us(1000 * content['stopped-ms'])}{_apart(content)}",
            f"  complete  after {duration(content['complete-ms'])}",
            *map(_member, content['members']),
            *(f"  disk of {m['name']}: {d['base']}, which nobody may write "
              f"to; it goes on in {d['overlay-file']}"
              for m in content['members'] for d in m.get('disks', ()))]


def _apart(content):
    """libvirt does not tell when a domain has stopped."""
    if len([m for m in content['members'] if m.get('stopped-us')]) < 2:
        return ''
    return f"; stops {us(content['stop-skew-us'])} apart, resumes " \
        f"{us(content['resume-skew-us'])}"


def _member(m):
    return f"  {m['name']:<20} pause {us(m['pause-us']):>8}  " + (
        f"at {m['server']['address']}, {size(m['server']['size'])}"
        if 'server' in m else m['dir']) + (
        f", needs {m['parent']}" if 'parent' in m else '') + (
        f", changes since {m['since']}" if 'since' in m else '') + (
        f", whole: {m['full-reason']}" if 'full-reason' in m else '') + (
        f", waited for all: {m['gate']}" if 'gate' in m else '')


def saved(content):
    return shown(content, f"Saved {content['name']} in "
                 f"{duration(content['total-ms'])}: {brief(content)}")
