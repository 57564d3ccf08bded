"""Checks across the parts of a project."""

import pytest

from sealane.compose.check import needs
from sealane.compose.order import waves
from sealane.compose.parse import parse_project
from sealane.compose.problems import ComposeError


def parse(text: str):
    return parse_project(text, name="p", environ={}, directory="/srv")


def problems(text: str) -> list[str]:
    with pytest.raises(ComposeError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def services(*bodies: str) -> str:
    """Services a, b, … on lines 2, 3, …; the networks come last."""
    lines = [f"  {name}: {{command: c, {body}}}" for name, body in zip("abcdef", bodies, strict=False)]
    return "\n".join(["services:", *lines, NETWORKS])


NETWORKS = """\
networks:
  n: {ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1, aux_addresses: {sw: 10.0.0.5}}, {subnet: 'fd00::/64'}]}}
  open:
  v4: {enable_ipv6: false}
  v6: {enable_ipv4: false, enable_ipv6: true}
  host: {driver: host}
  none: {driver: none}
"""
DEFINED = "defined: n, open, v4, v6, host, none"

ADDRESSES = [
    ("ipv4_address: 10.0.0.9, ipv6_address: 'fd00::9'", "n", None),
    ("ipv4_address: 192.0.2.1", "open", None),
    (
        "ipv4_address: 10.0.1.9",
        "n",
        "ipv4_address: 10.0.1.9 is in no subnet of network n; choose an address of 10.0.0.0/24",
    ),
    (
        "ipv6_address: 'fd01::9'",
        "n",
        "ipv6_address: fd01::9 is in no subnet of network n; choose an address of fd00::/64",
    ),
    (
        "ipv4_address: 10.0.0.1",
        "n",
        "ipv4_address: 10.0.0.1 is the gateway of network n; choose another address",
    ),
    (
        "ipv4_address: 10.0.0.5",
        "n",
        "ipv4_address: 10.0.0.5 is aux address 'sw' of network n; choose another address",
    ),
    (
        "ipv4_address: 10.0.0.255",
        "n",
        "ipv4_address: 10.0.0.255 is the broadcast address of 10.0.0.0/24; choose another address of 10.0.0.0/24",
    ),
    (
        "ipv6_address: 'fd00::'",
        "n",
        "ipv6_address: fd00:: is the first address of fd00::/64, which no machine can have; choose another address of fd00::/64",
    ),
    (
        "ipv6_address: 'fd00::9'",
        "v4",
        "ipv6_address: network v4 has no IPv6; remove it or set enable_ipv6: true",
    ),
    (
        "ipv4_address: 10.9.0.9",
        "v6",
        "ipv4_address: network v6 has no IPv4; remove it or set enable_ipv4: true",
    ),
    ("ipv4_address: 10.9.0.9", "none", "ipv4_address: a none network gives no addresses; remove it"),
]


@pytest.mark.parametrize(("fields", "network", "problem"), ADDRESSES)
def test_a_static_address_fits_its_network(fields, network, problem):
    text = services(f"networks: {{{network}: {{{fields}}}}}")
    if problem is None:
        parse(text)
    else:
        assert problems(text) == [f"line 2: services.a.networks.{network}.{problem}"]


def test_networks_are_defined():
    assert problems(services("networks: [open, nope]", "networks: {no: {aliases: [x]}}")) == [
        f"line 2: services.a.networks[1]: network 'nope' is not defined; define it under networks ({DEFINED})",
        f"line 3: services.b.networks.no: network 'no' is not defined; define it under networks ({DEFINED})",
    ]


def test_a_hint_says_if_nothing_is_defined_and_lists_no_more_than_eight():
    (problem,) = problems("services: {s: {command: c, networks: [n]}}")
    assert problem.endswith("define it under networks (none is defined)")
    many = ", ".join(f"n{i}: " for i in range(9))
    (problem,) = problems(f"services: {{s: {{command: c, networks: [n]}}}}\nnetworks: {{{many}}}")
    assert problem.endswith("(defined: n0, n1, n2, n3, n4, n5, n6, n7, ...)")


def test_the_default_network_is_there_if_somebody_is_on_it():
    assert [network.name for network in parse("services: {a: {command: c}}").networks] == ["default"]
    project = parse("services: {a: {command: c}}\nnetworks: {default: {driver: routed}}")
    assert [(network.name, network.driver) for network in project.networks] == [("default", "routed")]
    assert "default" not in [network.name for network in parse(services("networks: [n]")).networks]
    assert "default" in [network.name for network in parse(services("networks: [default]")).networks]


def test_a_host_network_stands_alone():
    parse(services("networks: [host]", "networks: [none]"))
    assert problems(services("networks: [open, host]")) == [
        "line 2: services.a.networks[1]: a host network beside others; attach to it alone"
    ]


def test_interface_names_differ_within_a_service():
    text = services("networks: {n: {interface_name: lan}, open: {interface_name: lan}}")
    assert problems(text) == [
        "line 2: services.a.networks.open.interface_name: interface_name 'lan' is that on n too; choose another name"
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("ipv4_address", "10.0.0.9"), ("ipv6_address", "fd00::9"), ("mac_address", "02:00:00:00:00:01")],
)
def test_two_services_do_not_share_an_address(field, value):
    one = f"networks: {{n: {{{field}: '{value}'}}}}"
    assert problems(services(one, "", one)) == [
        f"line 4: services.c.networks.n.{field}: services a and c both have {value} on n; give one of them another"
    ]
    parse(services(one, one.replace("n:", "open:", 1)))


