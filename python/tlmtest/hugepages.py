# Huge pages of the host, and a guest whose RAM is made of them
#
# SPDX-License-Identifier: GPL-2.0-or-later

from .guests import RomGuest

RESERVED = '/proc/sys/vm/nr_hugepages'
SIZE_MB = 2


class HugeGuest(RomGuest):
    def __init__(self, mem_mb, **settings):
        super().__init__(mem_mb, shared=True, **settings)

    def args(self, accel):
        return [a + f',hugetlb=on,hugetlbsize={SIZE_MB}M'
                if a.startswith('memory-backend-memfd') else a
                for a in super().args(accel)]


def _reserved(number=None):
    """How many there are; @number: so many are to be."""
    if number is not None:
        with open(RESERVED, 'w', encoding='ascii') as f:
            f.write(str(number))
    with open(RESERVED, encoding='ascii') as f:
        return int(f.read())


def take(size_mb, at_end):
    """So much more, until what at_end(function, argument) notes is called.
    Returns why the host has none, or None."""
    before = _reserved()
    wanted = before + size_mb // SIZE_MB
    try:
        there = _reserved(wanted)
    except PermissionError:
        return 'huge pages cannot be reserved'
    at_end(_reserved, before)
    return None if there >= wanted else \
        f'the host has no {size_mb} MiB of huge pages'


def reserve(case, size_mb):
    """Until @case has ended, and its QEMUs with it.  Skips it where the host
    has none."""
    why = take(size_mb, case.addCleanup)
    if why:
        case.skipTest(why)
