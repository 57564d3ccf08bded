"""Questions about packets and sockets, and their answers: nothing here changes anything."""

from typing import Literal

import msgspec

from sealane.wire.base import Request, View


class ExplainRequest(Request, frozen=True, kw_only=True):
    """What would become of a packet. `source` and `target` as people type them: `web`, `db:5432`, `192.0.2.7`, `:8080`,
    `host`."""

    source: str
    target: str
    proto: Literal["tcp", "udp", "sctp", "icmp"] = "tcp"
    family: Literal[0, 4, 6] = 0
    """0: IPv4 if both ends have it, else IPv6."""
    reverse: bool = False
    """The answer's way back."""
    size: int = 60
    """Bytes of the IP packet."""
    dont_fragment: bool = False
    observed: bool = False
    """Look also whether what the packet meets is in the kernel as it should be."""
    graph: bool = False
    """Draw it, too."""


class ExplainView(View, frozen=True, kw_only=True):
    passes: bool
    """It arrives, and its answer does."""
    outcome: Literal["passes", "fails", "unknown"]
    """With `observed`, a verdict that it passes is `unknown` beside any `drift` or `unread`."""
    disposition: str
    minimal: str
    """The verdict in one line."""
    summary: str
    detailed: str
    graph: str = ""
    """An SVG document, if it was asked for."""
    drift: list[str] | None = None
    """What in the kernel contradicts that; None: it was not asked for."""
    unread: list[str] | None = None
    """What is on the path and may decide otherwise, but was not understood; None: it was not asked for."""
    trace: msgspec.Raw
    """`sealane.explain.packet.Trace` as JSON."""


class CheckRequest(Request, frozen=True, kw_only=True):
    """Send real packets and hold what becomes of them against what `explain` says. `source`, `target`: a sandbox,
    container or endpoint, or (source) `host`; empty: everybody."""

    source: str = ""
    target: str = ""
    proto: Literal["tcp", "udp", "icmp"] = "tcp"
    port: int = 0
    """Inside the target; 0: one that it publishes, else 9."""
    timeout: float = 0.5
    """Seconds that an answer is waited for."""


class CheckFinding(View, frozen=True, kw_only=True):
    """A probe that did not agree with its prediction, or says nothing."""

    source: str
    target: str
    probe: str
    """`10.1.0.2:80/tcp`."""
    predicted: bool | None
    """Whether it should be reached; None: it cannot be said."""
    reason: str
    observed: bool | None
    observation: str
    agrees: bool | None


class CheckView(View, frozen=True, kw_only=True):
    rows: list[str]
    columns: list[str]
    matrix: list[str]
    """A line a row, a character a column: `✓` reached, `·` not reached, `!` other than predicted, `?` cannot be said,
    a space where nothing was sent."""
    pairs: int
    agree: int
    """Probes; a pair has one for each address of its target."""
    disagree: int
    unknown: int
    findings: list[CheckFinding] = []
    """Disagreements first; no more than a bound."""


class TcpView(View, frozen=True, kw_only=True):
    """What a TCP connection knows of its path: struct tcp_info (linux/tcp.h)."""

    rtt_ms: float
    rttvar_ms: float
    retransmits: int
    """Segments sent again since the connection was made."""
    cwnd: int
    """Congestion window, in segments."""
    mss: int
    unacked: int
    """Segments in flight."""
    send_window: int | None
    """Bytes that the peer has room for; None before Linux 5.4."""


class SocketView(View, frozen=True, kw_only=True):
    sandbox: str = ""
    """`host`, or the sandbox's name."""
    proto: Literal["tcp", "udp"]
    state: str
    """TCP's, as `ss` spells it (`listen`, `established`, `time-wait`, …); a UDP socket without a peer is `unconnected`."""
    address: str
    port: int
    remote_address: str
    """`0.0.0.0` or `::` with port 0: it has no peer."""
    remote_port: int
    receive_queue: int
    """Bytes not read yet; of a listening socket: connections not accepted yet."""
    send_queue: int
    """Bytes not acknowledged yet; of a listening socket: how many connections may wait."""
    uid: int
    inode: int
    """0: no process has it (`time-wait`, or not accepted yet)."""
    pid: int = 0
    process: str = ""
    """Empty, and `pid` 0: none was found."""
    tcp: TcpView | None = None


class SocketsView(View, frozen=True, kw_only=True):
    sockets: list[SocketView]
    unseen: dict[str, str]
    """Sandbox → why its sockets could not be read."""


class TraceRequest(Request, frozen=True, kw_only=True):
    """Follow real packets. `source` and `target` as for `explain`."""

    source: str
    target: str
    proto: Literal["tcp", "udp", "sctp", "icmp"] = "tcp"
    family: Literal[0, 4, 6] = 0
    """0: IPv4 if both ends have it, else IPv6."""
    mode: Literal["inject", "live", "dropped"] = "inject"
    """Send one and follow it; follow those that come; of those that come, tell the ones that die."""
    reverse: bool = False
    """Follow the answers, too."""
    count: int = 1
    """End after so many."""
    timeout: float = 1.0
    """Seconds, after which it ends anyway."""


class TraceView(View, frozen=True, kw_only=True):
    """One packet (`observed_path`); or the last line (`end`), which has notes only."""

    kind: Literal["path", "end"]
    passes: bool = False
    agrees: bool | None = False
    """Whether that was predicted; None: nothing was, since foreign rules translate it."""
    outcome: str = ""
    minimal: str = ""
    summary: str = ""
    detailed: str = ""
    observed: msgspec.Raw = msgspec.Raw(b"null")
    """`sealane.explain.traced.result.TraceResult` as JSON."""
    predicted: msgspec.Raw = msgspec.Raw(b"null")
    """`sealane.explain.packet.Trace` as JSON."""
    notes: list[str] = []
    """What could not be seen, and what the sender heard."""


class DoctorRequest(Request, frozen=True, kw_only=True):
    """Look for the known causes of trouble. `subjects`: sandboxes, containers, endpoints, networks, or `host`; none:
    everything. The host is looked at in any case."""

    subjects: list[str] = []


class DoctorFinding(View, frozen=True, kw_only=True):
    cause: str
    """Name of the check: see docs/doctor.md."""
    subject: str
    """`host`, or the name of a network, a sandbox or an endpoint (`web/front`)."""
    message: str
    hint: str
    level: Literal["error", "warning", "note"]
    """`error`: something does not work now; `warning`: it may not, or soon will not; `note`: worth knowing."""


class DoctorCheck(View, frozen=True, kw_only=True):
    """One known cause, and how the look at it ended."""

    cause: str
    looks_at: str
    findings: int
    unseen: list[str] = []
    """What of that could not be looked at: pieces of the host, and sandboxes by name."""


class DoctorView(View, frozen=True, kw_only=True):
    findings: list[DoctorFinding]
    """Errors first; no more than a bound."""
    found: int
    """All of them, notes left out."""
    checks: list[DoctorCheck]
    unseen: dict[str, str]
    """What could not be looked at → why."""
    sandboxes: int
    """That were looked at."""
