"""The independent auditor: it shares no code with the engine, and judges store and kernel against each other.

    I1  nothing is there without a live owner
    I2  nothing has two owners
    I3  every endpoint is whole (its links up, addressed, routed); that packets pass is for probes to show
    I4  store and kernel say the same
    I5  (the caller's retry succeeds: for the test that made the caller)
    foreign objects are as they were: `foreign` before, `changes` after

What it knows of the engine is its marks and names, as documented: links `sle…` and `slb…` with an alias
`sealane/INSTANCE/KIND/ID`, routes of protocol 94, nft tables `sealane`, chains `n_…` of a network.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from harness.host import Host
from harness.netns import Netns
from harness.observed import Facts, Observed, flows, span
from harness.stored import Record, Stored, address, driver, subnet

PROTOCOL = "94"
GROUP_DOOMED = 0x5EA0
FAMILIES = ((4, "ip"), (6, "ip6"))
PROTOS = ("tcp", "udp", "sctp")


def audit(host: Host) -> list[str]:
    """Every finding, a sentence each; none on a host that is as it should be."""
    stored = Stored(host.path(host.state_dir))
    observed = Observed(host.ns)
    findings = [f"the database is damaged: {problem}" for problem in stored.broken]
    for check in (_links, _addresses, _routes, _neighbours, _fdb, _nft, _sysctls):
        findings += check(stored, observed)
    findings += _owners(stored)
    findings += _sandboxes(host, stored)
    findings += _pins(host, stored)
    findings += _descriptors(host, stored)
    findings += _flows(host, stored)
    return findings


def settle(host: Host, timeout_s: float) -> float:
    """Wait until the audit is clean; return the seconds it took. AssertionError with the findings that stay."""
    begun = time.monotonic()
    while findings := audit(host):
        if time.monotonic() - begun > timeout_s:
            raise AssertionError(f"after {timeout_s} s: " + "\n".join(findings))
        time.sleep(0.02)
    return time.monotonic() - begun


def digest(identity: str, length: int = 12) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:length]


def host_link(endpoint: Record) -> str:
    return "sle" + digest(endpoint["id"])


def bridge(network: Record) -> str:
    return str(network.get("link") or "slb" + digest(network["id"]))


def chain(network: Record, purpose: str) -> str:
    return f"n_{digest(network['id'], 8)}_{purpose}"


def link_local(mac: str) -> str:
    octets = bytes.fromhex(mac.replace(":", ""))
    packed = b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(packed))


def is_ours(link: Facts) -> bool:
    return bool(re.match(r"sealane/", link.get("ifalias", ""))) or bool(
        re.fullmatch(r"sl[eb][0-9a-f]{12}", link["ifname"])
    )


def _difference(what: str, wanted: set[Any], found: set[Any]) -> Iterator[str]:
    for item in sorted(wanted - found, key=str):
        yield f"I4: {what} {item} is in the store but not in the kernel"
    for item in sorted(found - wanted, key=str):
        yield f"I1: {what} {item} has no owner in the store"


# --- links ----------------------------------------------------------------------------------------------------------


def _links(stored: Stored, observed: Observed) -> Iterator[str]:
    wanted = {host_link(e) for e, _ in stored.plugged()}
    made = [n for n in stored.networks.values() if driver(n) in {"bridge", "routed"}]
    wanted |= {bridge(n) for n in made if not n.get("link_adopted")}
    ours = {name: link for name, link in observed.links.items() if is_ours(link)}
    yield from _difference("link", wanted, set(ours))
    for name, link in ours.items():
        owner = re.fullmatch(r"sealane/[0-9a-f]{6}/([ne])/(.+)", link.get("ifalias", ""))
        if owner is None:
            yield f"I1: link {name} is half made: its alias is {link.get('ifalias')!r}"
        elif owner[2] not in (stored.networks if owner[1] == "n" else stored.endpoints):
            yield f"I1: link {name} belongs to {owner[2]}, which is not in the store"
        if link.get("group") in {str(GROUP_DOOMED), hex(GROUP_DOOMED)}:
            yield f"I1: link {name} is doomed but still there"
        if "UP" not in link["flags"]:
            yield f"I3: link {name} is down"
    for endpoint, network in stored.plugged():
        yield from _port(endpoint, network, ours, observed)


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
    wanted = {
        "learning": False,
        "flood": False,
        "guard": True,
        "isolated": not network.get("icc", True),
    }
    for setting, value in wanted.items():
        if port.get(setting) is not value:
            yield f"I4: {setting} is {port.get(setting)} on port {name}, not {value}"


def _addresses(stored: Stored, observed: Observed) -> Iterator[str]:
    wanted = set()
    for network in stored.networks.values():
        for family, _ in FAMILIES:
            sub = subnet(network, family)
            if not sub or network.get("link_adopted"):
                continue
            if driver(network) == "routed":
                wanted.add((bridge(network), f"{sub['gateway']}/{32 if family == 4 else 128}"))
            elif driver(network) == "bridge" and network.get("gateway_on_link", True):
                wanted.add((bridge(network), f"{sub['gateway']}/{sub['prefix'].rpartition('/')[2]}"))
    found = set()
    for link, local, length in observed.addresses:
        if not is_ours(observed.links[link]):
            continue
        dual = any(bridge(n) == link and subnet(n, 6) for n in stored.networks.values())
        if not (local.startswith("fe80:") and dual):
            found.add((link, f"{local}/{length}"))
    yield from _difference("address", wanted, found)


# --- routes, neighbours, forwarding entries -------------------------------------------------------------------------


def _routes(stored: Stored, observed: Observed) -> Iterator[str]:
    wanted = set()
    for network in stored.networks.values():
        if driver(network) == "routed":
            wanted |= {("unreachable", s["prefix"], "") for s in network["subnets"]}
    for endpoint, network in stored.plugged():
        if driver(network) == "routed":
            for family, _ in FAMILIES:
                own = address(endpoint, family)
                if own:
                    wanted.add(("unicast", own, host_link(endpoint)))
    found = set()
    for route in observed.routes:
        if str(route.get("protocol")) == PROTOCOL:
            kind = route.get("type", "unicast")
            dst = re.sub(r"/(32|128)$", "", route["dst"])
            found.add((kind, dst, route.get("dev", "") if kind == "unicast" else ""))
    yield from _difference("route", wanted, found)
    for route in observed.routes:
        dev = route.get("dev", "")
        if (
            route.get("protocol") in {None, "static"}
            and dev in observed.links
            and is_ours(observed.links[dev])
        ):
            yield f"I1: route {route['dst']} over {dev} is nobody's"


def _neighbours(stored: Stored, observed: Observed) -> Iterator[str]:
    wanted, proxied = set(), set()
    for endpoint, network in stored.plugged():
        link = bridge(network) if driver(network) == "bridge" else host_link(endpoint)
        for family, _ in FAMILIES:
            own = address(endpoint, family)
            if own and not network.get("link_adopted"):
                wanted.add((link, own, endpoint["mac"]))
            if own and family == 6 and driver(network) == "routed":
                proxied.add((link, subnet(network, 6)["gateway"]))
    found = {
        (entry["dev"], entry["dst"], entry.get("lladdr", ""))
        for entry in observed.neighbours
        if "PERMANENT" in entry["state"] and _on_ours(entry["dev"], observed, stored)
    }
    yield from _difference("neighbour", wanted, found)
    yield from _difference(
        "proxy neighbour", proxied, {(p["dev"], p["dst"]) for p in observed.proxies if "dev" in p}
    )


def _on_ours(link: str, observed: Observed, stored: Stored) -> bool:
    return link in observed.links and is_ours(observed.links[link])


def _fdb(stored: Stored, observed: Observed) -> Iterator[str]:
    wanted = {(host_link(e), e["mac"], bridge(n)) for e, n in stored.plugged() if driver(n) == "bridge"}
    found = set()
    for entry in observed.fdb:
        link = observed.links.get(entry["ifname"])
        if link is None or not is_ours(link) or not entry["ifname"].startswith("sle"):
            continue
        if entry.get("state") == "static":
            found.add((entry["ifname"], entry["mac"], entry.get("master", "")))
        elif entry.get("state") != "permanent":
            yield f"I1: port {entry['ifname']} has learnt {entry['mac']}"
    yield from _difference("FDB entry", wanted, found)


# --- nftables -------------------------------------------------------------------------------------------------------


def _nft(stored: Stored, observed: Observed) -> Iterator[str]:
    nft = observed.nft
    tables = {(family, name) for family, name in nft.tables if name == "sealane"}
    wanted = (
        {("bridge", "sealane"), ("ip", "sealane"), ("ip6", "sealane")} if stored.has_data_plane else set()
    )
    yield from _difference("nft table", wanted, tables)
    if not wanted:
        return
    yield from _network_chains(stored, observed)
    for family, table in FAMILIES:
        yield from _difference(
            f"{table} publish element", _published(stored, family), _found_publishes(observed, table)
        )
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
        yield from _difference(
            f"bridge sources{family} element", sources[family], nft.ours("bridge", f"sources{family}")
        )


def _network_chains(stored: Stored, observed: Observed) -> Iterator[str]:
    wanted = set()
    for network in stored.networks.values():
        if driver(network) in {"bridge", "routed"}:
            for family, table in FAMILIES:
                if subnet(network, family):
                    wanted |= {(table, chain(network, purpose)) for purpose in ("pre", "from", "to", "post")}
    found = {
        (f, name) for f, table, name in observed.nft.chains if table == "sealane" and name.startswith("n_")
    }
    yield from _difference("chain", wanted, found)


def _workloads(stored: Stored, observed: Observed, family: int, table: str) -> Iterator[str]:
    """The links behind which workloads are, and the source guard of routed ones."""
    links, sources = set(), set()
    for network in stored.networks.values():
        if driver(network) == "bridge" and subnet(network, family):
            links.add(bridge(network))
    for endpoint, network in stored.plugged():
        own = address(endpoint, family)
        if driver(network) == "routed" and own:
            links.add(host_link(endpoint))
            sources.add((host_link(endpoint), own))
    for name in ("workload", "from", "to"):
        found = {element[0] for element in observed.nft.ours(table, name)}
        yield from _difference(f"{table} {name} element", links, found)
    yield from _difference(f"{table} sources element", sources, observed.nft.ours(table, "sources"))
    wanted = {
        span(ipaddress.ip_network(sub["prefix"])[0], ipaddress.ip_network(sub["prefix"])[-1])
        for network in stored.networks.values()
        if driver(network) in {"bridge", "routed"} and (sub := subnet(network, family))
        if network.get("masquerade", True) or network.get("internal")
    }
    yield from _difference(
        f"{table} private element", wanted, {e[0] for e in observed.nft.ours(table, "private")}
    )


def _published(stored: Stored, family: int) -> set[tuple[str, ...]]:
    """Each host port of each publish: (host address or *, proto, host port, address, port)."""
    wanted = set()
    for endpoint, network in stored.plugged():
        own = address(endpoint, family)
        if not own or network.get("internal"):
            continue
        for port in endpoint.get("ports", []):
            where = port.get("host_address") or "*"
            if where != "*" and ((":" in where) != (family == 6) or ipaddress.ip_address(where).is_loopback):
                continue
            for offset in range(port["host_last"] - port["host_first"] + 1):
                inner = str(port["port"] + offset)
                wanted.add((where, port.get("proto", "tcp"), str(port["host_first"] + offset), own, inner))
    return wanted


def _found_publishes(observed: Observed, table: str) -> set[tuple[str, ...]]:
    found = {("*", *element) for element in observed.nft.ours(table, "publish")}
    found |= observed.nft.ours(table, "publish_at")
    for where, proto, ports, own in observed.nft.ours(table, "publish_ranges"):
        first, _, last = ports.partition("-")
        where = "*" if where.partition("-")[0] in {"0.0.0.0", "::"} else where
        found |= {(where, proto, str(p), own, str(p)) for p in range(int(first), int(last or first) + 1)}
    return found


def _sysctls(stored: Stored, observed: Observed) -> Iterator[str]:
    for link in observed.links.values():
        if is_ours(link) and link.get("inet6_addr_gen_mode") not in {"none", "eui64", None}:
            yield f"I4: link {link['ifname']} makes its own addresses: {link['inet6_addr_gen_mode']}"


# --- the store, the sandboxes, and what else lives ------------------------------------------------------------------


def _owners(stored: Stored) -> Iterator[str]:
    """I2, within the store: nothing is given twice, and every lease has its endpoint."""
    claims: Counter[tuple[str, ...]] = Counter()
    for endpoint in stored.endpoints.values():
        if endpoint["network"] not in stored.networks:
            yield f"I1: endpoint {endpoint['id']} is of a network that is gone"
        if endpoint["sandbox"] is not None and endpoint["sandbox"] not in stored.sandboxes:
            yield f"I1: endpoint {endpoint['id']} is in a sandbox that is gone"
        claims[("MAC", endpoint["network"], endpoint["mac"])] += 1
        claims[("link", str(endpoint["sandbox"] or endpoint["id"]), endpoint["ifname"])] += 1
        claims.update(("address", endpoint["network"], a.partition("/")[0]) for a in endpoint["addresses"])
        for port in endpoint.get("ports", []):
            for number in range(port["host_first"], port["host_last"] + 1):
                claims[("port", port.get("proto", "tcp"), str(port.get("host_address")), str(number))] += 1
    yield from (f"I2: {' '.join(claim)} has {count} owners" for claim, count in claims.items() if count > 1)
    wanted = {
        (e["network"], a.partition("/")[0], e["id"])
        for e in stored.endpoints.values()
        for a in e["addresses"]
    }
    yield from _difference("lease", wanted, set(stored.leases))


def _sandboxes(host: Host, stored: Stored) -> Iterator[str]:
    """I3: inside of each sandbox."""
    for sandbox in stored.sandboxes.values():
        ref = sandbox.get("netns")
        if ref is None:
            continue
        path = host.path(ref["path"])
        try:
            inode = os.stat(path).st_ino
        except OSError:
            yield f"I1: sandbox {sandbox['name']} has lost its namespace {ref['path']}"
            continue
        if inode != ref["inode"]:
            yield f"I1: sandbox {sandbox['name']}: at {ref['path']} is another namespace"
            continue
        with Netns.enter(sandbox["name"], path) as inside:
            yield from _sandbox(sandbox, Observed(inside), stored)


def _sandbox(sandbox: Record, inside: Observed, stored: Stored) -> Iterator[str]:
    mine = [(e, n) for e, n in stored.plugged() if e["sandbox"] == sandbox["id"]]
    known = {e["id"] for e, _ in mine}
    for link in inside.links.values():
        alias = link.get("ifalias", "")
        if alias.startswith("sealane/") and alias.rpartition("/")[2] not in known:
            yield f"I1: in {sandbox['name']}: link {link['ifname']} of {alias} has no owner"
    for endpoint, network in mine:
        where = f"in {sandbox['name']}: link {endpoint['ifname']}"
        link = inside.links.get(endpoint["ifname"])
        if link is None:
            yield f"I3: {where} is missing"
            continue
        if link["address"] != endpoint["mac"]:
            yield f"I4: {where} has the MAC {link['address']}, not {endpoint['mac']}"
        if "UP" not in link["flags"]:
            yield f"I3: {where} is down"
        have = {a.partition("/")[0] for a in inside.link_addresses(endpoint["ifname"])}
        for wanted in endpoint["addresses"]:
            if wanted.partition("/")[0] not in have:
                yield f"I3: {where} lacks {wanted}"
    for family, _ in FAMILIES:
        ways = [n for e, n in mine if address(e, family) and not n.get("internal")]
        routes = [
            r
            for r in inside.routes
            if r["dst"] == "default" and (":" in str(r.get("gateway"))) == (family == 6)
        ]
        if ways and not routes:
            yield f"I3: in {sandbox['name']}: no IPv{family} default route"
        if not ways and [r for r in routes if str(r.get("protocol")) == PROTOCOL]:
            yield f"I1: in {sandbox['name']}: an IPv{family} default route without a network"


def _pins(host: Host, stored: Stored) -> Iterator[str]:
    """I1: files that pin namespaces."""
    wanted = {
        s["netns"]["path"]
        for s in stored.sandboxes.values()
        if (s.get("netns") or {}).get("owner") == "sealane"
    }
    found = set()
    for folder in host.run_dirs():
        with contextlib.suppress(OSError):
            found |= {f"{folder}/netns/{name}" for name in os.listdir(host.path(f"{folder}/netns"))}
    yield from _difference("namespace file", wanted, found)


def _descriptors(host: Host, stored: Stored) -> Iterator[str]:
    """I1: a descriptor of the daemon keeps a dead namespace alive (moby #41136)."""
    if host.daemon is None or host.daemon.poll() is not None:
        return
    live = {(s.get("netns") or {}).get("inode") for s in stored.sandboxes.values()} | {host.ns.inode}
    folder = f"/proc/{host.pid}/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            target = re.fullmatch(r"net:\[(\d+)\]", os.readlink(f"{folder}/{name}"))
            if target and int(target[1]) not in live:
                yield f"I1: the daemon holds the namespace {target[1]}, which no sandbox has"


def _flows(host: Host, stored: Stored) -> Iterator[str]:
    """I1: a tracked UDP flow that is translated to an endpoint which does not publish it, or does not exist (B11)."""
    published = {
        (own, proto, inner)
        for family, _ in FAMILIES
        for _, proto, _, own, inner in _published(stored, family)
    }
    prefixes = [
        ipaddress.ip_network(s["prefix"]) for n in stored.networks.values() for s in n.get("subnets", [])
    ]
    for flow in flows(host.ns):
        backend = flow["reply"]["src"]
        translated = flow["original"]["dst"] != backend
        if flow["proto"] != "udp" or not translated:
            continue
        inside = any(
            ipaddress.ip_address(backend) in p for p in prefixes if (":" in backend) == (p.version == 6)
        )
        if inside and (backend, "udp", flow["reply"]["sport"]) not in published:
            yield f"I1: a UDP flow to {flow['original']['dst']} still leads to {backend}:{flow['reply']['sport']}"


# --- foreign objects ------------------------------------------------------------------------------------------------


def foreign(ns: Netns) -> dict[str, set[str]]:
    """Everything in a namespace that is not sealane's, as comparable text."""
    observed = Observed(ns)
    links = [link for link in observed.links.values() if not is_ours(link)]
    names = {link["ifname"] for link in links}
    nft = observed.nft
    return {
        "link": {
            f"{link['ifname']} {link['address']} {link['mtu']} {'UP' in link['flags']} {link.get('master')} "
            f"{link.get('ifalias')} {link.get('group')}"
            for link in links
        },
        "address": {
            f"{link} {local}/{length}" for link, local, length in observed.addresses if link in names
        },
        "route": {
            f"{r['dst']} {r.get('dev')} {r.get('gateway')} {r.get('protocol')} {r.get('table')} {r.get('metric')}"
            for r in observed.routes
            # Anycast routes come and go with IPv6 forwarding.
            if str(r.get("protocol")) != PROTOCOL and r.get("dev") in names and r.get("type") != "anycast"
        },
        "rule": {f"{r['priority']} {r.get('src')} {r.get('table')}" for r in observed.rules},
        "neighbour": {
            f"{n['dev']} {n['dst']} {n.get('lladdr')}"
            for n in observed.neighbours
            if n["dev"] in names and "PERMANENT" in n["state"]
        },
        "FDB entry": {
            f"{e['ifname']} {e['mac']} {e.get('state')}"
            for e in observed.fdb
            if e["ifname"] in names and e.get("state") == "static"
        },
        "nft object": {f"{t}" for t in nft.tables | nft.chains if t[1] != "sealane"}
        | {
            f"{where} {e}"
            for where, elements in nft.elements.items()
            if where[1] != "sealane"
            for e in elements
        }
        | {f"{r}" for r in nft.rules if r["table"] != "sealane"},
    }


def changes(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """What happened to foreign objects meanwhile."""
    found = []
    for kind, was in before.items():
        found += [f"foreign {kind} is gone: {item}" for item in sorted(was - after[kind])]
        found += [f"foreign {kind} has appeared: {item}" for item in sorted(after[kind] - was)]
    return found
