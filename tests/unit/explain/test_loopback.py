"""The host's own loopback: published ports are redirected at the socket."""

import pytest

from sealane.explain.packet import Disposition
from sealane.explain.walk import answer, is_answered, walk
from sealane.kernel.state import HOST
from sealane.model.endpoint import PublishedPort
from sealane.model.net import Address
from unit.explain.worlds import HOST_ADDRESS, Town, steps

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
BOTH = pytest.mark.parametrize("family", [4, 6])


@BOTH
def test_a_published_port_leads_to_the_backend_under_an_address_of_the_host(family: int) -> None:
    town = Town()
    there = town.send(HOST, LOOPBACK[family], 8080)
    assert (there.netns, there.final.destination_port) == ("sandbox-web", 80)
    assert there.final.source == {4: "10.1.0.1", 6: "fd00:1::1"}[family]
    assert steps(there, "socket")
    assert is_answered(there, walk(town.world, *answer(there), there.flows))


def test_all_of_127_and_the_unspecified_address_count() -> None:
    assert Town().send(HOST, "127.9.9.9", 8080).netns == "sandbox-web"
    assert Town().send(HOST, "0.0.0.0", 8080).netns == "sandbox-web"


def test_a_range_leads_step_by_step() -> None:
    town = Town(ports=(PublishedPort(host_first=8000, host_last=8009, port=9000),))
    assert town.send(HOST, "127.0.0.1", 8004).final.destination_port == 9004
    assert town.send(HOST, "127.0.0.1", 8010).netns == HOST


def test_other_ports_and_protocols_are_the_hosts_own() -> None:
    assert Town().send(HOST, "127.0.0.1", 8081).netns == HOST
    assert Town().send(HOST, "127.0.0.1", 8080, proto="udp").netns == HOST


def test_a_socket_bound_to_loopback_is_left_alone() -> None:
    trace = Town().send(HOST, "127.0.0.1", 8080, source="127.0.0.1")
    assert (trace.disposition, trace.netns) == (Disposition.DELIVERED, HOST)


def test_sandboxes_have_a_loopback_of_their_own() -> None:
    trace = Town().send("api", "127.0.0.1", 8080)
    assert (trace.netns, steps(trace, "socket")) == ("sandbox-api", [])


@BOTH
def test_whoever_asks_another_address_for_a_port_of_the_loopback_is_told(family: int) -> None:
    only = PublishedPort(host_first=8081, host_last=8081, port=80, host_address=Address(LOOPBACK[family]))
    town = Town(ports=(only, PublishedPort(host_first=8080, host_last=8080, port=80)))
    there = town.send(HOST, HOST_ADDRESS[family], 8081)
    assert (there.netns, there.hint) == (HOST, "publish it on this address, or on all")
    assert there.reason.endswith("8081/tcp is published on the loopback only")
    for address, port in (
        (HOST_ADDRESS[family], 8082),
        (LOOPBACK[family], 8082),
        (HOST_ADDRESS[family], 8080),
    ):
        assert town.send(HOST, address, port).hint == ""
