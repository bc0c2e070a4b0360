#!/usr/bin/python3
#
# Write an initramfs (newc cpio, gzip) that holds one program as /init, and
# kernel modules for it to load in /modules
#
# Usage: mkinitramfs.py PROGRAM OUT [MODULE...]
#
# SPDX-License-Identifier: GPL-2.0-or-later

import gzip
import lzma
import os
import stat
import sys


def entry(ino, name, mode, data=b'', rdev=(0, 0)):
    name = name.encode() + b'\0'
    fields = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name), 0)
    head = b'070701' + b''.join(b'%08X' % f for f in fields)

    def pad(b):
        return b + bytes(-len(b) % 4)
    return pad(head + name) + pad(data)


def modules(paths):
    """Decompressed: not every kernel can do that."""
    if paths:
        yield 4, 'modules', stat.S_IFDIR | 0o755
    for ino, path in enumerate(paths, 5):
        with (lzma.open if path.endswith('.xz') else open)(path, 'rb') as f:
            name = os.path.basename(path).removesuffix('.xz')
            yield ino, 'modules/' + name, stat.S_IFREG | 0o644, f.read()


def main():
    if len(sys.argv) < 3:
        sys.exit('usage: mkinitramfs.py PROGRAM OUT [MODULE...]')
    with open(sys.argv[1], 'rb') as f:
        program = f.read()
    archive = b''.join((
        entry(1, 'dev', stat.S_IFDIR | 0o755),
        entry(2, 'dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1)),
        entry(3, 'init', stat.S_IFREG | 0o755, program),
        *(entry(*e) for e in modules(sys.argv[3:])),
        entry(0, 'TRAILER!!!', 0),
    ))
    with open(sys.argv[2], 'wb') as f:
        # no name, no time: the same program gives the same file
        with gzip.GzipFile('', 'wb', 6, f, mtime=0) as z:
            z.write(archive)
    return 0


if __name__ == '__main__':
    sys.exit(main())
