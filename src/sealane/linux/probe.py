"""Real packets from inside sandboxes: what `check` holds against what `explain` says.

Any answer shows that a packet was delivered: a handshake, a reset (delivered, and nobody listens), a port unreachable,
an echo. That a firewall made the refusal itself cannot be told from it. What is not answered in time was not delivered,
but for datagrams, whose takers need not answer.

Sockets are made inside, in one breath (`netns.inside`); everything else is done from home, since a socket stays in the
namespace that it was made in. Blocks: for a thread of its own, which must be in the host's namespace.
"""

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from sealane.engine.ports import NamespaceGoneError
from sealane.explain.checking import Observation, Probe
from sealane.linux.neighbour_cache import NeighbourCache
from sealane.linux.netns import inside, open_ref
from sealane.model.endpoint import NetnsRef
from sealane.model.net import family_of

SOCKETS_MAX = 2048
"""At once."""

NEIGHBOURS_MAX = 400
"""Asked for in a family at once. Each may cost two entries, at both ends, of the 1,024 that the machine has by default;
a gateway costs one, however many are reached by it."""

AGAIN_MAX = 8

POLL_S = 0.05
"""Between two looks at whether to stop."""

READ_BYTES = 2048

_NOT_DELIVERED = frozenset(
    {
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.ENETDOWN,
        errno.EINVAL,
    }
)
"""By a route, a router's ICMP, an unanswered ARP, a rule in the sender's own output. EINVAL is a blackhole route's
(`fib_props`, net/ipv4/fib_semantics.c)."""

_MEANINGS = {
    errno.EINVAL: "so a blackhole route answers",
    errno.EACCES: "so a prohibiting route answers",
    errno.EPERM: "a rule in its own output drops it",
    errno.ENETUNREACH: "it has no route, or its link is down",
}
"""What a refusal says about the sender's own namespace."""

_ECHO = {4: (socket.IPPROTO_ICMP, 8, 0), 6: (socket.IPPROTO_ICMPV6, 128, 129)}
"""Protocol, echo request and reply (RFC 792, RFC 4443)."""

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}


class StoppedError(Exception):
    """Somebody asked to stop before all answers were there."""


def send(
    probes: Sequence[Probe],
    refs: Mapping[str, NetnsRef],
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Observation]:
    """Send all and wait for each answer for `timeout_s`. `refs` finds the namespaces that probes call by sandbox id;
    one that is in none is sent from here. Raises StoppedError.

    A server takes as many handshakes at once as it has asked for (listen(2)), and is silent to the others. So those who
    got no answer where another did are sent again, for as long as that gets some of them through.
    """
    seen = _Volley(probes, refs, timeout_s).run(should_stop)
    for _ in range(AGAIN_MAX):
        answering = {
            p.target_netns for p, o in zip(probes, seen, strict=True) if p.proto == "tcp" and o.reached
        }
        silent = [
            index
            for index, (probe, one) in enumerate(zip(probes, seen, strict=True))
            if one.is_silence and probe.proto == "tcp" and probe.target_netns in answering
        ]
        again = _Volley([probes[index] for index in silent], refs, timeout_s).run(should_stop)
        for index, one in zip(silent, again, strict=True):
            seen[index] = one
        if all(one.is_silence for one in again):
            break
    return seen


class _Flight:
    """A probe that has been sent."""

    def __init__(self, index: int, probe: Probe, made: socket.socket, deadline: float) -> None:
        self.index, self.probe, self.socket, self.deadline = index, probe, made, deadline
        # Not 0: the kernel answers an echo of zeros with a checksum that it does not take itself (ICMP_CSUM).
        self.echo_id = index % 0xFFFF + 1