SHARED = [
    ("8080:80", "8080:81", "8080/tcp", "8080/tcp"),
    ("8080:80", "8080:80/udp", None, None),
    ("8080:80", "8081:80", None, None),
    ("8080:80", "80", None, None),
    ("80", "80", None, None),
    ("8080:80", "127.0.0.1:8080:80", "127.0.0.1:8080/tcp", "8080/tcp"),
    ("127.0.0.1:8080:80", "8080:80", "8080/tcp", "127.0.0.1:8080/tcp"),
    ("127.0.0.1:8080:80", "127.0.0.2:8080:80", None, None),
    ("0.0.0.0:8080:80", "127.0.0.1:8080:80", "127.0.0.1:8080/tcp", "0.0.0.0:8080/tcp"),
    ("0.0.0.0:8080:80", "8080:80", "8080/tcp", "0.0.0.0:8080/tcp"),
    ("0.0.0.0:8080:80", "[::1]:8080:80", None, None),
    ("0.0.0.0:8080:80", "[::]:8080:80", None, None),
    ("[::]:8080:80", "[::1]:8080:80", "[::1]:8080/tcp", "[::]:8080/tcp"),
    ("[::]:8080:80", "8080:80", "8080/tcp", "[::]:8080/tcp"),
    ("8000-8009:80-89", "8009:80", "8009/tcp", "8000-8009/tcp"),
    ("8000-8009:80-89", "8010:80", None, None),
    ("8000-8009:80-89", "8005-8020:80-95", "8005-8020/tcp", "8000-8009/tcp"),
    ("8000-8009:80", "8005:80", None, None),
    ("8000-8009:80", "8000-8009:80", None, None),
    ("8000-8009:80", "8000-8010:80-90", "8000-8010/tcp", "8000-8009/tcp"),
    ("127.0.0.1:8000-8009:80", "8000-8010:80-90", "8000-8010/tcp", "127.0.0.1:8000-8009/tcp"),
]


@pytest.mark.parametrize(("first", "second", "later", "earlier"), SHARED)
def test_published_ports_do_not_overlap(first, second, later, earlier):
    text = services(f"ports: ['{first}']", f"ports: [1:1, '{second}']")
    if later is None:
        parse(text)
    else:
        hint = "choose host ports or addresses that are apart"
        (problem,) = problems(text)
        assert (
            problem
            == f"line 3: services.b.ports[1]: service b publishes {later}, and service a {earlier}; {hint}"
        )


def test_ports_of_one_service_do_not_overlap_either():
    (problem,) = problems(services("ports: [1:1, 2:2, 1:3]"))
    assert problem.startswith("line 2: services.a.ports[2]: service a publishes 1/tcp, and service a 1/tcp;")


@pytest.mark.parametrize(
    "ports", ["8081:80, '[::]:8081:80'", "'[::]:8081:80', 8081:80", "'0.0.0.0:1:1', '[::]:1:1'", "1:1, 1:1"]
)
def test_ports_of_one_service_that_agree_are_one(ports):
    parse(services(f"ports: [{ports}]"))
    with pytest.raises(ComposeError):
        parse(services(f"ports: [{ports}]", f"ports: [{ports}]"))


def test_a_bad_port_does_not_shift_the_place_of_another():
    assert [line.split(": ")[1] for line in problems(services("ports: [x, 80:80, 80:81]"))] == [
        "services.a.ports[0]",
        "services.a.ports[2]",
    ]


