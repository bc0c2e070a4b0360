#!/usr/bin/python3
#
# A TCP proxy that reads the multifd channels it carries and verifies that
# between two SYNC packets a page is in flight at most once
#
# A multifd receiver writes pages into guest RAM from several threads without
# locks.  The k-th SYNC of each channel is a barrier for all of them, so:
# among all packets that channels send after their k-th and before their next
# SYNC, no page (RAMBlock, offset) may occur twice.
#
# Usage: wirecheck.py --connect HOST:PORT [--listen HOST[:PORT]]
# prints {"listening": [host, port]} at once, and when standard input is
# closed a JSON report of all it has seen.  A line "break N" on standard input
# cuts the connection of channel N, "break main" that of the main stream, as
# soon as there is one; "page OFFSET BLOCK" tells when that page was sent.  Each
# is answered by a line of JSON.  Connections that are not multifd channels (the
# main stream) pass through unread, so do the page contents.  Uncompressed or
# compressed; not TLS.  4 KiB target pages.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import array
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MULTIFD_MAGIC = 0x11223344
MULTIFD_VERSION = 1
FLAG_SYNC = 1 << 0
FLAG_DEVICE_STATE = 32 << 1

INIT = struct.Struct('>II16sB7x32x')            # MultiFDInit_t
HDR = struct.Struct('>III')                     # MultiFDPacketHdr_t
# MultiFDPacket_t after the header
RAM = struct.Struct('>IIIQI4x24x256s')
DEVICE = struct.Struct('>256sII')               # MultiFDPacketDeviceState_t
PAGE_COUNT = 512 * 1024 // 4096                 # offsets in every RAM packet
OFFSETS = struct.Struct(f'>{PAGE_COUNT}Q')

MAX_VIOLATIONS = 20
CUT_S = 60                      # for a connection to come that is to be cut


class Ledger:
    """What has been seen on all channels.  Pure: bytes are parsed by Channel,
    and tests feed it directly."""

    def __init__(self):
        self.lock = threading.Lock()
        self.epochs = {}            # number of SYNCs before: set of pages
        self.channels = {}          # id: dict of counts
        self.seen = set()           # pages sent at least once
        self.pages = 0              # pages sent in all
        self.violations = []
        self.num_violations = 0
        self.errors = []
        self._blocks = {}           # name: index
        self._log = []              # of packets, see history()

    def open_channel(self, cid):
        with self.lock:
            if cid in self.channels:
                self.errors.append(f'channel {cid} appears twice')
            self.channels[cid] = {'packets': 0, 'syncs': 0, 'normal': 0,
                                  'zero': 0, 'bytes': 0, 'device': 0}

    def _key(self, block, offset):
        return self._blocks.setdefault(block, len(self._blocks)) << 52 | offset

    def ram_packet(self, cid, flags, block, offsets, normal, payload):
        with self.lock:
            c = self.channels[cid]
            c['packets'] += 1
            c['normal'] += normal
            c['zero'] += len(offsets) - normal
            c['bytes'] += payload
            if offsets:
                self._log.append((cid, c['syncs'], block, normal,
                                  array.array('Q', offsets)))
                base = self._key(block, 0)
                self._pages(cid, c['syncs'], block, base,
                            [base | o for o in offsets])
            if flags & FLAG_SYNC:
                # pages that come with it are before it
                c['syncs'] += 1
                self._forget()

    def _pages(self, cid, epoch, block, base, keys):
        self.pages += len(keys)
        epoch_pages = self.epochs.setdefault(epoch, set())
        new = set(keys)
        if len(new) != len(keys) or not epoch_pages.isdisjoint(new):
            once = set()
            for key in keys:
                if key in epoch_pages or key in once:
                    self.num_violations += 1
                    if len(self.violations) < MAX_VIOLATIONS:
                        self.violations.append(
                            {'channel': cid, 'epoch': epoch, 'block': block,
                             'offset': key - base})
                once.add(key)
        epoch_pages |= new
        self.seen |= new

    def _forget(self):
        """Drop epochs that every known channel has left."""
        low = min(c['syncs'] for c in self.channels.values())
        for epoch in [e for e in self.epochs if e < low]:
            # A channel that is opened late starts in epoch 0, but no
            # channel is opened after pages have been sent.
            del self.epochs[epoch]

    def history(self, block, offset):
        """When a page was sent, in the order of arrival here."""
        with self.lock:
            return [{'channel': cid, 'epoch': epoch,
                     'zero': offsets.index(offset) >= normal}
                    for cid, epoch, name, normal, offsets in self._log
                    if name == block and offset in offsets]

    def device_packet(self, cid, payload):
        with self.lock:
            c = self.channels[cid]
            c['device'] += 1
            c['bytes'] += payload

    def error(self, text):
        with self.lock:
            self.errors.append(text)

    def report(self):
        with self.lock:
            syncs = {c['syncs'] for c in self.channels.values()}
            return {
                'channels': self.channels,
                'pages': self.pages,
                'distinct_pages': len(self.seen),
                'pages_sent_again': self.pages - len(self.seen),
                'syncs': max(syncs, default=0),
                'violations': self.violations,
                'num_violations': self.num_violations,
                'errors': self.errors,
            }


