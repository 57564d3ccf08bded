"""States of namespaces as a packet meets them: looked up by key, and by the few indexes that a packet needs.

A namespace's own state says what sealane put there. What the kernel adds by itself is derived: the local table and the
connected routes of addresses (`routing`), and link-local addresses. What is foreign on the host comes from
`ForeignState`.

An index is made when it is first asked for; a packet visits few namespaces. A world is a snapshot: after a change of
state make another.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TypeVar

from sealane.compile.endpoint import link_local
from sealane.compile.reads import Unit
from sealane.compile.relay import Relays
from sealane.explain.foreign.rules import ForeignRules
from sealane.explain.foreign_state import ForeignLink, ForeignState
from sealane.explain.routing import Found, Routing
from sealane.explain.sets import IntervalIndex
from sealane.kernel.links import word_of
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
from sealane.kernel.state import HOST, HostState, NamespaceState, Object
from sealane.model.intent import Intent
from sealane.model.net import Family

AnyLink = Link | ForeignLink

_NOTHING = ForeignState()
_NO_RULES: Mapping[str, ForeignRules] = {}
_NO_RELAYS = Relays(Intent())
_SCANNED = ("link", "address", "route", "rule", "fdb", "loopback", "nft-chain", "nft-element")
"""Kinds that are looked for otherwise than by key."""

_Kind = TypeVar("_Kind")


class IncompleteStateError(Exception):
    """The state refers to what is not in it: nothing can be concluded."""


class UnexplainedError(Exception):
    """A packet or a link of a kind that is not modelled."""


class World:
    """All namespaces of a host. `origins` and `title` name the intent behind objects, if they are known."""

    def __init__(
        self,
        states: HostState,
        foreign_state: ForeignState = _NOTHING,
        *,
        origins: Mapping[tuple[str, Key], Unit] | None = None,
        title: Callable[[Unit], str] = lambda unit: " ".join(unit).strip(),
        idle: Collection[str] = (),
        rules: Mapping[str, ForeignRules] = _NO_RULES,
        relays: Relays = _NO_RELAYS,
    ) -> None:
        """`idle`: sandboxes in which nothing runs. `rules`: of others, by namespace; the host's may be in `foreign_state`.
        `relays`: of the host's daemon."""
        self.rules = rules
        self.states = states
        self.foreign_state = foreign_state
        self.origins = origins or {}
        self.title = title
        self.idle = idle
        self.relays = relays
        self._namespaces: dict[str, Namespace] = {}

    def namespace(self, netns: str) -> "Namespace":
        found = self._namespaces.get(netns)
        if found is None:
            foreign = self.foreign_state if netns == HOST else _NOTHING
            name = HOST if netns == HOST else self.title(("sandbox", netns)).removeprefix("sandbox ")
            found = self._namespaces[netns] = Namespace(netns, name, self.states.get(netns, {}), foreign)
            found.rules = self.rules.get(netns, foreign.rules)
        return found

    def origin(self, netns: str, key: Key | None) -> Unit | None:
        return None if key is None else self.origins.get((netns, key))

    def peer(self, where: "Namespace", link: AnyLink) -> "tuple[Namespace, Link] | None":
        """The other end of a veth, if it is there. Raises UnexplainedError for links of other kinds: "it is down" would be
        a guess."""
        kind = word_of(link.kind) if isinstance(link, Link) else link.kind
        if kind != "veth":
            raise UnexplainedError(
                f"{where.name}: {link.name} is of kind {kind or 'unknown'}, which explain does not follow; "
                "use `sealane trace`"
            )
        at = getattr(link, "peer", None)
        if at is None and where.netns != HOST:
            # Half-made: the sandbox side knows its peer only once it has been opened.
            at = self.namespace(HOST).peer_of(where.netns, link.name)
        if at is None:
            return None
        other = self.namespace(at[0])
        found = other.state.get(("link", at[1]))
        return (other, found) if isinstance(found, Link) else None

    def may_have(self, link: Link, address: str) -> bool:
        """Whether the namespace behind our end of a veth may have an address: a look, without making its indexes."""
        if link.peer is None:
            return True
        start = f"{address}/"
        return any(
            key[0] == "address" and str(key[2]).startswith(start) for key in self.states.get(link.peer[0], {})
        )


