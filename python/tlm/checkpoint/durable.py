# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes in a directory that are still there after a power failure."""

import contextlib
import os


def sync_file(path, flags=0):
    """What others have written to it, too."""
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(directory):
    sync_file(directory, os.O_DIRECTORY)


def rename(old, new):
    """Within a directory."""
    os.rename(old, new)
    sync_directory(os.path.dirname(new))


def write(path, text):
    """All of the file, or none of it."""
    directory, name = os.path.split(path)
    draft = os.path.join(directory, f'.{name}.new')
    try:
        # As private as what QEMU writes: it may have secrets in it
        with open(draft, 'w', encoding='utf-8',
                  opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        rename(draft, path)
    except BaseException:
        discard(draft)
        raise


def discard(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
