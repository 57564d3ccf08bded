"""rtnetlink's objects and sysctls as records.

A record holds what sealane sets and checks, no more: a field that the kernel fills in by itself (an ifindex, a
carrier, a counter) has no place here, or nothing would ever compare equal. `key` is the identity under which the
kernel allows one object; two records with one key are the same object in two states.

Names and addresses are canonical text (`sealane.model.net`); links are known by name, never by ifindex, since an
index says nothing after a reboot.
"""

from typing import Literal, get_args

import msgspec

from sealane.kernel.links import LinkKind, Veth

Key = tuple[object, ...]

RTPROT_SEALANE = 94
"""Our mark on routes. Free in iproute2's rt_protos and the kernel's rtnetlink.h."""

GROUP_LIVE = 0x5EA1
"""Link group of every link of ours (`ip link show group 24225`)."""

GROUP_DOOMED = 0x5EA0
"""Links on their way out: deleted together, by one request, since each deletion alone waits for an RCU grace period."""


NETWORK_GROUPS = 0x4000_0000
"""Link groups from here to 0x7fffffff are networks': rules find a packet's network by the group of the link that it
came in by, one element a network instead of one a link."""


def is_network_group(group: int) -> bool:
    return group & ~0x3FFF_FFFF == NETWORK_GROUPS


