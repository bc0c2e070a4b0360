#!/usr/bin/python3
#
# Write the initramfs of the nested guest
#
# Usage: mkimage.py KERNEL_DIR OUT_DIR
#
# KERNEL_DIR holds the kernel modules.  Prints the path of the image; it is
# made anew when anything that goes into it has changed.  In it are:
# - the patched and the stock QEMU, stripped, and the shared libraries that
#   they need
# - this Python and its library; what the tests import is compiled
# - the tests' own modules, QEMU's Python package for QMP, the ROM guest
# - kvm-amd and the modules that it depends on; init.py as /init
#
# Where QEMU is: see python/tlmtest/env.py.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import fnmatch
import gzip
import hashlib
import lzma
import os
import py_compile
import re
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
PACKAGES = os.path.join(ROOT, 'python')
sys.path.insert(0, PACKAGES)

from tlmtest import env             # noqa: E402
import mkinitramfs                  # noqa: E402  (env knows where it is)
import mkrom                        # noqa: E402

# Where ld.so looks without a configuration, in Debian
LIB_DIR = 'lib/x86_64-linux-gnu'
# Parts of Python's library that no test will import
NOT_NEEDED = ('__pycache__', 'config-*', 'dist-packages', 'ensurepip',
              'idlelib', 'lib-dynload', 'lib2to3', 'pydoc_data',
              'site-packages', 'test', 'tests', 'tkinter', 'turtledemo')
RUN_UNITTEST = os.path.join(ROOT, 'tests/lib/run-unittest')
PYTHONPATH = os.path.join(ROOT, 'scripts/pythonpath.py')

# Printed by an interpreter that has done what the guest's will do.  The
# codecs are imported when they are used first.
LIST_MODULES = '''
import sys
sys.path[:0] = sys.argv[1:]
import cases, init, importlib.util, unittest
import qemu.qmp.legacy
import asyncio.unix_events
import encodings.ascii, encodings.idna, encodings.latin_1, encodings.utf_8
for module in list(sys.modules.values()):
    if getattr(module, '__file__', None):
        print(module.__file__)
'''


