"""The `networks` section: what it becomes, and every problem it can have."""

import pytest

from sealane.compose.parse import parse_project
from sealane.compose.problems import ComposeError
from sealane.compose.schema import ComposeNetwork, ComposeSubnet


def network(body: str) -> ComposeNetwork:
    text = f"networks:\n  n: {body}\n"
    (found,) = parse_project(text, name="p", environ={}, directory="/srv").networks
    return found


def problems(text: str) -> list[str]:
    with pytest.raises(ComposeError) as caught:
        parse_project(text, name="p", environ={}, directory="/srv")
    return [str(problem) for problem in caught.value.problems]


ACCEPTED = [
    ("", ComposeNetwork(name="n")),
    ("{}", ComposeNetwork(name="n")),
    (
        "{driver: routed, internal: true, attachable: true}",
        ComposeNetwork(name="n", driver="routed", internal=True, attachable=True),
    ),
    ("{driver: host}", ComposeNetwork(name="n", driver="host")),
    (
        "{enable_ipv4: false, enable_ipv6: true}",
        ComposeNetwork(name="n", enable_ipv4=False, enable_ipv6=True),
    ),
    ("{labels: {a: 1, b: }}", ComposeNetwork(name="n", labels=(("a", "1"), ("b", "")))),
    ("{labels: [a=1, b]}", ComposeNetwork(name="n", labels=(("a", "1"), ("b", "")))),
    ("{name: real, x-mine: [1]}", ComposeNetwork(name="n", external_name="real")),
    ("{external: true}", ComposeNetwork(name="n", is_external=True)),
    ("{external: false}", ComposeNetwork(name="n")),
    ("{external: true, name: real}", ComposeNetwork(name="n", is_external=True, external_name="real")),
    ("{external: {name: real}}", ComposeNetwork(name="n", is_external=True, external_name="real")),
    (
        "{driver_opts: {com.docker.network.driver.mtu: 1400, com.docker.network.bridge.enable_icc: 'false', any: thing}}",
        ComposeNetwork(
            name="n",
            driver_opts=(
                ("com.docker.network.driver.mtu", "1400"),
                ("com.docker.network.bridge.enable_icc", "false"),
                ("any", "thing"),
            ),
        ),
    ),
    (
        "{ipam: {driver: default, config: [{subnet: 10.1.0.0/16, ip_range: 10.1.2.0/24, gateway: 10.1.0.1, aux_addresses: {sw: 10.1.0.5}}, {subnet: 'FD00::/64', gateway: 'fd00::1'}]}}",
        ComposeNetwork(
            name="n",
            subnets=(
                ComposeSubnet(
                    subnet="10.1.0.0/16",
                    ip_range="10.1.2.0/24",
                    gateway="10.1.0.1",
                    aux_addresses=(("sw", "10.1.0.5"),),
                ),
                ComposeSubnet(subnet="fd00::/64", gateway="fd00::1"),
            ),
        ),
    ),
    (
        "{ipam: {config: [{subnet: 10.1.0.0/31, gateway: 10.1.0.0}]}}",
        ComposeNetwork(name="n", subnets=(ComposeSubnet(subnet="10.1.0.0/31", gateway="10.1.0.0"),)),
    ),
]


@pytest.mark.parametrize(("body", "expected"), ACCEPTED, ids=[body[:40] for body, _ in ACCEPTED])
def test_a_network_becomes_a_record(body, expected):
    assert network(body) == expected


