#!/usr/bin/python3
#
# Prove the wire check itself: it must see what is wrong, and pass the rest on
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import socket
import subprocess
import sys
import threading
import unittest

from tlmtest import wirecheck
from tlmtest.wirecheck import (DEVICE, FLAG_DEVICE_STATE, FLAG_SYNC, HDR,
                               INIT, MULTIFD_MAGIC, OFFSETS, PAGE_COUNT, RAM)


def init(cid):
    return INIT.pack(MULTIFD_MAGIC, 1, bytes(16), cid)


def ram(pages, block='pc.ram', flags=0, zero=0, payload=b''):
    """A packet with the pages of the given numbers; the last ones zero."""
    offsets = [p << 12 for p in pages]
    return (HDR.pack(MULTIFD_MAGIC, 1, flags) +
            RAM.pack(PAGE_COUNT, len(pages) - zero, len(payload), 0, zero,
                     block.encode()) +
            OFFSETS.pack(*offsets, *[0] * (PAGE_COUNT - len(pages))) + payload)


def sync():
    return ram([], flags=FLAG_SYNC)


def device(payload):
    return (HDR.pack(MULTIFD_MAGIC, 1, FLAG_DEVICE_STATE) +
            DEVICE.pack(b'dev', 0, len(payload)) + payload)


def check(*channels):
    """The report on channels whose packets arrive in the order given: each
    is (channel number, bytes)."""
    ledger = wirecheck.Ledger()
    for cid in sorted({cid for cid, _ in channels}):
        ledger.open_channel(cid)
    for cid, data in channels:
        rest = [data]

        def read_exactly(n):
            if len(rest[0]) < n:
                raise wirecheck.StreamEnd
            out, rest[0] = rest[0][:n], rest[0][n:]
            return out
        c = wirecheck.Channel(ledger, read_exactly, lambda _: None,
                              read_exactly)
        try:
            while True:
                c._packet(cid)
        except wirecheck.StreamEnd:
            pass
    return ledger.report()


class Layout(unittest.TestCase):
    def test_sizes(self):
        # sizeof() of the structures in QEMU's migration/multifd.[ch]
        self.assertEqual(INIT.size, 64)
        self.assertEqual(HDR.size, 12)
        self.assertEqual(HDR.size + RAM.size, 320)
        self.assertEqual(HDR.size + DEVICE.size, 276)


class Invariant(unittest.TestCase):
    def test_good(self):
        r = check((0, ram([1, 2, 3])), (1, ram([4, 5])), (0, sync()),
                  (1, sync()), (0, ram([4])), (1, ram([1])))
        self.assertEqual(r['num_violations'], 0)
        self.assertEqual(r['pages'], 7)
        self.assertEqual(r['distinct_pages'], 5)
        self.assertEqual(r['pages_sent_again'], 2)
        self.assertEqual(r['syncs'], 1)

    def test_twice_on_two_channels(self):
        r = check((0, ram([1, 2, 3])), (1, ram([9, 3])))
        self.assertEqual(r['violations'], [
            {'channel': 1, 'epoch': 0, 'block': 'pc.ram', 'offset': 3 << 12}])

    def test_twice_on_one_channel(self):
        self.assertEqual(check((0, ram([1])), (0, ram([1])))
                         ['num_violations'], 1)

    def test_twice_in_one_packet(self):
        self.assertEqual(check((0, ram([1, 2, 1])))['num_violations'], 1)

    def test_zero_pages_count(self):
        self.assertEqual(check((0, ram([1])), (1, ram([2, 1], zero=2)))
                         ['num_violations'], 1)

    def test_blocks_are_apart(self):
        r = check((0, ram([1])), (1, ram([1], block='vga.vram')))
        self.assertEqual(r['num_violations'], 0)
        self.assertEqual(r['distinct_pages'], 2)

    def test_channel_ahead(self):
        # Channel 0 is past its first SYNC: page 1 is in another epoch there
        r = check((0, sync()), (0, ram([1])), (1, ram([1])), (1, sync()))
        self.assertEqual(r['num_violations'], 0)
        # ... and in the same once channel 1 is past it as well
        r = check((0, sync()), (0, ram([1])), (1, sync()), (1, ram([1])))
        self.assertEqual(r['violations'], [
            {'channel': 1, 'epoch': 1, 'block': 'pc.ram', 'offset': 1 << 12}])

    def test_late_epoch(self):
        steps = [(c, sync()) for _ in range(5) for c in (0, 1, 2)]
        r = check(*steps, (0, ram([7])), (2, ram([7])))
        self.assertEqual(r['num_violations'], 1)
        self.assertEqual(r['violations'][0]['epoch'], 5)

    def test_pages_that_come_with_a_sync_are_before_it(self):
        r = check((0, ram([1], flags=FLAG_SYNC)), (0, ram([1])))
        self.assertEqual(r['num_violations'], 0)

    def test_many_violations_are_all_counted(self):
        pages = list(range(100))
        r = check((0, ram(pages)), (1, ram(pages)))
        self.assertEqual(r['num_violations'], 100)
        self.assertEqual(len(r['violations']), wirecheck.MAX_VIOLATIONS)

    def test_bad_header(self):
        with self.assertRaises(ValueError):
            check((0, b'\0' * HDR.size))

    def test_too_many_pages(self):
        bad = bytearray(ram([]))
        bad[16:20] = (PAGE_COUNT + 1).to_bytes(4, 'big')
        with self.assertRaises(ValueError):
            check((0, bytes(bad)))


