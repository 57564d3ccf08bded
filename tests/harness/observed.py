"""What the kernel says, asked with `ip`, `bridge`, `nft` and `conntrack`: the auditor's other half."""

import ipaddress
import re
from typing import Any

from harness.netns import Netns

Facts = dict[str, Any]


class Observed:
    """One namespace, read once. Of a sandbox (`inside`) only what the engine puts there is read."""

    def __init__(self, ns: Netns, *, inside: bool = False) -> None:
        self.links: dict[str, Facts] = {link["ifname"]: link for link in ns.json("ip", "-d", "link", "show")}
        self.addresses = [
            (link["ifname"], entry["local"], entry["prefixlen"])
            for link in ns.json("ip", "addr", "show")
            for entry in link["addr_info"]
        ]
        self.routes: list[Facts] = []
        self.rules: list[Facts] = []
        for family in ("-4", "-6"):
            self.routes += ns.json("ip", family, "route", "show", "table", "all")
            self.rules += ns.json("ip", family, "rule", "show")
        if inside:
            return
        self.neighbours: list[Facts] = ns.json("ip", "neigh", "show")
        self.proxies: list[Facts] = ns.json("ip", "-6", "neigh", "show", "proxy")
        self.fdb: list[Facts] = ns.json("bridge", "fdb", "show")
        self.ports: dict[str, Facts] = {
            port["ifname"]: port for port in ns.json("bridge", "-d", "link", "show")
        }
        self.nft = Nft(ns.json("nft", "list", "ruleset").get("nftables", []))

    def link_addresses(self, name: str) -> set[str]:
        return {f"{local}/{length}" for link, local, length in self.addresses if link == name}


class Nft:
    """A ruleset. Elements are tuples of words in canonical form, ranges as `first-last`."""

    def __init__(self, objects: list[Facts]) -> None:
        self.tables: set[tuple[str, str]] = set()
        self.chains: set[tuple[str, str, str]] = set()
        self.elements: dict[tuple[str, str, str], set[tuple[str, ...]]] = {}
        """(family, table, set or map) → elements; of a map the key, then the value."""
        self.rules: list[Facts] = []
        for item in objects:
            kind, body = next(iter(item.items()))
            if kind == "table":
                self.tables.add((body["family"], body["name"]))
            elif kind == "chain":
                self.chains.add((body["family"], body["table"], body["name"]))
            elif kind in {"set", "map"}:
                where = (body["family"], body["table"], body["name"])
                self.elements[where] = {_element(e) for e in body.get("elem", [])}
            elif kind == "rule":
                self.rules.append({key: value for key, value in body.items() if key != "handle"})

    def ours(self, family: str, name: str) -> set[tuple[str, ...]]:
        return self.elements.get((family, "sealane", name), set())


def _element(value: Any) -> tuple[str, ...]:
    if isinstance(value, list):
        return (*_element(value[0]), *_element(value[1]))
    if isinstance(value, dict):
        if "elem" in value:
            return _element(value["elem"]["val"])
        if "concat" in value:
            return tuple(word for part in value["concat"] for word in _element(part))
        if "prefix" in value:
            network = ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")
            return (span(network[0], network[-1]),)
        if "range" in value:
            first, last = value["range"]
            return (span(first, last),)
        for verdict in ("goto", "jump"):
            if verdict in value:
                return (f"{verdict} {value[verdict]['target']}",)
    return (str(value),)


def span(first: object, last: object) -> str:
    return str(first) if first == last else f"{first}-{last}"


_FLOW = re.compile(r"(src|dst|sport|dport)=(\S+)")


def flows(ns: Netns) -> list[Facts]:
    """Entries of connection tracking: proto, and the addresses and ports of both directions."""
    found = []
    for family in ("ipv4", "ipv6"):
        for line in ns.run("conntrack", "-L", "-f", family).stdout.splitlines():
            words = _FLOW.findall(line)
            half = len(words) // 2
            if half < 2:
                continue
            found.append(
                {"proto": line.split()[0], "original": dict(words[:half]), "reply": dict(words[half:])}
            )
    return found
