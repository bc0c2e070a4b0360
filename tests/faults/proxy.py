# A proxy between two QEMUs that can do to a connection what networks do
#
# Connections are counted as they come: 0 is the main stream, the others are the
# multifd channels.  It reads nothing of what it carries.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import socket
import struct
import threading
import time

CHUNK = 64 << 10
TICK_S = 0.02


class Connection:
    def __init__(self, near, far):
        self.near, self.far = near, far
        self.todo = None        # what happens to the next bytes to the far end

    def sockets(self):
        return (self.near, self.far)

    def close(self, reset=False):
        for s in self.sockets():
            try:
                if reset and s.family != socket.AF_UNIX:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack('ii', 1, 0))
                    # The other thread may be in recv(): only this wakes it,
                    # and the close of the last reference sends the reset
                    s.shutdown(socket.SHUT_RD)
                else:
                    s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass            # the peer was faster


class Proxy:
    """far: (host, port), or the path of a UNIX socket; near: the same kind."""

    def __init__(self, far, path=None):
        self.far = far
        self.connections = []
        self.lock = threading.Lock()
        self.stalled = False
        self.rate = 0           # bytes/s of each connection; 0: no limit
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.uri = f'unix:{path}'
        else:
            self.listener = socket.create_server(('127.0.0.1', 0))
            self.uri = 'tcp:%s:%d' % self.listener.getsockname()
        self.path = path
        self.listener.listen(64)
        self.closed = False
        self._thread(self._accept)

    @staticmethod
    def _thread(target, *args):
        threading.Thread(target=target, args=args, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return          # close()
            try:
                if self.path:
                    far = socket.socket(socket.AF_UNIX)
                    far.connect(self.far)
                else:
                    far = socket.create_connection(self.far)
            except OSError:
                near.close()
                continue
            connection = Connection(near, far)
            with self.lock:
                self.connections.append(connection)
            self._thread(self._pump, connection, near, far)
            self._thread(self._pump, connection, far, near)

    def _pump(self, connection, source, sink):
        forth = source is connection.near
        try:
            while True:
                data = source.recv(CHUNK)
                if not data:
                    break
                while self.stalled and not self.closed:
                    time.sleep(TICK_S)
                if self.rate and forth:
                    time.sleep(len(data) / self.rate)
                todo = connection.todo if forth else None
                if todo == 'corrupt':
                    connection.todo = None
                    data = bytes(b ^ 0xff for b in data)
                elif todo == 'truncate':
                    data = data[:len(data) // 2]
                sink.sendall(data)
                if todo == 'truncate':
                    break
        except OSError:
            pass                # one of them has gone: so do both
        connection.close()

    def wait_connection(self, number, timeout=10):
        """The connection of that number, or the last one that there is."""
        deadline = time.monotonic() + timeout
        while len(self.connections) <= number and \
                time.monotonic() < deadline:
            time.sleep(TICK_S)
        with self.lock:
            if not self.connections:
                return None
            return self.connections[min(number, len(self.connections) - 1)]

    def close(self):
        if self.closed:
            return
        self.closed = True
        # A thread that waits in accept() keeps a closed listener alive
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for connection in self.connections:
            connection.close()
        if self.path:
            os.unlink(self.path)
