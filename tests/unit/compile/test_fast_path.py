"""Who has a fast path, and what of it."""

from typing import Any

import msgspec
import pytest

from sealane.compile import names
from sealane.compile.facts import Facts, Features
from sealane.compile.fast_path import compile_fast_path, compile_gates
from sealane.compile.host import compile_host
from sealane.compile.names import NFT_FAMILY
from sealane.kernel.nft import Element
from sealane.kernel.objects import FastGate, FastPort, FastTarget
from sealane.kernel.state import HOST
from sealane.model.endpoint import Bandwidth, Endpoint, NetnsRef, Sandbox
from sealane.model.ids import SandboxId
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES
from sealane.model.network import GatewayLink
from unit.compile.samples import NETWORK, WEB

FACTS = Facts(instance="abcdef", uplink_mtu=1400, features=Features(fast_path=True))
BOX = Sandbox(id=SandboxId("box"), name="box", netns=NetnsRef(path="/run/netns/box", inode=7))
LINK = names.endpoint_link(WEB.id)


def compiled(
    network: dict[str, Any] | None = None, endpoint: dict[str, Any] | None = None, facts: Facts = FACTS
) -> list:
    changed = msgspec.structs.replace(NETWORK, **(network or {}))
    return list(compile_fast_path(msgspec.structs.replace(WEB, **(endpoint or {})), changed, facts))


def test_a_bridge_knows_no_mac_of_the_host() -> None:
    group = names.network_group(NETWORK.id)
    assert compiled() == [
        FastPort(link=LINK, driver="bridge"),
        FastTarget(address="10.1.0.2", network=group, link=LINK, mac=WEB.mac, mtu=1400),
        FastTarget(address="fd00::2", network=group, link=LINK, mac=WEB.mac, mtu=1400),
    ]


def test_a_routed_network_does_and_so_does_its_link() -> None:
    port, *targets = compiled({"driver": "routed", "mtu": 1300})
    assert port == FastPort(link=LINK, driver="routed")
    routed = msgspec.structs.replace(NETWORK, driver="routed")
    intent = Intent([routed, BOX, WEB])
    link = compile_host(intent, FACTS)[HOST]["link", LINK]
    assert {(t.host_mac, t.mtu) for t in targets} == {(link.mac, 1300)}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("network", "facts"),
    [
        ({"icc": False}, FACTS),
        ({"fast_path": False}, FACTS),
        ({"host_link": GatewayLink(name="br0", adopted=True)}, FACTS),
        ({}, Facts(instance="abcdef")),
    ],
)
def test_who_has_none(network: dict[str, Any], facts: Facts) -> None:
    assert compiled(network, facts=facts) == []
    assert list(compile_gates([msgspec.structs.replace(NETWORK, **network)], facts)) == []


def test_an_endpoint_may_do_without() -> None:
    assert compiled(endpoint={"fast_path": False}) == []


def test_what_comes_in_at_a_rate_is_not_delivered_past_it() -> None:
    slow = Bandwidth(rate=10**7, burst=10**5)
    assert {t.delivers for t in compiled(endpoint={"ingress": slow})[1:]} == {False}
    assert {t.delivers for t in compiled(endpoint={"egress": slow})[1:]} == {True}


def test_an_endpoint_without_a_sandbox_has_none_and_one_that_is_handed_over_has() -> None:
    def fast(endpoint: Endpoint) -> set[str]:
        state = compile_host(Intent([NETWORK, BOX, endpoint]), FACTS)[HOST]
        return {type(item).__name__ for item in state.values() if isinstance(item, FastPort | FastTarget)}

    assert fast(msgspec.structs.replace(WEB, sandbox=None)) == set()
    assert fast(msgspec.structs.replace(WEB, handover=True)) == {"FastPort", "FastTarget"}


def test_gates_are_of_the_drivers_that_there_are() -> None:
    both = [NETWORK, msgspec.structs.replace(NETWORK, driver="routed")]
    assert list(compile_gates([], FACTS)) == []
    assert list(compile_gates(both[:1], FACTS)) == [
        FastGate(driver="bridge", family=4),
        FastGate(driver="bridge", family=6),
    ]
    assert len(list(compile_gates(both, FACTS))) == 4


@pytest.mark.parametrize("driver", ["bridge", "routed"])
@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("translators", [(), ("ip",), ("ip6",), ("ip", "ip6")])
def test_gates_are_closed_where_answers_are_translated_back(
    driver: str, hooks: bool, translators: tuple[Any, ...]
) -> None:
    """On a bridge without br_netfilter they are not: there an answer comes to the gateway, and that is no neighbour."""
    features = Features(fast_path=True, bridge_netfilter=hooks, translators=translators)
    network = msgspec.structs.replace(NETWORK, driver=driver)
    facts = msgspec.structs.replace(FACTS, features=features)
    tracked = {4: "ip" in translators, 6: "ip6" in translators} if hooks or driver == "routed" else {}
    desired = {family for family in FAMILIES if not tracked.get(family)}
    assert {item.family for item in compile_gates([network], facts)} == desired
    marked = {
        item.family
        for item in compile_host(Intent([network, BOX, WEB]), facts)[HOST].values()
        if is_itself(item)
    }
    assert marked == {NFT_FAMILY[family] for family in FAMILIES if tracked.get(family)}


def is_itself(item: object) -> bool:
    return isinstance(item, Element) and item.set == "itself"
