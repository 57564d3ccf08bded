"""Endpoints that are handed over: everything on the host, nothing inside; and what is presumed to be there."""

import msgspec
import pytest

from sealane.compile.drivers import compile_endpoint
from sealane.compile.facts import Facts, Features
from sealane.compile.host import compile_host
from sealane.compile.names import handover_link
from sealane.compile.presumed import with_presumed
from sealane.kernel.objects import Address, ForwardRule, Link, Route
from sealane.kernel.state import HOST
from sealane.model.endpoint import Endpoint, NetnsRef, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.net import Address as IpAddress
from sealane.model.net import Interface, Mac, Prefix
from sealane.model.network import GatewayLink, Network, Subnet
from unit.compile.samples import NETWORK, WEB

FACTS = Facts(instance="abcdef", uplink_mtu=1400)
BOX = Sandbox(id=SandboxId("box"), name="box", netns=None, implicit=True, awaited="/run/docker/netns/1")
HANDED = msgspec.structs.replace(WEB, handover=True)


def test_on_the_host_it_is_as_any_other_but_for_the_other_end() -> None:
    plain = [item for netns, item in compile_endpoint(WEB, NETWORK, FACTS) if netns == HOST]
    handed = list(compile_endpoint(HANDED, NETWORK, FACTS))
    assert {netns for netns, _ in handed} == {HOST}
    links = [item for _, item in handed if isinstance(item, Link)]
    assert [(link.peer, link.kind.handover) for link in links] == [(None, handover_link(HANDED.id))]
    assert [i for _, i in handed if not isinstance(i, Link)] == [i for i in plain if not isinstance(i, Link)]


def test_its_sandbox_is_left_alone_once_its_namespace_is_known() -> None:
    known = msgspec.structs.replace(BOX, netns=NetnsRef(path=BOX.awaited, inode=7))
    before = compile_host(Intent([NETWORK, BOX, HANDED]), FACTS)
    assert compile_host(Intent([NETWORK, known, HANDED]), FACTS) == before
    assert set(before) == {HOST}


def test_beside_it_another_endpoint_has_its_own_way_and_no_default_route() -> None:
    """Who set up the first has given the sandbox its default route, or means it to have none."""
    back = Network(
        id=NetworkId("back"),
        name="aback",
        subnets=(Subnet(prefix=Prefix("10.2.0.0/24"), gateway=IpAddress("10.2.0.1")),),
    )
    known = msgspec.structs.replace(BOX, netns=NetnsRef(path=BOX.awaited, inode=7))
    mine = Endpoint(
        id=EndpointId("mine"),
        name="mine",
        network=back.id,
        sandbox=BOX.id,
        ifname="eth1",
        mac=Mac("02:00:00:00:00:02"),
        addresses=(Interface("10.2.0.2/24"),),
    )
    inside = compile_host(Intent([NETWORK, back, known, HANDED, mine]), FACTS)[BOX.id]
    routes = [item for item in inside.values() if isinstance(item, Route)]
    assert routes
    assert all(route.table != 254 for route in routes)


class TestPresumed:
    def test_nothing_is_added_where_nothing_was_handed_over(self) -> None:
        desired = compile_host(Intent([NETWORK]), FACTS)
        assert with_presumed(desired, Intent([NETWORK]), FACTS) is desired

    @pytest.mark.parametrize("without_gateway", [False, True])
    def test_it_is_what_whoever_took_it_was_told(self, *, without_gateway: bool) -> None:
        intent = Intent([NETWORK, BOX, msgspec.structs.replace(HANDED, without_gateway=without_gateway)])
        desired = compile_host(intent, FACTS)
        presumed = with_presumed(desired, intent, FACTS)
        assert BOX.id not in desired
        inside = presumed[BOX.id].values()
        assert {a.address for a in inside if isinstance(a, Address)} == {"10.1.0.2/24", "fd00::2/64"}
        assert {r.dst for r in inside if isinstance(r, Route)} == (
            set() if without_gateway else {"0.0.0.0/0", "::/0"}
        )
        (port,) = [i for i in presumed[HOST].values() if isinstance(i, Link) and i.kind.is_pair]
        assert port.peer == (BOX.id, "eth0")

    def test_an_endpoint_without_a_sandbox_is_nowhere(self) -> None:
        intent = Intent([NETWORK, msgspec.structs.replace(HANDED, sandbox=None)])
        desired = compile_host(intent, FACTS)
        assert with_presumed(desired, intent, FACTS) is desired


class TestPassages:
    @staticmethod
    def of(*networks: Network, drops: tuple[str, ...]) -> list[tuple[str, str]]:
        facts = msgspec.structs.replace(FACTS, features=Features(forward_drops=drops))  # type: ignore[arg-type]
        found = compile_host(Intent(networks), facts)[HOST].values()
        return [(item.family, item.link) for item in found if isinstance(item, ForwardRule)]

    def test_where_nothing_drops_there_are_none(self) -> None:
        assert self.of(NETWORK, drops=()) == []

    def test_without_a_network_there_are_none(self) -> None:
        assert self.of(drops=("ip", "ip6")) == []

    def test_one_a_family_for_all_links_of_ours(self) -> None:
        assert self.of(NETWORK, drops=("ip", "ip6")) == [("ip", "sl*"), ("ip6", "sl*")]

    def test_and_one_for_a_bridge_of_another_name(self) -> None:
        named = msgspec.structs.replace(NETWORK, host_link=GatewayLink(name="br0"))
        assert self.of(named, drops=("ip",)) == [("ip", "br0"), ("ip", "sl*")]
