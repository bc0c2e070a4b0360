# A path on which everything takes a while, each way: what netem would do, on
# hosts whose kernel has none
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import queue
import socket
import threading
import time

from . import env

CHUNK = 1 << 16
# So much is on its way at most; what is beyond waits in the sender's kernel
CHUNKS = 1024


class Delay:
    """Listens on this host's loopback, and passes all that comes on to
    @to, (host, port), and back, @one_way_s later.  Other connections than
    the first are taken, too.  What comes back waits while @answers, an event,
    is not set."""

    def __init__(self, to, one_way_s, answers=None):
        self.to, self.one_way_s, self.answers = to, one_way_s, answers
        self.open = []
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        env.register(self)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):      # closed
            while True:
                here, _ = self.listener.accept()
                there = socket.create_connection(self.to)
                self.open += [here, there]
                for a, b, gate in ((here, there, None),
                                   (there, here, self.answers)):
                    for s in (a, b):
                        s.setsockopt(socket.IPPROTO_TCP,
                                     socket.TCP_NODELAY, 1)
                    on_its_way = queue.Queue(CHUNKS)
                    threading.Thread(target=self._take, daemon=True,
                                     args=(a, on_its_way)).start()
                    threading.Thread(target=self._give, daemon=True,
                                     args=(b, on_its_way, gate)).start()

    def _take(self, sock, on_its_way):
        data = b'-'
        while data:
            try:
                data = sock.recv(CHUNK)
            except OSError:
                data = b''
            on_its_way.put((time.monotonic() + self.one_way_s, data))

    @staticmethod
    def _give(sock, on_its_way, gate):
        due, data = on_its_way.get()
        while data:
            time.sleep(max(0, due - time.monotonic()))
            if gate:
                gate.wait()
            with contextlib.suppress(OSError):  # nobody wants it any more
                sock.sendall(data)
            due, data = on_its_way.get()
        time.sleep(max(0, due - time.monotonic()))
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)

    def close(self):
        env.unregister(self)
        for s in (self.listener, *self.open):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
