"""Requests that the kernel works through while Python goes on.

The kernel does what a datagram asks for inside `sendmsg`: making a veth takes it half a millisecond, in which the caller
waits. A second thread of Python is no help: it has to be woken and to be given Python's lock before it can send, by when
the first has long come to its next system call. So here a thread waits in the kernel already, in a splice from a pipe to
the socket, without the lock. Writing to the pipe takes some microseconds; the datagram is sent from there. Should it lie
there still when it is waited for, since every processor is busy, who waits sends it.
"""

import os
import select
import threading
from contextlib import suppress

from sealane.linux.closeable import Closeable

DATAGRAM_BYTES_MAX = select.PIPE_BUF
"""What a pipe takes as one piece, and gives as one: before 6.5 splice sends each page as a datagram of its own."""


class Background(Closeable):
    """The thread behind one socket. What is sent is one datagram at a time: its answers are read before the next."""

    def __init__(self, socket: int) -> None:
        """`socket`: its descriptor, open until this is closed."""
        self._source, self._sink = os.pipe()
        self._socket = socket
        self._unsent = os.eventfd(0, os.EFD_CLOEXEC)
        self._answered = select.poll()
        for descriptor in (socket, self._unsent):
            self._answered.register(descriptor, select.POLLIN)
        arguments = (self._source, socket, self._unsent)
        self._thread = threading.Thread(target=_carry, args=arguments, name="sealane-netlink", daemon=True)
        self._thread.start()
        self._is_open = True

    def send(self, datagram: bytes | bytearray) -> None:
        """At most DATAGRAM_BYTES_MAX."""
        os.write(self._sink, datagram)

    def wait(self) -> bool:
        """Until there is an answer to receive. False: the datagram was not sent, and is to be sent in the usual way."""
        with suppress(OSError):
            os.splice(self._source, self._socket, DATAGRAM_BYTES_MAX, flags=os.SPLICE_F_NONBLOCK)
        if any(descriptor == self._unsent for descriptor, _ in self._answered.poll()):
            os.eventfd_read(self._unsent)
            return False
        return True

    def close(self) -> None:
        """Idempotent. What was sent before is sent."""
        if self._is_open:
            self._is_open = False
            os.close(self._sink)
            self._thread.join()
            os.close(self._source)
            os.close(self._unsent)


def _carry(source: int, socket: int, unsent: int) -> None:
    while True:
        try:
            if not os.splice(source, socket, DATAGRAM_BYTES_MAX):
                return
        except OSError:
            # It is in the pipe still, where it would stand before the next one.
            if select.select([source], [], [], 0)[0]:
                os.read(source, DATAGRAM_BYTES_MAX)
            os.eventfd_write(unsent, 1)
