"""What a container's files say, by its request and its networks."""

import msgspec
import pytest

from harness.engines import Bench, subnets
from sealane.daemon.requests import dns_of, hosts_of
from sealane.dns.resolvconf import Resolver
from sealane.wire.requests import ContainerRequest

SPEC = msgspec.Raw(b'{"command": ["x"]}')


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.network("front", subnets=subnets("10.1.0.0/24"))
    made.network("inner", subnets=subnets("10.2.0.0/24"), internal=True)
    return made


def endpoints(bench: Bench, *networks: str):
    for network in networks:
        bench.attach("/run/netns/web", network)
    return list(bench.engine.intent.endpoints.values())


@pytest.mark.parametrize(
    ("asked", "networks", "found"),
    [
        ([], ["front"], ("corp.example",)),
        ([], ["front", "inner"], ("corp.example",)),
        ([], ["inner"], ()),
        (["own.example"], ["front"], ("own.example",)),
        (["own.example"], ["inner"], ("own.example",)),
        (["."], ["front"], ()),
    ],
)
def test_search_domains_are_the_hosts_unless_it_has_its_own(bench: Bench, asked, networks, found) -> None:
    request = ContainerRequest(name="web", spec=SPEC, dns_search=asked)
    dns = dns_of(
        request,
        endpoints(bench, *networks),
        bench.engine.intent,
        Resolver(("192.0.2.53",), ("corp.example",)),
    )
    assert dns.search == found


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], ("timeout:1", "attempts:4", "ndots:0")),
        (["rotate"], ("rotate", "ndots:0")),
        (["ndots:2", "rotate"], ("ndots:2", "rotate")),
    ],
)
def test_services_come_before_search_domains_unless_somebody_says_otherwise(
    bench: Bench, asked, found
) -> None:
    request = ContainerRequest(name="web", spec=SPEC, dns_options=asked)
    assert dns_of(request, endpoints(bench, "front"), bench.engine.intent, Resolver()).options == found


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"command": ["x"]}, "web"),
        ({"command": ["x"], "hostname": "box"}, "box web"),
        ({"command": ["x"], "hostname": "web"}, "web"),
    ],
)
def test_its_hostname_is_at_its_own_address(bench: Bench, spec, names) -> None:
    request = ContainerRequest(
        name="web", spec=msgspec.Raw(msgspec.json.encode(spec)), hosts={"up": "host-gateway"}
    )
    lines = hosts_of(request, endpoints(bench, "front"), bench.engine.intent)
    assert lines == (f"10.1.0.2 {names}", "10.1.0.1 up")


@pytest.mark.parametrize(
    ("mode", "servers", "searches"), [("host", ("192.0.2.53",), ("corp.example",)), ("none", (), ())]
)
def test_on_the_hosts_network_names_are_resolved_as_on_the_host(
    bench: Bench, mode, servers, searches
) -> None:
    request = ContainerRequest(name="web", spec=SPEC, network_mode=mode)
    dns = dns_of(request, [], bench.engine.intent, Resolver(("192.0.2.53",), ("corp.example",)))
    assert (dns.nameservers, dns.search) == (servers, searches)


HOST = Resolver(("127.0.0.53", "192.0.2.53"))


@pytest.mark.parametrize(
    ("network", "asked", "host", "servers"),
    [
        ({}, [], HOST, ("10.3.0.1",)),
        ({"options": {"dns": "false"}}, [], HOST, ("192.0.2.53",)),
        ({"options": {"dns": "false"}}, ["9.9.9.9"], HOST, ("9.9.9.9",)),
        ({"options": {"dns": "false", "dns-servers": "8.8.8.8"}}, [], HOST, ("8.8.8.8",)),
        ({"options": {"dns": "false"}, "internal": True}, [], HOST, ()),
        ({}, [], HOST._replace(serves=False), ("192.0.2.53",)),
        ({"internal": True}, [], HOST._replace(serves=False), ()),
    ],
)
def test_who_has_a_way_out_has_somebody_to_ask(bench: Bench, network, asked, host, servers) -> None:
    bench.network("other", subnets=subnets("10.3.0.0/24"), **network)
    request = ContainerRequest(name="web", spec=SPEC, dns=asked)
    assert dns_of(request, endpoints(bench, "other"), bench.engine.intent, host).nameservers == servers
