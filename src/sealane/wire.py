"""The records of the verbs: requests and answers, as the HTTP API and every other door speak them.

Everything is JSON under `/v1`; an error is `{"error": ErrorBody}` with a status that follows its code. Fields that
are not known are refused, so that a misspelt one is named and not ignored.

| method and path | body | answer |
|---|---|---|
| GET /v1/version | | VersionView |
| GET /v1/status | | StatusView |
| GET /v1/networks | | list of NetworkView |
| POST /v1/networks | NetworkRequest | NetworkView |
| POST /v1/networks/prune | | PruneView |
| GET, DELETE /v1/networks/REF | | NetworkView; DELETE ?force=1 detaches what is left |
| GET /v1/sandboxes | | list of SandboxView |
| POST /v1/sandboxes | SandboxRequest | SandboxView |
| GET, DELETE /v1/sandboxes/REF | | SandboxView |
| GET /v1/endpoints | ?network=REF&sandbox=REF | list of EndpointView |
| GET /v1/endpoints/REF | | EndpointView |
| POST /v1/attach | AttachRequest | EndpointView |
| POST /v1/detach | list of DetachRequest | DetachView |
| POST /v1/plan, /v1/apply, /v1/delete | Manifest; plan ?delete=1 | PlanView, ApplyView, ApplyView |
| POST /v1/explain | ExplainRequest | ExplainView |
| POST /v1/check | CheckRequest | CheckView |
| GET /v1/sockets | ?sandbox=REF&all=1 | SocketsView; REF may be `host` |
| POST /v1/gc | ?confirm=1 | GcView |
| GET /v1/audit | | AuditView |
| GET /v1/events | ?follow=1&since=N | EventView, one JSON document a line |
| GET /v1/containers | ?all=1 | list of ContainerView |
| POST /v1/containers | ContainerRequest | ContainerView |
| GET, DELETE /v1/containers/REF | ?force=1 | ContainerView |
| POST /v1/containers/REF/stop, /start, /kill | ?timeout=S, ?signal=N | ContainerView |
| POST /v1/containers/REF/wait | | ContainerView once it has exited |
| POST /v1/containers/REF/exec | ExecRequest | ExecView, one JSON document a line |
| GET /v1/containers/REF/logs | ?follow=1&tail=N&timestamps=1&since=T | LogView, one JSON document a line |

REF is a name, an id, or the beginning of an id (at least 4 characters) that only one object has. An endpoint's REF
may also be `SANDBOX/NETWORK`.
"""

from typing import Literal

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class View(msgspec.Struct, frozen=True, kw_only=True):
    pass


# --- requests -------------------------------------------------------------------------------------------------------


class SubnetRequest(Request, frozen=True, kw_only=True):
    """`prefix` may be empty (`ip_range`, `gateway` then too): one is taken from the pools."""

    prefix: str = ""
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}
    """name → address, never handed out unless asked for (Docker: aux-address)."""


class NetworkRequest(Request, frozen=True, kw_only=True):
    name: str
    driver: str = "bridge"
    subnets: list[SubnetRequest] = []
    """None given: an IPv4 one from the pools (and an IPv6 one if `ipv6`)."""
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    options: dict[str, str] = {}
    """Driver options, in Docker's spelling (`com.docker.network.bridge.name`) or ours (`mtu`, `icc`, `masquerade`,
    `bridge`, `link-prefix`, `source-address`, `source-address6`, `publish-address`, `inhibit-gateway`, `gateway-mode`)."""
    labels: dict[str, str] = {}


class SandboxRequest(Request, frozen=True, kw_only=True):
    name: str
    netns: str = ""
    """A namespace's path, or a pid; empty: one is made and pinned."""
    labels: dict[str, str] = {}


