# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies of files, which share their data with the original if the file system
can: XFS, btrfs."""

import contextlib
import errno
import fcntl
import os
import struct

from . import mappedram

FICLONE = 0x40049409
# linux/fs.h: struct fsxattr, and what it is read and written by
FSXATTR = struct.Struct('=IIIII8x')
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801c581f, 0x401c5820
FS_XFLAG_COWEXTSIZE = 0x00010000
PAGE = 4096


def _small_extents(fd):
    """XFS would copy 128 KiB for each page that is written to a clone."""
    with contextlib.suppress(OSError):
        flags, extsize, extents, project, _ = FSXATTR.unpack(
            fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(FSXATTR.size)))
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, FSXATTR.pack(
            flags | FS_XFLAG_COWEXTSIZE, extsize, extents, project, PAGE))


def shared(source, target):
    """Makes the empty @target one, if the file system can; both are file
    descriptors."""
    _small_extents(target)
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as e:
        if e.errno in mappedram.NOT_HERE | {errno.ENOTTY}:
            return False
        raise
    return True


def data(fd, at, end):
    """(from, to) of all between @at and @end in which there may be data."""
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:      # nothing but a hole
                return
            raise
        if at < end:
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            yield at, min(hole, end)
            at = hole


def copied(source, target, on_bytes=lambda num: None):
    """With its holes."""
    size = os.fstat(source).st_size
    for start, end in data(source, 0, size):
        while start < end:
            num = min(end - start, 64 << 20)
            mappedram.copy(source, target, start, num)
            on_bytes(num)
            start += num
    os.ftruncate(target, size)
