"""A process's input and output as frames over one socket. Standard library only: the shim speaks it, too.

A frame is its kind (one byte), the length of its payload (four, big-endian), and the payload:

| kind | from | payload |
|---|---|---|
| INPUT | who asks | for its standard input; empty: there is no more |
| SIGNAL | who asks | its number, one byte: for the container's first process; of `exec` nothing is passed on |
| SIZE | who asks | rows and columns of the terminal, two bytes each; one that comes with the request is there from the beginning |
| BEGUN | the daemon | JSON, the first frame of a container: its `id`, its `warnings` |
| OUTPUT, ERRORS | the process | what it wrote; a terminal has no ERRORS |
| EXIT | the process | JSON, the last frame: `exit_code`, and `error`, why it never ran; of the daemon `refusal`, an error of the API's |

Who asks hangs up after EXIT, and not before: until then it means that nobody is there any more. Who is there and takes
nothing is waited for, as behind a pipe: his process's end is seen, his patience is his own.
"""

from __future__ import annotations

import _socket
import fcntl
import json
import os
import select
import struct
import termios
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

PROTOCOL = "sealane-frames"
"""Of the `Upgrade` by which a connection to the API becomes one of these."""

INPUT, OUTPUT, ERRORS, SIZE, EXIT, BEGUN, SIGNAL = range(7)
Frame = tuple[int, bytes]

PAYLOAD_BYTES_MAX = 64 * 1024
PENDING_BYTES_MAX = 256 * 1024
"""What waits to be sent; while it is more, nothing more is read that would be."""

