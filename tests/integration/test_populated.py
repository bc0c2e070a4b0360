#!/usr/bin/python3
#
# RAM that was never populated: not sent, and right at the destination
#
#   test_populated.py --bench RUNS MIB
#
# migrates an idle guest of that size from TLM_QEMU, by stock multifd and by
# TLM in turn, uncapped over loopback, and prints how long it took.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import ctypes
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import unittest

from tlmtest import env, migration, preload
from tlmtest.case import STEADY, MigrationCase, TlmCase
from tlmtest.guests import LinuxGuest, RomGuest, linux_files
from tlmtest.ram import compare_ram
from tlmtest.vm import Vm, wait_until

PAGE = 4096
MB = 1 << 20
FALLOC_PUNCH = 0x01 | 0x02              # KEEP_SIZE | PUNCH_HOLE


class Balloon:
    """A driver for the legacy interface of virtio-balloon-pci, from outside
    of the guest: there is none in the ROM guest."""

    SLOT, IO = 5, 0xc000
    ARGS = ('-device', f'virtio-balloon-pci,disable-modern=on,addr={SLOT:#x}')

    def __init__(self, qtest, ring):
        """ring: guest-physical address of 16 KiB that nobody uses."""
        self.qtest, self.ring, self.done = qtest, ring, 0
        self.config(0x10, self.IO)
        self.config(0x04, 0x5)                      # I/O, bus master
        for status in (0, 1, 3):                    # reset, ACK, DRIVER
            qtest.do('outb', self.IO + 18, status)
        qtest.do('outl', self.IO + 4, 0)            # no features
        qtest.do('outw', self.IO + 14, 0)           # the inflate queue
        self.size = qtest.do('inw', self.IO + 12)
        qtest.do('outl', self.IO + 8, ring // PAGE)
        qtest.do('outb', self.IO + 18, 7)           # DRIVER_OK

    def config(self, register, value):
        self.qtest.do('outl', 0xcf8, 0x80000000 | self.SLOT << 11 | register)
        self.qtest.do('outl', 0xcfc, value)

    def inflate(self, address, length):
        """The guest gives these pages to the host."""
        avail = self.ring + 16 * self.size
        used = self.ring + (16 * self.size + 6 + 2 * self.size + PAGE - 1) \
            // PAGE * PAGE
        pages = self.ring + 3 * PAGE
        for start in range(address // PAGE, (address + length) // PAGE, 256):
            frames = range(start, min(start + 256,
                                      (address + length) // PAGE))
            self.qtest.write(pages, struct.pack(f'<{len(frames)}I', *frames))
            self.qtest.write(self.ring, struct.pack('<QIHH', pages,
                                                    4 * len(frames), 0, 0))
            self.done += 1
            self.qtest.write(avail + 4 + 2 * ((self.done - 1) % self.size),
                             struct.pack('<H', 0))
            self.qtest.write(avail + 2, struct.pack('<H', self.done))
            self.qtest.do('outw', self.IO + 16, 0)
            wait_until(lambda: self.qtest.do('readw', used + 2) == self.done,
                       30, 'the balloon has taken the pages')


class Populated(MigrationCase):
    src_caps = {'tlm': True}

    def start_balloon(self, guest, ring):
        """A source with a balloon; returns it, the driver and the qtest."""
        src, qtest = self.start_source_with_qtest(guest, extra=Balloon.ARGS)
        return src, Balloon(qtest, ring), qtest

    def run_to_end(self, guest, src, dst, **params):
        """Migrate; returns what WireCheck and query-migrate report, and how
        the RAM of both sides compares."""
        address, check = self.connect(src, dst, wire=True, **params)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        migration.wait_loaded(dst)
        result = compare_ram(src, dst)
        dst.qmp('cont')
        self.assert_guest_well(guest, dst)
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        sent = report['distinct_pages'] * PAGE
        skipped = info['tlm']['ram']['skipped'] if 'tlm' in info else 0
        self.assertEqual(sent, info['ram']['total'] - skipped)
        if 'tlm' in info:
            self.assertEqual(info['tlm']['ram']['resent'],
                             report['pages_sent_again'] * PAGE)
        return sent, skipped, result

    def check(self, guest, accel='tcg', **params):
        src = self.start_source(guest, accel)
        dst = self.start_destination(guest, accel)
        sent, skipped, result = self.run_to_end(guest, src, dst, **params)
        self.assertTrue(result.equal(), str(result))
        return sent, skipped

    def test_never_touched(self):
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                sent, skipped = self.check(
                    RomGuest(mem_mb=1024, ws_mb=16, rate=100), accel)
                self.assertGreater(skipped, 1000 * MB)
                self.assertGreaterEqual(sent, 16 * MB)

    def test_shared_memory(self):
        """Holes of a memfd are skipped, and none of them is filled: stock
        makes 1 GiB of what the guest has used 128 MiB of."""
        guest = RomGuest(mem_mb=1024, ws_mb=128, rate=100, shared=True)
        src = self.start_source(guest)
        memory = memfd_path(src)
        before = os.stat(memory).st_blocks * 512
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        self.assertLess(os.stat(memory).st_blocks * 512, before + MB)
        self.assertLess(before, 140 * MB)
        self.assertGreater(info['tlm']['ram']['skipped'], 880 * MB)
        self.finish(guest, src, dst)

    def test_all_used(self):
        """Nothing to be found; the guest's memory is one block."""
        sent, skipped = self.check(RomGuest(mem_mb=128, ws_mb=126, rate=100))
        self.assertLess(skipped, 2 * MB)
        self.assertGreater(sent, 126 * MB)

    def test_guest_takes_new_memory(self):
        """Pages that are first written to while the migration runs."""
        for accel in ('tcg', 'kvm'):
            for run in range(2):
                with self.sub(accel=accel, run=run):
                    guest = RomGuest(mem_mb=768, ws_mb=700, rate=10000,
                                     stride=1 + 2 * run, fill=False,
                                     scan_ms=0)
                    sent, skipped = self.check_filling(guest, accel)
                    self.assertGreater(skipped, 0)
                    self.assertGreater(sent, 0)

    def check_filling(self, guest, accel):
        """As check(), but the guest has not filled its memory before."""
        self.need_accel(accel)
        self.addCleanup(guest.close)
        src = self.start_vm('src', self.src_binary, guest.args(accel))
        wait_until(lambda: guest.progress(src)['pages'] > 5000, 60,
                   'the guest writes')
        dst = self.start_destination(guest, accel)
        pages = guest.progress(src)['pages']
        address, check = self.connect(src, dst, wire=True,
                                      max_bandwidth=40 * MB)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        # The guest has gone on, into pages that it had never used
        self.assertGreater(guest.progress(src)['pages'], pages)
        migration.wait_loaded(dst)
        self.assert_same_ram(src, dst, check)
        dst.qmp('cont')
        guest.wait_alive(dst)
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        sent = report['distinct_pages'] * PAGE
        skipped = info['tlm']['ram']['skipped']
        self.assertEqual(sent, info['ram']['total'] - skipped)
        self.assertEqual(report['pages_sent_again'] * PAGE,
                         info['tlm']['ram']['resent'])
        return sent, skipped

    def test_linux(self):
        """With -kernel, -initrd and -append: ROM data that a destination
        does not load before a migration."""
        sent, skipped = self.check(LinuxGuest(mem_mb=512, ws=64))
        self.assertGreater(skipped, 0)
        self.assertGreater(sent, 64 * MB)

    def discard(self, shared):
        """A balloon takes pages that hold data, the same data that both
        sides' loaders have for them."""
        guest = RomGuest(mem_mb=256, ws_mb=64, rate=1000, shared=shared)
        image = os.path.join(guest.dir, 'image')
        with open(image, 'wb') as f:
            f.write(os.urandom(16 * MB))
        loader = ('-device', f'loader,file={image},addr={100 * MB:#x},'
                  'force-raw=on')
        guest_args = guest.args
        guest.args = lambda accel: [*guest_args(accel), *loader]
        src, balloon, qtest = self.start_balloon(guest, 200 * MB)
        # In use, and not the loader's
        for address in (120 * MB, 140 * MB):
            qtest.do('memset', address, 16 * MB, 0x5a)
        block = src.main_block()
        self.assertNotEqual(src.read_block(block, 100 * MB, PAGE),
                            bytes(PAGE))
        balloon.inflate(100 * MB, 8 * MB)
        balloon.inflate(120 * MB, 16 * MB)
        dst = self.start_destination(guest, extra=Balloon.ARGS)
        sent, skipped, result = self.run_to_end(guest, src, dst)
        self.assertTrue(result.equal(), str(result))
        # What is left of the image, and the second area; with huge pages a
        # bit more than what was touched
        owed = (64 + 8 + 16) * MB
        self.assertGreater(sent, owed)
        self.assertLess(sent, owed + 16 * MB)
        return dst, image

    def test_discarded(self):
        dst, image = self.discard(shared=False)
        block = dst.main_block()
        with open(image, 'rb') as f:
            data = f.read()
        for address, expected in ((100, bytes(8 * MB)),
                                  (108, data[8 * MB:]),
                                  (120, bytes(16 * MB)),
                                  (140, b'\x5a' * (16 * MB))):
            self.assertTrue(dst.read_block(block, address * MB,
                                           len(expected)) == expected,
                            f'at {address} MB')

    def test_discarded_shared(self):
        self.discard(shared=True)

    def test_hole_punched(self):
        """By another process that has the memory, as virtiofsd does."""
        guest = RomGuest(mem_mb=256, ws_mb=64, rate=1000, shared=True)
        src = self.start_source(guest)
        block = src.main_block()
        src.write_block(block, 100 * MB, os.urandom(8 * MB))
        with open(memfd_path(src), 'r+b') as f:
            fallocate(f.fileno(), FALLOC_PUNCH, 100 * MB, 4 * MB)
        dst = self.start_destination(guest)
        sent, skipped, result = self.run_to_end(guest, src, dst)
        self.assertTrue(result.equal(), str(result))
        self.assertLess(sent, (64 + 4 + 3) * MB)

    def test_private_file_mapping(self):
        """A page that was never populated has what the file has."""
        guest = RomGuest(mem_mb=256, ws_mb=64, rate=1000)
        files = {}
        for name in ('src', 'dst'):
            files[name] = os.path.join(guest.dir, name)
            with open(files[name], 'wb') as f:
                f.truncate(256 * MB)
        with open(files['src'], 'r+b') as f:
            f.seek(128 * MB)
            f.write(os.urandom(4 * MB))

        def args(name):
            return [a.replace('pc', 'pc,memory-backend=ram0')
                    if a == 'pc' else a for a in guest.args('tcg')] + [
                '-object', f'memory-backend-file,id=ram0,size=256M,'
                f'mem-path={files[name]},share=off']
        self.addCleanup(guest.close)
        src = self.start_vm('src', self.src_binary, args('src'))
        guest.wait_filled(src)
        dst = self.start_vm('dst', self.dst_binary,
                            [*args('dst'), '-S', '-incoming', 'defer'])
        sent, skipped, result = self.run_to_end(guest, src, dst)
        self.assertEqual(skipped, 0)
        self.assertTrue(result.equal(), str(result))

    def loader_data(self, tlm, **params):
        """The destination's machine reset writes to guest RAM, at an address
        that is untouched at the source.  Returns the pages that differ."""
        guest = RomGuest(mem_mb=256, ws_mb=16, rate=100)
        src = self.start_source(guest)
        dst = self.start_destination(guest, extra=(
            '-device', f'loader,addr={100 * MB:#x},data=0x1122334455667788,'
            'data-len=8'))
        self.assertNotEqual(dst.read_block(dst.main_block(), 100 * MB, PAGE),
                            bytes(PAGE))
        if not tlm:
            self.src_caps = {}
        try:
            sent, skipped, result = self.run_to_end(guest, src, dst, **params)
        finally:
            self.src_caps = {'tlm': True}
        return skipped, result

    def test_destination_has_written(self):
        """
        To a destination that has data of its own where the source has zeros,
        stock multifd says "zero" and the destination keeps its data.  So
        that is no promise that TLM could break; but it must not do worse.
        """
        _, stock = self.loader_data(tlm=False)
        skipped, tlm = self.loader_data(tlm=True)
        self.assertGreater(skipped, 200 * MB)
        self.assertEqual(tlm.problems, [])
        self.assertLessEqual(tlm.differing, stock.differing)

    def test_no_zero_page_detection(self):
        """... and who turns the detection off gets all of RAM sent."""
        for tlm in (False, True):
            with self.sub(tlm=tlm):
                skipped, result = self.loader_data(
                    tlm, zero_page_detection='none')
                self.assertEqual(skipped, 0)
                self.assertTrue(result.equal(), str(result))

    def test_again_after_cancel(self):
        """A second migration in the same process finds it again."""
        guest = RomGuest(mem_mb=1024, ws_mb=64, rate=2000, pattern='hotcold')
        src = self.start_source(guest)
        dst = self.start_destination(guest)
        address, _ = self.connect(src, dst, max_bandwidth=10 * MB)
        migration.start(src, *address)
        migration.wait_ram_sent(src, 5)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        dst.close()
        dst = self.start_destination(guest, name='dst2')
        migration.set_capabilities(src, multifd=False)
        sent, skipped, result = self.run_to_end(guest, src, dst,
                                                max_bandwidth=0)
        self.assertTrue(result.equal(), str(result))
        self.assertGreater(skipped, 900 * MB)


class MovedShared(MigrationCase):
    """Shared memory whose pages the kernel moves while they are looked for:
    what it says of them in the meantime must not be believed."""

    src_caps = {'tlm': True}
    # More than one chunk of the dirty log, so that it is looked at again
    MEM, USED = 1536, 1400

    def guest(self):
        return RomGuest(mem_mb=self.MEM, ws_mb=self.USED, rate=100,
                        shared=True)

    def migrate(self, guest, src, while_running=None):
        memory = memfd_path(src)
        before = os.stat(memory).st_blocks
        dst = self.start_destination(guest)
        address, check = self.connect(src, dst, wire=True,
                                      max_bandwidth=400 * MB)
        migration.start(src, *address)
        if while_running:
            while_running()
        info = migration.wait_status(src, 'completed')
        # A huge page that is made fills the holes in it
        if not while_running:
            self.assertLess(os.stat(memory).st_blocks, before + MB // 512)
        self.finish(guest, src, dst, check)
        self.assertGreater(info['tlm']['ram']['skipped'], 0)
        self.assertLess(info['tlm']['ram']['skipped'],
                        (self.MEM - self.USED) * MB)

    def test_no_data(self):
        """lseek() finds no data where all is data, several times."""
        with tempfile.TemporaryDirectory(prefix='tlm-preload-') as tmp:
            library = preload.build(tmp, 'seek-hole')
            guest = self.guest()
            self.addCleanup(guest.close)
            vm = Vm('src', self.src_binary, guest.args('tcg'))
            vm.command[:0] = ['env', f'LD_PRELOAD={library}', 'SEEK_HOLES=2']
            self.addCleanup(vm.close)
            vm.start()
            guest.wait_filled(vm)
            guest.wait_alive(vm)
            self.migrate(guest, vm)
            with open(vm.stderr_path, encoding='utf-8') as f:
                self.assertEqual(f.read().count('TLM-SEEK-HOLE'), 2)

    def test_collapsed(self):
        """From outside, what khugepaged does; and memory is compacted."""
        guest = self.guest()
        src = self.start_source(guest)
        collapsed = []

        def collapse():
            with subprocess.Popen(
                    ['sh', '-c', 'while echo 1 >/proc/sys/vm/compact_memory;'
                     ' do :; done'], stderr=subprocess.DEVNULL) as compact:
                collapsed.append(collapse_memory(src))
                compact.kill()
        self.migrate(guest, src, collapse)
        print(f'{self.id()}: {collapsed[0] // MB} MiB collapsed')
        if not collapsed[0]:
            self.skipTest('this kernel collapses no shared memory')


def churned(vm):
    return vm.serial().count('TLM-GUEST-CHURN ')


class Hinted(TlmCase):
    """The guest's balloon driver tells, while the migration runs, which
    pages are free; they are not sent unless the guest takes them again."""

    MEM, LITTER, WS, CHURN = 768, 400, 64, 48
    # The kernel's, and what it has for a cache
    OTHER = 100
    ARGS = ('-object', 'iothread,id=io0', '-device',
            'virtio-balloon-pci,free-page-hint=on,iothread=io0')

    def check(self, init=False, **params):
        """init: Linux fills a page with zeros before the driver has it, so
        that a page that is free is written to; Debian's default."""
        if not os.path.isdir(os.path.join(linux_files(), 'modules')):
            self.skipTest('no modules for the kernel of TLM_GUEST_KERNEL')
        guest = LinuxGuest(mem_mb=self.MEM, ws=self.WS, litter=self.LITTER,
                           churn=self.CHURN, pattern='hotcold', rate=STEADY)
        guest.append += f' init_on_alloc={int(init)}'
        src = self.start_source(guest, extra=self.ARGS)
        wait_until(lambda: churned(src) >= 2, 60, 'the guest uses memory')
        dst = self.start_destination(guest, extra=self.ARGS)
        address, check = self.connect(src, dst, wire=True, **params)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed')
        migration.wait_loaded(dst)
        # Free pages may differ; all that is in use, the guest checks itself
        result = compare_ram(src, dst)
        self.assertEqual(result.problems, [])
        dst.qmp('cont')
        self.assert_guest_well(guest, dst)
        wait_until(lambda: guest._ok(dst) and churned(dst) >= 3, 60,
                   'memory taken at the source is checked')
        src.close()
        report = check.report()
        self.assert_wire_clean(report, 2)
        self.assert_tlm_info(info)
        tlm = info['tlm']
        skipped = tlm['ram']['skipped'] // MB
        print(f'{self.id()}: {skipped} MiB skipped, {report["pages"]} pages '
              f'sent, {report["distinct_pages"]} different ones, '
              f'{result.differing} differ, {tlm}')
        # A page that was sent, became dirty and then free is skipped as well
        self.assertEqual(report['pages'] * PAGE, tlm['ram']['mtx'] +
                         tlm['ram']['dtx'] + tlm['ram']['stop'])
        self.assertGreaterEqual(report['distinct_pages'] * PAGE,
                                info['ram']['total'] - tlm['ram']['skipped'])
        return report

    def check_fewer(self, **params):
        """... and most of the free pages are not sent at all."""
        report = self.check(**params)
        self.assertLess(report['distinct_pages'] * PAGE,
                        (self.WS + self.LITTER // 2 +
                         self.CHURN + self.OTHER) * MB)

    def test_slow(self):
        self.check_fewer(max_bandwidth=20 * MB)

    def test_short_epochs(self):
        """Each sync stops the hints, and starts them again."""
        self.check_fewer(max_bandwidth=20 * MB, tlm_epoch=50)

    def test_filled_with_zeros(self):
        self.check(init=True, max_bandwidth=20 * MB)

    def test_converging(self):
        self.check(init=True, max_bandwidth=20 * MB, tlm_converge='auto')


def memfd_path(vm):
    """The file of the guest's memory, as seen in /proc."""
    fds = f'/proc/{vm.pid}/fd'
    paths = [os.path.join(fds, name) for name in os.listdir(fds)]
    return max((p for p in paths if 'memfd:' in os.readlink(p)),
               key=lambda p: os.stat(p).st_size)


def collapse_memory(vm):
    """Make the guest's shared memory one of huge pages, from outside; returns
    how many bytes have been collapsed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                          ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    read_write, shared, collapse, huge = 3, 1, 25, 2 * MB
    with open(memfd_path(vm), 'r+b') as f:
        size = os.fstat(f.fileno()).st_size
        # Aligned, which QEMU's mapping need not be; as a hint, it is free
        memory = libc.mmap(1 << 45, size, read_write, shared, f.fileno(), 0)
    if memory % huge:
        raise OSError(f'no memory at {1 << 45:#x}')
    done = sum(huge for at in range(0, size, huge)
               if libc.madvise(memory + at, huge, collapse) == 0)
    libc.munmap(memory, size)
    return done


def fallocate(fd, mode, offset, length):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_long(offset),
                      ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), 'fallocate')


def bench_run(guest, tlm):
    with Vm('src', env.QEMU, guest.args('tcg')) as src, \
         Vm('dst', env.STOCK_QEMU, [*guest.args('tcg'), '-S',
                                    '-incoming', 'defer']) as dst:
        guest.wait_filled(src)
        guest.wait_alive(src)
        for vm in (src, dst):
            migration.set_capabilities(vm, multifd=True)
            migration.set_parameters(vm, multifd_channels=2)
        migration.set_parameters(src, max_bandwidth=0)
        if tlm:
            migration.set_capabilities(src, tlm=True)
        migration.start(src, *migration.listen(dst))
        info = migration.wait_status(src, 'completed')
        migration.wait_loaded(dst)
        return info


def bench(runs, mem_mb):
    guest = RomGuest(mem_mb=mem_mb, ws_mb=16, rate=100)
    ratios = []
    print('| run | stock multifd ms | MB | TLM ms | MB | ratio |')
    print('|---|---|---|---|---|---|')
    for run in range(runs):
        stock, tlm = bench_run(guest, False), bench_run(guest, True)
        ratios.append(tlm['total-time'] / stock['total-time'])
        print(f"| {run + 1} | {stock['total-time']} "
              f"| {stock['ram']['transferred'] // 10**6} "
              f"| {tlm['total-time']} "
              f"| {tlm['ram']['transferred'] // 10**6} "
              f'| {ratios[-1]:.2f} |', flush=True)
    print(f'median ratio {statistics.median(ratios):.2f}')
    guest.close()


if __name__ == '__main__':
    if sys.argv[1:2] == ['--bench']:
        bench(int(sys.argv[2]), int(sys.argv[3]))
    else:
        unittest.main()
