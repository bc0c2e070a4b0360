# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures as people read them; units.py has the other direction."""


def size(count):
    """Bytes, in decimal units as link speeds are."""
    for unit, factor in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
        if count >= factor:
            value = count / factor
            return f'{value:.0f} {unit}' if value >= 100 else \
                   f'{value:.3g} {unit}'
    return f'{count:.0f} B'


def memory(count):
    """Bytes of RAM, in binary units as RAM is sold."""
    for unit, factor in (('GiB', 2**30), ('MiB', 2**20), ('KiB', 2**10)):
        if count >= factor:
            return f'{count / factor:.1f} {unit}'
    return f'{count} B'


def rate(per_second):
    return size(per_second) + '/s'


def duration(ms):
    if ms >= 100_000:
        return f'{ms / 1000:.0f} s'
    if ms >= 10_000:
        return f'{ms / 1000:.1f} s'
    if ms >= 1000:
        return f'{ms / 1000:.2f} s'
    return f'{ms:.0f} ms' if ms >= 1 or not ms else '< 1 ms'


def speed(share):
    """Of the guest, @share of its full speed: "slowed to 0 %" would read as
    "not slowed"."""
    return f'guest at {100 * share:.0f} % speed'


def bar(percent, width):
    full = int(width * min(percent, 100) / 100)
    return '[' + '#' * full + '-' * (width - full) + ']'
