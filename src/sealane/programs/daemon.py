"""One exchange with the daemon: HTTP on its unix socket, bytes out and bytes back."""

import _socket

from sealane.programs import READ_BYTES

TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 1 << 20
CURE = "start `sealane daemon`, or look at `sealane status`"
CURE_ROOT = "run the container engine as root: without, its networks are its user's own"


class UnreachableError(Exception):
    """There is no daemon for us, so nothing was done."""

    def __init__(self, message: str, hint: str = CURE) -> None:
        super().__init__(message)
        self.hint = hint


class LostError(UnreachableError):
    """The daemon was reached and gave no answer: it may have done what was asked."""


def exchange(path: str, target: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to POST `target`. Raises UnreachableError, LostError."""
    head = f"POST {target} HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        _connect(sock, path)
        sock.sendall(head.encode() + body)
        answer = _read(sock)
    except OSError as error:
        raise LostError(f"the sealane daemon was lost: {error.strerror or error}") from None
    finally:
        sock.close()
    return _parted(answer)


def _connect(sock: _socket.socket, path: str) -> None:
    try:
        sock.connect(path)
    except PermissionError:
        raise UnreachableError(f"only root may ask the sealane daemon at {path}", CURE_ROOT) from None
    except OSError as error:
        raise UnreachableError(f"no sealane daemon at {path}: {error.strerror or error}") from None


def _read(sock: _socket.socket) -> bytes:
    """To the end of the connection, which the daemon closes after its answer."""
    data = b""
    while part := sock.recv(READ_BYTES):
        data += part
        if len(data) > ANSWER_BYTES_MAX:
            raise OSError("its answer is too long")
    return data


def _parted(answer: bytes) -> tuple[int, bytes]:
    head, blank, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not blank or len(words) < 2 or not words[1].isdigit():
        raise LostError("the sealane daemon hung up in mid-answer")
    return int(words[1]), body
