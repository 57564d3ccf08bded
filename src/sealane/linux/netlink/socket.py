"""Netlink sockets, and everything that goes wrong on them, dealt with once.

The kernel works through a datagram of requests inside `sendmsg`: when that returns, every answer to requests that
are no dumps waits in the receive queue already. So a batch of requests needs one acknowledgement, at its end: a
failed request answers whether asked to or not, and silence before the last acknowledgement is success. (netlink_rcv_skb,
net/netlink/af_netlink.c.)

Be aware:

- A dump is made in pieces, and objects may change between two of them. The kernel then marks what it sends with
  NLM_F_DUMP_INTR, and the dump is begun anew, at most `DUMP_ATTEMPTS` times.
- A receive queue that overflows loses answers silently and says ENOBUFS once. Requests are sent in windows that
  cannot fill it; for dumps it means once more from the start; for events it means that anything may have changed
  (`LostEventsError`).
- A socket belongs for ever to the namespace in which it was made (`sealane.linux.netns`).

This is the only module that opens netlink sockets (held by ruff's banned-api).
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from sealane.linux.closeable import Closeable
from sealane.linux.netlink import codec
from sealane.linux.netlink.background import DATAGRAM_BYTES_MAX, Background

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_XFRM = 6
SO_NETNS_COOKIE = 71
"""asm-generic/socket.h, the same on x86-64 and arm64. Linux 5.14."""

NETLINK_USERSOCK = 2
"""Between processes; the kernel has no part in it."""
NETLINK_NETFILTER = 12

DUMP_ATTEMPTS = 10
"""A dump of 4,000 links takes 20 ms; a host on which ten in a row are interrupted is not being observed, but watched."""

DUMP_BYTES_MAX = 256 << 20
SEND_BYTES = 128 << 10
"""A datagram of requests. The default send buffer takes 208 KiB."""

BATCH_BYTES_MAX = 256 << 20
RECEIVE_BYTES = 64 << 10
"""The kernel makes a dump's pieces at most 32 KiB long."""

REQUEST_QUEUE_BYTES = 4 << 20
EVENT_QUEUE_BYTES = 8 << 20
ANSWER_TRUESIZE = 1024
"""What one acknowledgement with its text may take of the receive queue (768 measured, more with long texts)."""

EVENTS_PER_RECEIVE = 4096

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NLMSGERR_ATTR_OFFS = 2

_HEADER = struct.Struct("=IHHII")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")
_ACK_BYTES = 36
"""A header, the error number 0, and the request's header."""


class NetlinkError(OSError):
    """The kernel's refusal. `strerror` is its extended acknowledgement where it gave one."""

    def __init__(self, number: int, message: str = "", offset: int = 0) -> None:
        super().__init__(number, message or os.strerror(number))
        self.offset = offset
        """Byte in the request that the kernel complains about; 0: it did not say."""


class LostEventsError(Exception):
    """Events came faster than they were read: what changed is not known."""


class Event(NamedTuple):
    """A message that nobody asked for."""

    kind: int
    flags: int
    port: int
    """Of the socket whose request caused it; 0: the kernel itself, or a kind that does not tell."""
    payload: memoryview


class _Flight:
    """Requests that the kernel is at."""

    def __init__(self, receive: Callable[[], list[NetlinkError | None]]) -> None:
        self._receive = receive
        self._outcome: list[NetlinkError | None] | OSError | None = None

    def land(self) -> list[NetlinkError | None]:
        """Their results, as often as they are asked for. Raises OSError."""
        if self._outcome is None:
            try:
                self._outcome = self._receive()
            except OSError as error:
                self._outcome = error
        if isinstance(self._outcome, OSError):
            raise self._outcome
        return self._outcome


