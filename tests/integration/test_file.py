#!/usr/bin/python3
#
# A migration by TLM to a file with mapped-ram: the stock QEMU restores it
#
# All RAM is compared with the source, which stands still after it.  In such a
# file each page has its place: one that is sent again goes there again, and
# one that has become zero is to be taken out of the file's bitmap.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import mmap
import os
import tempfile
import unittest

from tlmtest import env, migration
from tlmtest.case import CRAWL, MB, SLOW, STEADY, TlmCase
from tlmtest.guests import LinuxGuest, RomGuest


def direct_io_dir():
    """A directory where files can be opened with O_DIRECT, or None."""
    for where in (None, env.BUILD):
        try:
            with tempfile.NamedTemporaryFile(dir=where) as f:
                fd = os.open(f.name, os.O_RDWR | os.O_DIRECT)
                try:
                    page = mmap.mmap(-1, 4096)
                    os.pwrite(fd, page, 0)
                finally:
                    os.close(fd)
                return where or tempfile.gettempdir()
        except OSError:
            pass
    return None


class File(TlmCase):
    def begin(self, src, channels=2, where=None, **params):
        """Start a migration; returns the path of the file."""
        directory = tempfile.TemporaryDirectory(prefix='tlm-file-', dir=where)
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, 'vm')
        migration.set_capabilities(src, multifd=True, mapped_ram=True,
                                   **self.src_caps)
        params.setdefault('max_bandwidth', SLOW)
        migration.set_parameters(src, multifd_channels=channels, **params)
        migration.start_to_file(src, path)
        return path

    def restore(self, guest, src, path, accel='tcg', multifd=True,
                **params):
        """By a new process of the stock QEMU; RAM is as at the source."""
        dst = self.start_destination(guest, accel)
        migration.set_capabilities(dst, mapped_ram=True, multifd=multifd)
        migration.set_parameters(dst, **params)
        migration.load_file(dst, path)
        self.finish(guest, src, dst)
        dst.close()

    def check(self, guest, accel='tcg', channels=2, **params):
        """To a file, and back in each of the ways that stock QEMU has."""
        src = self.start_source(guest, accel)
        path = self.begin(src, channels, **params)
        info = migration.wait_status(src, 'completed')
        self.assert_tlm_info(info)
        self.restore(guest, src, path, accel, multifd_channels=channels)
        self.restore(guest, src, path, accel, multifd_channels=4)
        self.restore(guest, src, path, accel, multifd=False)
        return info['tlm']

    def test_written_once(self):
        self.check(RomGuest(ws_mb=64, rate=100), max_bandwidth=0)

    def test_written_again(self):
        """Pages that mtx or dtx has sent already are sent again."""
        for accel in ('tcg', 'kvm'):
            with self.sub(accel=accel):
                tlm = self.check(
                    RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY), accel,
                    max_bandwidth=CRAWL)
                self.assertGreater(tlm['ram']['resent'], 0)
                self.assertGreater(tlm['ram']['mtx'], 0)

    def test_unthrottled(self):
        tlm = self.check(RomGuest(ws_mb=64), channels=4)
        self.assertGreater(tlm['ram']['stop'], 0)

    def test_converging(self):
        self.check(RomGuest(ws_mb=64), tlm_converge='auto',
                   tlm_time_bound=20000)

    def test_linux(self):
        self.check(LinuxGuest(mem_mb=384, ws=128, rate=20000))

    def test_direct_io(self):
        where = direct_io_dir()
        if where is None:
            self.skipTest('no directory where O_DIRECT works')
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        src = self.start_source(guest)
        path = self.begin(src, where=where, direct_io=True,
                          max_bandwidth=CRAWL)
        info = migration.wait_status(src, 'completed')
        self.assert_tlm_info(info)
        self.assertGreater(info['tlm']['ram']['resent'], 0)
        self.restore(guest, src, path, direct_io=True)
        self.restore(guest, src, path)
        self.restore(guest, src, path, multifd=False)

    def test_zero_and_back(self):
        """Pages that become zero when they are in the file, and pages that
        do so no longer."""
        guest = RomGuest(mem_mb=256, ws_mb=16, rate=100)
        src, qtest = self.start_source_with_qtest(guest)
        # mtx goes by in this order; the last one keeps it busy
        was_set, was_zero, rest = 32 * MB, 48 * MB, 64 * MB
        qtest.do('memset', was_set, 8 * MB, 0x5a)
        qtest.do('memset', was_zero, 8 * MB, 0x01)
        qtest.do('memset', was_zero, 8 * MB, 0x00)
        qtest.do('memset', rest, 128 * MB, 0xa5)
        path = self.begin(src)
        # All of the areas are in the file, but for some of the last one
        migration.wait_ram_sent(src, 60)
        migration.set_parameters(src, max_bandwidth=MB)
        block = src.main_block()
        qtest.do('memset', was_set, 8 * MB, 0x00)
        qtest.do('memset', was_zero, 8 * MB, 0xc3)
        self.assertEqual(migration.status(src), 'active')
        migration.set_parameters(src, max_bandwidth=SLOW)
        info = migration.wait_status(src, 'completed')
        self.assertGreaterEqual(info['tlm']['ram']['resent'], 16 * MB)
        self.assertEqual(src.read_block(block, was_set, 8 * MB),
                         bytes(8 * MB))
        self.assertEqual(src.read_block(block, was_zero, 8 * MB),
                         b'\xc3' * (8 * MB))
        self.restore(guest, src, path)
        self.restore(guest, src, path, multifd=False)

    def test_cancelled_and_again(self):
        """A file that was begun is overwritten by the next migration."""
        guest = RomGuest(ws_mb=64, pattern='hotcold', rate=STEADY)
        src = self.start_source(guest)
        path = self.begin(src, max_bandwidth=CRAWL)
        migration.wait_ram_sent(src, 5)
        src.qmp('migrate_cancel')
        migration.wait_status(src, 'cancelled')
        self.assert_runs_on(guest, src)
        migration.set_parameters(src, max_bandwidth=SLOW)
        migration.start_to_file(src, path)
        self.assert_tlm_info(migration.wait_status(src, 'completed'))
        self.restore(guest, src, path)


if __name__ == '__main__':
    unittest.main()
