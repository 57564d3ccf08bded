"""A lab's records to its plan: nodes with addresses, and the command lines of their programs. Pure.

A *node* is a host or a member of etcd: namespaces with one uplink. The uplink is a veth: `eth0` in the node, and a port
with the node's name in the underlay's namespace.

    segment   the ports are on one bridge: one subnet for all
    routed    the ports are a router's: one subnet per node
"""

import ipaddress
from typing import Literal

import msgspec

from sealane.lab.spec import LabSpec, Underlay, UnderlayKind, Uplink

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NodeKind = Literal["host", "etcd"]

UNDERLAY = "underlay"
"""Name of the namespace between the nodes, and of its bridge."""
UPLINK = "eth0"
ETCD_PORT, ETCD_PEER_PORT = 2379, 2380
ALL_ETCD, ALL_HOSTS = "etcd", "hosts"
"""Words for all nodes of a kind, in a link."""

SOCKET = "/run/sealane/sealane.sock"
NODE_DIR = "/run/lab"
"""The node's own directory of the lab's state, as the node sees it."""
ETCD_DATA = "/run/etcd"
"""On the member's tmpfs: etcd lays out a log of 64 MB, and waits for each fsync."""

_DEFAULTS: dict[tuple[UnderlayKind, int], str] = {
    ("segment", 4): "192.0.2.0/24",
    ("segment", 6): "2001:db8:1::/64",
    ("routed", 4): "198.18.0.0/16",
    ("routed", 6): "2001:db8:2::/48",
}
_NODE_LENGTH = {4: 24, 6: 64}
"""Prefix length of a node's own subnet (routed), and the longest that a segment may have."""
_FIRST_HOST, _FIRST_MEMBER, _GATEWAY, _ROUTED_NODE = 11, 201, 1, 2


class PlanError(ValueError):
    """The lab cannot be laid out as written."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Address(msgspec.Struct, frozen=True):
    address: str
    length: int
    gateway: str

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: NodeKind
    number: int
    """From 1, over all nodes of the lab."""
    mac: str
    ipv4: Address
    ipv6: Address
    uplink: Uplink
    arguments: tuple[str, ...]
    """Of its program, without the program's own name."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    underlay: UnderlayKind
    nodes: tuple[Node, ...]
    """Members of etcd first: they are started first."""

    def node(self, name: str) -> Node:
        """Raises PlanError."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise PlanError(f"lab {self.name} has no host or etcd member {name!r}", f"use one of: {names}")


Link = tuple[str, str]
"""Two nodes, in the order of their names; one node twice: its uplink."""


def plan_lab(spec: LabSpec, name: str) -> Plan:
    """`spec` is one that the reader has accepted. Raises PlanError."""
    members = [f"etcd{number + 1}" for number in range(spec.etcd.members)]
    count = len(spec.hosts) + len(members)
    subnets4 = host_subnets(spec.underlay.kind, default_prefix(spec.underlay, 4), count)
    subnets6 = host_subnets(spec.underlay.kind, default_prefix(spec.underlay, 6), count)
    placed: list[tuple[Address, Address]] = []
    for index in range(count):
        number = _number(spec.underlay.kind, index, len(members))
        placed.append((_address(subnets4[index], number), _address(subnets6[index], number)))
    cluster = [(member, placed[index][0].address) for index, member in enumerate(members)]
    endpoints = ",".join(f"{address}:{ETCD_PORT}" for _, address in cluster)
    nodes = [
        Node(
            name=member, kind="etcd", number=index + 1, mac=_mac(index + 1), uplink=_member_uplink(spec),
            ipv4=placed[index][0], ipv6=placed[index][1],
            arguments=(*_etcd_arguments(name, member, cluster), *spec.etcd.arguments),
        )
        for index, member in enumerate(members)
    ]  # fmt: skip
    for index, host in enumerate(spec.hosts, start=len(members)):
        ipv4, ipv6 = placed[index]
        words = {"etcd": endpoints, "host": host.name, "ipv4": ipv4.address, "ipv6": ipv6.address}
        extra = tuple(_filled(text, words) for text in host.daemon_arguments)
        node = Node(
            name=host.name, kind="host", number=index + 1, mac=_mac(index + 1), uplink=host.uplink,
            ipv4=ipv4, ipv6=ipv6, arguments=(*_daemon_arguments(), *extra),
        )  # fmt: skip
        nodes.append(node)
    return Plan(name=name, underlay=spec.underlay.kind, nodes=tuple(nodes))


def default_prefix(underlay: Underlay, version: int) -> Network:
    given = underlay.ipv4 if version == 4 else underlay.ipv6
    return ipaddress.ip_network(given or _DEFAULTS[underlay.kind, version])


def host_subnets(kind: UnderlayKind, prefix: Network, count: int) -> list[Network]:
    """The subnet of each node; on a segment it is the same for all. Raises PlanError if there is no room."""
    length = _NODE_LENGTH[prefix.version]
    if kind == "segment":
        longest = length if prefix.version == 4 else 112
        if prefix.prefixlen > longest:
            raise PlanError(f"{prefix} is too small for a segment", f"write one of /{longest} or shorter")
        return [prefix] * count
    room = 1 << max(0, length - prefix.prefixlen)
    if prefix.prefixlen > length or room <= count:
        needed = length - count.bit_length()
        raise PlanError(
            f"{prefix} has no room for {count} subnets of /{length}", f"write one of /{needed} or shorter"
        )
    step = 1 << (prefix.max_prefixlen - length)
    first = int(prefix.network_address)
    # The first one stays free: its addresses look like the prefix itself.
    return [_network(prefix.version, first + step * (index + 1), length) for index in range(count)]


def parse_link(plan: Plan, text: str) -> tuple[Link, ...]:
    """`h1`: its uplink. `h1:h2`: between the two. `h1:etcd`, `h1:hosts`: between it and each of these.

    Raises PlanError.
    """
    left, colon, right = text.partition(":")
    if not colon:
        return tuple((node, node) for node in _nodes(plan, left))
    pairs = {
        (min(one, other), max(one, other))
        for one in _nodes(plan, left)
        for other in _nodes(plan, right)
        if one != other
    }
    if not pairs:
        raise PlanError(f"{text!r} is not a link", "write two different nodes, as h1:h2")
    return tuple(sorted(pairs))


def show_link(link: Link) -> str:
    one, other = link
    return one if one == other else f"{one}:{other}"


def _nodes(plan: Plan, word: str) -> list[str]:
    kinds = {ALL_ETCD: "etcd", ALL_HOSTS: "host"}
    if word not in kinds:
        return [plan.node(word).name]
    names = [node.name for node in plan.nodes if node.kind == kinds[word]]
    if not names:
        raise PlanError(f"lab {plan.name} has no {word}", "`sealane lab status` lists its nodes")
    return names


def _number(kind: UnderlayKind, index: int, members: int) -> int:
    """The last part of a node's addresses."""
    if kind == "routed":
        return _ROUTED_NODE
    return _FIRST_MEMBER + index if index < members else _FIRST_HOST + index - members


