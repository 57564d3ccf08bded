"""Addresses, routes and rules of one namespace: where a destination leads, and under which source.

Routes are found by their prefix's text: for each length that occurs, longest first, the destination's prefix of that
length is looked up. So a lookup costs the number of lengths, not of routes.
"""

import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sealane.kernel.objects import Address, Key, Route, RoutingRule
from sealane.model.net import Family, address_part, family_of, is_loopback, packed, prefix_length, to_int

MAIN_TABLE = 254


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


class Routing:
    """`is_up` says whether a link is there and up; `is_foreign` whether it is somebody else's."""

    def __init__(
        self,
        addresses: Iterable[Address],
        routes: Iterable[Route],
        rules: Iterable[RoutingRule],
        *,
        is_up: Callable[[str], bool],
        is_foreign: Callable[[str], bool],
        has_loopback: Callable[[], bool],
    ) -> None:
        self._is_up, self._is_foreign, self._has_loopback = is_up, is_foreign, has_loopback
        self._rules = sorted(rules, key=lambda rule: rule.priority)
        self._local: dict[str, Address] = {}
        self._by_link: dict[str, list[str]] = {}
        self._connected: dict[Key, Key] = {}
        """Routes that came with an address → the address."""
        self._routes: dict[tuple[int, str], list[Route]] = {}
        self._lengths: dict[int, set[int]] = {}
        for route in routes:
            self._routes.setdefault((route.table, route.dst), []).append(route)
        for address in addresses:
            self._add_address(address)
        for table, prefix in self._routes:
            self._lengths.setdefault(table, set()).add(int(prefix[prefix.index("/") + 1 :]))

    def _add_address(self, item: Address) -> None:
        address = address_part(item.address)
        self._local[address] = item
        self._by_link.setdefault(item.link, []).append(item.address)
        if not address.startswith("fe80:"):
            prefix = masked(address, prefix_length(item.address))
            route = Route(dst=prefix, link=item.link, src=address)
            self._connected[route.key] = item.key
            self._routes.setdefault((MAIN_TABLE, prefix), []).append(route)

    # --- addresses --------------------------------------------------------------------------------------------------

    def is_local(self, address: str) -> bool:
        """Whether the local table has it (`fib daddr type local`)."""
        if is_loopback(address):
            return self._has_loopback()
        owner = self._local.get(address)
        # Linux keeps IPv4 addresses of links that are down in the local table; IPv6 ones leave it (addrconf_ifdown).
        return owner is not None and (":" not in address or self._is_up(owner.link))

    def owner(self, address: str) -> Address | None:
        return self._local.get(address)

    def addresses(self, link: str, family: Family) -> list[str]:
        """With their lengths, link-local ones last."""
        found = [a for a in self._by_link.get(link, ()) if family_of(a) == family]
        return sorted(found, key=lambda a: a.startswith("fe80:"))

    def source_on(self, link: str, family: Family, towards: str) -> str:
        """The address that the kernel would send under by a link: one whose subnet has the next hop, else the link's
        first, else another link's. Empty if there is none. `towards` empty: it is not known where to."""
        found = self._global(link, family)
        if found:
            return address_part(next((a for a in found if _subnet_has(a, towards)), found[0]))
        others = [
            address_part(a) for name in self._by_link if self._is_up(name) for a in self._global(name, family)
        ]
        if family == 4 or not towards:
            # inet_select_addr: links in the order of their making; foreign ones were there first.
            return next(
                (a for a in others if self._is_foreign(self._local[a].link)), others[0] if others else ""
            )
        # ipv6_dev_get_saddr, rules 6 and 8: a like label (private or not), then the longest common prefix.
        return max(
            others,
            key=lambda a: (_is_unique_local(a) == _is_unique_local(towards), _common_bits(a, towards)),
            default="",
        )

    def _global(self, link: str, family: Family) -> list[str]:
        return [a for a in self.addresses(link, family) if not a.startswith("fe80:")]

    def source_for(self, found: Found, destination: str) -> str:
        """Source address of a packet that a local process sends without one; empty if there is none."""
        if found.kind == "local":
            return destination
        return found.source or self.source_on(
            found.link, family_of(destination), found.gateway or destination
        )

    # --- routes -----------------------------------------------------------------------------------------------------

    def route(self, destination: str, source: str = "") -> Found:
        """The local table; then the ones that rules name for the source, by priority; then main. In a table the longest
        prefix, and of its routes by links that are up the one with the lowest metric."""
        if self.is_local(destination):
            owner = self._local.get(destination)
            link = owner.link if owner else "lo"
            return Found(
                "local", link, text=f"local {destination} dev {link}", key=owner.key if owner else None
            )
        for rule in self._rules:
            found = self._lookup(destination, rule.table) if rule.source == source else None
            if found is not None:
                return found._replace(text=f"{found.text} (from {source}: table {rule.table})")
        return self._lookup(destination, MAIN_TABLE) or Found("none")

    def _lookup(self, destination: str, table: int) -> Found | None:
        bits = 128 if ":" in destination else 32
        for length in sorted(self._lengths.get(table, ()), reverse=True):
            if length > bits:
                continue
            usable = [
                r for r in self._routes.get((table, masked(destination, length)), ()) if self._is_usable(r)
            ]
            if usable:
                return self._found(min(usable, key=lambda route: route.metric))
        return None

    def _is_usable(self, route: Route) -> bool:
        return route.type == "unreachable" or self._is_up(route.link)

    def _found(self, route: Route) -> Found:
        if route.type == "unreachable":
            return Found("unreachable", text=f"unreachable {route.dst}", key=route.key)
        via = f" via {route.gateway}" if route.gateway else ""
        text = f"{_shown(route.dst)}{via} dev {route.link}"
        key = self._connected.get(route.key, route.key)
        return Found("unicast", route.link, route.gateway, route.src, text, key)


def _is_unique_local(address: str) -> bool:
    """RFC 4193."""
    return address.startswith(("fc", "fd"))


def _common_bits(one: str, other: str) -> int:
    return 128 - (to_int(one) ^ to_int(other)).bit_length()


def _shown(prefix: str) -> str:
    return "default" if prefix in {"0.0.0.0/0", "::/0"} else prefix


def masked(address: str, length: int) -> str:
    """The prefix of that length that has the address, in canonical text."""
    own = packed(address)
    bits = len(own) * 8
    value = int.from_bytes(own, "big") >> bits - length << bits - length
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return f"{socket.inet_ntop(family, value.to_bytes(len(own), 'big'))}/{length}"


def _subnet_has(interface: str, address: str) -> bool:
    """`address` may be empty: then nothing is known of where it goes."""
    length = prefix_length(interface)
    return bool(address) and masked(address_part(interface), length) == masked(address, length)
