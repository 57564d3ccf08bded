"""The pcapng file format (draft-ietf-opsawg-pcapng), as much of it as a capture of several interfaces needs: encoding
only, in this machine's byte order, times in nanoseconds."""

import struct
from typing import Final

LINKTYPE_ETHERNET: Final = 1
NANOSECONDS: Final = 9
"""if_tsresol: the power of ten of a unit of time."""
INBOUND: Final = 1
OUTBOUND: Final = 2
"""epb_flags, bits 0 and 1: seen from the interface."""

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC = 0x1A2B3C4D
_LENGTH_UNKNOWN = -1
_END_OF_OPTIONS = struct.pack("=HH", 0, 0)
_PACKET_OVERHEAD = 44
"""Bytes of an enhanced packet block around its data: 28 before, 12 of options (epb_flags, end), 4 behind."""


def section(application: str) -> bytes:
    """The head of a file."""
    options = _option(4, application.encode()) + _END_OF_OPTIONS
    return _block(_SECTION, struct.pack("=IHHq", _MAGIC, 1, 0, _LENGTH_UNKNOWN) + options)


def interface(name: str, description: str, snaplen: int) -> bytes:
    """One more interface: they are numbered from 0 in the order in which they are described."""
    options = (
        _option(2, name.encode())
        + _option(3, description.encode())
        + _option(9, bytes([NANOSECONDS]))
        + _END_OF_OPTIONS
    )
    return _block(_INTERFACE, struct.pack("=HHI", LINKTYPE_ETHERNET, 0, snaplen) + options)


def packet(number: int, time_ns: int, data: bytes, length: int, direction: int) -> bytes:
    """An enhanced packet: `data` is the beginning of a frame of `length` bytes, seen at interface `number`."""
    padding = -len(data) % 4
    total = _PACKET_OVERHEAD + len(data) + padding
    head = struct.pack(
        "=IIIIIII", _PACKET, total, number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length
    )
    return head + data + bytes(padding) + struct.pack("=HHIII", 2, 4, direction, 0, total)


def statistics(number: int, time_ns: int, received: int, dropped: int) -> bytes:
    """How many frames an interface has shown, and how many of them the reader was too slow for."""
    body = struct.pack("=III", number, time_ns >> 32, time_ns & 0xFFFFFFFF)
    counters = _option(4, struct.pack("=Q", received)) + _option(5, struct.pack("=Q", dropped))
    return _block(_STATISTICS, body + counters + _END_OF_OPTIONS)


def _block(kind: int, body: bytes) -> bytes:
    total = 12 + len(body)
    return struct.pack("=II", kind, total) + body + struct.pack("=I", total)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)
