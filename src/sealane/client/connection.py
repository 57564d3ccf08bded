"""One connection to the daemon, kept open between calls.

HTTP/1.1 is written out here, for `http.client` loads an e-mail parser. Only what our own daemon sends is understood:
a length or chunks, no continuation lines, no trailers. Everything that is read has a bound.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from sealane.client.errors import ApiError, UnreachableError

TYPE_CHECKING = False  # `typing` takes 2 ms to import, of the 40 that a CNI call may take.
if TYPE_CHECKING:
    from typing import Any, Self

DEFAULT_SOCKET = "/run/sealane/sealane.sock"
HEAD_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 256 * 1024 * 1024
LINE_BYTES_MAX = 4 * 1024 * 1024
CHUNK_DIGITS_MAX = 7
READ_BYTES = 256 * 1024
TIMEOUT_S = 120.0
"""For each read of an answer that is no stream."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""RFC 3986 §2.3, unreserved."""


def default_socket(environ: Mapping[str, str] = os.environ) -> str:
    return environ.get("SEALANE_SOCKET") or DEFAULT_SOCKET


def path_of(*segments: str, **query: str | int | None) -> str:
    """A path below /v1, with its parts quoted: `path_of("networks", name, force=1)`. None leaves a parameter out."""
    path = "/v1/" + "/".join(quoted(segment) for segment in segments)
    pairs = [f"{key}={quoted(str(value))}" for key, value in query.items() if value is not None]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def quoted(text: str) -> str:
    """Percent-encoded. `urllib.parse`, which has it too, takes 2 ms to import."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)


class Client:
    """Calls one after the other; a stream must be read to its end, or closed, before the next.

    A call is sent once and never again by itself: after UnreachableError with `is_sent` the caller decides, which is
    safe for every verb that is idempotent (all but `kill` and `exec`).
    """

    def __init__(self, path: str | None = None, *, timeout_s: float | None = TIMEOUT_S) -> None:
        """`path` None: SEALANE_SOCKET, else /run/sealane/sealane.sock. `timeout_s` None waits for ever."""
        self.path = path or default_socket()
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._is_shut = False
        self._buffer = bytearray()
        self.notice = ""
        """Of an answer: why it may not be taken as it is."""
        self.on_notice: Callable[[str], None] = lambda _: None
        """Called at the first notice, before the answer is given."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; ends a stream too. Idempotent; the next call connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer.clear()

    def shutdown(self) -> None:
        """End for good, from another thread: what is being read ends with UnreachableError, and so does every call."""
        self._is_shut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # It may be over already.
                self._socket.shutdown(socket.SHUT_RDWR)

    def request(self, method: str, path: str, body: Any = None, *, timeout_s: float | None = -1.0) -> Any:
        """Call and decode the answer. Raises ApiError, UnreachableError. `timeout_s` -1: the client's own."""
        self._send(method, path, body)
        assert self._socket is not None
        self._socket.settimeout(self._timeout_s if timeout_s == -1.0 else timeout_s)
        try:
            status, headers = self._read_head()
            answer = self._read_body(headers)
        except OSError as error:
            self.close()
            raise _lost(error) from error
        except BaseException:
            # Half an answer, of a caller that was interrupted, would be taken for that of the next call.
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        self._note(headers)
        return _checked(status, answer)

    def stream(self, method: str, path: str, body: Any = None) -> Iterator[Any]:
        """Call and yield each line of the answer, decoded, as it comes. Raises as `request`, also in mid-stream."""
        self._send(method, path, body)
        assert self._socket is not None
        self._socket.settimeout(None)
        is_whole = False
        try:
            status, headers = self._read_head()
            if status != 200 or headers.get("transfer-encoding") != "chunked":
                _checked(status, self._read_body(headers))
                raise UnreachableError("this is no stream", is_sent=True)
            self._note(headers)
            for line in self._read_lines():
                yield _checked_line(line)
            is_whole = True
        except OSError as error:
            raise _lost(error) from error
        finally:
            if not is_whole:
                self.close()

    def _note(self, headers: Mapping[str, str]) -> None:
        found = headers.get("sealane-notice", "")
        if found and not self.notice:
            self.notice = found
            self.on_notice(found)

    def upgrade(self, path: str, protocol: str, body: Any, first: bytes = b"") -> tuple[socket.socket, bytes]:
        """POST, and have the connection, with what has come on it already, to speak another protocol; both are the caller's.
        `first`: said in it at once, behind the request. Raises as `request`."""
        self._send("POST", path, body, f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n", first)
        assert self._socket is not None
        try:
            status, headers = self._read_head()
            if status != 101:
                _checked(status, self._read_body(headers))
                raise UnreachableError("the daemon speaks no other protocol there", is_sent=True)
            connection, early = self._socket, bytes(self._buffer)
            self._socket = None
        except OSError as error:
            raise _lost(error) from error
        finally:
            self.close()
        return connection, early

    # --- out

    def _send(self, method: str, path: str, body: Any, headers: str = "", after: bytes = b"") -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: \r\n{headers}"
        if data or method != "GET":
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        sock = self._connected()
        sock.settimeout(self._timeout_s)
        try:
            sock.sendall(f"{head}\r\n".encode() + data + after)
        except (BrokenPipeError, ConnectionResetError):
            # A daemon that refuses a long request answers and hangs up before all of it is sent.
            return
        except OSError as error:
            self.close()
            raise _lost(error) from error

    def _connected(self) -> socket.socket:
        if self._socket is not None and _is_open(self._socket):
            return self._socket
        self.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            what = "no way to" if isinstance(error, PermissionError) else "no daemon at"
            raise UnreachableError(f"{what} {self.path}: {error.strerror or error}") from error
        self._socket = sock
        # Looked at only now: `shutdown` sets it first and then looks for the socket, so that one of the two sees it.
        if self._is_shut:
            self.close()
            raise UnreachableError("the connection was ended")
        return sock

    # --- in

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise OSError("its answer has no end")
            self._receive()
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        protocol, _, status = first.partition(" ")
        if not protocol.startswith("HTTP/1.") or not status[:3].isdigit():
            raise OSError("it does not speak HTTP")
        pairs = (line.partition(":") for line in lines)
        return int(status[:3]), {name.lower(): value.strip().lower() for name, _, value in pairs}

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while part := self._read_chunk():
                parts.append(part)
            return b"".join(parts)
        length = headers.get("content-length", "")
        if not length.isdigit() or len(length) > len(str(ANSWER_BYTES_MAX)):
            raise OSError("its answer has no length")
        return self._take(int(length))

    def _read_lines(self) -> Iterator[bytes]:
        rest = b""
        while chunk := self._read_chunk():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if len(rest) > LINE_BYTES_MAX:
                raise OSError("a line of its answer has no end")
        if rest:
            yield rest

    def _read_chunk(self) -> bytes:
        """Empty for the last one."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise OSError("a chunk of its answer has no length")
            self._receive()
        digits = bytes(self._buffer[:end]).strip()
        del self._buffer[: end + 2]
        if not 0 < len(digits) <= CHUNK_DIGITS_MAX or digits.strip(b"0123456789abcdefABCDEF"):
            raise OSError("a chunk of its answer has no length")
        chunk = self._take(int(digits, 16))
        if self._take(2) != b"\r\n":
            raise OSError("a chunk of its answer has another length than it says")
        return chunk

    def _take(self, count: int) -> bytes:
        if count > ANSWER_BYTES_MAX:
            raise OSError("its answer is too long")
        while len(self._buffer) < count:
            self._receive()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _receive(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise OSError("it hung up")
        self._buffer += data


def _is_open(sock: socket.socket) -> bool:
    """The daemon closes connections that were idle for long; seen before sending, nothing needs to be sent twice."""
    sock.settimeout(0)
    try:
        # Either the end, or bytes that nobody asked for: the connection is of no use.
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lost(error: OSError) -> UnreachableError:
    why = "it did not answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return UnreachableError(f"the daemon was lost: {why}", is_sent=True)


def _checked(status: int, answer: bytes) -> Any:
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise UnreachableError("the daemon's answer is no JSON", is_sent=True) from error
    if status >= 400:
        body = document.get("error") if isinstance(document, dict) else None
        raise ApiError(status, body if isinstance(body, dict) else {})
    return document


def _checked_line(line: bytes) -> Any:
    document = _checked(200, line)
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        raise ApiError(200, document["error"])
    return document