class Socket(Closeable):
    """One netlink socket of the namespace that it is made in, subscribed to `groups`."""

    def __init__(
        self,
        family: int,
        groups: int | Iterable[int] = (),
        *,
        port: int = 0,
        background: bool = False,
    ) -> None:
        """`port`: the port id to have; 0: any. One that another socket of the namespace has is EADDRINUSE.
        `background`: `begin` does not wait, at the price of a thread."""
        memberships = (groups,) if isinstance(groups, int) else tuple(groups)
        self._socket = socket.socket(
            socket.AF_NETLINK,  # noqa: TID251  # This is the one module for it.
            socket.SOCK_RAW | socket.SOCK_CLOEXEC,
            family,
        )
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            queue = self._grow("RCVBUF", EVENT_QUEUE_BYTES) if memberships else self._size("RCVBUF")
            self._socket.bind((port, 0))
            for group in memberships:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise
        self._window = max(1, queue // ANSWER_TRUESIZE)
        """Requests whose answers fit the receive queue."""
        self._sequence = 0
        self._flight: _Flight | None = None
        self._background = Background(self._socket.fileno()) if background else None

    def close(self) -> None:
        if self._background is not None:
            self._background.close()
        self._socket.close()

    @property
    def port(self) -> int:
        """Its netlink port id."""
        return int(self._socket.getsockname()[0])

    def netns_cookie(self) -> int:
        """Of the namespace that the socket was made in."""
        value = self._socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        return int.from_bytes(value, sys.byteorder)

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, messages: Sequence[bytes]) -> list[NetlinkError | None]:
        """Send requests in order, as few datagrams as possible; one result each. A failure does not stop the rest."""
        if len(messages) <= self._window and sum(map(len, messages)) <= SEND_BYTES:
            return self._request(messages) if messages else []
        self._make_room(len(messages))
        results: list[NetlinkError | None] = []
        for window in self._windows(messages):
            results += self._request(window)
        return results

    def begin(self, messages: Sequence[bytes]) -> Callable[[], list[NetlinkError | None]]:
        """As `request`, but the results are asked for later. In the background the kernel is at work meanwhile, if the
        messages are few; whatever else is asked of the socket waits for it."""
        if self._background is not None and 0 < len(messages) <= self._window:
            buffer, first = self._frame_requests(messages)
            if len(buffer) <= DATAGRAM_BYTES_MAX:
                self._background.send(buffer)
                wait = partial(self._wait, self._background, buffer)
                self._flight = _Flight(partial(self._results, first, len(messages), wait))
                return self._flight.land
        results = self.request(messages)
        return lambda: results

    def batch(self, messages: Sequence[bytes]) -> list[NetlinkError | None]:
        """Send an nf_tables transaction, from NFNL_MSG_BATCH_BEGIN to _END, as one datagram; one result a message.

        Any error means that nothing of it was done. One that concerns the transaction as a whole (a commit that
        failed, a generation that has passed) is the first message's.
        """
        self._make_room(len(messages))
        buffer, first = self._frame(messages)
        if len(buffer) > BATCH_BYTES_MAX:
            raise NetlinkError(
                errno.EMSGSIZE, f"a transaction of {len(buffer)} bytes: at most {BATCH_BYTES_MAX}"
            )
        if len(buffer) > SEND_BYTES:
            self._grow("SNDBUF", len(buffer) + SEND_BYTES)
        self._socket.send(buffer)
        results, complete = self._answers(first, len(messages), is_last_acked=False)
        if not complete and not any(results):
            results[0] = NetlinkError(errno.ENOBUFS, "the kernel's answers were lost")
        return results

    def dump(self, message: bytes) -> list[tuple[int, memoryview]]:
        """Every (type, payload) answered to one request: a dump (NLM_F_DUMP), or a single get (NLM_F_ACK)."""
        for _ in range(DUMP_ATTEMPTS):
            found = self._dump(message)
            if found is not None:
                return found
        raise NetlinkError(errno.EINTR, f"the kernel's tables changed during each of {DUMP_ATTEMPTS} dumps")

    def receive(self) -> Iterator[Event]:
        """Events that wait, without blocking. Raises LostEventsError when some were lost."""
        for _ in range(EVENTS_PER_RECEIVE):
            try:
                data = memoryview(self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise LostEventsError from error
                raise
            for kind, flags, _, port, payload in _messages(data):
                yield Event(kind, flags, port, payload)

    def _make_room(self, answers: int) -> None:
        """For as many answers in the receive queue, as far as the kernel lets us."""
        if answers > self._window:
            self._window = max(1, self._grow("RCVBUF", REQUEST_QUEUE_BYTES) // ANSWER_TRUESIZE)

    def _grow(self, which: str, size: int) -> int:
        """Ask for a queue of `size` bytes; what the kernel grants. Beyond the system's limit it takes CAP_NET_ADMIN,
        before 5.16 in the initial user namespace."""
        if self._size(which) >= size:
            return size
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _FORCE[which], size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, getattr(socket, f"SO_{which}"), size)
        return self._size(which)

    def _size(self, which: str) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, getattr(socket, f"SO_{which}"))

    def _windows(self, messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        start = size = 0
        for index, item in enumerate(messages):
            if index > start and (size + len(item) > SEND_BYTES or index - start >= self._window):
                yield messages[start:index]
                start, size = index, 0
            size += len(item)
        if start < len(messages):
            yield messages[start:]

    def _frame(self, messages: Sequence[bytes]) -> tuple[bytearray, int]:
        """One datagram, with fresh sequence numbers, and the first of these. What was begun before has its answers then."""
        if self._flight is not None:
            with suppress(OSError):
                self._flight.land()
            self._flight = None
        buffer = bytearray()
        first = self._sequence + 1
        for sequence, item in enumerate(messages, first):
            start = len(buffer)
            buffer += item
            _U32.pack_into(buffer, start + 8, sequence & 0xFFFFFFFF)
            if len(item) & 3:
                buffer += bytes(-len(item) & 3)
        self._sequence += len(messages)
        return buffer, first

    def _frame_requests(self, messages: Sequence[bytes]) -> tuple[bytearray, int]:
        """As `_frame`, with an acknowledgement of the last alone."""
        buffer, first = self._frame(messages)
        offset = 0
        for item in messages[:-1]:
            flags = _U16.unpack_from(item, 6)[0]
            _U16.pack_into(buffer, offset + 6, flags & ~codec.NLM_F_ACK)
            offset += (len(item) + 3) & ~3
        return buffer, first

    def _request(self, messages: Sequence[bytes]) -> list[NetlinkError | None]:
        buffer, first = self._frame_requests(messages)
        self._socket.send(buffer)
        return self._results(first, len(messages))

    def _wait(self, background: Background, buffer: bytearray) -> None:
        if not background.wait():
            self._socket.send(buffer)

    def _results(
        self, first: int, count: int, wait: Callable[[], None] | None = None
    ) -> list[NetlinkError | None]:
        results, complete = self._answers(first, count, is_last_acked=True, wait=wait)
        if not complete:
            lost = NetlinkError(errno.ENOBUFS, "the kernel's answers were lost")
            return [result or lost for result in results]
        return results

    def _answers(
        self, first: int, count: int, *, is_last_acked: bool, wait: Callable[[], None] | None = None
    ) -> tuple[list[NetlinkError | None], bool]:
        """Results of `count` requests from sequence `first` on, and whether none was lost. `is_last_acked`: after the
        last one's answer nothing comes. `wait`: until there is something to receive; None: it is there already."""
        results: list[NetlinkError | None] = [None] * count
        complete = True
        while True:
            try:
                data = memoryview(self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT))
            except BlockingIOError:
                if wait is None or not complete:
                    return results, complete
                wait()
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                complete = False
                continue
            if is_last_acked and _acknowledges(data, first + count - 1):
                return results, complete
            for kind, flags, sequence, _, payload in _messages(data):
                index = (sequence - first) & 0xFFFFFFFF
                if kind == codec.NLMSG_ERROR and index < count:
                    results[index] = results[index] or _error(flags, payload)
                    if is_last_acked and index == count - 1:
                        return results, complete

    def _dump(self, message: bytes) -> list[tuple[int, memoryview]] | None:
        """One attempt; None: it was interrupted."""
        buffer, desired = self._frame([message])
        self._socket.send(buffer)
        found: list[tuple[int, memoryview]] = []
        interrupted = False
        size = 0
        while True:
            try:
                data = memoryview(self._socket.recv(RECEIVE_BYTES))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._drain()
                return None
            size += len(data)
            if size > DUMP_BYTES_MAX:
                self._drain()
                raise NetlinkError(errno.EMSGSIZE, f"a dump of more than {DUMP_BYTES_MAX} bytes")
            for kind, flags, sequence, _, payload in _messages(data):
                if sequence != desired & 0xFFFFFFFF:
                    continue
                interrupted = interrupted or bool(flags & codec.NLM_F_DUMP_INTR)
                if kind in {codec.NLMSG_ERROR, codec.NLMSG_DONE}:
                    failure = _error(flags, payload) if len(payload) >= 4 else None
                    if interrupted or (failure and failure.errno == errno.EINTR):
                        return None
                    if failure:
                        raise failure
                    return found
                found.append((kind, payload))

    def _drain(self) -> None:
        """Throw away what waits, up to the end of a dump that is under way: each receive makes its next piece."""
        for _ in range(DUMP_BYTES_MAX // ANSWER_TRUESIZE):
            try:
                self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


_FORCE = {"SNDBUF": 32, "RCVBUF": 33}
"""SO_SNDBUFFORCE and SO_RCVBUFFORCE (asm-generic/socket.h), which the socket module does not name."""


def _messages(data: memoryview) -> Iterator[tuple[int, int, int, int, memoryview]]:
    """As `codec.messages`, with the port."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > len(data):
            return
        yield kind, flags, sequence, port, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _acknowledges(data: memoryview, sequence: int) -> bool:
    """Whether it is the usual answer, and no more than that: the request of this sequence number has succeeded."""
    if len(data) != _ACK_BYTES:
        return False
    _, kind, _, answered, _ = _HEADER.unpack_from(data)
    return bool(
        kind == codec.NLMSG_ERROR and answered == sequence & 0xFFFFFFFF and not _S32.unpack_from(data, 16)[0]
    )


def _error(flags: int, payload: memoryview) -> NetlinkError | None:
    """What an NLMSG_ERROR or NLMSG_DONE says; None for success.

    An error repeats the request's header (all of the request, if not capped) before the attributes; a dump's end
    does not, and its flags never say capped.
    """
    number: int = -_S32.unpack_from(payload)[0]
    if number <= 0:
        return None
    if not flags & _NLM_F_ACK_TLVS:
        return NetlinkError(number)
    start = 4
    if not flags & codec.NLM_F_MULTI and len(payload) >= 8:
        start += 16 if flags & _NLM_F_CAPPED else (_U32.unpack_from(payload, 4)[0] + 3) & ~3
    found = codec.attrs(payload[start:])
    offset = found.get(_NLMSGERR_ATTR_OFFS)
    return NetlinkError(
        number,
        codec.text(found.get(_NLMSGERR_ATTR_MSG, memoryview(b""))),
        _U32.unpack_from(offset)[0] if offset is not None and len(offset) == 4 else 0,
    )
