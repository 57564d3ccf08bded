"""The auditor on the host's own namespace: links, addresses, routes, neighbours, forwarding entries, nftables."""

import ipaddress
import re
import struct
from collections.abc import Iterator

from harness.marks import (
    FAMILIES,
    GROUP_DOOMED,
    GROUP_LIVE,
    PROTOCOL,
    bridge,
    chain,
    difference,
    group_of,
    has_gateway,
    host_link,
    is_adopted,
    is_ours,
    link_local,
    network_group,
)
from harness.observed import Facts, Observed, span
from harness.stored import Record, Stored, address, driver, subnet


def judge_host(stored: Stored, observed: Observed) -> Iterator[str]:
    for check in (_links, _addresses, _routes, _neighbours, _fdb, _nft, _address_modes):
        yield from check(stored, observed)


def _links(stored: Stored, observed: Observed) -> Iterator[str]:
    desired = {host_link(e) for e, _ in stored.plugged()}
    made = [n for n in stored.networks.values() if driver(n) in {"bridge", "routed"}]
    desired |= {bridge(n) for n in made if not is_adopted(n)}
    ours = {name: link for name, link in observed.links.items() if is_ours(link)}
    yield from difference("link", desired, set(ours))
    for name, link in ours.items():
        owner = re.fullmatch(r"sealane/[0-9a-f]{6}/([ne])/(.+)", link.get("ifalias", ""))
        if owner is None:
            yield f"I1: link {name} is half made: its alias is {link.get('ifalias')!r}"
        elif owner[2] not in (stored.networks if owner[1] == "n" else stored.endpoints):
            yield f"I1: link {name} belongs to {owner[2]}, which is not in the store"
        if group_of(link) == GROUP_DOOMED:
            yield f"I1: link {name} is doomed but still there"
        if "UP" not in link["flags"]:
            yield f"I3: link {name} is down"
    groups = {bridge(n): network_group(n) for n in made if not is_adopted(n)}
    for endpoint, network in stored.plugged():
        groups[host_link(endpoint)] = GROUP_LIVE if driver(network) == "bridge" else network_group(network)
        yield from _port(endpoint, network, ours, observed)
    for name, group in groups.items():
        if name in ours and group_of(ours[name]) != group:
            yield f"I4: link {name} is in group {group_of(ours[name])}, not in {group}"


def _port(endpoint: Record, network: Record, ours: dict[str, Facts], observed: Observed) -> Iterator[str]:
    name = host_link(endpoint)
    if name not in ours:
        return
    master = bridge(network) if driver(network) == "bridge" else None
    if ours[name].get("master") != master:
        yield f"I4: link {name} is a port of {ours[name].get('master')}, not of {master}"
    if master is None or name not in observed.ports:
        return
    port = observed.ports[name]
    desired = {
        "learning": False,
        "flood": False,
        "guard": True,
        "isolated": not network.get("icc", True),
    }
    for setting, value in desired.items():
        if port.get(setting) is not value:
            yield f"I4: {setting} is {port.get(setting)} on port {name}, not {value}"


def _addresses(stored: Stored, observed: Observed) -> Iterator[str]:
    desired = set()
    for network in stored.networks.values():
        for family, _ in FAMILIES:
            sub = subnet(network, family)
            if not sub or is_adopted(network):
                continue
            if driver(network) == "routed":
                desired.add((bridge(network), f"{sub['gateway']}/{32 if family == 4 else 128}"))
            elif driver(network) == "bridge" and has_gateway(network):
                desired.add((bridge(network), f"{sub['gateway']}/{sub['prefix'].rpartition('/')[2]}"))
    found = set()
    for link, local, length in observed.addresses:
        if link not in observed.links:
            yield f"link {link} came while the host was looked at"
            continue
        if not is_ours(observed.links[link]):
            continue
        dual = any(bridge(n) == link and subnet(n, 6) for n in stored.networks.values())
        if not (local.startswith("fe80:") and dual):
            found.add((link, f"{local}/{length}"))
    yield from difference("address", desired, found)


# --- routes, neighbours, forwarding entries -------------------------------------------------------------------------


def _routes(stored: Stored, observed: Observed) -> Iterator[str]:
    desired = set()
    for network in stored.networks.values():
        if driver(network) == "routed":
            desired |= {("unreachable", s["prefix"], "") for s in network["subnets"]}
    for endpoint, network in stored.plugged():
        if driver(network) == "routed":
            for family, _ in FAMILIES:
                own = address(endpoint, family)
                if own:
                    desired.add(("unicast", own, host_link(endpoint)))
    found = set()
    for route in observed.routes:
        if str(route.get("protocol")) == PROTOCOL:
            kind = route.get("type", "unicast")
            dst = re.sub(r"/(32|128)$", "", route["dst"])
            found.add((kind, dst, route.get("dev", "") if kind == "unicast" else ""))
    yield from difference("route", desired, found)
    for route in observed.routes:
        dev = route.get("dev", "")
        if (
            route.get("protocol") in {None, "static"}
            and dev in observed.links
            and is_ours(observed.links[dev])
        ):
            yield f"I1: route {route['dst']} over {dev} is nobody's"


