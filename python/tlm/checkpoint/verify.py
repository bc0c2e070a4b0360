# SPDX-License-Identifier: GPL-2.0-or-later
"""Is a checkpoint's file as it was written?"""

import os

from . import checksums, manifest


def problem(catalogue, entry, display=None):
    """What is wrong, in words; None: nothing."""
    if entry.problem:
        return entry.problem

    def on_chunk(percent, details):
        if display:
            display.show('verify', percent, [entry.name, *details])

    above = problem(catalogue, catalogue.get(entry.parent), display) \
        if entry.parent else None
    algorithm, sums = manifest.sums(entry.manifest)
    wanted = entry.manifest['file']
    fd = os.open(catalogue.file(entry), os.O_RDONLY)
    try:
        bad = checksums.differing(fd, sums, wanted['size'],
                                  checksums.workers(),
                                  checksums.Timed(on_chunk), algorithm)
    finally:
        os.close(fd)
    if not bad:
        return above and f"its parent '{entry.parent}': {above}"
    first = bad[0] * checksums.CHUNK
    return f"the file is not as it was written: {len(bad)} of " \
           f"{len(sums)} chunks of {checksums.CHUNK >> 20} MiB " \
           f'differ, the first at byte {first}'
