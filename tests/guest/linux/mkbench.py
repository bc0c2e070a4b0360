#!/usr/bin/python3
#
# The initramfs of a guest of scripts/bench: programs of Debian packages with
# the libraries that they are linked to, and files of our own
#
#   mkbench.py missing ROOT PROGRAM...
#       names the libraries that PROGRAMs need and that are not below ROOT
#   mkbench.py make OUT ROOT --init FILE [--program PROGRAM]...
#                   [--file NAME=FILE]... [--link NAME=TARGET]...
#                   [--module PATH]... [--tree DIR]...
#       PROGRAM: as it is named below ROOT, with the libraries that it needs;
#       NAME: in the guest; PATH: kernel modules, loaded in this order;
#       DIR: as it is named below ROOT, with all files that it has
#
# Not compressed: to unpack it would take the guest longer than to read it.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import lzma
import os
import stat
import struct
import sys

from mkinitramfs import entry

# Where the libraries of a Debian package are; in the guest all are in the
# first one, where the dynamic linker looks without a configuration.
LIB_DIRS = ('usr/lib/x86_64-linux-gnu', 'usr/lib', 'lib/x86_64-linux-gnu',
            'usr/lib64', 'lib64', 'lib')
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB = 1, 5
LOADER = 'lib64/ld-linux-x86-64.so.2'


def needed(path):
    """The libraries that an x86-64 ELF file names; none of any other."""
    with open(path, 'rb') as f:
        data = f.read()
    if data[:5] != b'\x7fELF\x02':
        return []
    offset, = struct.unpack_from('<Q', data, 32)
    size, count = struct.unpack_from('<HH', data, 54)
    # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz
    segments = [struct.unpack_from('<IIQQQQ', data, offset + i * size)
                for i in range(count)]
    entries = []
    for kind, _, start, _, _, length in segments:
        if kind == PT_DYNAMIC:
            entries = list(struct.iter_unpack(
                '<qQ', data[start:start + length - length % 16]))
    strings = next((v for tag, v in entries if tag == DT_STRTAB), None)
    for kind, _, start, address, _, length in segments:
        if kind == PT_LOAD and strings is not None and \
                address <= strings < address + length:
            strings += start - address
            break
    names = []
    for tag, value in entries:
        if tag == DT_NEEDED:
            begin = strings + value
            names.append(data[begin:data.index(b'\0', begin)].decode())
    return names


def find(root, name):
    for directory in LIB_DIRS:
        path = os.path.join(root, directory, name)
        if os.path.exists(path):
            return os.path.realpath(path)
    return None


def closure(root, paths):
    """({name: path} of all libraries needed, [those that are not there])"""
    found, missing, todo = {}, [], list(paths)
    while todo:
        for name in needed(todo.pop()):
            if name in found or name in missing:
                continue
            path = find(root, name)
            if path:
                found[name] = path
                todo.append(path)
            else:
                missing.append(name)
    return found, missing


class Image:
    def __init__(self):
        self.entries = {}           # name: (mode, data, rdev)

    def add(self, name, mode, data=b'', rdev=(0, 0)):
        parent = os.path.dirname(name)
        if parent and parent not in self.entries:
            self.add(parent, stat.S_IFDIR | 0o755)
        self.entries[name] = (mode, data, rdev)

    def add_file(self, name, path, mode=0o755):
        with open(path, 'rb') as f:
            self.add(name, stat.S_IFREG | mode, f.read())

    def add_link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def add_tree(self, root, name):
        for path, _, files in os.walk(os.path.join(root, name)):
            for f in sorted(files):
                source = os.path.join(path, f)
                if not os.path.islink(source):
                    self.add_file(os.path.relpath(source, root), source, 0o644)

    def write(self, out):
        with open(out, 'wb') as f:
            for ino, (name, (mode, data, rdev)) in enumerate(
                    self.entries.items(), 1):
                f.write(entry(ino, name, mode, data, rdev))
            f.write(entry(0, 'TRAILER!!!', 0))


def make(args):
    image = Image()
    for name in ('dev', 'proc', 'sys', 'tmp', 'root'):
        image.add(name, stat.S_IFDIR | 0o755)
    image.add('dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1))
    image.add_file('init', args.init)
    own = dict(f.split('=', 1) for f in args.file)
    programs = [*own.values()]
    for name in args.program:
        programs.append(os.path.realpath(os.path.join(args.root, name)))
        image.add_file(name, programs[-1])
    found, missing = closure(args.root, programs)
    if missing:
        sys.exit('mkbench.py: no library ' + ', '.join(missing))
    for name, path in found.items():
        image.add_file(f'{LIB_DIRS[0]}/{name}', path)
        if name == os.path.basename(LOADER):
            image.add_file(LOADER, path)
    # C libraries load it when a thread ends
    unwinder = find(args.root, 'libgcc_s.so.1')
    if found and unwinder:
        image.add_file(f'{LIB_DIRS[0]}/libgcc_s.so.1', unwinder)
    for name, path in own.items():
        image.add_file(name, path)
    for name in args.tree:
        image.add_tree(args.root, name)
    for link in args.link:
        image.add_link(*link.split('=', 1))
    for path in args.module:
        with (lzma.open if path.endswith('.xz') else open)(path, 'rb') as f:
            image.add(f"modules/{os.path.basename(path).removesuffix('.xz')}",
                      stat.S_IFREG | 0o644, f.read())
    if args.module:
        image.add('modules/order', stat.S_IFREG | 0o644, '\n'.join(
            os.path.basename(p).removesuffix('.xz')
            for p in args.module).encode() + b'\n')
    image.write(args.out)


def main():
    p = argparse.ArgumentParser()
    commands = p.add_subparsers(dest='command', required=True)
    c = commands.add_parser('missing')
    c.add_argument('root')
    c.add_argument('program', nargs='*')
    c = commands.add_parser('make')
    c.add_argument('out')
    c.add_argument('root')
    c.add_argument('--init', required=True)
    for name in ('program', 'file', 'link', 'module', 'tree'):
        c.add_argument('--' + name, action='append', default=[])
    args = p.parse_args()
    if args.command == 'make':
        make(args)
        return 0
    print('\n'.join(closure(args.root, (
        os.path.realpath(os.path.join(args.root, n))
        for n in args.program))[1]), end='')
    return 0


if __name__ == '__main__':
    sys.exit(main())
