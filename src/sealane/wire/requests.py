"""Request bodies."""

from typing import Literal

import msgspec

from sealane.wire.base import Request

ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
"""Docker's name of the option that has the sysctls of a link, by which files and command lines say it."""


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
    `bridge`, `link-prefix`, `source-address`, `source-address6`, `publish-address`, `inhibit-gateway`, `gateway-mode`,
    `fast-path`, `dns`, `dns-servers`)."""
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


class BandwidthRequest(Request, frozen=True, kw_only=True):
    """`rate` in bits per second, `burst` in bits; 0: what passes in 10 ms at that rate."""

    rate: int
    burst: int = 0


class AttachRequest(Request, frozen=True, kw_only=True):
    """`sandbox`: a sealane sandbox's name or id, a namespace path, or a pid. Asking again for the same gives the same
    answer."""

    sandbox: str
    network: str
    sandbox_name: str = ""
    """Of a sandbox that is known by nothing but its namespace; empty: after the path or the pid."""
    name: str = ""
    """The endpoint's name in DNS; empty: the sandbox's name."""
    namespace: str = ""
    """Kubernetes namespace of both names: `shop` makes `web-0` to `shop/web-0`, which is `web-0.shop` in DNS."""
    addresses: list[str] = []
    mac: str = ""
    ifname: str = ""
    aliases: list[str] = []
    publish: list[PublishRequest] = []
    gateway_priority: int = 0
    sysctls: dict[str, str] = {}
    labels: dict[str, str] = {}
    ingress: BandwidthRequest | None = None
    """Towards the sandbox; None: not limited."""
    egress: BandwidthRequest | None = None
    without_gateway: bool = False
    """The sandbox's default route is not to lead through this network, even if there is no other."""
    dns_servers: list[str] = []
    """Where the sandbox's questions about other names are asked; empty: as the network says."""
    fast_path: bool = True
    """False: others may want to hang queueing disciplines or filters on the host's end of its link."""


class StagedRequest(Request, frozen=True, kw_only=True):
    """An endpoint that gets its sandbox later, by `join`. `id` is chosen by who asks: asking again for the same gives
    the same answer. Addresses that are held as leases become its own."""

    id: str
    network: str
    name: str
    addresses: list[str] = []
    mac: str = ""
    aliases: list[str] = []
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
    id, name, netns, dns, hosts. Where its `rootfs` is an image (`image:sha256:…`, as `ImageView.rootfs` says), what it leaves
    open is as the image says, and `entrypoint` takes the place of the image's."""

    name: str
    spec: msgspec.Raw
    attachments: list[Attachment] = []
    network_mode: str = ""
    """`host`, `none`, or `container:NAME`; empty: `attachments`."""
    userns: Literal["", "private", "host"] = ""
    """`private`: it has a user namespace, whose ids are nobody's outside; `host`: it has the daemon's; empty: one of its own
    where that can be had. On the host's network it has none, and in the network of a container that one's."""
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
    auto_remove: bool = False
    """It goes, with all that is its, when it has ended and nobody waits for it any more."""


class ImageRequest(Request, frozen=True, kw_only=True):
    reference: str
    """`oci:PATH[:TAG]` or `oci-archive:FILE[:TAG]`, the path an absolute one."""
    unpack: bool = True
    """False: only look which image it is; without a `rootfs` in the answer if that is not unpacked here."""


class Manifest(Request, frozen=True, kw_only=True):
    """Objects that belong together: what `plan` previews, `apply` makes true and `delete` takes away. Containers are
    started in the order of their `depends_on`."""

    project: str = ""
    """Networks and containers of an earlier apply of the same project that are not in this one are removed; they have it
    as their label `sealane.project`. Without one nothing is removed, and what bears a name that is asked for is what was
    asked for before, unless it is some project's."""
    networks: list[NetworkRequest] = []
    containers: list[ContainerRequest] = []
    attachments: list[AttachRequest] = []


class ExecRequest(Request, frozen=True, kw_only=True):
    command: list[str]
    env: dict[str, str] = {}
    user: str = ""
    working_dir: str = ""
    stdin: bytes = b""
    """All of it; a session has it as frames."""
    terminal: bool = False
    """Its streams are a terminal: of a session alone."""
