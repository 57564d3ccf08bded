"""Both kinds of trace side by side, and the kernel's symbols: what `sealane trace` looks with.

Blocks: for a thread of its own, which must be in the host's namespace.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from sealane.engine.ports import NamespaceGoneError
from sealane.explain.traced.observed_path import Collector
from sealane.linux.bpf import btf
from sealane.linux.bpf.syscall import BpfError
from sealane.linux.closeable import Closeable
from sealane.linux.netns import open_ref, own_inode
from sealane.linux.tracing.follower import Follower
from sealane.linux.tracing.rules import RuleTrace
from sealane.linux.tracing.tracefs import TracefsFollower

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sealane.explain.traced.event import Pattern, RuleTraceEvent
    from sealane.explain.traced.observed_path import ObservedPath
    from sealane.explain.traced.signature import ProbeSignature
    from sealane.model.endpoint import NetnsRef

SYMBOLS: Final = "/proc/kallsyms"
SYMBOLS_MAX: Final = 1 << 20

SETTLE_NS: Final = 100_000_000
"""A packet of which nothing was seen for so long has ended: in a queue of a socket, or nowhere."""


class TracingUnavailableError(OSError):
    """This kernel, or these privileges, do not allow to follow packets. The message says what is missing."""


class Tracer(Closeable):
    """Follows packets that fit `patterns`; in the namespaces of `refs` and the host's it knows the rules, too. Raises
    TracingUnavailableError. Everything is switched off when its descriptors are closed, by us or by the kernel."""

    def __init__(
        self,
        patterns: Sequence[Pattern],
        refs: Mapping[str, NetnsRef],
        signature: ProbeSignature | None = None,
    ) -> None:
        """`signature` tells of the packet that will be sent, if we send it: then it can be followed without eBPF."""
        self.blind: list[str] = []
        """What it cannot see, in words."""
        self._collector = Collector(patterns)
        self._follower = self._follow(patterns, signature)
        self._rules: list[RuleTrace] = []
        try:
            self._listen("the host", None, own_inode(), patterns)
            for name, ref in refs.items():
                self._listen_inside(name, ref, patterns)
        except BaseException:
            self.close()
            raise

    def _follow(
        self, patterns: Sequence[Pattern], signature: ProbeSignature | None
    ) -> Follower | TracefsFollower:
        try:
            return Follower(patterns, btf.read())
        except BpfError as error:
            reason = error.strerror or str(error)
        except (btf.BtfError, OSError) as error:
            reason = str(error)
        if signature is None:
            raise TracingUnavailableError(f"packets cannot be followed: {reason}")
        try:
            follower = TracefsFollower(signature)
        except OSError as error:
            raise TracingUnavailableError(
                f"packets cannot be followed: {reason}; nor by tracefs: {error}"
            ) from error
        self.blind.append(f"addresses, and so translations: eBPF is not to be had ({reason})")
        return follower

    def _listen_inside(self, name: str, ref: NetnsRef, patterns: Sequence[Pattern]) -> None:
        try:
            descriptor = open_ref(ref)
        except (NamespaceGoneError, OSError) as error:
            self.blind.append(f"rules of {name}: {error}")
            return
        try:
            self._listen(name, descriptor, ref.inode, patterns)
        finally:
            os.close(descriptor)

    def _listen(self, name: str, descriptor: int | None, inode: int, patterns: Sequence[Pattern]) -> None:
        try:
            self._rules.append(RuleTrace(inode, descriptor, patterns))
        except OSError as error:
            self.blind.append(f"rules of {name}: {error.strerror}")

    def close(self) -> None:
        self._follower.close()
        for rules in self._rules:
            rules.close()

    def wait(self, timeout_s: float) -> None:
        """Until a packet was seen, or `timeout_s` have passed."""
        self._follower.wait(timeout_s)

    def observed_paths(self, now_ns: int) -> Iterator[ObservedPath]:
        """Those that have ended. `now_ns` is CLOCK_MONOTONIC."""
        for trace_event in self._follower.read():
            self._collector.add(trace_event)
        for rules in self._rules:
            found: list[RuleTraceEvent] = list(rules.read())
            self._collector.add_rules(rules.named(found))
        yield from self._collector.take(now_ns - SETTLE_NS)

    @property
    def lost(self) -> int:
        """Sightings that were missed, for lack of room or time."""
        return self._follower.lost + sum(rules.lost for rules in self._rules)


class Symbols:
    """What the kernel calls its code at an address: /proc/kallsyms, read when it is first asked for."""

    def __init__(self) -> None:
        self._addresses: list[int] = []
        self._names: list[str] = []

    def __call__(self, address: int) -> str:
        """Empty if it is not known: kptr_restrict hides addresses from the unprivileged."""
        if not self._addresses:
            with contextlib.suppress(OSError):
                self._read()
        index = bisect_right(self._addresses, address) - 1
        return self._names[index] if address and index >= 0 and self._addresses[index] else ""

    def _read(self) -> None:
        with open(SYMBOLS, encoding="ascii", errors="replace") as file:
            lines = [line.split(maxsplit=3) for line, _ in zip(file, range(SYMBOLS_MAX), strict=False)]
        found = sorted((int(line[0], 16), line[2]) for line in lines if len(line) >= 3 and line[1] in "tTwW")
        # Names first: another thread looks into them as soon as there are addresses.
        self._names = [name.partition(".")[0] for _, name in found]
        self._addresses = [address for address, _ in found]