def _neighbours(stored: Stored, observed: Observed) -> Iterator[str]:
    desired, proxied = set(), set()
    for endpoint, network in stored.plugged():
        link = bridge(network) if driver(network) == "bridge" else host_link(endpoint)
        for family, _ in FAMILIES:
            own = address(endpoint, family)
            if own and not is_adopted(network):
                desired.add((link, own, endpoint["mac"]))
            if own and family == 6 and driver(network) == "routed":
                proxied.add((link, subnet(network, 6)["gateway"]))
    found = {
        (entry["dev"], entry["dst"], entry.get("lladdr", ""))
        for entry in observed.neighbours
        if "PERMANENT" in entry["state"] and _on_ours(entry["dev"], observed, stored)
    }
    yield from difference("neighbour", desired, found)
    yield from difference(
        "proxy neighbour", proxied, {(p["dev"], p["dst"]) for p in observed.proxies if "dev" in p}
    )


def _on_ours(link: str, observed: Observed, stored: Stored) -> bool:
    return link in observed.links and is_ours(observed.links[link])


def _fdb(stored: Stored, observed: Observed) -> Iterator[str]:
    desired = {(host_link(e), e["mac"], bridge(n)) for e, n in stored.plugged() if driver(n) == "bridge"}
    found = set()
    for entry in observed.fdb:
        link = observed.links.get(entry["ifname"])
        if link is None or not is_ours(link) or not entry["ifname"].startswith("sle"):
            continue
        if entry.get("state") == "static":
            found.add((entry["ifname"], entry["mac"], entry.get("master", "")))
        elif entry.get("state") != "permanent":
            yield f"I1: port {entry['ifname']} has learnt {entry['mac']}"
    yield from difference("FDB entry", desired, found)
    own = {(e["ifname"], e["mac"]) for e in observed.fdb if e.get("master") == e["ifname"]}
    for network in stored.networks.values():
        link = observed.links.get(bridge(network))
        if driver(network) == "bridge" and not is_adopted(network) and link is not None:
            wanted_own = {(link["ifname"], link["address"])}
            yield from difference(
                "bridge's own FDB entry", wanted_own, {e for e in own if e[0] == link["ifname"]}
            )


# --- nftables -------------------------------------------------------------------------------------------------------


def _has_foreign_bridge(observed: Observed) -> bool:
    return any(
        link.get("linkinfo", {}).get("info_kind") == "bridge" and not is_ours(link)
        for link in observed.links.values()
    )


def _nft(stored: Stored, observed: Observed) -> Iterator[str]:
    nft = observed.nft
    tables = {(family, name) for family, name in nft.tables if name == "sealane"}
    both = {("ip", "sealane"), ("ip6", "sealane")}
    if not stored.has_data_plane:
        # A bridge of another engine that came after our networks keeps forwarding on, and the rules with it (ADR 0024).
        yield from difference("nft table", tables & both if _has_foreign_bridge(observed) else set(), tables)
        return
    yield from difference("nft table", {("bridge", "sealane"), *both}, tables)
    yield from _network_chains(stored, observed)
    for family, table in FAMILIES:
        yield from difference(
            f"{table} publish element", published(stored, family), _found_publishes(observed, table)
        )
        yield from difference(
            f"{table} publish_from element", published_from(stored, family), _found_from(observed, table)
        )
        served = {
            (sub["gateway"], proto, "53")
            for network in stored.networks.values()
            if driver(network) in {"bridge", "routed"} and (sub := subnet(network, family))
            if network.get("dns", True) and has_gateway(network)
            for proto in ("tcp", "udp")
        }
        yield from difference(f"{table} served element", served, nft.ours(table, "served"))
        yield from _workloads(stored, observed, family, table)
    sources = {4: set(), 6: set()}
    for endpoint, network in stored.plugged():
        if driver(network) != "bridge":
            continue
        for family, _ in FAMILIES:
            own = address(endpoint, family)
            if own:
                sources[family].add((host_link(endpoint), endpoint["mac"], own))
        if address(endpoint, 6):
            sources[6].add((host_link(endpoint), endpoint["mac"], link_local(endpoint["mac"])))
    for family, _ in FAMILIES:
        yield from difference(
            f"bridge sources{family} element", sources[family], nft.ours("bridge", f"sources{family}")
        )
    targets = {(link, mac, *map(str, halves(own))) for link, mac, own in sources[6]}
    yield from difference("bridge nd_targets element", targets, nft.ours("bridge", "nd_targets"))


def halves(text):
    """Of an IPv6 address, as nft says numbers of 64 bits in JSON: signed."""
    return struct.unpack("!qq", ipaddress.IPv6Address(text).packed)


def _network_chains(stored: Stored, observed: Observed) -> Iterator[str]:
    desired = set()
    for network in stored.networks.values():
        if driver(network) in {"bridge", "routed"}:
            for family, table in FAMILIES:
                if subnet(network, family):
                    desired |= {(table, chain(network, purpose)) for purpose in ("pre", "from", "to", "post")}
                    if driver(network) == "routed":
                        desired.add((table, chain(network, "proven")))
    found = {
        (f, name) for f, table, name in observed.nft.chains if table == "sealane" and name.startswith("n_")
    }
    yield from difference("chain", desired, found)


