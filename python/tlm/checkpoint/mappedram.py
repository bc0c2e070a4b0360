# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's files of the capability mapped-ram: where RAM is, and joining them.

A file begins with the stream up to the list of RAM blocks.  Each block of the
list is followed by its header, its bitmap (a bit for each page that the file
has) and room for all of its pages.  The stream goes on behind the last one.

An incremental checkpoint has only the pages that were written since its parent;
a page whose bit is 0 is as it was there.  Joined, a file of the parent and it
are again a file from which any QEMU starts the guest.
"""

import errno
import os
import re
import struct
from typing import NamedTuple

MAGIC = b'QEVM\0\0\0\3'
CONFIGURATION = 7
SUBSECTION = 5
SECTION_START = 1
MEM_SIZE = 4                    # flag in the word that has the size of RAM
HEADER = struct.Struct('>IQQQ')
HEAD = 64 << 10                 # more than stream and header of a block take
PIECE = 4096                    # bytes of a bitmap looked at together
COPY = 1 << 20
NOT_HERE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class FormatError(Exception):
    """It is not such a file, or not a whole one."""


class Block(NamedTuple):
    name: str
    length: int                 # bytes of RAM
    page_size: int
    bitmap_offset: int          # in the file
    pages_offset: int

    @property
    def bitmap_bytes(self):
        return -(-self.length // self.page_size // 64) * 8

    @property
    def end(self):
        return self.pages_offset + self.length


class _Head:
    """A reader that knows where it is, and what a file cannot have."""

    def __init__(self, fd):
        self.fd = fd
        self.seek(0)

    def seek(self, at):
        self.at, self.begin = at, at
        self.data = os.pread(self.fd, HEAD, at)

    def take(self, num):
        start = self.at - self.begin
        self.at += num
        if start + num > len(self.data):
            raise FormatError(f'the file ends, or is not of mapped-ram, at '
                              f'byte {self.at}')
        return self.data[start:start + num]

    def number(self, num):
        return int.from_bytes(self.take(num), 'big')

    def text(self):
        return self.take(self.number(1)).decode('ascii', 'replace')

    def next_is(self, kind):
        return self.data[self.at - self.begin:][:1] == bytes([kind])


def _skip_configuration(head):
    head.take(head.number(4))               # the machine's type
    while head.next_is(SUBSECTION):
        head.take(1)
        name = head.text()
        head.take(4)                        # its version
        if name == 'configuration/target-page-bits':
            head.take(4)
        elif name == 'configuration/capabilities':
            if 'mapped-ram' not in {head.text()
                                    for _ in range(head.number(4))}:
                raise FormatError('it was written without mapped-ram')
        elif name == 'configuration/uuid':
            head.take(16)
        else:
            raise FormatError(f'unknown part {name!r}')


def blocks(fd):
    """The file's blocks, in the order in which they lie in it."""
    size = os.fstat(fd).st_size
    head = _Head(fd)
    if head.take(len(MAGIC)) != MAGIC:
        raise FormatError('it is not a file that QEMU has written')
    if head.next_is(CONFIGURATION):
        head.take(1)
        _skip_configuration(head)
    kind = head.number(1)
    head.take(4)                            # its number
    if kind != SECTION_START or head.text() != 'ram':
        raise FormatError('RAM is not the first part')
    head.take(8)                            # instance, version
    left = head.number(8)
    if not left & MEM_SIZE:
        raise FormatError('the size of RAM is missing')
    left -= MEM_SIZE
    found = []
    while left:
        name, length = head.text(), head.number(8)
        version, page_size, bitmap, pages = HEADER.unpack(
            head.take(HEADER.size))
        block = Block(name, length, page_size, bitmap, pages)
        if version != 1 or not 0 < length <= left or page_size < 1 or \
                length % page_size or bitmap < head.at or \
                bitmap + block.bitmap_bytes > pages or block.end > size:
            raise FormatError(f'block {name!r} has an impossible header')
        found.append(block)
        left -= length
        head.seek(block.end)
    return found


def read_bitmap(fd, block):
    bitmap = os.pread(fd, block.bitmap_bytes, block.bitmap_offset)
    if len(bitmap) != block.bitmap_bytes:
        raise FormatError('the file ends in a bitmap')
    return bitmap


def runs(bitmap):
    """(first page, number of pages) of all in @bitmap, in order and joined."""
    first = last = None
    for start in range(0, len(bitmap), PIECE):
        piece = bitmap[start:start + PIECE]
        if not piece.strip(b'\0'):
            continue
        bits = format(int.from_bytes(piece, 'little'), 'b')[::-1]
        for match in re.finditer('1+', bits):
            begin, end = (8 * start + i for i in match.span())
            if begin != last:
                if last is not None:
                    yield first, last - first
                first = begin
            last = end
    if last is not None:
        yield first, last - first


def pages(fd, block):
    """How many pages of @block the file has."""
    return int.from_bytes(read_bitmap(fd, block), 'little').bit_count()


def _write(fd, data, at):
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


def copy(source, target, at, num):
    """@num bytes at the same offset; shared with @source if the file system
    can."""
    while num:
        try:
            done = os.copy_file_range(source, target, num, at, at)
        except OSError as e:
            if e.errno not in NOT_HERE:
                raise
            data = os.pread(source, min(num, COPY), at)
            _write(target, data, at)
            done = len(data)
        if not done:
            raise FormatError('the file has become shorter')
        at, num = at + done, num - done


def _around(layout, size):
    """(from, to) of all that is neither bitmap nor page: the stream."""
    at = 0
    for block in layout:
        yield at, block.bitmap_offset
        at = block.end
    yield at, size


def apply(child, target, on_bytes=lambda num: None):
    """Turns @target, a whole file of the parent that may be written to, into
    one of @child, which is incremental; both are file descriptors.  Call
    os.fsync() afterwards.  A @target for which this has failed is useless."""
    layout = blocks(child)
    if blocks(target) != layout:
        raise FormatError('RAM is laid out differently in the parent')
    size = os.fstat(child).st_size
    os.ftruncate(target, layout[-1].end if layout else 0)
    for start, end in _around(layout, size):
        copy(child, target, start, end - start)
    for block in layout:
        bitmap = read_bitmap(child, block)
        for first, num in runs(bitmap):
            if (first + num) * block.page_size > block.length:
                raise FormatError(f'block {block.name!r} has pages behind '
                                  f'its end')
            copy(child, target, block.pages_offset + first * block.page_size,
                 num * block.page_size)
            on_bytes(num * block.page_size)
        both = int.from_bytes(bitmap, 'little') | \
            int.from_bytes(read_bitmap(target, block), 'little')
        _write(target, both.to_bytes(block.bitmap_bytes, 'little'),
               block.bitmap_offset)