class PublishRequest(Request, frozen=True, kw_only=True):
    """`host_first` 0: an ephemeral port is chosen. `one_of` True: one free port of host_first…host_last is chosen for
    the single `port`; else the range maps one to one onto `port`, `port`+1, …"""

    proto: Literal["tcp", "udp", "sctp"] = "tcp"
    host_address: str = ""
    host_first: int = 0
    host_last: int = 0
    """0: as many ports from host_first on as `count` says."""
    port: int
    count: int = 1
    one_of: bool = False


class AttachRequest(Request, frozen=True, kw_only=True):
    """`sandbox`: a sealane sandbox's name or id, a namespace path, or a pid. Asking again for the same gives the same
    answer."""

    sandbox: str
    network: str
    name: str = ""
    """The endpoint's name in DNS; empty: the sandbox's name."""
    addresses: list[str] = []
    mac: str = ""
    ifname: str = ""
    aliases: list[str] = []
    publish: list[PublishRequest] = []
    gateway_priority: int = 0
    sysctls: dict[str, str] = {}
    labels: dict[str, str] = {}


class DetachRequest(Request, frozen=True, kw_only=True):
    """By endpoint (id, name or SANDBOX/NETWORK), or by sandbox and network; what is not there is no error."""

    endpoint: str = ""
    sandbox: str = ""
    network: str = ""
    """Empty with `sandbox` given: all of the sandbox's endpoints."""


class Attachment(Request, frozen=True, kw_only=True):
    """A container's place on a network: an AttachRequest without the sandbox."""

    network: str
    name: str = ""
    addresses: list[str] = []
    mac: str = ""
    ifname: str = ""
    aliases: list[str] = []
    gateway_priority: int = 0
    sysctls: dict[str, str] = {}


class ContainerRequest(Request, frozen=True, kw_only=True):
    """`spec` is the runtime's record (`containers.spec.ContainerSpec`) without the fields that the daemon fills in:
    id, name, netns, dns, hosts."""

    name: str
    spec: msgspec.Raw
    attachments: list[Attachment] = []
    network_mode: str = ""
    """`host`, `none`, or `container:NAME`; empty: `attachments`."""
    publish: list[PublishRequest] = []
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    hosts: dict[str, str] = {}
    """name → address; `host-gateway` stands for the host as the container sees it."""
    sysctls: dict[str, str] = {}
    labels: dict[str, str] = {}
    depends_on: dict[str, Literal["started", "healthy", "completed"]] = {}
    """Container → what it must be before this one starts (used by `apply`)."""


class Manifest(Request, frozen=True, kw_only=True):
    """Objects that belong together: what `plan` previews, `apply` makes true and `delete` takes away. Containers are
    started in the order of their `depends_on`."""

    project: str = ""
    """Objects of an earlier apply of the same project that are not in this one are removed (label
    `sealane.project`)."""
    networks: list[NetworkRequest] = []
    containers: list[ContainerRequest] = []
    attachments: list[AttachRequest] = []


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


class ExecRequest(Request, frozen=True, kw_only=True):
    command: list[str]
    env: dict[str, str] = {}
    user: str = ""
    working_dir: str = ""
    stdin: bytes = b""


# --- answers --------------------------------------------------------------------------------------------------------


Refusal = Literal["invalid", "not_found", "exists", "conflict", "in_use", "full"]
Failure = Literal["unavailable", "store", "kernel", "internal"]
Code = Literal[Refusal, Failure]


class ErrorBody(View, frozen=True, kw_only=True):
    code: Code
    message: str
    field: str = ""
    """Path of the offending field in the request, e.g. `subnets[0].gateway`."""
    cure: str = ""
    """What to do about it."""
    problems: list["ErrorBody"] = []
    """All problems, when there are several."""


class VersionView(View, frozen=True, kw_only=True):
    version: str
    api: str
    instance: str
    kernel: str
    python: str


class Condition(View, frozen=True, kw_only=True):
    """One thing that `status` has to say: a missing feature, a fault, drift under repair."""

    level: Literal["ok", "note", "warning", "error"]
    subject: str
    message: str
    cure: str = ""


