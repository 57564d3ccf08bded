"""The fallback where eBPF is not allowed: one packet followed by the events of a tracefs instance of our own.

These tell the link's name, the skb's address, the length, and a drop's place and reason; they tell neither namespace nor
addresses. So it can follow one packet only, which we send ourselves: it is known by the link of the host's by which it
must come, whose name nobody else has, and by its length. Where a namespace begins is known by the links in between.

An instance stays on when its maker dies: `sweep` takes away those of dead processes. (Documentation/trace/ftrace.rst)
"""

from __future__ import annotations

import contextlib
import os
import re
import select
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from sealane.explain.traced.event import Point, TraceEvent
from sealane.linux.closeable import Closeable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealane.explain.traced.signature import ProbeSignature

ROOTS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
PREFIX: Final = "sealane-"
BUFFER_KB: Final = 1024
"""Of each processor."""

KEPT_EVENTS: Final = 8192
"""Of all packets, until ours is known among them."""

_EVENTS: Final[dict[str, Point]] = {
    "net/net_dev_queue": "queue",
    "net/net_dev_start_xmit": "transmit",
    "net/netif_receive_skb": "receive",
    "skb/kfree_skb": "drop",
    "skb/consume_skb": "consume",
}
_POINTS: Final[dict[str, Point]] = {path.partition("/")[2]: point for path, point in _EVENTS.items()}
_LINE: Final = re.compile(r" (?P<seconds>\d+)\.(?P<micros>\d+): (?P<event>\w+): (?P<rest>.*)")
_FIELD: Final = re.compile(r"(dev|skbaddr|len|protocol|reason)[=:] ?(\S+)")
_ETHERNET_BYTES: Final = 14
_READ_BYTES: Final = 1 << 16


class _Event(NamedTuple):
    time_ns: int
    skb: int
    point: Point
    link: str
    length: int
    protocol: int
    """0: this kind does not tell."""
    reason: str


class TracefsFollower(Closeable):
    """Follows the packet that `signature` tells of. Raises OSError where there is no tracefs, or it is not ours to use."""

    lost = 0

    def __init__(self, signature: ProbeSignature) -> None:
        self._signature = signature
        self._seen: deque[_Event] = deque(maxlen=KEPT_EVENTS)
        self._skb = 0
        self._here, self._link = signature.sender, ""
        self._rest = ""
        sweep()
        self._path = f"{_root()}/instances/{PREFIX}{os.getpid()}-{id(self):x}"
        os.mkdir(self._path)
        self._pipe = -1
        try:
            self._arm()
        except BaseException:
            self.close()
            raise

    def _arm(self) -> None:
        self._write("trace_clock", "mono")
        self._write("options/hash-ptr", "0")
        self._write("buffer_size_kb", str(BUFFER_KB))
        self._pipe = os.open(f"{self._path}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        for event in _EVENTS:
            self._write(f"events/{event}/enable", "1")

    def _write(self, name: str, text: str) -> None:
        with open(f"{self._path}/{name}", "w", encoding="ascii") as file:
            file.write(text)

    def close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        with contextlib.suppress(OSError):
            os.rmdir(self._path)

    def wait(self, timeout_s: float) -> bool:
        """Whether there is something to read, at the latest after `timeout_s`."""
        return bool(select.select([self._pipe], [], [], timeout_s)[0])

    def read(self) -> Iterator[TraceEvent]:
        """What was seen of the packet since, oldest first."""
        for event in self._events():
            if not self._skb:
                self._seen.append(event)
                if self._is_ours(event):
                    self._skb = event.skb
                    yield from [self._trace_event(one) for one in self._of(event.skb)]
            elif event.skb == self._skb:
                yield self._trace_event(event)
                if event.point in {"drop", "consume"}:
                    # The address may come back under another packet.
                    self._skb = -1

    def _is_ours(self, event: _Event) -> bool:
        """By link and length; and by its protocol, which is told where it was sent."""
        length = event.length - (0 if event.point == "receive" else _ETHERNET_BYTES)
        if event.link != self._signature.link or length not in self._signature.sizes:
            return False
        return any(one.protocol == self._signature.ethertype for one in self._of(event.skb))

    def _of(self, skb: int) -> list[_Event]:
        """What was seen of a packet, since the address was last given back."""
        found: list[_Event] = []
        for event in self._seen:
            if event.skb == skb:
                found.append(event)
                if event.point in {"drop", "consume"}:
                    found.clear()
        return found

    def _trace_event(self, event: _Event) -> TraceEvent:
        if event.link in self._signature.peers:
            self._here = self._signature.host
        elif event.point == "receive":
            self._here = self._signature.peers.get(self._link, 0)
        self._link = event.link or self._link
        return TraceEvent(
            time_ns=event.time_ns,
            skb=event.skb,
            point=event.point,
            netns=self._here,
            ifindex=0,
            link=self._link,
            headers=self._signature.headers,
            reason=event.reason,
        )

    def _events(self) -> Iterator[_Event]:
        while True:
            try:
                data = os.read(self._pipe, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
            yield from filter(None, map(parse_line, lines))


def parse_line(line: str) -> _Event | None:
    """None: a line of another kind."""
    found = _LINE.search(line)
    if found is None or found["event"] not in _POINTS:
        return None
    fields = dict(_FIELD.findall(found["rest"]))
    if "skbaddr" not in fields:
        return None
    point = _POINTS[found["event"]]
    return _Event(
        time_ns=(int(found["seconds"]) * 1_000_000 + int(found["micros"])) * 1000,
        skb=int(fields["skbaddr"], 16),
        point=point,
        link=fields.get("dev", ""),
        length=int(fields.get("len", "0")),
        protocol=int(fields.get("protocol", "0"), 0) if point == "transmit" else 0,
        reason=fields.get("reason", "") if point == "drop" else "",
    )


def sweep() -> None:
    """Take away instances that dead processes of ours have left. Nothing happens where there is no tracefs."""
    with contextlib.suppress(OSError):
        folder = f"{_root()}/instances"
        for name in os.listdir(folder):
            pid = name.removeprefix(PREFIX).partition("-")[0]
            if name.startswith(PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                with contextlib.suppress(OSError):
                    os.rmdir(f"{folder}/{name}")


def _root() -> str:
    for root in ROOTS:
        if os.path.isdir(f"{root}/instances"):
            return root
    raise FileNotFoundError("there is no tracefs: mount -t tracefs tracefs /sys/kernel/tracing")
