"""Programs that other engines start, one process a call: each reads its engine's protocol, asks the daemon and
answers. `sealane.integrations` is their other half.

A call costs what its program imports: only C modules of the standard library, since `json`,
`os`, `socket`, `re` and `typing` alone would take as long as all the rest.
"""

import posix

SOCKET = "/run/sealane/sealane.sock"
READ_BYTES = 64 * 1024


def daemon_socket(default: str) -> str:
    """Where the daemon is: SEALANE_SOCKET goes before."""
    return posix.environ.get(b"SEALANE_SOCKET", b"").decode("utf-8", "surrogateescape") or default


def read_all(descriptor: int, most: int) -> bytes:
    """To its end, or until it is known to have more than `most` bytes. Raises OSError."""
    data = b""
    while len(data) <= most and (part := posix.read(descriptor, READ_BYTES)):
        data += part
    return data


def write_all(descriptor: int, data: bytes) -> None:
    """Raises OSError."""
    while data:
        data = data[posix.write(descriptor, data) :]