class StatusView(View, frozen=True, kw_only=True):
    version: str
    instance: str
    state: Literal["ready", "degraded", "hold"]
    revision: int
    networks: int
    sandboxes: int
    endpoints: int
    containers: int
    uplink: str
    mtu: int
    store: str
    loopback: str
    """How 127.0.0.1 publishes work here: `program` or `forwarder`."""
    repairs: int
    """Objects put right since the start."""
    last_repair_ms: float
    writes: int
    """Kernel objects written since the start."""
    started_at: float
    conditions: list[Condition] = []


class SubnetView(View, frozen=True, kw_only=True):
    prefix: str
    gateway: str
    ip_range: str
    in_use: int
    available: int


class NetworkView(View, frozen=True, kw_only=True):
    id: str
    name: str
    driver: str
    link: str
    mtu: int
    internal: bool
    icc: bool
    masquerade: bool
    subnets: list[SubnetView]
    endpoints: list[str]
    """`NAME ADDRESS`, sorted by name."""
    options: dict[str, str]
    labels: dict[str, str]


class SandboxView(View, frozen=True, kw_only=True):
    id: str
    name: str
    netns: str
    owner: str
    endpoints: list[str]
    labels: dict[str, str]


class EndpointView(View, frozen=True, kw_only=True):
    id: str
    name: str
    network: str
    network_id: str
    sandbox: str
    sandbox_id: str
    netns: str
    ifname: str
    host_link: str
    mac: str
    addresses: list[str]
    gateways: list[str]
    aliases: list[str]
    ports: list[str]
    """`*:8080->80/tcp`."""
    dns: list[str]
    state: Literal["up", "pending", "error"]
    error: str = ""
    labels: dict[str, str]


class DetachView(View, frozen=True, kw_only=True):
    detached: list[str]


class PruneView(View, frozen=True, kw_only=True):
    removed: list[str]


class PlanLine(View, frozen=True, kw_only=True):
    sign: Literal["+", "-", "~"]
    where: str
    """`host`, or the sandbox."""
    text: str
    origin: str
    """The intent object that asks for it, e.g. `network front`."""


class PlanView(View, frozen=True, kw_only=True):
    lines: list[PlanLine]
    create: list[str] = []
    """Intent objects that would come, e.g. `network front`, `container web`."""
    remove: list[str] = []


class ApplyView(View, frozen=True, kw_only=True):
    created: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    unchanged: list[str] = []


class GcView(View, frozen=True, kw_only=True):
    removed: list[str]
    kept: list[str] = []


class AuditView(View, frozen=True, kw_only=True):
    """What the engine itself finds on comparing store, desired and kernel state; `findings` empty is clean."""

    clean: bool
    findings: list[str]
    objects: int


class ExplainView(View, frozen=True, kw_only=True):
    passes: bool
    disposition: str
    minimal: str
    """The verdict in one line."""
    summary: str
    detailed: str
    drift: list[str] | None = None
    """What of that is not so in the kernel, as `audit` words it; None: nobody looked."""
    trace: msgspec.Raw
    """`sealane.explain.packet.Trace` as JSON."""


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


class EventView(View, frozen=True, kw_only=True):
    number: int
    time: float
    kind: str
    """`network.created`, `endpoint.attached`, `drift.repaired`, …"""
    subject: str
    detail: dict[str, str] = {}


class ContainerView(View, frozen=True, kw_only=True):
    id: str
    name: str
    sandbox: str
    status: Literal["created", "running", "restarting", "exited", "dead"]
    pid: int
    exit_code: int | None
    started_at: float
    finished_at: float
    restarts: int
    health: str
    command: list[str]
    addresses: dict[str, list[str]]
    """network → addresses."""
    ports: list[str]
    labels: dict[str, str]


class ExecView(View, frozen=True, kw_only=True):
    stream: Literal["stdout", "stderr", "exit"]
    data: bytes = b""
    exit_code: int = 0


class LogView(View, frozen=True, kw_only=True):
    stream: Literal["stdout", "stderr"]
    time: float
    text: str
