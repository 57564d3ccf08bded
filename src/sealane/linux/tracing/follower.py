"""Programs on five tracepoints, for as long as they are wanted: they end with their descriptors, however we end."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from sealane.explain.traced.event import Pattern, Point, TraceEvent, parse_headers
from sealane.linux.bpf.ring import Ring
from sealane.linux.bpf.syscall import (
    TRACE_RAW_TP,
    ProgType,
    attach_to_tracepoint,
    map_create,
    map_lookup,
    prog_load,
)
from sealane.linux.closeable import Closeable
from sealane.linux.tracing.programs import (
    ANY,
    CODES,
    FOLLOWED,
    LOST,
    POINTS,
    RECORD,
    RING,
    layout_of,
    program,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sealane.linux.bpf.btf import Btf

RING_BYTES: Final = 1 << 20
"""Some 8,000 sightings."""

_POINTS: Final[dict[int, Point]] = {code: point for point, code in CODES.items()}
_REASON_PREFIXES: Final = ("SKB_DROP_REASON_", "SKB_")


class Follower(Closeable):
    """Follows packets that fit one of `patterns`, on the whole machine. Raises BtfError, BpfError."""

    def __init__(self, patterns: Sequence[Pattern], btf: Btf) -> None:
        self._reasons = btf.names("skb_drop_reason")
        self._descriptors: list[int] = []
        self._ring = Ring(RING, RING_BYTES)
        try:
            self._arm(patterns, btf)
        except BaseException:
            self.close()
            raise

    def _arm(self, patterns: Sequence[Pattern], btf: Btf) -> None:
        followed, self._lost = self._keep(map_create(FOLLOWED)), self._keep(map_create(LOST))
        maps = {FOLLOWED.name: followed, LOST.name: self._lost, RING: self._ring.fd}
        maps[ANY.name] = self._keep(map_create(ANY))
        layout = layout_of(btf)
        for point, tracepoint in POINTS.items():
            type_id, arguments = btf.tracepoint(tracepoint)
            code = program(point, patterns, layout, arguments).assemble(maps)
            loaded = prog_load(ProgType.TRACING, TRACE_RAW_TP, f"sl_{point}", code, btf_id=type_id)
            self._keep(attach_to_tracepoint(self._keep(loaded)))

    def _keep(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._ring.close()

    def wait(self, timeout_s: float) -> bool:
        """Whether there is something to read, at the latest after `timeout_s`."""
        return self._ring.wait(timeout_s)

    def read(self) -> Iterator[TraceEvent]:
        """What was seen since, oldest first. What is no IP any more is left out."""
        for record in self._ring.read():
            time_ns, skb, location, code, reason, netns, ifindex, _, link, packet = RECORD.unpack(record)
            headers = parse_headers(packet)
            if headers is None:
                continue
            point = _POINTS[code]
            yield TraceEvent(
                time_ns=time_ns,
                skb=skb,
                point=point,
                netns=netns,
                ifindex=ifindex,
                link=link.rstrip(b"\0").decode(errors="backslashreplace"),
                headers=headers,
                reason=self._reason(reason) if point == "drop" else "",
                location=location,
            )

    def _reason(self, number: int) -> str:
        name = self._reasons.get(number, str(number))
        for prefix in _REASON_PREFIXES:
            name = name.removeprefix(prefix)
        return name

    @property
    def lost(self) -> int:
        """Sightings for which there was no room."""
        value = map_lookup(self._lost, bytes(4), 8)
        return struct.unpack("=Q", value)[0] if value else 0