class StreamEnd(Exception):
    pass


class Channel:
    """Parses one multifd channel.  read_exactly(n) gives n bytes or raises
    StreamEnd, pass_on(bytes) forwards them, skip(n) forwards n bytes unread,
    opened(id) is told which channel it is."""

    def __init__(self, ledger, read_exactly, pass_on, skip,
                 opened=lambda cid: None):
        self.ledger, self.opened = ledger, opened
        self.read_exactly, self.pass_on, self.skip = read_exactly, pass_on, skip

    def run(self, first):
        """first: the 4 bytes that told that this is a channel."""
        data = first + self.read_exactly(INIT.size - len(first))
        _magic, version, _uuid, cid = INIT.unpack(data)
        if version != MULTIFD_VERSION:
            self.ledger.error(f'channel {cid}: version {version}')
        self.ledger.open_channel(cid)
        self.opened(cid)
        self.pass_on(data)
        while True:
            self._packet(cid)

    def _packet(self, cid):
        data = self.read_exactly(HDR.size)
        magic, version, flags = HDR.unpack(data)
        if magic != MULTIFD_MAGIC or version != MULTIFD_VERSION:
            raise ValueError(f'channel {cid}: bad packet header {data.hex()}')
        if flags & FLAG_DEVICE_STATE:
            rest = self.read_exactly(DEVICE.size)
            payload = DEVICE.unpack(rest)[2]
            self.ledger.device_packet(cid, payload)
        else:
            rest = self.read_exactly(RAM.size + OFFSETS.size)
            (_alloc, normal, payload, _num, zero,
             name) = RAM.unpack_from(rest)
            if normal + zero > PAGE_COUNT:
                raise ValueError(f'channel {cid}: {normal} + {zero} pages in '
                                 'a packet')
            offsets = OFFSETS.unpack_from(rest, RAM.size)[:normal + zero]
            self.ledger.ram_packet(cid, flags,
                                   name.split(b'\0', 1)[0].decode(),
                                   offsets, normal, payload)
        # noted before the destination can have it
        self.pass_on(data + rest)
        self.skip(payload)


