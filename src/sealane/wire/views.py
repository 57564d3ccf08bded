"""What the verbs answer."""

from typing import Any, Literal

from sealane.wire.base import View


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
    hint: str = ""


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
    reserved: list[str]
    """Never handed out unasked."""
    in_use: int
    available: int
    """Addresses that are left to be handed out unasked."""


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


EndpointState = Literal["up", "dormant", "pending", "error"]
"""`dormant`: nothing runs in its sandbox, so it has neither names nor published ports; `pending`: it has no sandbox yet."""


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
    state: EndpointState
    error: str = ""
    labels: dict[str, str]


class ImageView(View, frozen=True, kw_only=True):
    """An unpacked image; while it is being unpacked, `message` alone says how far that is."""

    message: str = ""
    rootfs: str = ""
    """What a container's spec names it by; empty: not there yet."""
    reference: str = ""
    """As it was named when it was unpacked."""
    entrypoint: list[str] = []
    command: list[str] = []
    user: str = ""
    working_dir: str = ""
    exposed: list[str] = []
    """`80/tcp`; nothing is published because of it."""
    containers: list[str] = []
    """Made of it."""


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


class EventView(View, frozen=True, kw_only=True):
    number: int
    time: float
    kind: str
    """`network.created`, `endpoint.attached`, `drift.repaired`, …"""
    subject: str
    detail: dict[str, str] = {}


class ChangeView(View, frozen=True, kw_only=True):
    verb: Literal["put", "delete"]
    kind: str
    """`network`, `sandbox`, `endpoint`, `container`."""
    id: str
    record: dict[str, Any] | None = None
    """As stored; None: deleted."""


class ChangesView(View, frozen=True, kw_only=True):
    revision: int
    """Of the store, with these changes in it: where a follower resumes."""
    is_snapshot: bool = False
    """These are all records there are."""
    changes: list[ChangeView] = []


class HealthCheckView(View, frozen=True, kw_only=True):
    started_at: float
    finished_at: float
    exit_code: int
    """-1: it took longer than its timeout, or could not be started."""
    output: str


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
    error: str = ""
    """Why it could not be started, or how its end came to be unknown."""
    warnings: list[str] = []
    """Guards that it does without on this host, or by its own wish; each a word, a colon and a sentence."""
    oom_killed: bool = False
    """The kernel killed a process of it, for it had more memory than it may."""
    health: str
    health_log: list[HealthCheckView] = []
    """The last checks, the newest last."""
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