_HEAD = struct.Struct(">BI")
_SIZE = struct.Struct(">HH")
_TIOCGPTPEER = 0x5441
"""asm-generic/ioctls.h: by the master alone, whatever is mounted where. Linux 4.13."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """As many frames as the payload needs; one if it is empty."""
    pieces = range(0, max(len(payload), 1), PAYLOAD_BYTES_MAX)
    parts = (payload[at : at + PAYLOAD_BYTES_MAX] for at in pieces)
    return b"".join(_HEAD.pack(kind, len(part)) + part for part in parts)


def size_frame(rows: int, columns: int) -> bytes:
    return frame(SIZE, _SIZE.pack(rows & 0xFFFF, columns & 0xFFFF))


def signal_frame(number: int) -> bytes:
    return frame(SIGNAL, bytes([number]))


def size_of(payload: bytes) -> tuple[int, int]:
    """Rows and columns. Raises ValueError."""
    if len(payload) != _SIZE.size:
        raise ValueError("a size is two numbers of two bytes")
    rows, columns = _SIZE.unpack(payload)
    return rows, columns


def size_in(early: bytes) -> tuple[int, int] | None:
    """Rows and columns, if they are among frames that came with the request."""
    place = 0
    while place + _HEAD.size <= len(early):
        kind, length = _HEAD.unpack_from(early, place)
        place += _HEAD.size
        if kind == SIZE and length == _SIZE.size and place + length <= len(early):
            return size_of(early[place : place + length])
        place += length
    return None


def exit_frame(exit_code: int, error: str = "") -> bytes:
    # Cut: what an OCI runtime says may quote what it was given.
    return frame(EXIT, json.dumps({"exit_code": exit_code, "error": error[:8192]}).encode())


class Peer:
    """The other end of a session: frames in, frames out, never waiting. The socket becomes this object's."""

    def __init__(self, sock: socket.socket | _socket.socket, early: bytes = b"") -> None:
        """`early`: what has been read from it already."""
        sock.setblocking(False)
        self._socket = sock
        self._in = bytearray(early)
        self._out = bytearray()
        self.is_open = True
        """Somebody is there, or what he said last is."""
        self._is_deaf = False

    @classmethod
    def at(cls, descriptor: int, early: str) -> Peer | None:
        """At a descriptor that this process was started with, and what had come before, in hexadecimal digits; None at -1."""
        return cls(_socket.socket(fileno=descriptor), bytes.fromhex(early)) if descriptor >= 0 else None

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self.is_open = False
        self._out.clear()
        self._socket.close()

    @property
    def pending(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._out)

    @property
    def is_full(self) -> bool:
        return len(self._out) > PENDING_BYTES_MAX

    def events(self, *, reads: bool = True) -> int:
        """What to poll for. That the other end hangs up is always told."""
        return (select.POLLIN if reads else 0) | (select.POLLOUT if self._out else 0)

    def receive(self) -> Iterator[Frame]:
        """Frames that have come whole. One that cannot be is as if the other end had hung up."""
        try:
            data = self._socket.recv(PAYLOAD_BYTES_MAX)
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        else:
            self._in += data
            self.is_open = bool(data)
        yield from self.received()

    def received(self) -> Iterator[Frame]:
        """Frames that have come already."""
        while len(self._in) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._in)
            if kind > SIGNAL or length > PAYLOAD_BYTES_MAX:
                self._in.clear()
                self.is_open = False
                return
            end = _HEAD.size + length
            if len(self._in) < end:
                return
            payload = bytes(self._in[_HEAD.size : end])
            del self._in[:end]
            yield kind, payload

    def send(self, frames: bytes) -> None:
        """Now, as far as it goes; the rest by `flush`."""
        if self.is_open and not self._is_deaf:
            self._out += frames
            self.flush()

    def flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._is_deaf = True
            self._out.clear()

    def finish(self, timeout_s: float | None = None) -> None:
        """Wait until all is sent, or the other end has gone; but no longer than this for any of it."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self._out and self.is_open and poll.poll(None if timeout_s is None else timeout_s * 1000):
            self.flush()


class Session:
    """A client at a process's standard input, and at its terminal if it has one."""

    def __init__(self, client: Peer, signalled: Callable[[int], None] = lambda _: None) -> None:
        """`signalled`: told the number of each signal that is to be passed on."""
        self.client = client
        self._signalled = signalled
        self._size: tuple[int, int] | None = None
        self._stdin = self._terminal = -1
        self._input = bytearray()
        self._has_more = True
        for kind, payload in client.received():
            self._take(kind, payload)

    def connect(self, stdin: int = -1, terminal: int = -1) -> None:
        """To a process that has started; what has come for it is waiting. `stdin`: the end of a pipe that does not block, and
        this object's from now on; `terminal`: in its place, and the caller's. -1: it has none."""
        self._stdin, self._terminal = (stdin if terminal < 0 else terminal), terminal
        if self._size is not None:
            self._resize(*self._size)
        self._feed()

    def disconnect(self) -> None:
        """The process has ended; its input goes nowhere."""
        if self._stdin >= 0 and self._stdin != self._terminal:
            os.close(self._stdin)
        self._stdin = self._terminal = -1

    @property
    def has_ended(self) -> bool:
        return not self.client.is_open

    def interests(self) -> dict[int, int]:
        """What to poll for, by descriptor."""
        if self.has_ended:
            return {}
        found = {self.client.fileno(): self.client.events(reads=len(self._input) < PAYLOAD_BYTES_MAX)}
        if self._input and self._stdin >= 0:
            found[self._stdin] = found.get(self._stdin, 0) | select.POLLOUT
        return found

    def serve(self, descriptor: int, events: int) -> None:
        """One of `interests` is ready."""
        if descriptor == self._stdin and events & (select.POLLOUT | select.POLLERR):
            self._feed()
        if self.has_ended or descriptor != self.client.fileno():
            return
        if events & select.POLLOUT:
            self.client.flush()
        if events & select.POLLIN:
            for kind, payload in self.client.receive():
                self._take(kind, payload)
        elif events & (select.POLLHUP | select.POLLERR):
            self.client.is_open = False

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == INPUT:
            self._has_more &= bool(payload)
            self._input += payload
            self._feed()
        elif kind == SIZE:
            try:
                self._resize(*size_of(payload))
            except ValueError:
                self.client.is_open = False
        elif kind == SIGNAL:
            for number in payload:
                self._signalled(number)

    def _resize(self, rows: int, columns: int) -> None:
        self._size = rows, columns
        if self._terminal >= 0:
            set_size(self._terminal, rows, columns)

    def _feed(self) -> None:
        if self._stdin < 0:
            return
        try:
            while self._input:
                del self._input[: os.write(self._stdin, self._input)]
        except BlockingIOError:
            return
        except OSError:
            # It reads no more.
            self._input.clear()
        self._end_input()

    def _end_input(self) -> None:
        """A pipe ends when it is closed. (Whoever sits at a terminal says so himself: ^D.)"""
        if not self._has_more and not self._input and self._stdin >= 0 and self._stdin != self._terminal:
            os.close(self._stdin)
            self._stdin = -1


def hold_open(terminal: int) -> int:
    """The other end of a terminal, so that it does not hang up whenever nobody inside has it open; -1: it cannot be had."""
    try:
        return fcntl.ioctl(terminal, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Of a terminal whose other end somebody may have closed."""
    with suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
