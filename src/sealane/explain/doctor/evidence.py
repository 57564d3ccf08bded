"""What was read in the kernel and in the host's files, for the causes to look at: records, and nothing else.

Everything is bounded where it is read (`sealane.linux.evidence`). What could not be read is named in `unseen`, so that
silence is never taken for health.
"""

from typing import Literal

import msgspec

from sealane.model.net import FAMILIES, Family, Proto, is_loopback, is_wildcard

NftTableFamily = Literal["inet", "ip", "ip6", "bridge"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be read besides the host: the causes decide nothing here, the intent does."""

    bridges: tuple[str, ...] = ()
    """Names of our networks' bridges, adopted ones too."""
    upstreams: bool = True
    """Ask the host's nameservers whether they answer: one question each."""


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP socket that listens, or a UDP socket without a peer."""

    proto: Proto
    address: str
    """`0.0.0.0` or `::`: every one."""
    port: int
    v6_only: bool = False
    waiting: int = 0
    """TCP: connections that wait to be accepted."""
    backlog: int = 0
    """TCP: how many may."""
    inode: int = 0
    process: str = ""
    """`nginx (pid 812)`; empty: not looked for, or not found."""
    ours: bool = False
    """The daemon's own."""
    reserves_for: tuple[str, ...] = ()
    """Ids of sandboxes whose containers' monitor it is (podman's conmon): it listens so that no other program takes their
    ports, and accepts nothing."""

    @property
    def families(self) -> tuple[Family, ...]:
        """A socket on `::` takes IPv4 too, unless IPV6_V6ONLY is set."""
        if self.address == "::":
            return (6,) if self.v6_only else FAMILIES
        return (6,) if ":" in self.address else (4,)

    @property
    def is_wild(self) -> bool:
        return is_wildcard(self.address)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.address)


class BaseChain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain that packets enter by a hook, of a table that is not ours."""

    name: str
    hook: str
    drops: Literal["", "policy", "rule"] = ""
    """What is accepted by no rule before is dropped: by the policy, or by a last rule without a condition."""
    rules: int = 0
    dropped: int | None = None
    """Packets that met the policy; None: it does not count (those of iptables-nft do)."""


class PortRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that sends a port elsewhere (dnat, redirect). Ports out of sets are not followed."""

    chain: str
    proto: str
    """`tcp`, `udp`, `sctp`; empty: any."""
    first: int
    last: int
    address: str = ""
    """Destination that it is about; empty: any."""


class ForeignTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table of nftables that is not ours; what iptables-nft makes is one too."""

    family: NftTableFamily
    name: str
    chains: tuple[BaseChain, ...] = ()
    lets: tuple[str, ...] = ()
    """Links and prefixes that accepting rules name, as they do: `slb1f0c…`, `slb*`, `10.1.0.0/16`."""
    translates: tuple[PortRule, ...] = ()

    def covers(self, family: Family) -> bool:
        return self.family in {"inet", "ip" if family == 4 else "ip6"}


class HostLink(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    mtu: int
    ours: bool = False
    ports: int = 0
    """Of a bridge."""
    is_deaf: bool = False
    """A bridge whose FDB does not have its own MAC: nothing goes up to the host."""
    mac: str = ""


class HostRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A unicast route of somebody else's, of any table but the local one."""

    dst: str
    link: str
    gateway: str = ""
    metric: int = 0
    table: int = 254
    mtu: int = 0
    """0: the link's."""

    @property
    def is_default(self) -> bool:
        return self.dst in {"0.0.0.0/0", "::/0"}

    def __str__(self) -> str:
        return (
            f"{self.dst} via {self.gateway} dev {self.link}"
            if self.gateway
            else f"{self.dst} dev {self.link}"
        )


class NeighbourTable(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's one neighbour table of a family, of which all namespaces have a part."""

    family: Family
    entries: int
    limit: int
    """gc_thresh3: permanent entries do not count towards it."""
    overflows: int = 0
    """How often since boot there was no room."""


class Occupancy(msgspec.Struct, frozen=True):
    entries: int
    limit: int


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """A nameserver of the host's."""

    address: str
    problem: str = ""
    """Empty: it answers."""


class ConfigFile(msgspec.Struct, frozen=True):
    path: str
    text: str


class Managers(msgspec.Struct, frozen=True, kw_only=True):
    """Who else looks after firewall and links on this host, by what they leave in files."""

    firewalls: tuple[str, ...] = ()
    """`firewalld`, `ufw`, …: those that are in force."""
    flushes: tuple[str, ...] = ()
    """Files by which a service loads rules at boot and reload, and which begin by deleting everybody's."""
    networkd: tuple[ConfigFile, ...] = ()
    """`.network` files, in the order in which systemd-networkd tries them; none if it does not run."""
    network_manager: tuple[ConfigFile, ...] | None = None
    """Its configuration; None: it does not run."""


class HostEvidence(msgspec.Struct, frozen=True, kw_only=True):
    links: tuple[HostLink, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    sysctls: dict[str, str] = {}
    tables: tuple[ForeignTable, ...] = ()
    legacy_tables: tuple[str, ...] = ()
    """Tables of the old iptables, whose rules netlink does not show: `ip filter`."""
    listeners: tuple[Listener, ...] = ()
    neighbours: tuple[NeighbourTable, ...] = ()
    conntrack: Occupancy | None = None
    backends: tuple[str, ...] = ()
    """Where tracked UDP flows lead whose destination was translated, one a flow."""
    reverse_path_drops: int = 0
    """By rp_filter, on all links (TcpExtIPReversePathFilter)."""
    upstreams: tuple[Upstream, ...] = ()
    managers: Managers = Managers()


class SandboxLink(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    mtu: int


class SandboxEvidence(msgspec.Struct, frozen=True, kw_only=True):
    links: tuple[SandboxLink, ...] = ()
    defaults: tuple[HostRoute, ...] = ()
    """Default routes of the main table."""
    listeners: tuple[Listener, ...] = ()
    tables: tuple[ForeignTable, ...] = ()
    strict: tuple[str, ...] = ()
    """Links whose rp_filter is strict."""
    reverse_path_drops: int = 0
    nameservers: tuple[str, ...] | None = None
    """Of the resolv.conf that a process in it sees; None: there is no process, or its file cannot be read."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    host: HostEvidence = HostEvidence()
    sandboxes: dict[str, SandboxEvidence] = {}
    """By id."""
    unseen: dict[str, str] = {}
    """What could not be looked at → why. Keys are a piece of the host (`PIECES`) or a sandbox's id."""


PIECES = (
    "links",
    "routes",
    "sysctls",
    "nftables",
    "sockets",
    "neighbours",
    "conntrack",
    "flows",
    "nameservers",
    "files",
)
"""Of the host: each is read by itself, and one that fails does not keep the others from being read."""
