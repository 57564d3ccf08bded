"""Causes on the way: forwarding, routes, sizes."""

from collections.abc import Iterator

from sealane.compile.names import network_link
from sealane.compile.sandbox import DEFAULT_ROUTE, MAIN_TABLE
from sealane.explain.doctor.case import HOST_SUBJECT, DiagnosisInput, Finding
from sealane.explain.doctor.evidence import ForeignTable, HostRoute, SandboxEvidence
from sealane.kernel.objects import Route, Sysctl
from sealane.kernel.state import HOST
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.net import DEFAULTISH_LENGTH, FAMILIES, Family, overlaps, prefix_length

STRICT = "1"
_FORWARDING = {"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"}


def forwarding_off(case: DiagnosisInput) -> Iterator[Finding]:
    for item in case.desired.get(HOST, {}).values():
        if isinstance(item, Sysctl) and item.path in _FORWARDING:
            found = case.host.sysctls.get(item.path)
            if found is not None and found != item.value:
                yield _not_forwarding(item.path, "the host forwards nothing of that family")
    if not case.forwarded(4):
        return
    for link in case.host.links:
        path = f"net/ipv4/conf/{link.name}/forwarding"
        if case.host.sysctls.get(path) == "0" and case.host.sysctls.get("net/ipv4/ip_forward") == "1":
            yield _not_forwarding(path, f"IPv4 packets that arrive by {link.name} are not forwarded")


def _not_forwarding(path: str, effect: str) -> Finding:
    name = path.replace("/", ".")
    return Finding(
        subject=HOST_SUBJECT,
        message=f"{name} is 0: {effect}",
        hint=f"sysctl -w {name}=1, and find in /etc/sysctl.d who sets it",
        level="error",
    )


def no_default_route(case: DiagnosisInput) -> Iterator[Finding]:
    """Of IPv4: a host without a way out over IPv6 is common, and misses nothing."""
    is_needed = any(not network.internal for network in case.forwarded(4))
    is_there = any(route.dst == DEFAULT_ROUTE[4] for route in case.host.routes)
    if is_needed and not is_there and "routes" not in case.evidence.unseen:
        yield Finding(
            subject=HOST_SUBJECT,
            message="the host has no default route: what leaves its networks goes nowhere",
            hint="ip route add default via GATEWAY, or mark the networks --internal",
            level="warning",
        )


def wrong_default_route(case: DiagnosisInput) -> Iterator[Finding]:
    for sandbox, seen in case.seen():
        if handed := case.handed_over(sandbox):
            yield from _dockers_default_route(case, sandbox, seen, handed)
            continue
        desired = {
            item.dst: item
            for item in case.desired.get(sandbox.id, {}).values()
            if isinstance(item, Route) and item.table == MAIN_TABLE and item.dst in DEFAULT_ROUTE.values()
        }
        for family in FAMILIES:
            finding = _default_route(case, sandbox, seen, family, desired.get(DEFAULT_ROUTE[family]))
            if finding is not None:
                yield finding


def _dockers_default_route(
    case: DiagnosisInput, sandbox: Sandbox, seen: SandboxEvidence, handed: tuple[Endpoint, ...]
) -> Iterator[Finding]:
    """Docker chooses among the gateways that it was given (by name, or by its own gateway priority): any of them is
    right, and only a missing route is wrong. Its chosen network gives the routes of both families, so that IPv6 may
    rightly have none while one of the networks is without IPv6 (moby libnetwork/default_gateway.go)."""
    ways = [e for e in handed if not e.without_gateway and not case.networks[e.network].internal]
    for family in FAMILIES:
        is_given = ways and all(endpoint.address(family) is not None for endpoint in ways)
        if is_given and all(route.dst != DEFAULT_ROUTE[family] for route in seen.defaults):
            names = ", ".join(sorted(case.networks[endpoint.network].name for endpoint in ways))
            yield Finding(
                subject=sandbox.name,
                message=f"it has no default route of IPv{family}, though Docker was given a gateway on {names}",
                hint="`docker restart` the container: Docker sets its routes",
                level="error",
            )


def _default_route(
    case: DiagnosisInput, sandbox: Sandbox, seen: SandboxEvidence, family: Family, desired: Route | None
) -> Finding | None:
    there = [route for route in seen.defaults if route.dst == DEFAULT_ROUTE[family]]
    best = min(there, key=lambda route: route.metric, default=None)
    own = {endpoint.ifname for endpoint in case.endpoints_of(sandbox)}
    if desired is None:
        if best is None or best.link not in own:
            return None
        said, hint = "it is on internal networks alone", f"ip route del {best} there"
    elif best is None:
        said, hint = f"it should leave by {_told(desired)}", f"ip route add {_told(desired)} there"
    elif (best.link, best.gateway) != (desired.link, desired.gateway):
        said, hint = f"it should leave by {_told(desired)}", f"ip route replace {_told(desired)} there"
    else:
        return None
    found = f"its default route is {best}" if best else f"it has no default route of IPv{family}"
    return Finding(
        subject=sandbox.name,
        message=f"{found}, {said}",
        hint=f"{hint}; by which network it leaves is chosen by `sealane attach --gw-priority`",
        level="error",
    )


def _told(route: Route) -> str:
    return str(HostRoute(dst=route.dst, link=route.link, gateway=route.gateway))


# --- sizes ----------------------------------------------------------------------------------------------------------