class Proxy:
    def __init__(self, listen, connect):
        self.ledger = Ledger()
        self.connect = connect
        self.server = socket.create_server(listen)
        self.address = self.server.getsockname()[:2]
        self.threads = []
        self.sockets = {}           # channel number or "main": the two ends
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            t = threading.Thread(target=self._serve, args=(client,),
                                 daemon=True)
            self.threads.append(t)
            t.start()

    def _serve(self, client):
        try:
            target = socket.create_connection(self.connect)
        except OSError as e:
            self.ledger.error(f'cannot connect to the destination: {e}')
            client.close()
            return
        for s in (client, target):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(target, client),
                                daemon=True)
        back.start()
        try:
            self._forward(client, target)
        except StreamEnd:
            pass
        except (OSError, ValueError) as e:
            if not isinstance(e, (BrokenPipeError, ConnectionResetError)):
                self.ledger.error(str(e))
        for s, how in ((target, socket.SHUT_WR), (client, socket.SHUT_RD)):
            try:
                s.shutdown(how)
            except OSError:
                pass
        back.join()
        client.close()
        target.close()

    def _forward(self, client, target):
        def read_exactly(n):
            data = bytearray(n)
            view = memoryview(data)
            while view:
                got = client.recv_into(view)
                if not got:
                    raise StreamEnd
                view = view[got:]
            return bytes(data)

        r, w = os.pipe()
        try:
            fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 1 << 20)

            def skip(n):
                while n:
                    got = os.splice(client.fileno(), w, n)
                    if not got:
                        raise StreamEnd
                    n -= got
                    while got:
                        got -= os.splice(r, target.fileno(), got)

            first = read_exactly(4)
            if struct.unpack('>I', first)[0] == MULTIFD_MAGIC:
                Channel(self.ledger, read_exactly, target.sendall, skip,
                        lambda cid: self.sockets.__setitem__(
                            str(cid), (client, target))).run(first)
            self.sockets['main'] = (client, target)
            target.sendall(first)
            self._pump(client, target)
        finally:
            os.close(r)
            os.close(w)

    @staticmethod
    def _pump(src, dst):
        try:
            while True:
                data = src.recv(1 << 18)
                if not data:
                    break
                dst.sendall(data)
            dst.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self, which):
        deadline = time.monotonic() + CUT_S
        while which not in self.sockets:
            if time.monotonic() > deadline:
                sys.exit(f'wirecheck.py: no connection {which}')
            time.sleep(0.01)
        for s in self.sockets[which]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass                # has ended by itself

    def finish(self):
        self.server.close()
        for t in self.threads:
            t.join(10)
            if t.is_alive():
                self.ledger.error('a connection is still open')
        return self.ledger.report()


class WireCheck:
    """The proxy in a process of its own, so that it has its own interpreter
    lock; address is what the source connects to."""

    def __init__(self, host, port, netns=None):
        from . import env
        from .vm import die_with_parent
        command = [sys.executable, os.path.abspath(__file__),
                   '--connect', f'{host}:{port}']
        if netns:
            command[:0] = ['ip', 'netns', 'exec', netns]
        self._env = env
        env.register(self)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError('wirecheck.py did not start')
        self.address = tuple(json.loads(line)['listening'])

    def cut(self, which):
        """Break the connection of a channel (a number) or of "main"."""
        self._ask(f'break {which}')

    def history(self, block, offset):
        return self._ask(f'page {offset} {block}')

    def _ask(self, command):
        self.process.stdin.write(command + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f'wirecheck.py has ended at "{command}"')
        return json.loads(answer)

    def report(self):
        """End the proxy; its connections must have ended before."""
        out, _ = self.process.communicate('')
        self._env.unregister(self)
        return json.loads(out)

    def close(self):
        self._env.unregister(self)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--connect', required=True)
    p.add_argument('--listen', default='127.0.0.1')
    a = p.parse_args()

    def address(text):
        host, _, port = text.partition(':')
        return host, int(port or 0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    proxy = Proxy(address(a.listen), address(a.connect))
    print(json.dumps({'listening': proxy.address}), flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(' ')
        if command == 'break':
            proxy.cut(argument)
            print(json.dumps({}), flush=True)
        elif command == 'page':
            offset, block = argument.split(' ', 1)
            print(json.dumps(proxy.ledger.history(block, int(offset))),
                  flush=True)
        else:
            sys.exit(f'wirecheck.py: unknown command {command}')
    print(json.dumps(proxy.finish()), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
