# SPDX-License-Identifier: GPL-2.0-or-later
"""Is a checkpoint's file as it was written?"""

import os

from . import checksums


def problem(catalogue, entry, display=None):
    """What is wrong, in words; None: nothing."""
    if entry.problem:
        return entry.problem

    def on_chunk(done, count):
        if display:
            display.show('verify', 100 * done / count, [entry.name])

    wanted = entry.manifest['file']
    fd = os.open(catalogue.path(entry.name), os.O_RDONLY)
    try:
        bad = checksums.differing(fd, wanted['sha256'], wanted['size'],
                                  len(os.sched_getaffinity(0)), on_chunk)
    finally:
        os.close(fd)
    if not bad:
        return None
    first = bad[0] * checksums.CHUNK
    return f"the file is not as it was written: {len(bad)} of " \
           f"{len(wanted['sha256'])} chunks of {checksums.CHUNK >> 20} MiB " \
           f'differ, the first at byte {first}'