def module_files():
    out = subprocess.run(
        [sys.executable, '-S', '-B', '-c', LIST_MODULES, HERE,
         PACKAGES],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    return sorted(set(out.splitlines()))


def library_files():
    """Python's library: a module may import another one when it is used."""
    for directory, names, files in os.walk(os.path.dirname(os.__file__)):
        names[:] = [n for n in names
                    if not any(fnmatch.fnmatch(n, p) for p in NOT_NEEDED)]
        for name in files:
            if name.endswith('.py'):
                yield os.path.join(directory, name)


def shared_libraries(paths):
    """What these programs and libraries load, by the name they ask for."""
    out = subprocess.run(['ldd', *paths], check=True, text=True,
                         stdout=subprocess.PIPE).stdout
    missing = re.findall(r'^\s+(\S+) => not found', out, re.M)
    if missing:
        raise RuntimeError('no library ' + ', '.join(sorted(set(missing))))
    found = {}
    for name, path in re.findall(r'^\s+(\S+) => (/\S+) \(', out, re.M):
        found[f'{LIB_DIR}/{name}'] = path
    for path in re.findall(r'^\s+(/\S+) \(', out, re.M):
        found[path.lstrip('/')] = path          # the dynamic linker
    # Not linked: glibc loads it when a thread ends
    libc = found[f'{LIB_DIR}/libc.so.6']
    found[f'{LIB_DIR}/libgcc_s.so.1'] = os.path.join(
        os.path.dirname(libc), 'libgcc_s.so.1')
    return found


def kernel_modules(directory):
    """(name, content) of kvm-amd and its dependencies, those first."""
    available = {}
    for name in os.listdir(directory):
        m = re.fullmatch(r'(.+)\.ko(\.xz)?', name)
        if m:
            available[m[1].replace('-', '_')] = os.path.join(directory, name)
    ordered = {}

    def add(name):
        if name in ordered:
            return
        path = available[name]
        opener = lzma.open if path.endswith('.xz') else open
        with opener(path, 'rb') as f:
            data = f.read()
        # .modinfo; a kernel may have a dependency built in, then it is not
        # named here
        for depends in re.search(rb'\0depends=([^\0]*)\0',
                                 data)[1].decode().split(','):
            if depends:
                add(depends.replace('-', '_'))
        ordered[name] = data
    add('kvm_amd')
    return ordered


def place(path, qmp_dir):
    """Where in the image a Python file goes."""
    for prefix, where in ((qmp_dir, 'tlm/qemu-src/python'), (ROOT, 'tlm')):
        if path.startswith(prefix + '/'):
            return where + path[len(prefix):]
    return path.lstrip('/')


class Image:
    def __init__(self):
        self.entries = {}           # name: (mode, data, rdev)

    def add(self, name, mode, data=b'', rdev=(0, 0)):
        parent = os.path.dirname(name)
        if parent and parent not in self.entries:
            self.add(parent, stat.S_IFDIR | 0o755)
        self.entries[name] = (mode, data, rdev)

    def add_file(self, name, data, mode=0o755):
        self.add(name, stat.S_IFREG | mode, data)

    def write(self, path):
        with open(path, 'wb') as f, gzip.GzipFile(
                '', 'wb', 1, f, mtime=0) as z:
            for ino, (name, (mode, data, rdev)) in enumerate(
                    self.entries.items(), 1):
                z.write(mkinitramfs.entry(ino, name, mode, data, rdev))
            z.write(mkinitramfs.entry(0, 'TRAILER!!!', 0))


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def make(kernel_dir, sources, libraries, out):
    image = Image()
    for name in ('dev', 'proc', 'sys', 'tmp'):
        image.add(name, stat.S_IFDIR | 0o755)
    image.add('dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1))

    qmp_dir = os.path.dirname(os.path.dirname(os.path.dirname(
        next(s for s in sources if s.endswith('/qemu/qmp/__init__.py')))))
    with tempfile.TemporaryDirectory(prefix='tlm-image-') as tmp:
        compiled = os.path.join(tmp, 'pyc')
        for source in sources:
            where = place(source, qmp_dir)
            image.add_file(where, read(source))
            if not source.endswith('.py'):
                continue
            py_compile.compile(
                source, compiled, '/' + where, doraise=True, quiet=1,
                invalidation_mode=py_compile.PycInvalidationMode
                .UNCHECKED_HASH)
            head, tail = os.path.split(where[:-len('.py')])
            image.add_file(f'{head}/__pycache__/{tail}.'
                           f'{sys.implementation.cache_tag}.pyc',
                           read(compiled))
        for name, binary in (('tlm', env.QEMU), ('stock', env.STOCK_QEMU)):
            stripped = os.path.join(tmp, name)
            subprocess.run(['strip', '-o', stripped, binary], check=True)
            image.add_file(f'qemu/{name}', read(stripped))

    for path in library_files():
        if path not in sources:
            image.add_file(path.lstrip('/'), read(path), 0o644)
    interpreter = os.path.realpath(sys.executable)
    image.add_file(interpreter.lstrip('/'), read(interpreter))
    # A directory that Python knows its installation by
    image.add(os.path.dirname(os.__file__).lstrip('/') + '/lib-dynload',
              stat.S_IFDIR | 0o755)
    for name, path in libraries.items():
        image.add_file(name, read(path))
    for name in ('bios-256k.bin', 'kvmvapic.bin'):
        image.add_file(f'firmware/{name}',
                       read(os.path.join(env.FIRMWARE, name)), 0o644)
    image.add_file('tlm/rom.image', mkrom.compile_image(), 0o644)
    image.add_file('tlm/tests/lib/run-unittest', read(RUN_UNITTEST))
    image.add_file('tlm/scripts/pythonpath.py', read(PYTHONPATH))

    modules = kernel_modules(kernel_dir)
    for name, data in modules.items():
        image.add_file(f'modules/{name}', data, 0o644)
    image.add_file('modules/order', '\n'.join(modules).encode(), 0o644)
    image.add_file('init', f'#!{interpreter} -SB\n'.encode() +
                   read(os.path.join(HERE, 'init.py')))
    image.write(out)


def main():
    if len(sys.argv) != 3:
        sys.exit('usage: mkimage.py KERNEL_DIR OUT_DIR')
    kernel_dir, out_dir = sys.argv[1:]
    reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU)
    if reason:
        sys.exit('mkimage.py: ' + reason)
    interpreter = os.path.realpath(sys.executable)
    sources = module_files()
    libraries = shared_libraries(
        [env.QEMU, env.STOCK_QEMU, interpreter,
         *(s for s in sources if s.endswith('.so'))])

    key = hashlib.sha256()
    rom = os.path.join(ROOT, 'tests/guest/rom')
    kernel = [os.path.join(kernel_dir, f) for f in os.listdir(kernel_dir)]
    for path in sorted({
            *sources, *libraries.values(), *kernel, interpreter, env.QEMU,
            env.STOCK_QEMU, RUN_UNITTEST, PYTHONPATH, __file__,
            mkinitramfs.__file__, os.path.join(HERE, 'init.py'),
            *(os.path.join(rom, f) for f in os.listdir(rom)
              if os.path.isfile(os.path.join(rom, f))),
            *(os.path.join(env.FIRMWARE, f)
              for f in ('bios-256k.bin', 'kvmvapic.bin'))}):
        st = os.stat(path)
        key.update(f'{os.path.realpath(path)} {st.st_size} '
                   f'{st.st_mtime_ns}\n'.encode())
    out = os.path.join(out_dir, f'image-{key.hexdigest()[:16]}.gz')
    if os.path.exists(out):
        os.utime(out)               # still in use
    else:
        make(kernel_dir, sources, libraries, out + '.new')
        os.rename(out + '.new', out)
    print(out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
