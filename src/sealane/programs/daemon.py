"""One request to the daemon. `sealane.client` is a client for all of its API and takes twice the time to import."""

from __future__ import annotations

import _socket

from sealane.programs import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/run/sealane/sealane.sock"
TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 1 << 20
READ_BYTES = 64 * 1024
HTTP_ERROR = 400
CURE = "start `sealane daemon`, or look at `sealane status`"


class UnreachableError(Exception):
    """There is no daemon, so nothing was done."""


class LostError(UnreachableError):
    """The daemon was reached and gave no answer: it may have done what was asked."""


class RefusedError(Exception):
    """The daemon's answer is an error, and nothing was done. `code`, `field` and `cure` as in `sealane.wire.base`."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.code = str(body.get("code", ""))
        self.field = str(body.get("field", ""))
        self.cure = str(body.get("cure", ""))
        said = str(body.get("message", "the daemon refused"))
        self.message = f"{self.field}: {said}" if self.field else said
        super().__init__(self.message)


def ask(path: str, target: str, body: Any) -> Any:
    """The daemon's answer to POST `target`. Raises UnreachableError, LostError, RefusedError."""
    data = text.dumps(body).encode()
    head = (
        f"POST {target} HTTP/1.1\r\nHost: \r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(path)
    except OSError as error:
        raise UnreachableError(f"no sealane daemon at {path}: {error.strerror or error}") from None
    try:
        sock.sendall(head.encode() + data)
        answer = _read(sock)
    except OSError as error:
        raise LostError(f"the sealane daemon was lost: {error.strerror or error}") from None
    finally:
        sock.close()
    return _answer(answer)


def _read(sock: _socket.socket) -> bytes:
    """To the end of the connection, which the daemon closes after its answer."""
    data = b""
    while part := sock.recv(READ_BYTES):
        data += part
        if len(data) > ANSWER_BYTES_MAX:
            raise OSError("its answer is too long")
    return data


def _answer(data: bytes) -> Any:
    head, blank, body = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not blank or len(words) < 2 or not words[1].isdigit():
        raise LostError("the sealane daemon hung up in mid-answer")
    try:
        document = text.loads(body)
    except ValueError:
        raise LostError("the sealane daemon's answer is no JSON") from None
    if int(words[1]) >= HTTP_ERROR:
        raise RefusedError(document.get("error", {}))
    return document