def mtu_black_hole(case: DiagnosisInput) -> Iterator[Finding]:
    yield from _links_too_big(case)
    for network in case.planes:
        if network.internal:
            continue
        size = case.mtu_of(network)
        for family in FAMILIES:
            if network.subnet(family) is None:
                continue
            blind = _too_big_is_dropped(case.host.tables, family)
            for route in _ways(case, family):
                carried = _carries(case, route)
                if carried and carried < size and (route.is_default or blind):
                    yield Finding(
                        subject=network.name,
                        message=f"its packets have up to {size} bytes, and the host's route {route} carries {carried}"
                        + (f"; {blind} drops the messages that would say so" if blind else ""),
                        hint=f"make the network with -o mtu={carried}"
                        + (", and let ICMP pass (destination-unreachable, packet-too-big)" if blind else ""),
                        level="error" if blind else "warning",
                    )


def _links_too_big(case: DiagnosisInput) -> Iterator[Finding]:
    for sandbox, seen in case.seen():
        links = {link.name: link for link in seen.links}
        for endpoint in case.endpoints_of(sandbox):
            link, network = links.get(endpoint.ifname), case.networks[endpoint.network]
            size = case.mtu_of(network)
            if link is not None and link.mtu > size:
                yield Finding(
                    subject=case.name_of(endpoint),
                    message=f"its link {link.name} has an MTU of {link.mtu}, the network of {size}: larger frames are "
                    "dropped without a word",
                    hint=f"ip link set {link.name} mtu {size} in the sandbox, or make the network with -o mtu={link.mtu}",
                    level="error",
                )


def _ways(case: DiagnosisInput, family: Family) -> list[HostRoute]:
    return [r for r in case.host.routes if (":" in r.dst) == (family == 6) and (r.gateway or r.is_default)]


def _carries(case: DiagnosisInput, route: HostRoute) -> int:
    link = next((link for link in case.host.links if link.name == route.link), None)
    sizes = [size for size in (route.mtu, link.mtu if link else 0) if size]
    return min(sizes, default=0)


def _too_big_is_dropped(tables: tuple[ForeignTable, ...], family: Family) -> str:
    """A chain through which the host's own ICMP must leave, and that drops what it has not accepted."""
    for table in tables:
        for chain in table.chains:
            if chain.hook == "output" and chain.drops and table.covers(family):
                return f"chain {chain.name} of table {table.family} {table.name}"
    return ""


# --- addresses ------------------------------------------------------------------------------------------------------


def _is_way_out(route: HostRoute) -> bool:
    """A /8 is a company's network: subnets that lie in it may be asked for, and that is worth a warning."""
    return route.is_default or prefix_length(route.dst) < DEFAULTISH_LENGTH


def subnet_overlap(case: DiagnosisInput) -> Iterator[Finding]:
    for network in case.planes:
        bridge = network_link(network)
        for subnet in network.subnets:
            for route in case.host.routes:
                if route.link == bridge or _is_way_out(route):
                    continue
                if route.dst.startswith("fe80:") or not overlaps(subnet.prefix, route.dst):
                    continue
                is_inside = prefix_length(route.dst) >= prefix_length(subnet.prefix)
                effect = (
                    "endpoints with such an address are not reached"
                    if is_inside
                    else "what lies behind that route under such an address is not reached"
                )
                yield Finding(
                    subject=network.name,
                    message=f"its subnet {subnet.prefix} overlaps the host's route {route}: {effect}",
                    hint="make the network anew with another --subnet, or none: one is chosen that is free",
                    level="error" if is_inside else "warning",
                )


def rp_filter(case: DiagnosisInput) -> Iterator[Finding]:
    """A link by which packets come that the host would answer by another one: a second way out. Destination
    translation comes before the check (net/ipv4/fib_frontend.c, fib_validate_source), so routing rules by the host's
    own address do not help a published port."""
    ways = sorted((r for r in case.host.routes if r.dst == DEFAULT_ROUTE[4]), key=_preference)
    used = ways[0].link if ways else ""
    drops = case.host.reverse_path_drops
    for link in dict.fromkeys(route.link for route in ways):
        if link != used and _is_strict(case, link) and case.forwarded(4):
            yield Finding(
                subject=HOST_SUBJECT,
                message=f"net.ipv4.conf.{link}.rp_filter is strict, and the host's first way out is {used}: what comes "
                f"from afar by {link} to a published port is dropped{_dropped(drops)}",
                hint=f"sysctl -w net.ipv4.conf.{link}.rp_filter=2",
                level="error" if drops else "warning",
            )
    for sandbox, seen in case.seen():
        if seen.strict and seen.reverse_path_drops:
            yield Finding(
                subject=sandbox.name,
                message=f"inside it rp_filter is strict on {', '.join(seen.strict)}: what comes by a link by which its "
                f"routes would not answer is dropped{_dropped(seen.reverse_path_drops)}",
                hint="sysctl -w net.ipv4.conf.all.rp_filter=2 there, or mend its routes",
                level="error",
            )


def _dropped(count: int) -> str:
    return f" (packets so far: {count})" if count else ""


def _preference(route: HostRoute) -> tuple[bool, int]:
    return route.table != MAIN_TABLE, route.metric


def _is_strict(case: DiagnosisInput, link: str) -> bool:
    """The higher one of `all` and the link's own is in force (ip-sysctl.rst)."""
    values = [case.host.sysctls.get(f"net/ipv4/conf/{name}/rp_filter", "0") for name in ("all", link)]
    return max(values) == STRICT