class BridgePort(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge does at one of its ports (IFLA_BRPORT_*)."""

    isolated: bool = False
    """Not forwarded to other isolated ports."""
    learning: bool = False
    """Off: the FDB holds what we put there, so no frame can steal a MAC."""
    flood: bool = False
    """Unknown unicast goes out here. Off: nobody sees frames for others."""
    guard: bool = True
    """BPDUs that arrive here are dropped."""
    hairpin: bool = False
    """Frames may leave by the port they came in by. Needed for a workload's own published port where br_netfilter is
    on: it turns the translated packet back into a frame of the bridge."""
    broadcast: bool = True
    """Broadcast and multicast go out here: without them nobody is found by ARP or neighbour discovery."""
    forwarding: bool | None = True
    """Of a link that carries: false where somebody has switched the port off (`bridge link set … state`). None: on a bridge
    of somebody else's, who may have a spanning tree do so."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel interface of ours (and `loopback`, of which only `up` is ours)."""

    name: str
    kind: LinkKind
    up: bool = True
    mtu: int = 0
    """Bytes; 0 on loopback, which is left alone."""
    mac: str = ""
    alias: str = ""
    """IFLA_IFALIAS: whose it is, see `reconcile.ownership`."""
    master: str = ""
    """Name of the bridge that it is a port of."""
    port: BridgePort | None = None
    addr_gen_none: bool = False
    """IFLA_INET6_ADDR_GEN_MODE none: no link-local address comes up by itself."""
    arp: bool = True
    """Without IFF_NOARP."""
    group: int = GROUP_LIVE
    """Of a network (`compile.names.network_group`) for the links that IP packets of its workloads come in by."""

    @property
    def key(self) -> Key:
        return ("link", self.name)

    @property
    def has_ports(self) -> bool:
        return self.kind.has_ports

    @property
    def peer(self) -> tuple[str, str] | None:
        """(namespace, name) of the other end, of a veth that has one of ours."""
        return self.kind.peer if isinstance(self.kind, Veth) else None


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address on a link, `10.1.0.1/24`. IPv6 ones are added without duplicate address detection (IFA_F_NODAD)."""

    link: str
    address: str

    @property
    def key(self) -> Key:
        return ("address", self.link, self.address)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route of ours (protocol 94)."""

    dst: str
    """A prefix; a default route is `0.0.0.0/0` or `::/0`."""
    link: str = ""
    """Empty for `unreachable`."""
    gateway: str = ""
    type: Literal["unicast", "unreachable"] = "unicast"
    src: str = ""
    """Preferred source address (RTA_PREFSRC)."""
    metric: int = 0
    onlink: bool = False
    table: int = 254

    @property
    def key(self) -> Key:
        return ("route", self.table, self.dst, self.metric, self.link)


class RoutingRule(msgspec.Struct, frozen=True, kw_only=True):
    """`from SOURCE lookup TABLE`, of protocol 94: packets from one address of a sandbox have a routing table of their
    own."""

    source: str
    table: int
    priority: int = 24225
    """Before the main table's, 32766."""

    @property
    def key(self) -> Key:
        return ("rule", self.priority, self.source, self.table)


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A permanent IP → MAC entry; with `mac` empty, a proxy entry: the host answers ARP or ND for it on `link`."""

    link: str
    address: str
    mac: str = ""

    @property
    def key(self) -> Key:
        return ("neighbour", self.link, self.address, not self.mac)


class FdbEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A static MAC → port entry of the bridge whose port `link` is (`bridge fdb add MAC dev LINK master static`)."""

    link: str
    mac: str
    is_own: bool = False
    """`link` is the bridge itself, and frames to the MAC go up to the host (`bridge fdb add MAC dev LINK self permanent`).
    The kernel makes one with the bridge, and not again (br_fdb_change_mac_address)."""

    @property
    def key(self) -> Key:
        return ("fdb", self.link, self.mac)


class Qdisc(msgspec.Struct, frozen=True, kw_only=True):
    """A token bucket (tbf) at the root of a link, under our handle: what the link sends is held to a rate."""

    link: str
    rate: int
    """Bytes per second."""
    burst: int
    """Bytes that may go at once, after a pause."""
    limit: int
    """Bytes that may wait; more is dropped."""

    @property
    def key(self) -> Key:
        return ("qdisc", self.link)


FastDriver = Literal["bridge", "routed"]
"""Kinds of network within which packets may take the fast path (`linux/bpf/fast_path_program.py`)."""
FAST_DRIVERS: tuple[FastDriver, ...] = get_args(FastDriver)


class FastPort(msgspec.Struct, frozen=True, kw_only=True):
    """The fast path's program at the entrance of a link: a tc filter, after whatever filters others have put there."""

    link: str
    driver: FastDriver | Literal[""]
    """Which of the programs; observed ones that are none of these are empty."""

    @property
    def key(self) -> Key:
        return ("fast-port", self.link)


class FastTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What the fast path knows of an address: who may send under it, and where packets for it go."""

    address: str
    network: int
    """Its link group (`compile.names.network_group`): both ends of a packet must be of one."""
    link: str
    """The host's end. Empty: of observed ones, a link that is gone."""
    mac: str
    host_mac: str = ""
    """Of the host's end, for routed networks: packets for others come to it, and packets from others from it."""
    mtu: int
    """Bytes."""
    delivers: bool = True
    """False: packets for it go the long way, where a rate is kept."""

    @property
    def key(self) -> Key:
        return ("fast-target", self.address)


class FastGate(msgspec.Struct, frozen=True, kw_only=True):
    """The fast path is open to packets of one family within networks of one driver."""

    driver: FastDriver
    family: Literal[4, 6]

    @property
    def key(self) -> Key:
        return ("fast-gate", self.driver, self.family)


class Sysctl(msgspec.Struct, frozen=True, kw_only=True):
    """A value under /proc/sys, as its namespace sees it: path `net/ipv4/conf/sle0/forwarding`."""

    path: str
    value: str
    borrowed: bool = False
    """The host's own, not of a link of ours: what it was is remembered, and comes back when nothing desires this."""

    @property
    def key(self) -> Key:
        return ("sysctl", self.path)


PassageFamily = Literal["ip", "ip6"]
PASSAGE_FAMILIES: tuple[PassageFamily, ...] = ("ip", "ip6")


class ForwardRule(msgspec.Struct, frozen=True, kw_only=True):
    """Two accepts at the end of iptables' FORWARD, for what comes in and what goes out by `link`: where that chain
    drops what it has no rule for (`linux/forward_rules.py`)."""

    family: PassageFamily
    link: str
    """A link's name, or with a `*` at its end the beginning of names."""
    is_whole: bool = True
    """Of observed ones: both rules are there, once, and no rule of others behind them."""

    @property
    def key(self) -> Key:
        return ("forward-rule", self.family, self.link)


class LoopbackPort(msgspec.Struct, frozen=True, kw_only=True):
    """A publish on the host's own 127.0.0.0/8 (family 4) or ::1 (family 6), held by the socket program."""

    family: Literal[4, 6]
    proto: Literal["tcp", "udp", "sctp"]
    first: int
    last: int
    address: str
    port: int
    """Backend port for `first`; the others follow in step."""
    reserved: str = ""
    """The address at which an engine's own process listens on these ports, only so that no other program takes them
    (0.0.0.0 or :: for every one): that listener keeps no clients. Empty: none does."""

    @property
    def key(self) -> Key:
        return ("loopback", self.family, self.proto, self.first, self.last)
