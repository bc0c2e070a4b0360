# A source that is no QEMU: what it sends to tlm-memserver is made by the test
#
# SPDX-License-Identifier: GPL-2.0-or-later

import socket
import struct

from .vm import PATIENCE

PAGE = 4096
SYNC = 1
END_OF_SECTION = struct.pack('>QBI', 0x10, 0x7e, 2)
FLUSH = struct.pack('>Q', 0x200)
VMDESC = b'{"devices": []}'
STATE = b'some devices' + struct.pack('>BBI', 0, 6, len(VMDESC)) + VMDESC
SHUT, PONG, ACK = 1, 2, 7


def page(text):
    return text.encode().ljust(PAGE, b'.')


class FakeSource:
    """A machine with one RAM block; @uri: tcp:HOST:PORT. @data: where channel
    i connects to is item i, from the beginning again at the end."""

    def __init__(self, uri, pages=64, channels=2, data=()):
        data = data or [uri]
        self.pages = pages
        self.main = self.connect(uri)
        self.main.sendall(struct.pack('>IIBI', 0x5145564d, 3, 7, 2) + b'pc')
        self.channels = [self.connect(data[i % len(data)])
                         for i in range(channels)]
        for i, channel in enumerate(self.channels):
            channel.sendall(struct.pack('>II16sB', 0x11223344, 1, bytes(16),
                                        i).ljust(64, b'\0'))

    @staticmethod
    def connect(uri):
        _, host, port = uri.split(':')
        s = socket.create_connection((host, int(port)))
        s.settimeout(60 * PATIENCE)
        return s

    # The main stream

    def start(self, return_path=True):
        if return_path:
            self.main.sendall(struct.pack('>BHH', 8, 1, 0))
        self.main.sendall(
            struct.pack('>BIB', 1, 2, 3) + b'ram' + struct.pack('>II', 0, 4) +
            struct.pack('>QB', self.pages * PAGE | 4, 6) + b'pc.ram' +
            struct.pack('>Q', self.pages * PAGE))
        self.sync()
        self.main.sendall(END_OF_SECTION)

    def part(self):
        self.main.sendall(struct.pack('>BI', 2, 2))
        self.sync()
        self.main.sendall(END_OF_SECTION)

    def end(self, state=STATE):
        self.main.sendall(struct.pack('>BI', 3, 2))
        self.sync()
        self.main.sendall(END_OF_SECTION + state)

    def answer(self):
        """Type and value of the next one; None: the server has gone."""
        head = self.read(4)
        if head is None:
            return None
        kind, size = struct.unpack('>HH', head)
        value = self.read(size)
        return kind, struct.unpack('>I', value)[0] if size else None

    def read(self, size):
        data = b''
        while len(data) < size:
            try:
                more = self.main.recv(size - len(data))
            except ConnectionError:
                return None
            if not more:
                return None
            data += more
        return data

    def shut(self):
        """The value of the last answer, or None."""
        while (got := self.answer()) is not None:
            if got[0] == SHUT:
                return got[1]
        return None

    # Channels

    @staticmethod
    def packet(normal=(), zero=(), sync=False, block=b'pc.ram'):
        offsets = [n * PAGE for n in (*normal, *zero)]
        head = struct.pack(
            '>IIIIIIQI28s256s', 0x11223344, 1, SYNC if sync else 0, 128,
            len(normal), len(normal) * PAGE, 0, len(zero), b'',
            block if offsets else b'')
        return head + struct.pack('>128Q', *offsets,
                                  *[0] * (128 - len(offsets)))

    def send(self, channel, pages=None, zero=()):
        """@pages: {number: content}"""
        pages = pages or {}
        self.channels[channel].sendall(
            self.packet(list(pages), zero) + b''.join(pages.values()))

    def sync(self):
        for channel in self.channels:
            channel.sendall(self.packet(sync=True))
        self.main.sendall(FLUSH)

    def close(self):
        for s in (self.main, *self.channels):
            s.close()
