"""The engine's marks and names, as its documentation has them, written down a second time for the auditor."""

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from harness.observed import Facts
from harness.stored import Record

PROTOCOL = "94"
"""Of routes and rules."""

GROUP_LIVE, GROUP_DOOMED = 0x5EA1, 0x5EA0
NETWORK_GROUPS = 0x4000_0000
OWN_TABLES = 0x5EA1_0000
"""Routing tables of a sandbox from here on are ours, one an endpoint."""

FAMILIES = ((4, "ip"), (6, "ip6"))


def digest(identity: str, length: int = 12) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:length]


def host_link(endpoint: Record) -> str:
    return "sle" + digest(endpoint["id"])


def bridge(network: Record) -> str:
    return str(own_link(network).get("name") or "slb" + digest(network["id"]))


def network_group(network: Record) -> int:
    """Link group of the links behind which a network's workloads are."""
    return NETWORK_GROUPS | (int(digest(network["id"], 8), 16) & 0x3FFF_FFFF)


def group_of(link: Facts) -> int:
    """`ip` names group 0 and prints others as numbers."""
    group = str(link.get("group", "default"))
    return 0 if group == "default" else int(group, 0)


def chain(network: Record, purpose: str) -> str:
    return f"n_{digest(network['id'])}_{purpose}"


def link_local(mac: str) -> str:
    octets = bytes.fromhex(mac.replace(":", ""))
    packed = b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(packed))


def is_ours(link: Facts) -> bool:
    return bool(re.match(r"sealane/", link.get("ifalias", ""))) or bool(
        re.fullmatch(r"sl[eb][0-9a-f]{12}", link["ifname"])
    )


def difference(what: str, desired: set[Any], found: set[Any]) -> Iterator[str]:
    for item in sorted(desired - found, key=str):
        yield f"I4: {what} {item} is in the store but not in the kernel"
    for item in sorted(found - desired, key=str):
        yield f"I1: {what} {item} has no owner in the store"


def own_link(network):
    """A stored network's own link on the host: what was asked for."""
    return network.get("host_link") or {}


def is_adopted(network):
    return own_link(network).get("adopted", False)


def has_gateway(network):
    return own_link(network).get("has_gateway", True)
