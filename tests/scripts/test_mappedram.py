#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of mapped-ram, made here: their layout, and joining generations."""

import os
import random
import struct
import tempfile
import unittest

from tlm.checkpoint import mappedram
from tlm.checkpoint.mappedram import FormatError

PAGE = 4096
ALIGN = 1 << 20
SIZES = {'pc.ram': 1000, 'rom': 1, 'vga': 64}       # pages
SEEDS = 10


def string(text):
    return bytes([len(text)]) + text.encode()


def configuration(capability='mapped-ram'):
    machine = b'pc-i440fx-10.0'
    return (b'\7' + struct.pack('>I', len(machine)) + machine
            + b'\5' + string('configuration/capabilities')
            + struct.pack('>II', 1, 1) + string(capability)
            + b'\5' + string('configuration/uuid') + struct.pack('>I', 1)
            + bytes(16))


class Case(unittest.TestCase):
    def setUp(self):
        self.random = random.Random(self.id())

    def file(self, data=b''):
        f = tempfile.TemporaryFile()        # noqa: SIM115
        self.addCleanup(f.close)
        f.write(data)
        f.flush()
        return f.fileno()

    def make(self, ram, tail, head=None, sizes=None):
        """A file that has the pages of @ram: {block: {page: bytes}}."""
        sizes = sizes or SIZES
        fd = self.file(mappedram.MAGIC + (head or configuration())
                       + b'\1' + struct.pack('>I', 3) + string('ram')
                       + struct.pack('>II', 0, 4)
                       + struct.pack('>Q', sum(sizes.values()) * PAGE | 4))
        at = os.fstat(fd).st_size
        for name, num in sizes.items():
            stream = string(name) + struct.pack('>Q', num * PAGE)
            bitmap = at + len(stream) + mappedram.HEADER.size
            length = -(-num // 64) * 8
            pages = -(-(bitmap + length) // ALIGN) * ALIGN
            os.pwrite(fd, stream + mappedram.HEADER.pack(
                1, PAGE, bitmap, pages), at)
            bits = 0
            for page, data in ram.get(name, {}).items():
                bits |= 1 << page
                os.pwrite(fd, data, pages + page * PAGE)
            os.pwrite(fd, bits.to_bytes(length, 'little'), bitmap)
            at = pages + num * PAGE
        os.ftruncate(fd, at)
        os.pwrite(fd, tail, at)
        return fd

    def some_ram(self, share):
        return {name: {page: self.random.randbytes(PAGE)
                       for page in range(num) if self.random.random() < share}
                for name, num in SIZES.items()}

    @staticmethod
    def contents(fd):
        with os.fdopen(os.dup(fd), 'rb') as f:
            f.seek(0)
            return f.read()


class Layout(Case):
    def test_blocks(self):
        fd = self.make(self.some_ram(0.3), b'tail')
        found = mappedram.blocks(fd)
        self.assertEqual({b.name: b.length // PAGE for b in found}, SIZES)
        self.assertTrue(all(b.pages_offset % ALIGN == 0 for b in found))
        self.assertEqual(os.pread(fd, 9, found[-1].end), b'tail')

    def test_runs(self):
        for share in (0, 0.001, 0.5, 0.999, 1):
            num = 8 * mappedram.PIECE * 2 + 640
            want = [self.random.random() < share for _ in range(num)]
            bits = sum(1 << i for i, bit in enumerate(want) if bit)
            got = [False] * num
            end = -1
            for first, count in mappedram.runs(bits.to_bytes(num // 8,
                                                             'little')):
                self.assertGreater(first, end, 'runs are not joined')
                got[first:first + count] = [True] * count
                end = first + count
            self.assertEqual(got, want)

    def test_every_cut_is_seen(self):
        whole = self.contents(self.make({}, b''))
        first = mappedram.blocks(self.file(whole))[0]
        for length in [*range(first.bitmap_offset), len(whole) - 1]:
            with self.assertRaises(FormatError, msg=f'{length} bytes'):
                mappedram.blocks(self.file(whole[:length]))

    def test_damage(self):
        """No byte of a header makes more of it than an error."""
        whole = self.contents(self.make({}, b''))
        end = mappedram.blocks(self.file(whole))[0].bitmap_offset
        fd = self.file(whole)
        for at in range(end):
            old = os.pread(fd, 1, at)
            for new in {0, 255, old[0] ^ 1, old[0] ^ 128}:
                os.pwrite(fd, bytes([new]), at)
                try:
                    found = mappedram.blocks(fd)
                except FormatError:
                    continue
                for b in found:
                    self.assertLessEqual(b.end, len(whole))
            os.pwrite(fd, old, at)

    def test_other_files(self):
        for data, why in ((b'', 'ends'), (b'x' * 9999, 'not a file that'),
                          (mappedram.MAGIC + configuration('tls'),
                           'without mapped-ram')):
            with self.assertRaisesRegex(FormatError, why):
                mappedram.blocks(self.file(data))


class Joined(Case):
    def test_generations(self):
        """The newest of each page, and the newest stream."""
        for seed in range(SEEDS):
            self.random = random.Random(seed)
            base = self.some_ram(self.random.random())
            target = self.make(base, self.random.randbytes(5000))
            for _ in range(3):
                child = self.some_ram(self.random.choice((0, 0.01, 0.5)))
                for name, pages in child.items():
                    base[name] |= pages
                tail = self.random.randbytes(self.random.randrange(1, 9000))
                num = []
                mappedram.apply(self.make(child, tail), target, num.append)
                self.assertEqual(self.contents(target),
                                 self.contents(self.make(base, tail)))
                self.assertEqual(sum(num),
                                 PAGE * sum(map(len, child.values())))

    def test_without_copy_file_range(self):
        def refuse(*_):
            raise OSError(mappedram.errno.EXDEV, 'another file system')
        real, os.copy_file_range = os.copy_file_range, refuse
        self.addCleanup(setattr, os, 'copy_file_range', real)
        self.test_generations()

    def test_another_layout(self):
        parent = self.make({}, b'', sizes={'pc.ram': 1000, 'rom': 2})
        with self.assertRaisesRegex(FormatError, 'laid out differently'):
            mappedram.apply(self.make({}, b''), parent)

    def test_pages_behind_the_end(self):
        child = self.make({}, b'')
        block = mappedram.blocks(child)[1]
        os.pwrite(child, b'\2', block.bitmap_offset)
        with self.assertRaisesRegex(FormatError, 'behind its end'):
            mappedram.apply(child, self.make({}, b''))


if __name__ == '__main__':
    unittest.main()
