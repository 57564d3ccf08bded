"""The fast path: packets within a network that the guards would let through go from link to link.

A workload's link has a program at its entrance that knows every address of the network (`linux/bpf/fast_path_program.py`).
Guards, bridge and routing code stay as they are, for everything that is not plain, and for all of it where the fast path
is not open. What is dropped is always dropped by a rule that has a name.

It is not open to packets that somebody else may want to judge: while rules that are not ours stand where they would pass,
they go the long way and meet them. Nor where answers have to be translated back on the long way (`network.is_tracked`).
"""

from collections.abc import Iterable, Iterator
from typing import cast

from sealane.compile import names
from sealane.compile.facts import Facts
from sealane.compile.names import NFT_FAMILY
from sealane.compile.network import has_data_plane, is_tracked, mtu
from sealane.kernel.nft import NftFamily
from sealane.kernel.objects import FAST_DRIVERS, FastDriver, FastGate, FastPort, FastTarget
from sealane.model.endpoint import Endpoint
from sealane.model.net import FAMILIES, Family
from sealane.model.network import Network


def has_fast_path(network: Network, facts: Facts) -> bool:
    """Whether its endpoints may reach each other, are behind links of ours, and nobody has said no."""
    return (
        facts.features.fast_path
        and network.fast_path
        and network.icc
        and has_data_plane(network)
        and not network.link_adopted
    )


def compile_fast_path(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[FastPort | FastTarget]:
    """What an endpoint with a sandbox has of it."""
    if not (endpoint.fast_path and has_fast_path(network, facts)):
        return
    link, driver = names.endpoint_link(endpoint.id), cast("FastDriver", network.driver)
    yield FastPort(link=link, driver=driver)
    for family in FAMILIES:
        address = endpoint.address(family)
        if address is not None:
            yield FastTarget(
                address=address,
                network=names.network_group(network.id),
                link=link,
                mac=endpoint.mac,
                host_mac="" if network.traits.has_bridge else names.host_mac(endpoint.id),
                mtu=mtu(network, facts),
                # What goes into the sandbox at a rate waits at the host's end, which the fast path does not pass.
                delivers=endpoint.ingress is None,
            )


def compile_gates(networks: Iterable[Network], facts: Facts) -> Iterator[FastGate]:
    fast = [network for network in networks if has_fast_path(network, facts)]
    for driver in FAST_DRIVERS:
        for family in FAMILIES:
            of_driver = [network for network in fast if network.driver == driver]
            if not of_driver or any(is_tracked(network, family, facts) for network in of_driver):
                continue
            if is_open(driver, family, facts):
                yield FastGate(driver=driver, family=family)


def is_open(driver: FastDriver, family: Family, facts: Facts) -> bool:
    """Whether no rule of somebody else's stands on the long way."""
    return not _passed(driver, family, facts).intersection(facts.features.firewalls)


def _passed(driver: FastDriver, family: Family, facts: Facts) -> set[NftFamily]:
    """Families whose hooks a packet passes on the long way."""
    if driver == "routed":
        return {NFT_FAMILY[family]}
    return {"bridge", NFT_FAMILY[family]} if facts.features.bridge_netfilter else {"bridge"}
