"""Names of kernel objects: the only hashing and truncation.

Names are derived from ids, never from user text, so they are stable over restarts, at most IFNAMSIZ - 1 = 15 bytes,
and hold no character that any parser of `nft list` output trips over. Twelve hex digits are 48 bits: 4,000 endpoints
collide with a chance of 3e-8, and a collision is refused by the compiler, which finds one object made twice.
"""

import hashlib
from functools import lru_cache

from sealane.kernel.nft import NftFamily
from sealane.kernel.objects import NETWORK_GROUPS
from sealane.model.ids import EndpointId, NetworkId
from sealane.model.net import Family, Mac
from sealane.model.network import Network

ENDPOINT_PREFIX = "sle"
"""Every host-side link of an endpoint begins so. The guards match on it: a link of ours that no rule knows yet (or
any more) carries nothing."""

BRIDGE_PREFIX = "slb"

HANDOVER_PREFIX = "slh"
"""An endpoint's other end, on the host until somebody takes it into a sandbox. Not `sle`: it is no workload's port."""

LINK_PREFIXES = (BRIDGE_PREFIX, ENDPOINT_PREFIX, HANDOVER_PREFIX)
"""What other links cannot be called: each of these may be made one day, and the guards know ports by their prefix."""

PASSAGE_LINKS = "sl*"
"""All links that IP packets of workloads come and go by, bridges that were given another name excepted."""

NFT_FAMILY: dict[Family, NftFamily] = {4: "ip", 6: "ip6"}


@lru_cache(maxsize=256)
def digest(identity: str, length: int = 12) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:length]


def endpoint_link(endpoint: EndpointId) -> str:
    return ENDPOINT_PREFIX + digest(endpoint)


def handover_link(endpoint: EndpointId) -> str:
    return HANDOVER_PREFIX + digest(endpoint)


def network_link(network: Network) -> str:
    """The network's bridge (for `routed`: the port-less bridge that holds its gateway addresses)."""
    return network.link or BRIDGE_PREFIX + digest(network.id)


def network_group(network: NetworkId) -> int:
    """The link group of a network: 30 bits, so that 1,000 networks collide with a chance of 5e-4; that is refused."""
    return NETWORK_GROUPS | (int(digest(network, 8), 16) & 0x3FFF_FFFF)


def network_chain(network: NetworkId, purpose: str) -> str:
    return f"n_{digest(network)}_{purpose}"


@lru_cache(maxsize=256)
def mac(identity: str) -> Mac:
    """A locally administered unicast MAC, the same each time for one identity."""
    raw = hashlib.sha256(identity.encode()).digest()[:6]
    return Mac(bytes([(raw[0] & 0xFC) | 0x02, *raw[1:]]).hex(":"))


def host_mac(endpoint: EndpointId) -> Mac:
    """Of the host's end of an endpoint's link."""
    return mac(f"host side {endpoint}")


def alias(instance: str, kind: str, identity: str) -> str:
    """IFLA_IFALIAS of our links: by it a process with an empty memory knows them, and whose they are."""
    return f"sealane/{instance}/{kind}/{identity}"
