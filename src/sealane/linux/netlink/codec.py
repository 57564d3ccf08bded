"""Netlink's wire format: messages and attributes to bytes and back. No socket here.

A message is `nlmsghdr` (length, type, flags, sequence, port), a fixed header of its family, and attributes; an
attribute is `nlattr` (length, type) and a payload, padded to four bytes; a nested attribute's payload is attributes
(include/uapi/linux/netlink.h). Everything is in the host's byte order unless a payload says otherwise: nfnetlink's
integers are big-endian.

A length is a 16-bit field that the kernel reads modulo 65536, so a payload that is too long would be parsed as
messages of the sender's choosing (CVE-2021-43784 in runc): `attr` refuses it.
"""

import struct
from collections.abc import Iterator

ATTR_PAYLOAD_MAX = 0xFFFF - 4

NLM_F_REQUEST = 1
NLM_F_MULTI = 2
NLM_F_ACK = 4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U8 = struct.Struct("=HHB3x")
_U32 = struct.Struct("=HHI")
_BE16 = struct.Struct(">H")
_BE32 = struct.Struct(">I")
_BE64 = struct.Struct(">Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def attr(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size > ATTR_PAYLOAD_MAX:
        raise ValueError(f"netlink attribute {kind} of {size} bytes: at most {ATTR_PAYLOAD_MAX} fit")
    return _ATTR.pack(size + 4, kind) + payload + _PADDING[size & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    return attr(kind | NLA_F_NESTED, b"".join(parts))


def flag(kind: int) -> bytes:
    """An attribute whose presence is its value."""
    return _ATTR.pack(4, kind)


def u8(kind: int, value: int) -> bytes:
    return _U8.pack(5, kind, value)


def u32(kind: int, value: int) -> bytes:
    return _U32.pack(8, kind, value)


def be16(kind: int, value: int) -> bytes:
    return attr(kind, _BE16.pack(value))


def be32(kind: int, value: int) -> bytes:
    return attr(kind, _BE32.pack(value))


def be64(kind: int, value: int) -> bytes:
    return attr(kind, _BE64.pack(value))


def string(kind: int, value: str) -> bytes:
    """NUL-terminated text."""
    return attr(kind, value.encode() + b"\0")


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) + 16, kind, flags, sequence, 0) + payload


def messages(data: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Each message of a datagram as (type, flags, sequence, payload). A torn one ends the walk."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > len(data):
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attrs(data: memoryview) -> dict[int, memoryview]:
    """Attributes by type; of a repeated one the last. A torn one ends the walk."""
    return dict(attr_list(data))


def attr_list(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Attributes in order: for lists, whose members share a type."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def text(payload: memoryview) -> str:
    """A NUL-terminated string; bytes that are no text are kept visible, never raised on."""
    return bytes(payload).rstrip(b"\0").decode(errors="backslashreplace")