def _address(subnet: Network, number: int) -> Address:
    """IPv6 has the same digits as IPv4: 192.0.2.11 and 2001:db8:1::11."""
    base = int(subnet.network_address)
    value = number if subnet.version == 4 else int(str(number), 16)
    make = ipaddress.IPv4Address if subnet.version == 4 else ipaddress.IPv6Address
    return Address(str(make(base + value)), subnet.prefixlen, str(make(base + _GATEWAY)))


def _network(version: int, base: int, length: int) -> Network:
    return ipaddress.IPv4Network((base, length)) if version == 4 else ipaddress.IPv6Network((base, length))


def _mac(number: int) -> str:
    return f"02:1a:b0:00:00:{number:02x}"


def _member_uplink(spec: LabSpec) -> Uplink:
    """A member's uplink has no fault of its own, and is as wide as the widest of the hosts'."""
    return Uplink(mtu=max((host.uplink.mtu for host in spec.hosts), default=Uplink().mtu))


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text


def _daemon_arguments() -> tuple[str, ...]:
    return (
        "daemon", "--state", f"{NODE_DIR}/state", "--run-dir", "/run/sealane", "--socket", SOCKET,
    )  # fmt: skip


def _etcd_arguments(lab: str, member: str, cluster: list[tuple[str, str]]) -> tuple[str, ...]:
    address = dict(cluster)[member]
    peers = ",".join(f"{name}=http://{at}:{ETCD_PEER_PORT}" for name, at in cluster)
    return (
        "--name", member,
        "--data-dir", ETCD_DATA,
        "--listen-client-urls", f"http://[::]:{ETCD_PORT}",
        "--advertise-client-urls", f"http://{address}:{ETCD_PORT}",
        "--listen-peer-urls", f"http://{address}:{ETCD_PEER_PORT}",
        "--initial-advertise-peer-urls", f"http://{address}:{ETCD_PEER_PORT}",
        "--initial-cluster", peers,
        "--initial-cluster-state", "new",
        "--initial-cluster-token", lab,
    )  # fmt: skip