def _workloads(stored: Stored, observed: Observed, family: int, table: str) -> Iterator[str]:
    """The links behind which workloads are: by group, adopted ones by name; and the source guard of routed ones."""
    groups, adopted = set(), set()
    for network in stored.networks.values():
        if driver(network) in {"bridge", "routed"} and subnet(network, family):
            if is_adopted(network):
                adopted.add(bridge(network))
            else:
                groups.add(network_group(network))
    sources = {
        (host_link(endpoint), address(endpoint, family), f"goto {chain(network, 'proven')}")
        for endpoint, network in stored.plugged()
        if driver(network) == "routed" and address(endpoint, family)
    }
    for name in ("workload", "from", "to"):
        found = {_group(element[0], groups) for element in observed.nft.ours(table, name)}
        yield from difference(f"{table} {name} element", groups, found)
        by_name = {element[0] for element in observed.nft.ours(table, f"{name}_adopted")}
        yield from difference(f"{table} {name}_adopted element", adopted, by_name)
    yield from difference(f"{table} sources element", sources, observed.nft.ours(table, "sources"))
    desired: dict[str, set[str]] = {"subnets": set(), "private": set()}
    for network in stored.networks.values():
        if driver(network) in {"bridge", "routed"} and (sub := subnet(network, family)):
            whole = ipaddress.ip_network(sub["prefix"])
            desired["subnets"].add(span(whole[0], whole[-1]))
            if network.get("masquerade", True) or network.get("internal"):
                desired["private"].add(span(whole[0], whole[-1]))
    for name, spans in desired.items():
        yield from difference(
            f"{table} {name} element", spans, {e[0] for e in observed.nft.ours(table, name)}
        )


def _group(shown: str, known: set[int]) -> int:
    """nft 1.0.6 prints a set's group with its bytes in the order of the network if the set does not say which it is."""
    swapped = int.from_bytes(int(shown).to_bytes(4, "big"), "little")
    return swapped if swapped in known else int(shown)


def published(stored: Stored, family: int) -> set[tuple[str, ...]]:
    """Each host port of each publish: (host address or *, proto, host port, address, port)."""
    desired = set()
    for endpoint, network in stored.plugged():
        own = address(endpoint, family)
        if not own or network.get("internal") or endpoint.get("dormant"):
            continue
        for port in endpoint.get("ports", []):
            where = port.get("host_address") or "*"
            if where != "*" and ((":" in where) != (family == 6) or ipaddress.ip_address(where).is_loopback):
                continue
            for offset in range(port["host_last"] - port["host_first"] + 1):
                inner = str(port["port"] + offset)
                desired.add((where, port.get("proto", "tcp"), str(port["host_first"] + offset), own, inner))
    return desired


def published_from(stored: Stored, family: int) -> set[tuple[str, ...]]:
    """What is published on one network of a sandbox, asked from another: (asker's prefix, host address or *, proto, host
    port, address, port)."""
    desired = set()
    for endpoint, network in stored.plugged():
        for other, elsewhere in stored.plugged():
            own, near = address(endpoint, family), address(other, family)
            if endpoint["id"] == other["id"] or endpoint["sandbox"] != other["sandbox"] or not (own and near):
                continue
            if network.get("internal") or elsewhere.get("internal"):
                continue
            prefix = ipaddress.ip_network(subnet(elsewhere, family)["prefix"])
            asker = span(prefix[0], prefix[-1])
            for where, proto, number, owner, inner in published(stored, family):
                if owner == own:
                    desired.add((asker, where, proto, number, near, inner))
    return desired


def _found_from(observed: Observed, table: str) -> set[tuple[str, ...]]:
    found = set()
    for asker, where, *rest in observed.nft.ours(table, "publish_from"):
        found.add((asker, _shown(where), *rest))
    for asker, where, proto, ports, near in observed.nft.ours(table, "publish_from_ranges"):
        first, _, last = ports.partition("-")
        found |= {
            (asker, _shown(where), proto, str(p), near, str(p))
            for p in range(int(first), int(last or first) + 1)
        }
    return found


def _shown(where: str) -> str:
    return "*" if where.partition("-")[0] in {"0.0.0.0", "::"} else where


def _found_publishes(observed: Observed, table: str) -> set[tuple[str, ...]]:
    found = {("*", *element) for element in observed.nft.ours(table, "publish")}
    found |= observed.nft.ours(table, "publish_at")
    for where, proto, ports, own in observed.nft.ours(table, "publish_ranges"):
        first, _, last = ports.partition("-")
        found |= {
            (_shown(where), proto, str(p), own, str(p)) for p in range(int(first), int(last or first) + 1)
        }
    return found


def _address_modes(stored: Stored, observed: Observed) -> Iterator[str]:
    for link in observed.links.values():
        if is_ours(link) and link.get("inet6_addr_gen_mode") not in {"none", "eui64", None}:
            yield f"I4: link {link['ifname']} makes its own addresses: {link['inet6_addr_gen_mode']}"
