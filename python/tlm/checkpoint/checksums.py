# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums of a sparse file, a chunk each.

A chunk's sum is the SHA-256 of all its blocks that are not zero, each behind
its offset in the file (8 bytes, big-endian).  So a hole is what it reads as:
zeros.  It need not be read, a copy of the file may have it or not, and any
other byte in it changes the sum.
"""

import concurrent.futures
import errno
import hashlib
import os

CHUNK = 64 << 20
BLOCK = 64 << 10
READ = 16 * BLOCK
ZEROS = bytes(BLOCK)


def _not_holes(fd, start, end):
    """(from, to), whole blocks, of all in which there may be data."""
    while start < end:
        try:
            data = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:      # nothing but a hole
                return
            raise
        if data >= end:
            return
        hole = os.lseek(fd, data, os.SEEK_HOLE)
        first = max(start, data // BLOCK * BLOCK)
        start = min(end, -(-hole // BLOCK) * BLOCK)
        yield first, start


def of_chunk(fd, number, size):
    """Hexadecimal; @size: of the whole file."""
    total = hashlib.sha256()
    start = number * CHUNK
    for first, last in _not_holes(fd, start, min(start + CHUNK, size)):
        for at in range(first, last, READ):
            data = os.pread(fd, min(READ, last - at), at)
            for i in range(0, len(data), BLOCK):
                block = data[i:i + BLOCK]
                if block != ZEROS[:len(block)]:
                    total.update((at + i).to_bytes(8, 'big'))
                    total.update(block)
    return total.hexdigest()


def of_file(fd, size, workers=1, on_chunk=lambda done, count: None):
    """A list.  @on_chunk may raise an exception to end it."""
    count = -(-size // CHUNK)
    sums = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for one in pool.map(lambda n: of_chunk(fd, n, size),
                                range(count)):
                sums.append(one)
                on_chunk(len(sums), count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sums


def differing(fd, wanted, size, workers=1,
              on_chunk=lambda done, count: None):
    """Numbers of the chunks that are not as they were."""
    return [n for n, (a, b) in enumerate(zip(
        wanted, of_file(fd, size, workers, on_chunk), strict=True)) if a != b]
