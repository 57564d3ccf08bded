"""States of namespaces as a packet meets them: looked up by key, and by the few indexes that a packet needs.

A namespace's own state says what sealane put there. What the kernel adds by itself is derived here: the local table
and the connected routes of addresses, and link-local addresses. What is foreign on the host comes from `Surroundings`.

An index is made when it is first asked for, in one pass over a namespace's objects; a packet visits few namespaces.
A world is a snapshot: after a change of state make another.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sealane.compile.endpoint import link_local
from sealane.compile.host import Unit
from sealane.explain.headers import pack_address
from sealane.explain.sets import IntervalIndex
from sealane.explain.surroundings import ForeignLink, Surroundings
from sealane.kernel.nft import Chain, Element, NftFamily, Set
from sealane.kernel.objects import (
    Address,
    FdbEntry,
    Key,
    Link,
    LoopbackPort,
    Neighbour,
    Route,
    RoutingRule,
    Sysctl,
)
from sealane.kernel.state import HOST, HostState, NamespaceState
from sealane.model.net import Family, address_part, family_of, prefix_length

AnyLink = Link | ForeignLink

MAIN_TABLE = 254
_NOTHING = Surroundings()


class IncompleteStateError(Exception):
    """The state refers to what is not in it: nothing can be concluded."""


class Found(NamedTuple):
    """What the routing tables say of a destination."""

    kind: str
    """`local`, `unicast`, `unreachable`, or `none`."""
    link: str = ""
    gateway: str = ""
    source: str = ""
    """Preferred source address."""
    text: str = ""
    key: Key | None = None


class World:
    """All namespaces of a host. `origins` and `title` name the intent behind objects, if they are known."""

    def __init__(
        self,
        states: HostState,
        surroundings: Surroundings = _NOTHING,
        *,
        origins: Mapping[tuple[str, Key], Unit] | None = None,
        title: Callable[[Unit], str] = lambda unit: " ".join(unit).strip(),
    ) -> None:
        self.states = states
        self.surroundings = surroundings
        self.origins = origins or {}
        self.title = title
        self._namespaces: dict[str, Namespace] = {}

    def namespace(self, netns: str) -> "Namespace":
        found = self._namespaces.get(netns)
        if found is None:
            foreign = self.surroundings if netns == HOST else _NOTHING
            name = HOST if netns == HOST else self.title(("sandbox", netns)).removeprefix("sandbox ")
            found = self._namespaces[netns] = Namespace(netns, name, self.states.get(netns, {}), foreign)
        return found

    def origin(self, netns: str, key: Key | None) -> Unit | None:
        return None if key is None else self.origins.get((netns, key))

    def peer(self, where: "Namespace", link: AnyLink) -> "tuple[Namespace, Link] | None":
        """The other end of a veth, if it is there."""
        at = getattr(link, "peer", None)
        if at is None and where.netns != HOST:
            # Half-made: the sandbox side knows its peer only once it has been opened.
            at = self.namespace(HOST).peer_of(where.netns, link.name)
        if at is None:
            return None
        other = self.namespace(at[0])
        found = other.state.get(("link", at[1]))
        return (other, found) if isinstance(found, Link) else None


class Namespace:
    def __init__(self, netns: str, name: str, state: NamespaceState, foreign: Surroundings) -> None:
        self.netns, self.name, self.state = netns, name, state
        self._foreign = foreign
        self._foreign_links = {link.name: link for link in foreign.links}
        self._sysctls = {item.path: item.value for item in foreign.sysctls}
        self._base_chains: list[Chain] = []
        self._tracking: set[NftFamily] = set()
        self._local: dict[str, Address] = {}
        self._addresses: dict[str, list[str]] = {}
        self._tables: dict[tuple[Family, int], dict[int, dict[str, list[Route]]]] = {}
        """(family, table) → prefix length → prefix → routes."""
        self._rules: list[RoutingRule] = []
        self._connected: dict[Key, Key] = {}
        """Routes that came with an address → the address."""
        self._fdb: dict[str, list[str]] = {}
        self._intervals: dict[tuple[str, str], list[Element]] = {}
        self._indexes: dict[tuple[str, str], IntervalIndex] = {}
        self._loopback: dict[tuple[int, str], list[LoopbackPort]] = {}
        self._ports: dict[str, list[Link]] | None = None
        self._peers: dict[tuple[str, str], tuple[str, str]] | None = None
        self._read()

    def _read(self) -> None:
        for key, item in self.state.items():
            kind = key[0]
            if kind == "nft-element":
                if key[4]:
                    assert isinstance(item, Element)
                    self._intervals.setdefault((item.family, item.set), []).append(item)
            elif kind == "fdb":
                assert isinstance(item, FdbEntry)
                self._fdb.setdefault(item.mac, []).append(item.link)
            elif kind == "route":
                assert isinstance(item, Route)
                self._add_route(item)
            elif kind == "address":
                assert isinstance(item, Address)
                self._add_address(item)
            elif isinstance(item, Chain):
                self._tracking.add(item.family)
                if item.hook is not None:
                    self._base_chains.append(item)
            elif isinstance(item, RoutingRule):
                self._rules.append(item)
            elif isinstance(item, LoopbackPort):
                self._loopback.setdefault((item.family, item.proto), []).append(item)
            elif isinstance(item, Link) and not item.addr_gen_none and not item.master and item.mac:
                self._add_address(Address(link=item.name, address=f"{link_local(item.mac)}/64"))
        for address in self._foreign.addresses:
            self._add_address(address)
        for route in self._foreign.routes:
            self._add_route(route)

    def _add_address(self, item: Address) -> None:
        address = address_part(item.address)
        self._local[address] = item
        self._addresses.setdefault(item.link, []).append(item.address)
        if not address.startswith("fe80:"):
            length = prefix_length(item.address)
            route = Route(dst=_masked(address, length), link=item.link, src=address)
            self._connected[route.key] = item.key
            self._add_route(route)

    def _add_route(self, route: Route) -> None:
        by_length = self._tables.setdefault((family_of(route.dst), route.table), {})
        by_length.setdefault(prefix_length(route.dst), {}).setdefault(route.dst, []).append(route)

    # --- links ------------------------------------------------------------------------------------------------------

    def link(self, name: str) -> AnyLink | None:
        found = self.state.get(("link", name))
        return found if isinstance(found, Link) else self._foreign_links.get(name)

    def is_up(self, name: str) -> bool:
        found = self.link(name)
        return found is not None and found.up

    def group(self, name: str) -> int:
        """Link group; foreign links and `lo` are in the default one, 0."""
        found = self.state.get(("link", name))
        return found.group if isinstance(found, Link) and found.kind != "loopback" else 0

    def is_foreign(self, link: AnyLink) -> bool:
        """Whether what leaves by it is out of our sight."""
        return isinstance(link, ForeignLink) and link.kind != "bridge"

    def ports(self, bridge: str) -> list[Link]:
        """In a bridge's order of adding, which a state does not know: by name."""
        if self._ports is None:
            self._ports = {}
            for item in self._links():
                if item.master:
                    self._ports.setdefault(item.master, []).append(item)
        return self._ports.get(bridge, [])

    def peer_of(self, netns: str, name: str) -> tuple[str, str] | None:
        """(namespace, name) of our end of a veth whose other end is that one."""
        if self._peers is None:
            self._peers = {item.peer: (self.netns, item.name) for item in self._links() if item.peer}
        return self._peers.get((netns, name))

    def _links(self) -> Iterator[Link]:
        return (item for item in self.state.values() if isinstance(item, Link))

    def fdb_port(self, bridge: str, mac: str) -> Link | None:
        """The port of a bridge behind which a MAC is."""
        for name in self._fdb.get(mac, ()):
            port = self.link(name)
            if isinstance(port, Link) and port.master == bridge:
                return port
        return None

    def neighbour(self, link: str, address: str, *, proxy: bool = False) -> Neighbour | None:
        found = self.state.get(("neighbour", link, address, proxy))
        return found if isinstance(found, Neighbour) else None

    # --- addresses and routes ---------------------------------------------------------------------------------------

    def is_local(self, address: str) -> bool:
        """Whether the local table has it (`fib daddr type local`)."""
        if is_loopback(address):
            return self.is_up("lo") or self.netns == HOST
        owner = self._local.get(address)
        return owner is not None and self.link(owner.link) is not None and self._is_assigned(owner)

    def _is_assigned(self, owner: Address) -> bool:
        # Linux keeps IPv4 addresses of links that are down in the local table; IPv6 ones leave it (addrconf_ifdown).
        return ":" not in owner.address or self.is_up(owner.link)

    def owner(self, address: str) -> Address | None:
        return self._local.get(address)

    def addresses(self, link: str, family: Family) -> list[str]:
        """With their lengths, link-local ones last."""
        found = [a for a in self._addresses.get(link, ()) if family_of(a) == family]
        return sorted(found, key=lambda a: a.startswith("fe80:"))

    def source_on(self, link: str, family: Family, towards: str) -> str:
        """The address that the kernel would send under by a link: one whose subnet has the next hop, else the link's
        first, else another link's. Empty if there is none. `towards` empty: it is not known where to."""
        found = self._global_addresses(link, family)
        if found:
            return address_part(next((a for a in found if _subnet_has(a, towards)), found[0]))
        others = [
            address_part(a)
            for name in self._addresses
            if self.is_up(name)
            for a in self._global_addresses(name, family)
        ]
        if family == 4 or not towards:
            # inet_select_addr: links in the order of their making; foreign ones were there first.
            return next((a for a in others if self._is_foreign_address(a)), others[0] if others else "")
        # ipv6_dev_get_saddr, rules 6 and 8: a like label (private or not), then the longest common prefix.
        return max(
            others,
            key=lambda a: (is_unique_local(a) == is_unique_local(towards), _common_bits(a, towards)),
            default="",
        )

    def _global_addresses(self, link: str, family: Family) -> list[str]:
        return [a for a in self.addresses(link, family) if not a.startswith("fe80:")]

    def _is_foreign_address(self, address: str) -> bool:
        return isinstance(self.link(self._local[address].link), ForeignLink)

    def source_for(self, found: Found, destination: str) -> str:
        """Source address of a packet that a local process sends without one; empty if there is none."""
        if found.kind == "local":
            return destination
        return found.source or self.source_on(
            found.link, family_of(destination), found.gateway or destination
        )

    def route(self, destination: str, source: str = "") -> Found:
        """The local table; then the ones that rules name for the source, by priority; then main. In a table the longest
        prefix, and of its routes by links that are up the one with the lowest metric."""
        if self.is_local(destination):
            owner = self._local.get(destination)
            link = owner.link if owner else "lo"
            return Found(
                "local", link, text=f"local {destination} dev {link}", key=owner.key if owner else None
            )
        rules = [rule for rule in self._rules if rule.source == source]
        for rule in sorted(rules, key=lambda rule: rule.priority):
            found = self._lookup(destination, rule.table)
            if found is not None:
                return found._replace(text=f"{found.text} (from {source}: table {rule.table})")
        return self._lookup(destination, MAIN_TABLE) or Found("none")

    def _lookup(self, destination: str, table: int) -> Found | None:
        by_length = self._tables.get((family_of(destination), table), {})
        for length in sorted(by_length, reverse=True):
            usable = [
                r for r in by_length[length].get(_masked(destination, length), ()) if self._is_usable(r)
            ]
            if usable:
                return self._found(min(usable, key=lambda route: route.metric))
        return None

    def _found(self, route: Route) -> Found:
        if route.type == "unreachable":
            return Found("unreachable", text=f"unreachable {route.dst}", key=route.key)
        via = f" via {route.gateway}" if route.gateway else ""
        text = f"{_shown(route.dst)}{via} dev {route.link}"
        key = self._connected.get(route.key, route.key)
        return Found("unicast", route.link, route.gateway, route.src, text, key)

    def _is_usable(self, route: Route) -> bool:
        return route.type == "unreachable" or self.is_up(route.link)

    def sysctl(self, path: str, default: str = "0") -> str:
        found = self.state.get(("sysctl", path))
        return found.value if isinstance(found, Sysctl) else self._sysctls.get(path, default)

    def forwards(self, family: Family) -> bool:
        path = "net/ipv4/ip_forward" if family == 4 else "net/ipv6/conf/all/forwarding"
        return self.sysctl(path) == "1"

    # --- rules ------------------------------------------------------------------------------------------------------

    def base_chains(self, family: NftFamily, hook: str) -> list[Chain]:
        return sorted(
            (c for c in self._base_chains if c.family == family and c.hook and c.hook.hook == hook),
            key=lambda chain: chain.hook.priority if chain.hook else 0,
        )

    def tracks(self, family: NftFamily) -> bool:
        """Whether connection tracking is on: chains that translate, or ask for it, switch it on."""
        return family in self._tracking

    def element(self, family: NftFamily, name: str, value: bytes) -> Element | None:
        found = self.state.get(("nft-element", family, name, value, b""))
        if isinstance(found, Element):
            return found
        elements = self._intervals.get((family, name))
        if elements is None:
            return None
        index = self._indexes.get((family, name))
        if index is None:
            owner = self.state.get(("nft-set", family, name))
            if not isinstance(owner, Set):
                raise IncompleteStateError(f"{self.name}: elements of {family} {name}, and no such set")
            index = self._indexes[family, name] = IntervalIndex(owner, elements)
        return index.find(value)

    def loopback_ports(self, family: int, proto: str) -> list[LoopbackPort]:
        return self._loopback.get((family, proto), [])


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def is_unique_local(address: str) -> bool:
    """RFC 4193."""
    return address.startswith(("fc", "fd"))


def _common_bits(one: str, other: str) -> int:
    first, second = (int.from_bytes(pack_address(a), "big") for a in (one, other))
    return 128 - (first ^ second).bit_length()


def _shown(prefix: str) -> str:
    return "default" if prefix in {"0.0.0.0/0", "::/0"} else prefix


def _masked(address: str, length: int) -> str:
    """The prefix of that length that has the address, in canonical text."""
    packed = pack_address(address)
    bits = len(packed) * 8
    value = int.from_bytes(packed, "big") >> bits - length << bits - length
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return f"{socket.inet_ntop(family, value.to_bytes(len(packed), 'big'))}/{length}"


def _subnet_has(interface: str, address: str) -> bool:
    """`address` may be empty: then nothing is known of where it goes."""
    length = prefix_length(interface)
    return bool(address) and _masked(address_part(interface), length) == _masked(address, length)