class _Volley:
    def __init__(self, probes: Sequence[Probe], refs: Mapping[str, NetnsRef], timeout_s: float) -> None:
        self._probes, self._refs, self._timeout_s = probes, refs, timeout_s
        # By sender, so that a namespace is entered once for many.
        self._waiting = deque(sorted(range(len(probes)), key=lambda index: probes[index].netns))
        self._seen: dict[int, Observation] = {}
        self._flights: dict[int, _Flight] = {}
        """By descriptor, oldest first: all have the same time."""
        self._poll = select.epoll()

    def run(self, should_stop: Callable[[], bool]) -> list[Observation]:
        cache = NeighbourCache(self._refs)
        try:
            while self._waiting:
                batch = self._next_round()
                parties = {name for index in batch for name in self._parties(index)}
                cache.note(parties)
                try:
                    self._launch(batch)
                    while self._flights:
                        if should_stop():
                            raise StoppedError
                        self._land()
                finally:
                    cache.forget(parties)
        finally:
            for flight in self._flights.values():
                flight.socket.close()
            self._poll.close()
        return [self._seen[index] for index in range(len(self._probes))]

    def _parties(self, index: int) -> tuple[str, str]:
        return self._probes[index].netns, self._probes[index].target_netns

    # --- sending ----------------------------------------------------------------------------------------------------

    def _next_round(self) -> list[int]:
        batch: list[int] = []
        request: dict[int, set[tuple[str, str]]] = {4: set(), 6: set()}
        while self._waiting and len(batch) < SOCKETS_MAX:
            probe = self._probes[self._waiting[0]]
            known = request[family_of(probe.address)]
            known.add((probe.netns, probe.address if probe.is_on_link else ""))
            if len(known) > NEIGHBOURS_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _launch(self, batch: list[int]) -> None:
        for netns, mine in groupby(batch, key=lambda index: self._probes[index].netns):
            indexes = list(mine)
            try:
                sockets = self._open(netns, [self._probes[index] for index in indexes])
            except (NamespaceGoneError, OSError) as error:
                self._seen.update(dict.fromkeys(indexes, Observation(None, f"the sandbox: {error}")))
                continue
            for index, made in zip(indexes, sockets, strict=True):
                self._send(index, made)

    def _open(self, netns: str, probes: list[Probe]) -> list[socket.socket]:
        if netns not in self._refs:
            return _make(probes)
        descriptor = open_ref(self._refs[netns])
        try:
            with inside(descriptor):
                return _make(probes)
        finally:
            os.close(descriptor)

    def _send(self, index: int, made: socket.socket) -> None:
        flight = _Flight(index, self._probes[index], made, time.monotonic() + self._timeout_s)
        try:
            _begin(flight)
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(flight, _refused(error.errno or 0))
            return
        self._flights[made.fileno()] = flight
        self._poll.register(made, select.EPOLLOUT if flight.probe.proto == "tcp" else select.EPOLLIN)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _land(self) -> None:
        for descriptor, _ in self._poll.poll(POLL_S):
            flight = self._flights[descriptor]
            observation = _answer(flight)
            if observation is not None:
                del self._flights[descriptor]
                self._end(flight, observation)
        now = time.monotonic()
        while self._flights:
            descriptor, flight = next(iter(self._flights.items()))
            if flight.deadline > now:
                break
            del self._flights[descriptor]
            # A datagram may have been taken by somebody who says nothing.
            reached = None if flight.probe.proto == "udp" else False
            text = f"no answer within {self._timeout_s:g} s"
            self._end(flight, Observation(reached, text, is_silence=True))

    def _end(self, flight: _Flight, observation: Observation) -> None:
        flight.socket.close()
        self._seen[flight.index] = observation


def _make(probes: list[Probe]) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        made.extend(map(_socket, probes))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def _socket(probe: Probe) -> socket.socket:
    family = family_of(probe.address)
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_RAW}[probe.proto]
    number = _ECHO[family][0] if probe.proto == "icmp" else 0
    return socket.socket(_AF[family], kind | socket.SOCK_NONBLOCK, number)


def _begin(flight: _Flight) -> None:
    made, probe = flight.socket, flight.probe
    if probe.proto == "tcp":
        # A connection that comes about is reset: it must not linger in TIME_WAIT.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if probe.source:
        made.bind((probe.source, 0))
    made.connect((probe.address, probe.port))
    if probe.proto == "udp":
        made.send(b"")
    elif probe.proto == "icmp":
        made.send(_echo(family_of(probe.address), flight.echo_id))


def _echo(family: int, identity: int) -> bytes:
    """An echo request. Of ICMPv6 the kernel computes the checksum (RFC 3542 §3.1)."""
    kind = _ECHO[family][1]
    # Of one's complement sums (RFC 1071), with a body of nothing but type and id.
    total = (kind << 8) + identity
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF if family == 4 else 0
    return struct.pack("!BBHHH", kind, 0, checksum, identity, 0)


def _answer(flight: _Flight) -> Observation | None:
    """None: what came was for another."""
    error = flight.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        return _refused(error)
    if flight.probe.proto == "tcp":
        return Observation(reached=True, text="connected")
    try:
        data = flight.socket.recv(READ_BYTES)
    except BlockingIOError:
        return None
    except OSError as caught:
        return _refused(caught.errno or 0)
    if flight.probe.proto == "icmp" and not _is_reply(flight, data):
        return None
    return Observation(reached=True, text="answered")


def _is_reply(flight: _Flight, data: bytes) -> bool:
    family = family_of(flight.probe.address)
    if family == 4 and data:
        data = data[4 * (data[0] & 0xF) :]
    reply = _ECHO[family][2]
    return len(data) >= 8 and data[0] == reply and struct.unpack_from("!H", data, 4)[0] == flight.echo_id


def _refused(number: int) -> Observation:
    if number == errno.ECONNREFUSED:
        return Observation(reached=True, text="refused: delivered, and nobody listens")
    meaning = f": {_MEANINGS[number]}" if number in _MEANINGS else ""
    return Observation(False if number in _NOT_DELIVERED else None, f"{os.strerror(number).lower()}{meaning}")
