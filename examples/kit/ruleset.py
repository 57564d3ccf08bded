"""The kernel's nftables, seen and disturbed by somebody who knows nothing of the engine: netlink by hand.

Numbers are of linux/netfilter/nfnetlink.h and nf_tables.h. Nothing here needs the `nft` program.
"""

import errno
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from typing import NamedTuple, Self

from examples.kit.trouble import DemoError

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFT_MSG_DELTABLE, NFT_MSG_NEWGEN = 2, 15
NFTA_GEN_ID, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 1, 2, 3
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""

NFGENMSG = struct.Struct(">BBH")
"""Family, version, resource id."""

RECEIVED_MAX = 1 << 20
ACK_TIMEOUT_S = 5.0
LISTEN_TURN_S = 0.1


class Generation(NamedTuple):
    """A change of the ruleset that has come into force, all of it at one instant. `process`: whose."""

    at: float
    number: int
    pid: int
    process: str


class Generations:
    """Hears of every change of the ruleset of this network namespace while it is a context, and when it came."""

    def __init__(self) -> None:
        self._socket = _open()
        self._heard: list[Generation] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self._socket.settimeout(LISTEN_TURN_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()

    def heard(self) -> list[Generation]:
        """All so far, in order."""
        return list(self._heard)

    def _listen(self) -> None:
        while not self._end.is_set():
            try:
                data = self._socket.recv(RECEIVED_MAX)
            except TimeoutError:
                continue
            except OSError as error:
                # More was said than the socket's buffer holds; what follows is heard again.
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            now = time.monotonic()
            self._heard += [
                _generation(now, body)
                for kind, body in _messages(data)
                if kind == (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN
            ]


def flush() -> None:
    """Delete every table of this network namespace, with `nft` if it is there."""
    if shutil.which("nft"):
        subprocess.run(["nft", "flush", "ruleset"], check=True, capture_output=True)
    else:
        _flush_by_hand()


def _flush_by_hand() -> None:
    """What `nft flush ruleset` sends: DELTABLE without a name, of no family, means all of all families."""
    everything = _message((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELTABLE, NLM_F_REQUEST | NLM_F_ACK, 0)
    begin, end = (_message(kind, NLM_F_REQUEST, NFNL_SUBSYS_NFTABLES) for kind in (BATCH_BEGIN, BATCH_END))
    with _open() as netlink:
        netlink.settimeout(ACK_TIMEOUT_S)
        netlink.send(begin + everything + end)
        for kind, body in _messages(netlink.recv(RECEIVED_MAX)):
            code = -struct.unpack_from("=i", body)[0] if kind == NLMSG_ERROR else 0
            if code:
                raise DemoError(f"the ruleset cannot be flushed: {os.strerror(code)}")


def _open() -> socket.socket:
    # An eye that shares nothing with the engine's own sockets is the point of this file.
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)  # noqa: TID251


def _message(kind: int, flags: int, resource: int) -> bytes:
    body = NFGENMSG.pack(socket.AF_UNSPEC, 0, resource)
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each message of a datagram."""
    found = []
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        found.append((kind, data[HEADER.size : length]))
        data = data[(length + 3) & ~3 :]
    return found


def _generation(now: float, body: bytes) -> Generation:
    number, pid, process = 0, 0, "?"
    data = body[NFGENMSG.size :]
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        value = data[4:length]
        if kind == NFTA_GEN_ID:
            number = int.from_bytes(value)
        elif kind == NFTA_GEN_PROC_PID:
            pid = int.from_bytes(value)
        elif kind == NFTA_GEN_PROC_NAME:
            process = value.rstrip(b"\0").decode(errors="replace")
        data = data[(length + 3) & ~3 :]
    return Generation(now, number, pid, process)
