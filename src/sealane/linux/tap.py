"""Frames as they pass a link of a sandbox, by a packet socket (packet(7)). It receives copies: nothing is held up or
changed, and nothing is left behind when it is closed."""

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from sealane.linux import netns

RECEIVE_BYTES = 16 << 20
"""Of frames that wait to be read, a tap."""

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_AUXDATA = 6, 8
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_ANCILLARY_BYTES = 128
_TAG_AT = 12
_STATUS_VLAN_VALID, _STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
_ETH_P_8021Q = 0x8100


class Frame(NamedTuple):
    time_ns: int
    """Since 1970, by the kernel."""
    data: bytes
    """At most as many bytes as the tap keeps."""
    length: int
    """Of the whole frame, in bytes."""
    outgoing: bool
    """The sandbox sent it."""


class Tap:
    """Close it in the end: while it is open, the sandbox's namespace lives."""

    def __init__(self, where: str, link: str, snaplen: int) -> None:
        """Raises NamespaceError and NamespaceGoneError for `where` (a path or a pid), OSError for the link or without
        the rights (CAP_SYS_ADMIN, CAP_NET_RAW)."""
        self._snaplen = snaplen
        self._received = self._dropped = 0
        descriptor = netns.open_ref(netns.resolve(where))
        try:
            with netns.inside(descriptor):
                # Protocol 0: deaf until it is bound, or it would hear the sandbox's other links for an instant.
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        finally:
            os.close(descriptor)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            with suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
            self._socket.bind((link, _ETH_P_ALL))
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Frame | None:
        """The next frame; None: there is none yet, also when the link has just gone down."""
        try:
            data, ancillary, _, address = self._socket.recvmsg(
                self._snaplen, _ANCILLARY_BYTES, socket.MSG_TRUNC
            )
        except OSError:
            return None
        time_ns, tag, length = 0, b"", len(data)
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("=qq", value)
                time_ns = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                status, length, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value)
                if status & _STATUS_VLAN_VALID:
                    kind_of_tag = tpid if status & _STATUS_VLAN_TPID_VALID else _ETH_P_8021Q
                    tag = struct.pack("!HH", kind_of_tag, tci)
        # The kernel keeps a VLAN tag beside the frame: put it back where it was on the wire.
        whole = data[:_TAG_AT] + tag + data[_TAG_AT:]
        outgoing = address[2] == socket.PACKET_OUTGOING
        return Frame(time_ns, whole[: self._snaplen], length + len(tag), outgoing)

    def counters(self) -> tuple[int, int]:
        """Frames that were there to be read since the beginning, and those lost since the reader was too slow."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        # Both count from the last reading, and the first includes the second.
        received, dropped = struct.unpack("=II", raw)
        self._received += received
        self._dropped += dropped
        return self._received, self._dropped

    def is_gone(self) -> bool:
        """The link does not exist any more."""
        return not self._socket.getsockname()[0]

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