class ThroughTheProxy(unittest.TestCase):
    """The same over sockets: bytes pass on unchanged, both ways."""

    def setUp(self):
        self.server = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(self.server.close)
        host, port = self.server.getsockname()
        self.proxy = subprocess.Popen(
            [sys.executable, wirecheck.__file__, '--connect',
             f'{host}:{port}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)
        self.addCleanup(self._end)
        self.address = tuple(
            json.loads(self.proxy.stdout.readline())['listening'])

    def _end(self):
        if self.proxy.poll() is None:
            self.proxy.kill()
            self.proxy.wait()
        self.proxy.stdin.close()
        self.proxy.stdout.close()

    def _send(self, data, reply=b''):
        """Returns what the server got."""
        got = bytearray()

        def serve():
            conn, _ = self.server.accept()
            with conn:
                conn.sendall(reply)
                while chunk := conn.recv(65536):
                    got.extend(chunk)
        t = threading.Thread(target=serve)
        t.start()
        with socket.create_connection(self.address) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            back = bytearray()
            while chunk := s.recv(65536):
                back.extend(chunk)
        t.join(10)
        self.assertEqual(bytes(back), reply)
        return bytes(got)

    def _report(self):
        out, _ = self.proxy.communicate('', timeout=30)
        return json.loads(out)

    def test_multifd(self):
        payload = os.urandom(3 * 4096)
        first = (init(0) + ram([1, 2, 3], payload=payload) +
                 device(b'x' * 100000) + sync() + ram([1], zero=1))
        second = init(1) + ram([5]) + sync() + ram([1], zero=1)
        self.assertEqual(self._send(first, b'answer'), first)
        self.assertEqual(self._send(second), second)
        r = self._report()
        self.assertEqual(r['errors'], [])
        self.assertEqual(r['num_violations'], 1)
        self.assertEqual(r['violations'][0],
                         {'channel': 1, 'epoch': 1, 'block': 'pc.ram',
                          'offset': 1 << 12})
        self.assertEqual(r['channels']['0'],
                         {'packets': 3, 'syncs': 1, 'normal': 3, 'zero': 1,
                          'bytes': 3 * 4096 + 100000, 'device': 1})

    def test_history(self):
        self._send(init(0) + ram([1, 2], zero=1) + sync() + ram([2, 9]))
        for page, want in ((1, [(0, False)]), (2, [(0, True), (1, False)]),
                           (3, [])):
            self.proxy.stdin.write(f'page {page << 12} pc.ram\n')
            self.proxy.stdin.flush()
            got = json.loads(self.proxy.stdout.readline())
            self.assertEqual(got, [{'channel': 0, 'epoch': e, 'zero': z}
                                   for e, z in want])

    def test_main_stream(self):
        data = b'QEVM' + os.urandom(1 << 20)
        self.assertEqual(self._send(data, os.urandom(1 << 18)), data)
        r = self._report()
        self.assertEqual(r['channels'], {})
        self.assertEqual(r['errors'], [])

    def test_break(self):
        with socket.create_connection(self.address) as s:
            conn, _ = self.server.accept()
            with conn:
                s.sendall(init(4))
                self.assertEqual(len(conn.recv(INIT.size,
                                               socket.MSG_WAITALL)), INIT.size)
                self.proxy.stdin.write('break 4\n')
                self.proxy.stdin.flush()
                conn.settimeout(30)
                s.settimeout(30)
                self.assertEqual(conn.recv(1), b'')
                self.assertEqual(s.recv(1), b'')

    def test_garbage_is_reported(self):
        # no more than is read, or the end is a reset
        self._send(init(0) + b'\xff' * HDR.size)
        self.assertEqual(len(self._report()['errors']), 1)

    def test_same_channel_twice_is_reported(self):
        self._send(init(3))
        self._send(init(3))
        self.assertEqual(len(self._report()['errors']), 1)


if __name__ == '__main__':
    unittest.main()