N = "line 2: networks.n"
MULTICAST = "write a unicast address"
REFUSED = [
    ("[]", [f"{N}: a list where a mapping is expected; write a mapping"]),
    ("bridge", [f"{N}: a text where a mapping is expected; write a mapping"]),
    ("{driver: overlay}", [f"{N}.driver: no driver 'overlay'; write bridge, routed, host, none"]),
    ("{driver: [bridge]}", [f"{N}.driver: a list where a text is expected; write a text"]),
    ("{drvier: bridge}", [f"{N}.drvier: unknown key 'drvier'; write driver if that is meant"]),
    ("{zzz: 1}", [f"{N}.zzz: unknown key 'zzz'; remove it; keys of your own begin with x-"]),
    ("{x-sealane: {}}", [f"{N}.x-sealane: x-sealane means nothing here; write it in a service"]),
    ("{internal: yes}", [f"{N}.internal: 'yes' is a boolean in YAML 1.1 only; write true"]),
    ("{internal: 1}", [f"{N}.internal: '1' is not a boolean; write true or false"]),
    (
        "{driver_opts: {com.docker.network.driver.mtuu: 1}}",
        [
            f"{N}.driver_opts['com.docker.network.driver.mtuu']: unknown option 'com.docker.network.driver.mtuu'; write com.docker.network.driver.mtu if that is meant"
        ],
    ),
    (
        "{driver_opts: {sealane.x: 1}}",
        [f"{N}.driver_opts['sealane.x']: unknown option 'sealane.x'; remove it"],
    ),
    ("{driver_opts: {a: [1]}}", [f"{N}.driver_opts.a: a list where a text is expected; write a text"]),
    ("{labels: [a=1, a=2]}", [f"{N}.labels[1]: 'a' is given twice; remove one of them"]),
    ("{ipam: {driver: dhcp}}", [f"{N}.ipam.driver: no such IPAM driver; write default or leave it out"]),
    (
        "{ipam: {options: {a: b}}}",
        [f"{N}.ipam.options: options is not supported: the engine's own IPAM has no options; remove it"],
    ),
    (
        "{ipam: {config: {subnet: 10.0.0.0/24}}}",
        [f"{N}.ipam.config: a mapping where a list is expected; write a list"],
    ),
    (
        "{ipam: {config: [10.0.0.0/24]}}",
        [f"{N}.ipam.config[0]: a text where a mapping is expected; write a mapping"],
    ),
    (
        "{ipam: {config: [{gateway: 10.0.0.1}]}}",
        [f"{N}.ipam.config[0]: no subnet; write the subnet that the other keys belong to"],
    ),
    (
        "{ipam: {config: [{subnet: 10.0.0.1/24}]}}",
        [f"{N}.ipam.config[0].subnet: '10.0.0.1/24' has bits set after the prefix; write 10.0.0.0/24"],
    ),
    (
        "{ipam: {config: [{subnet: 10.0.0.0/24, ip_range: 10.0.1.0/25, gateway: 10.0.1.1, aux_addresses: {a: 'fd00::1'}}]}}",
        [
            f"{N}.ipam.config[0].ip_range: 10.0.1.0/25 is not in 10.0.0.0/24; choose a part of the subnet",
            f"{N}.ipam.config[0].gateway: 10.0.1.1 is not in 10.0.0.0/24; choose an address of 10.0.0.0/24",
            f"{N}.ipam.config[0].aux_addresses.a: fd00::1 is not in 10.0.0.0/24; choose an address of 10.0.0.0/24",
        ],
    ),
    (
        "{ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.0, aux_addresses: {a: 10.0.0.255, b: 10.0.0.255}}]}}",
        [
            f"{N}.ipam.config[0].gateway: 10.0.0.0 is the first address of 10.0.0.0/24, which no machine can have; choose an address of 10.0.0.0/24",
            f"{N}.ipam.config[0].aux_addresses.a: 10.0.0.255 is the broadcast address of 10.0.0.0/24; choose an address of 10.0.0.0/24",
            f"{N}.ipam.config[0].aux_addresses.b: 10.0.0.255 is the broadcast address of 10.0.0.0/24; choose an address of 10.0.0.0/24",
            f"{N}.ipam.config[0].aux_addresses.b: 10.0.0.255 is aux address 'a' too; choose another address",
        ],
    ),
    (
        "{ipam: {config: [{subnet: 10.0.0.0/24, gateway: 224.0.0.1}]}}",
        [f"{N}.ipam.config[0].gateway: '224.0.0.1' is not the address of one machine; {MULTICAST}"],
    ),
    (
        "{enable_ipv4: false, enable_ipv6: false}",
        [f"{N}.enable_ipv4: a network of neither family; leave one of enable_ipv4, enable_ipv6 true"],
    ),
    (
        "{enable_ipv6: false, ipam: {config: [{subnet: 'fd00::/64'}]}}",
        [f"{N}.ipam.config[0].subnet: fd00::/64 while enable_ipv6 is false; remove one of the two"],
    ),
    (
        "{driver: none, ipam: {config: [{subnet: 10.0.0.0/24}]}}",
        [f"{N}.ipam: driver none gives no addresses; remove ipam or change the driver"],
    ),
    (
        "{external: true, driver: routed}",
        [f"{N}.external: an external network has settings here; keep only external and name"],
    ),
    ("{external: {name: a}, name: b}", [f"{N}.external: another name than `name` says; keep one of them"]),
    ("{external: {nmae: a}}", [f"{N}.external.nmae: unknown key 'nmae'; write name if that is meant"]),
    (
        "{name: ../x}",
        [
            f"{N}.name: '../x' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit"
        ],
    ),
    (
        "{ipam: {config: [{subnet: 10.0.0.0/16}, {subnet: 'fd00::/64'}, {subnet: 10.0.3.0/24}]}}",
        [
            f"{N}.ipam.config: 2 IPv4 subnets; give a network one of each family",
            f"{N}.ipam.config: 10.0.3.0/24 overlaps 10.0.0.0/16 of network n; choose subnets that are apart",
        ],
    ),
]


@pytest.mark.parametrize(("body", "expected"), REFUSED, ids=[body[:60] for body, _ in REFUSED])
def test_a_bad_network_is_refused_with_every_problem(body, expected):
    text = f"networks:\n  n: {body}\n"
    assert problems(text) == expected


def test_a_bad_name_hides_no_other_problem():
    assert problems("networks:\n  'a b': {driver: x}\n  ok:\n") == [
        "line 2: networks['a b']: 'a b' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
        "line 2: networks['a b'].driver: no driver 'x'; write bridge, routed, host, none",
    ]


def test_subnets_of_two_networks_are_apart():
    text = """\
networks:
  a: {ipam: {config: [{subnet: 'fd00::/48'}, {subnet: 10.0.0.0/24}]}}
  b:
    ipam:
      config:
        - subnet: fd00:0:0:1::/64
        - subnet: 10.0.1.0/24
"""
    assert problems(text) == [
        "line 5: networks.b.ipam.config: fd00:0:0:1::/64 overlaps fd00::/48 of network a; choose subnets that are apart"
    ]


def test_a_problem_stands_at_the_line_of_its_key():
    assert problems("networks:\n  n:\n    driver:\n\n      - bridge\n") == [
        "line 3: networks.n.driver: a list where a text is expected; write a text"
    ]
