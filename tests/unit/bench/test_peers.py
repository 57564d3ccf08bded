"""How the peers are called."""

import ipaddress

import pytest
from bench.host import HostError
from bench.peers import PORT_FIRST, _cni_bridge, _cni_portmap, address_of, call, netavark_options


def test_numbers_get_addresses_of_their_own_clear_of_the_gateway() -> None:
    addresses = {address_of("10.88", number) for number in range(1000)}
    assert len(addresses) == 1000
    assert all(ipaddress.IPv4Address(a) in ipaddress.IPv4Network("10.88.0.0/16") for a in addresses)
    assert "10.88.0.1" not in addresses


def test_a_call_times_a_process_and_decodes_what_it_says() -> None:
    took, answer = call(["sh", "-c", "sleep 0.05; cat"], {"a": [1]})
    assert answer == {"a": [1]}
    assert took >= 0.05


def test_a_call_that_says_nothing_answers_nothing() -> None:
    assert call(["true"], {})[1] is None


def test_a_call_that_fails_says_what_the_peer_said() -> None:
    with pytest.raises(HostError, match="no such network"):
        call(["sh", "-c", "echo no such network; exit 1"], {})


def test_netavark_is_asked_for_one_address_and_one_port_without_dns() -> None:
    options = netavark_options(7)
    assert options["networks"]["bench"]["static_ips"] == ["10.88.0.17"]
    assert [m["host_port"] for m in options["port_mappings"]] == [PORT_FIRST + 7]
    network = options["network_info"]["bench"]
    assert network["dns_enabled"] is False
    assert len(options["container_id"]) == 64


def test_cni_is_asked_for_a_default_route_and_the_same_port() -> None:
    assert _cni_bridge()["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    result = {"ips": []}
    config = _cni_portmap(7, result)
    assert config["runtimeConfig"]["portMappings"][0]["hostPort"] == PORT_FIRST + 7
    assert config["prevResult"] is result
    assert config["name"] == _cni_bridge()["name"]
