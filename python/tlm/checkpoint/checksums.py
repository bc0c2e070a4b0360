# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums of a sparse file, a chunk each.

A chunk's sum is that of all its blocks that are not zero, each behind
its offset in the file (8 bytes, big-endian).  So a hole is what it reads as:
zeros.  It need not be read, a copy of the file may have it or not, and any
other byte in it changes the sum.

XXH3 is some ten times as fast as SHA-256; either finds accidents.
"""

import concurrent.futures
import hashlib
import os
import time

from ..errors import MigrateError
from ..figures import duration
from . import clone

try:
    import xxhash               # Debian's python3-xxhash
except ImportError:
    xxhash = None

ALGORITHMS = {'sha256': hashlib.sha256,
              'xxh3-128': xxhash.xxh3_128 if xxhash else None}
FASTEST = 'xxh3-128' if xxhash else 'sha256'
CHUNK = 64 << 20
BLOCK = 64 << 10
READ = 16 * BLOCK
ZEROS = bytes(BLOCK)


def _not_holes(fd, start, end):
    """(from, to), whole blocks, of all in which there may be data."""
    for data, hole in clone.data(fd, start, end):
        first = max(start, data // BLOCK * BLOCK)
        start = min(end, -(-hole // BLOCK) * BLOCK)
        if first < start:
            yield first, start


def workers():
    return len(os.sched_getaffinity(0))


class Timed:
    """As @on_chunk: calls another one with the time that is left."""

    def __init__(self, then):
        self.then, self.start = then, time.monotonic()

    def __call__(self, done, count):
        left = (time.monotonic() - self.start) * (count - done) / done
        self.then(100 * done / count,
                  [f'ETA {duration(1000 * left)}'] if done < count else [])


def of_chunk(fd, number, size, algorithm):
    """Hexadecimal; @size: of the whole file."""
    total = ALGORITHMS[algorithm]()
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


def of_file(fd, size, threads=1, on_chunk=lambda done, count: None,
            algorithm=FASTEST):
    """A list.  @on_chunk may raise an exception to end it."""
    if not ALGORITHMS.get(algorithm):
        raise MigrateError(f"checksums '{algorithm}' need the package "
                           'python3-xxhash')
    count = -(-size // CHUNK)
    sums = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            for one in pool.map(lambda n: of_chunk(fd, n, size, algorithm),
                                range(count)):
                sums.append(one)
                on_chunk(len(sums), count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sums


def differing(fd, wanted, size, threads=1,
              on_chunk=lambda done, count: None, algorithm=FASTEST):
    """Numbers of the chunks that are not as they were."""
    return [n for n, (a, b) in enumerate(zip(
        wanted, of_file(fd, size, threads, on_chunk, algorithm),
        strict=True)) if a != b]
