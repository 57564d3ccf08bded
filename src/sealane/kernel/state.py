"""The state of a host: for each namespace, every object under its key."""

from collections.abc import Iterable, Mapping

from sealane.kernel.nft import Chain, Element, ObservedChain, Set, Table
from sealane.kernel.objects import (
    Address,
    FastGate,
    FastPort,
    FastTarget,
    FdbEntry,
    ForwardRule,
    Key,
    Link,
    LoopbackPort,
    Neighbour,
    Qdisc,
    Route,
    RoutingRule,
    Sysctl,
)

Object = (
    Link
    | Address
    | Route
    | RoutingRule
    | Neighbour
    | FdbEntry
    | Qdisc
    | FastPort
    | FastTarget
    | FastGate
    | Sysctl
    | LoopbackPort
    | ForwardRule
    | Table
    | Chain
    | ObservedChain
    | Set
    | Element
)

_ON_LINKS = (Address, Neighbour, FdbEntry, Route, Qdisc, FastPort)

HOST = "host"
"""Key of the host's own namespace; every other key is a sandbox's id."""

NamespaceState = Mapping[Key, Object]
HostState = Mapping[str, NamespaceState]


def namespace(objects: Iterable[Object]) -> dict[Key, Object]:
    """Objects under their keys. Two objects with one key are a compiler's bug, found here."""
    state: dict[Key, Object] = {}
    for item in objects:
        if state.setdefault(item.key, item) != item:
            raise ValueError(f"two objects with the key {item.key}: {state[item.key]} and {item}")
    return state


def hangs_on(item: Object) -> str:
    """The link that an object belongs to and goes with, by name; empty if there is none."""
    if isinstance(item, _ON_LINKS):
        return item.link
    if isinstance(item, Sysctl):
        # net/ipv4/conf/LINK/rp_filter, net/ipv6/neigh/LINK/retrans_time_ms
        parts = item.path.split("/")
        return parts[3] if len(parts) > 4 and parts[2] in {"conf", "neigh"} else ""
    return ""
