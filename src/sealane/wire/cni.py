"""What the CNI executable asks, and what it is answered: one request for each call of a container runtime.

The configuration is a plugin's object of a conflist as the runtime hands it over; its keys are CNI's own spelling.
`sealane.programs.cni.spec` refuses keys that are not known before they come here.
"""

from typing import Any, Literal

import msgspec

from sealane.wire.base import Request, View


class CniRange(Request, frozen=True, kw_only=True, rename="camel"):
    """As host-local has it. From `range_start` to `range_end` must be a block (10.1.0.128 to 10.1.0.255)."""

    subnet: str
    gateway: str = ""
    range_start: str = ""
    range_end: str = ""


class CniIpam(Request, frozen=True, kw_only=True):
    """Our own: without ranges, subnets come from the daemon's pools. One subnet a family."""

    type: Literal["sealane"] = "sealane"
    ranges: list[list[CniRange]] = []


class CniDns(Request, frozen=True, kw_only=True):
    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []


class CniPort(Request, frozen=True, kw_only=True):
    host_port: int = msgspec.field(name="hostPort")
    """0: not published."""
    container_port: int = msgspec.field(name="containerPort")
    protocol: str = "tcp"
    host_ip: str = msgspec.field(name="hostIP", default="")


class CniBandwidth(Request, frozen=True, kw_only=True, rename="camel"):
    """Rates in bits per second, bursts in bits; 0: not limited. Ingress is towards the container."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class CniRuntimeDns(Request, frozen=True, kw_only=True):
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []


class CniCapabilities(View, frozen=True, kw_only=True, rename="camel"):
    """`runtimeConfig`. Runtimes may put more here than was asked for; what is not known is none of ours."""

    port_mappings: list[CniPort] = []
    bandwidth: CniBandwidth | None = None
    dns: CniRuntimeDns | None = None
    ips: list[str] = []
    mac: str = ""
    aliases: list[str] | dict[str, list[str]] = []
    """A list (CONVENTIONS.md), or by network, as podman 4 has it."""
    cgroup_path: str = ""
    ip_ranges: list[list[CniRange]] = []


class CniLabel(View, frozen=True, kw_only=True):
    key: str
    value: str


class CniOwnArgs(View, frozen=True, kw_only=True):
    """`args.cni`."""

    ips: list[str] = []
    mac: str = ""
    labels: list[CniLabel] = []


class CniArgs(View, frozen=True, kw_only=True):
    cni: CniOwnArgs = CniOwnArgs()


class CniAttachment(View, frozen=True, kw_only=True):
    container_id: str = msgspec.field(name="containerID")
    ifname: str


class CniConfig(View, frozen=True, kw_only=True):
    """Fields that are None or empty say nothing: an existing network is then as it is."""

    name: str
    driver: Literal["", "bridge", "routed"] = ""
    bridge: str = ""
    mtu: int = 0
    internal: bool | None = None
    is_gateway: bool | None = msgspec.field(name="isGateway", default=None)
    """The gateway's address is on the bridge. As all of these, as in the reference plugin `bridge`, but on by default."""
    ip_masq: bool | None = msgspec.field(name="ipMasq", default=None)
    port_isolation: bool | None = msgspec.field(name="portIsolation", default=None)
    """Endpoints do not reach each other."""
    resolver: bool | None = None
    """Names are answered at the gateways' addresses. Off by default: on a node of Kubernetes they are the cluster's own
    DNS server's, which may want port 53 of every address of the host."""
    fast_path: bool = msgspec.field(name="fastPath", default=False)
    """Off by default: a plugin that comes after us in the chain (`bandwidth`) may want the link's entrance for itself."""
    ingress_rate: int = msgspec.field(name="ingressRate", default=0)
    ingress_burst: int = msgspec.field(name="ingressBurst", default=0)
    egress_rate: int = msgspec.field(name="egressRate", default=0)
    egress_burst: int = msgspec.field(name="egressBurst", default=0)
    ipam: CniIpam = CniIpam()
    dns: CniDns = CniDns()
    runtime: CniCapabilities = msgspec.field(name="runtimeConfig", default=CniCapabilities())
    args: CniArgs = CniArgs()
    valid: list[CniAttachment] | msgspec.UnsetType | None = msgspec.field(
        name="cni.dev/valid-attachments", default=msgspec.UNSET
    )
    """null is an empty list: so does Go write one that was never filled."""
    attachments: list[CniAttachment] | msgspec.UnsetType | None = msgspec.field(
        name="cni.dev/attachments", default=msgspec.UNSET
    )
    """The same, as libcni 1.1 misspelt it (containernetworking/cni#1101)."""


class CniAddress(View, frozen=True, kw_only=True):
    address: str
    gateway: str = ""
    interface: int | None = None


class CniRoute(View, frozen=True, kw_only=True):
    dst: str
    gw: str = ""


class CniInterface(View, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""


class CniResult(View, frozen=True, kw_only=True):
    """Of version 1.1.0; `sealane.programs.cni.result` makes the others of it."""

    interfaces: list[CniInterface] = []
    ips: list[CniAddress] = []
    routes: list[CniRoute] = []
    dns: dict[str, Any] = {}


class CniRequest(Request, frozen=True, kw_only=True):
    verb: Literal["ADD", "DEL", "CHECK", "GC", "STATUS"]
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    args: dict[str, str] = {}
    """CNI_ARGS, the known ones."""
    config: CniConfig
    leased: CniResult | None = None
    """What an IPAM plugin gave; None: addresses are ours to give."""
    prev: CniResult | None = None
    """CHECK: what ADD answered, as it stands at the end of the chain."""
    only_present: bool = False
    """ADD: answer what is attached already, and attach nothing."""


class CniView(View, frozen=True, kw_only=True):
    result: CniResult | None = None
    """None for all but ADD, and for an ADD of what is present where nothing is."""