class Namespace:
    def __init__(self, netns: str, name: str, state: NamespaceState, foreign: ForeignState) -> None:
        self.netns, self.name, self.state = netns, name, state
        self.rules = foreign.rules
        self._foreign = foreign
        self._foreign_links = {link.name: link for link in foreign.links}
        self._sysctls = {item.path: item.value for item in foreign.sysctls}
        self._indexes: dict[tuple[str, str], IntervalIndex | None] = {}

    @cached_property
    def _kinds(self) -> dict[str, list[Object]]:
        """The one pass over all objects."""
        found: dict[str, list[Object]] = {kind: [] for kind in _SCANNED}
        appends: dict[object, Callable[[Object], None]] = {
            kind: items.append for kind, items in found.items()
        }
        for key, item in self.state.items():
            append = appends.get(key[0])
            if append is not None:
                append(item)
        return found

    def _all(self, kind: type[_Kind], name: str) -> Iterator[_Kind]:
        return (item for item in self._kinds[name] if isinstance(item, kind))

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
        return found.group if isinstance(found, Link) and found.kind.is_sealanes else 0

    def is_foreign(self, link: AnyLink) -> bool:
        """Whether what leaves by it is out of our sight."""
        return isinstance(link, ForeignLink) and not link.has_ports

    def ports(self, bridge: str) -> list[Link]:
        return self._ports.get(bridge, [])

    @cached_property
    def _ports(self) -> dict[str, list[Link]]:
        found: dict[str, list[Link]] = {}
        for item in self._all(Link, "link"):
            if item.master:
                found.setdefault(item.master, []).append(item)
        return found

    def peer_of(self, netns: str, name: str) -> tuple[str, str] | None:
        """(namespace, name) of our end of a veth whose other end is that one."""
        return self._peers.get((netns, name))

    @cached_property
    def _peers(self) -> dict[tuple[str, str], tuple[str, str]]:
        return {item.peer: (self.netns, item.name) for item in self._all(Link, "link") if item.peer}

    def fdb_port(self, bridge: str, mac: str) -> Link | None:
        """The port of a bridge behind which a MAC is."""
        for name in self._fdb.get(mac, ()):
            port = self.link(name)
            if isinstance(port, Link) and port.master == bridge:
                return port
        return None

    def hears(self, bridge: AnyLink, mac: str) -> bool:
        """Whether frames to a MAC go up from a bridge. Of others' bridges nobody has looked: their own do."""
        if not isinstance(bridge, Link):
            return mac == bridge.mac
        found = self.state.get(("fdb", bridge.name, mac))
        return isinstance(found, FdbEntry) and found.is_own

    @cached_property
    def _fdb(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for item in self._all(FdbEntry, "fdb"):
            found.setdefault(item.mac, []).append(item.link)
        return found

    def neighbour(self, link: str, address: str, *, proxy: bool = False) -> Neighbour | None:
        found = self.state.get(("neighbour", link, address, proxy))
        return found if isinstance(found, Neighbour) else None

    # --- addresses and routes ---------------------------------------------------------------------------------------

    @cached_property
    def routing(self) -> Routing:
        return Routing(
            self._addresses(),
            [*self._all(Route, "route"), *self._foreign.routes],
            self._all(RoutingRule, "rule"),
            is_up=self.is_up,
            is_foreign=lambda name: isinstance(self.link(name), ForeignLink),
            # On the host nobody but its owner has `lo` in hand.
            has_loopback=lambda: self.netns == HOST or self.is_up("lo"),
        )

    def _addresses(self) -> Iterable[Address]:
        yield from self._foreign.addresses
        yield from self._all(Address, "address")
        for item in self._all(Link, "link"):
            if not item.addr_gen_none and not item.master and item.mac:
                yield Address(link=item.name, address=f"{link_local(item.mac)}/64")

    def is_local(self, address: str) -> bool:
        return self.routing.is_local(address)

    def route(self, destination: str, source: str = "") -> Found:
        return self.routing.route(destination, source)

    def sysctl(self, path: str, default: str = "0") -> str:
        found = self.state.get(("sysctl", path))
        return found.value if isinstance(found, Sysctl) else self._sysctls.get(path, default)

    def forwards(self, family: Family, iif: str) -> bool:
        """What comes in by a link: IPv4 asks for the link's own setting (IN_DEV_FORWARD), which follows that of all links
        until it is set itself."""
        if family == 6:
            return self.sysctl("net/ipv6/conf/all/forwarding") == "1"
        return self.sysctl(f"net/ipv4/conf/{iif}/forwarding", self.sysctl("net/ipv4/ip_forward")) == "1"

    # --- rules ------------------------------------------------------------------------------------------------------

    def base_chains(self, family: NftFamily, hook: str) -> list[Chain]:
        """By priority."""
        return sorted(
            (c for c in self._hooked if c.family == family and c.hook and c.hook.hook == hook),
            key=lambda chain: chain.hook.priority if chain.hook else 0,
        )

    @cached_property
    def _hooked(self) -> list[Chain]:
        return [chain for chain in self._all(Chain, "nft-chain") if chain.hook is not None]

    def tracks(self, family: NftFamily) -> bool:
        """Whether connection tracking is on: chains that translate, or ask for it, switch it on."""
        return any(chain.family == family for chain in self._hooked) or bool(self.rules.tables)

    def element(self, family: NftFamily, name: str, value: bytes) -> Element | None:
        found = self.state.get(("nft-element", family, name, value, b""))
        if isinstance(found, Element):
            return found
        if (family, name) not in self._indexes:
            self._indexes[family, name] = self._index(family, name)
        index = self._indexes[family, name]
        return None if index is None else index.find(value)

    def _index(self, family: NftFamily, name: str) -> IntervalIndex | None:
        elements = self._intervals.get((family, name))
        if elements is None:
            return None
        owner = self.state.get(("nft-set", family, name))
        if not isinstance(owner, Set):
            raise IncompleteStateError(f"{self.name}: elements of {family} {name}, and no such set")
        return IntervalIndex(owner, elements)

    @cached_property
    def _intervals(self) -> dict[tuple[str, str], list[Element]]:
        found: dict[tuple[str, str], list[Element]] = {}
        for item in self._all(Element, "nft-element"):
            if item.end:
                found.setdefault((item.family, item.set), []).append(item)
        return found

    def loopback_ports(self, family: int, proto: str) -> list[LoopbackPort]:
        return [
            item
            for item in self._all(LoopbackPort, "loopback")
            if (item.family, item.proto) == (family, proto)
        ]
