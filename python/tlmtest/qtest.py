# QEMU's test protocol, beside a guest that runs
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import socket

from .vm import wait_until


class QTest:
    """QEMU's test protocol, beside a guest that runs: reads and writes as a
    vCPU would do them."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        wait_until(lambda: os.path.exists(path), 30, 'the qtest socket')
        self.sock.connect(path)
        self.file = self.sock.makefile('rw')

    def close(self):
        self.file.close()
        self.sock.close()

    def do(self, *words):
        self.file.write(' '.join(w if isinstance(w, str) else hex(w)
                                 for w in words) + '\n')
        self.file.flush()
        while True:
            answer = self.file.readline().split()
            if answer[0] == 'OK':
                return int(answer[1], 16) if answer[1:] else None
            if answer[0] != 'IRQ':
                raise RuntimeError(f'qtest: {words}: {answer}')

    def write(self, address, data):
        self.do('write', address, len(data), '0x' + data.hex())
