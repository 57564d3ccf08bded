"""One request to the daemon. `sealane.client` is a client for all of its API and takes twice the time to import."""

from __future__ import annotations

import _socket

from sealane.cni import text
from sealane.cni.errors import TRY_LATER, CniError, LostError, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/run/sealane/sealane.sock"
TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 1 << 20
READ_BYTES = 64 * 1024
HTTP_ERROR = 400
AGAIN = "start `sealane daemon`, or look at `sealane status`; the runtime will try again"


def ask(path: str, body: str) -> Any:
    """The daemon's answer to POST /v1/cni. Raises CniError; LostError if it may have done what was asked."""
    data = body.encode()
    head = (
        "POST /v1/cni HTTP/1.1\r\nHost: \r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(path)
    except OSError as error:
        raise CniError(TRY_LATER, f"no sealane daemon at {path}: {error.strerror or error}", AGAIN) from None
    try:
        sock.sendall(head.encode() + data)
        answer = _read(sock)
    except OSError as error:
        raise LostError(TRY_LATER, f"the sealane daemon was lost: {error.strerror or error}", AGAIN) from None
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
        raise LostError(TRY_LATER, "the sealane daemon hung up in mid-answer", AGAIN)
    try:
        document = text.loads(body)
    except ValueError:
        raise LostError(TRY_LATER, "the sealane daemon's answer is no JSON", AGAIN) from None
    if int(words[1]) >= HTTP_ERROR:
        raise refused(document.get("error", {}))
    return document
