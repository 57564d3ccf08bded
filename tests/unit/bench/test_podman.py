"""The podman benchmark asks both of the same, and its ratio is how many times faster ours is."""

from bench.peers import PORT_FIRST, netavark_options
from bench.podman import CONTAINERS, ROUNDS, row


def test_each_container_has_an_address_and_a_port_of_its_own() -> None:
    asked = [netavark_options(number) for number in range(CONTAINERS + ROUNDS + 1)]
    addresses = {each["networks"]["bench"]["static_ips"][0] for each in asked}
    ports = {each["port_mappings"][0]["host_port"] for each in asked}
    assert len(addresses) == len(ports) == len(asked)
    assert max(ports) < 65536
    assert min(ports) == PORT_FIRST


def test_the_ratio_is_of_the_same_verb() -> None:
    took = {"setup": [0.25, 0.5], "peer setup": [2.0, 4.0], "teardown": [1.0], "peer teardown": [2.0]}
    assert (row("setup", took).ratio, row("setup", took).is_met) == (8.0, True)
    assert (row("teardown", took).ratio, row("teardown", took).goal) == (2.0, None)
