"""Who has an address: permanent entries, ARP and neighbour discovery, and why nobody answers."""

import pytest

from sealane.compile.names import endpoint_link, network_link
from sealane.explain.packet import Disposition
from sealane.kernel.objects import Neighbour
from sealane.kernel.state import HOST
from sealane.model.network import GatewayLink
from unit.explain.worlds import BRIDGED, Town, steps

WEB = {4: "10.1.0.10", 6: "fd00:1::10"}
GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
WAY = {4: "ARP", 6: "neighbour discovery"}
BOTH = pytest.mark.parametrize("family", [4, 6])


@BOTH
def test_a_sibling_is_asked_and_answers(family: int) -> None:
    town = Town()
    (text,) = steps(town.send("api", WEB[family]), "neighbour")
    assert text == f"{WEB[family]} is at {town.web.mac} ({WAY[family]}, answered by web)"


@BOTH
def test_the_host_answers_for_the_gateway(family: int) -> None:
    town = Town()
    bridge = town.world.namespace(HOST).link(network_link(town.front))
    assert bridge is not None
    (text,) = steps(town.send("api", GATEWAY[family]), "neighbour")
    assert text == f"{GATEWAY[family]} is at {bridge.mac} ({WAY[family]}, answered by host)"


@BOTH
def test_the_host_does_not_ask(family: int) -> None:
    town = Town()
    trace = town.send(HOST, WEB[family])
    assert steps(trace, "neighbour") == [f"{WEB[family]} is at {town.web.mac} (permanent)"]


@BOTH
def test_without_its_permanent_entry_the_host_asks(family: int) -> None:
    town = Town()
    town.remove(HOST, ("neighbour", network_link(town.front), WEB[family], False))
    (text,) = steps(town.send(HOST, WEB[family]), "neighbour")
    assert f"({WAY[family]}, answered by web)" in text


@BOTH
def test_routed_endpoints_and_the_host_know_each_other(family: int) -> None:
    town = Town(front={"driver": "routed"})
    trace = town.send("api", WEB[family])
    assert [text.endswith("(permanent)") for text in steps(trace, "neighbour")] == [True, True]


@BOTH
def test_a_routed_gateway_answers_too_if_it_is_asked(family: int) -> None:
    """The permanent entry gone (a workload may delete it): Linux answers ARP for any address of its own, and ND for
    the gateway by its proxy entry."""
    town = Town(front={"driver": "routed"})
    town.remove("sandbox-api", ("neighbour", "eth0", GATEWAY[family], False))
    assert town.send("api", WEB[family]).disposition is Disposition.DELIVERED
    if family == 6:
        town.remove(HOST, ("neighbour", endpoint_link(town.api.id), GATEWAY[6], True))
        assert town.send("api", WEB[6]).disposition is Disposition.NEIGHBOUR_UNREACHABLE


@BOTH
def test_nobody_has_it(family: int) -> None:
    free = {4: "10.1.0.99", 6: "fd00:1::99"}[family]
    trace = Town().send("api", free)
    assert (trace.disposition, trace.netns) == (Disposition.NEIGHBOUR_UNREACHABLE, "sandbox-api")
    assert "nobody on this link has it" in trace.reason
    assert free in trace.reason


def test_a_gateway_that_is_not_on_the_link() -> None:
    """Docker's inhibit_ipv4: it is somebody else's, who is not there."""
    trace = Town(front={"host_link": GatewayLink(has_gateway=False)}).send("web", "198.51.100.1")
    assert trace.disposition is Disposition.NEIGHBOUR_UNREACHABLE


@BOTH
@pytest.mark.parametrize("facts", [None, BRIDGED], ids=["plain", "br_netfilter"])
def test_questions_do_not_pass_between_isolated_ports(family: int, facts) -> None:
    town = Town(front={"icc": False}, **({"facts": facts} if facts else {}))
    trace = town.send("api", WEB[family])
    assert not trace.passes
    assert "isolated" in trace.reason or "apart" in trace.reason


@BOTH
def test_an_answer_under_a_stolen_address_is_dropped(family: int) -> None:
    """The guard of the answering port: web has lost its place in `sources`, as if the address were another's."""
    town = Town()
    for key in [
        k for k in town.compiled.desired[HOST] if k[:3] == ("nft-element", "bridge", f"sources{family}")
    ]:
        if endpoint_link(town.web.id).encode() in key[3]:
            town.remove(HOST, key)
    trace = town.send("api", WEB[family])
    assert trace.disposition is Disposition.NEIGHBOUR_UNREACHABLE
    assert "endpoint's own" in trace.reason


def test_a_wrong_permanent_entry_is_believed() -> None:
    town = Town()
    wrong = Neighbour(link="eth0", address=WEB[4], mac="02:00:00:00:00:77")
    town.compiled.desired["sandbox-api"][wrong.key] = wrong
    assert town.send("api", WEB[4]).disposition is Disposition.LOST


def test_without_a_link_local_address_nobody_can_be_asked_over_ipv6() -> None:
    """The host side of a routed endpoint: what it knows, it knows by its permanent entry alone (ndisc_send_ns)."""
    town = Town(front={"driver": "routed"})
    for family, expected in ((4, Disposition.DELIVERED), (6, Disposition.NEIGHBOUR_UNREACHABLE)):
        town.remove(HOST, ("neighbour", endpoint_link(town.web.id), WEB[family], False))
        assert town.send("api", WEB[family]).disposition is expected
    assert "no link-local address" in town.send("api", WEB[6]).reason


def test_a_port_that_is_down_is_not_asked() -> None:
    town = Town()
    town.remove(HOST, ("neighbour", network_link(town.front), WEB[4], False))
    town.change(HOST, ("link", endpoint_link(town.web.id)), up=False)
    assert town.send(HOST, WEB[4]).disposition is Disposition.NEIGHBOUR_UNREACHABLE


def test_a_port_whose_other_end_is_unknown_may_have_anything() -> None:
    town = Town()
    town.change(HOST, ("link", endpoint_link(town.db.id)), peer=None)
    assert town.send(HOST, "10.2.0.99").disposition is Disposition.NEIGHBOUR_UNREACHABLE