REPLICAS = [
    (
        "container_name: x",
        "container_name: 2 replicas cannot share one container_name; remove it or set scale: 1",
    ),
    (
        "networks: {n: {ipv4_address: 10.0.0.9}}",
        "networks.n.ipv4_address: 2 replicas cannot share one ipv4_address; remove it or set scale: 1",
    ),
    (
        "networks: {n: {ipv6_address: 'fd00::9'}}",
        "networks.n.ipv6_address: 2 replicas cannot share one ipv6_address; remove it or set scale: 1",
    ),
    (
        "networks: {n: {mac_address: '02:00:00:00:00:01'}}",
        "networks.n.mac_address: 2 replicas cannot share one mac_address; remove it or set scale: 1",
    ),
    (
        "ports: [8080:80]",
        "ports[0]: 2 replicas cannot all publish 8080/tcp; give a range of host ports, or no host port",
    ),
    (
        "ports: ['8000-8001:80-81']",
        "ports[0]: 2 replicas cannot all publish 8000-8001/tcp; give a range of host ports, or no host port",
    ),
]


@pytest.mark.parametrize(("body", "problem"), REPLICAS)
def test_replicas_do_not_share_what_is_one(body, problem):
    assert problems(services(f"scale: 2, {body}")) == [f"line 2: services.a.{problem}"]
    parse(services(f"scale: 1, {body}"))


def test_replicas_have_a_host_port_each():
    parse(services("scale: 2, ports: ['8000-8001:80', 90]"))
    assert problems(services("scale: 3, ports: ['8000-8001:80']")) == [
        "line 2: services.a.ports[0]: 3 replicas share 8000-8001/tcp; give 3 host ports"
    ]


def test_container_names_differ():
    assert problems(services("container_name: x", "container_name: x")) == [
        "line 3: services.b.container_name: services a and b have one container_name 'x'; choose another name"
    ]


def test_dependencies_are_defined():
    text = services("depends_on: [b, x]", "depends_on: {y: {condition: service_started}}")
    assert problems(text) == [
        "line 2: services.a.depends_on[1]: service 'x' is not defined; define it (defined: a, b)",
        "line 3: services.b.depends_on.y: service 'y' is not defined; define it (defined: a, b)",
    ]


def test_a_dependency_that_is_not_required_may_be_missing():
    project = parse(services("depends_on: {x: {required: false}}"))
    assert project.warnings == (
        "line 2: services.a.depends_on.x: service 'x' is not defined; nothing waits for it",
    )


def test_waiting_for_health_needs_a_healthcheck():
    wait = "depends_on: {b: {condition: service_healthy}}"
    assert problems(services(wait, "healthcheck: {disable: true}")) == [
        "line 2: services.a.depends_on.b: service b has no healthcheck; give it one, or wait for service_started"
    ]
    parse(services(wait, "healthcheck: {test: x}"))


@pytest.mark.parametrize(
    "body", ["depends_on: {b: {condition: started}}", "depends_on: {b: {restrat: true}}"]
)
def test_a_dependency_is_checked_itself(body):
    (problem,) = problems(services(body, ""))
    assert problem.startswith("line 2: services.a.depends_on.b.")


CYCLES = [
    (("depends_on: [a]",), "depends_on[0]", "a -> a"),
    (("depends_on: [b]", "depends_on: [c]", "depends_on: {a: }"), "depends_on[0]", "a -> b -> c -> a"),
    (("network_mode: 'service:b'", "depends_on: [a]"), "network_mode", "a -> b -> a"),
    (("network_mode: 'service:a'",), "network_mode", "a -> a"),
]


@pytest.mark.parametrize(("bodies", "cursor", "cycle"), CYCLES)
def test_services_do_not_wait_for_each_other(bodies, cursor, cycle):
    assert problems(services(*bodies)) == [
        f"line 2: services.a.{cursor}: services wait for each other: {cycle}; remove one of these dependencies"
    ]


def test_a_shared_sandbox_belongs_to_one_service():
    assert problems(services("network_mode: 'service:x'")) == [
        "line 2: services.a.network_mode: service 'x' is not defined; define it (defined: a)"
    ]
    assert problems(services("network_mode: 'service:b'", "scale: 2")) == [
        "line 2: services.a.network_mode: service b has 2 sandboxes, not one; set scale: 1 on b"
    ]


def test_the_owner_of_a_sandbox_starts_first():
    project = parse(services("network_mode: 'service:c'", "depends_on: [a]", ""))
    assert [needs(service) for service in project.services] == [("c",), ("a",), ()]
    assert waves({service.name: needs(service) for service in project.services}) == (("c",), ("a",), ("b",))
