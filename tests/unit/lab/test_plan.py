"""Plans: addresses, arguments and links."""

import ipaddress

import msgspec
import pytest

from sealane.lab.plan import Address, Plan, PlanError, parse_link, plan_lab, show_link
from sealane.lab.read import read_lab


def plan(text, name="demo"):
    return plan_lab(read_lab(text), name)


def test_hosts_of_a_segment_share_a_subnet_of_each_family():
    made = plan("hosts: 2\netcd: {members: 1}")
    assert [(node.name, node.kind, str(node.ipv4), str(node.ipv6)) for node in made.nodes] == [
        ("etcd1", "etcd", "192.0.2.201/24", "2001:db8:1::201/64"),
        ("h1", "host", "192.0.2.11/24", "2001:db8:1::11/64"),
        ("h2", "host", "192.0.2.12/24", "2001:db8:1::12/64"),
    ]
    assert {node.ipv4.gateway for node in made.nodes} == {"192.0.2.1"}
    assert {node.ipv6.gateway for node in made.nodes} == {"2001:db8:1::1"}


def test_nodes_of_a_routed_underlay_have_a_subnet_each():
    made = plan("hosts: 1\netcd: {members: 1}\nunderlay: {kind: routed}")
    assert made.nodes[0].ipv4 == Address("198.18.1.2", 24, "198.18.1.1")
    assert made.nodes[1].ipv4 == Address("198.18.2.2", 24, "198.18.2.1")
    assert made.nodes[1].ipv6 == Address("2001:db8:2:2::2", 64, "2001:db8:2:2::1")


def test_prefixes_of_the_file_are_used():
    made = plan("hosts: 1\nunderlay: {ipv4: 10.9.8.0/24, ipv6: 'fd00:9::/64'}")
    assert (str(made.nodes[0].ipv4), str(made.nodes[0].ipv6)) == ("10.9.8.11/24", "fd00:9::11/64")


@pytest.mark.parametrize("kind", ["segment", "routed"])
def test_no_address_and_no_mac_is_given_twice(kind):
    made = plan(f"hosts: 64\netcd: {{members: 3}}\nunderlay: {{kind: {kind}}}")
    count = len(made.nodes)
    assert count == 67
    for values in (
        {node.ipv4.address for node in made.nodes},
        {node.ipv6.address for node in made.nodes},
        {node.mac for node in made.nodes},
        {node.number for node in made.nodes},
    ):
        assert len(values) == count
    for node in made.nodes:
        for address in (node.ipv4, node.ipv6):
            interface = ipaddress.ip_interface(str(address))
            assert ipaddress.ip_address(address.gateway) in interface.network
            assert address.address != address.gateway


def test_placeholders_stand_for_the_lab():
    text = 'hosts: {a: {daemon_arguments: ["--cluster=etcd://{etcd}/x", "{host}", "{ipv4}", "{ipv6}", "{}"]}}\netcd: {members: 3}'
    arguments = plan(text).node("a").arguments
    cluster = "192.0.2.201:2379,192.0.2.202:2379,192.0.2.203:2379"
    assert arguments[-5:] == (f"--cluster=etcd://{cluster}/x", "a", "192.0.2.11", "2001:db8:1::11", "{}")
    assert arguments[0] == "daemon"


def test_members_of_etcd_know_each_other():
    made = plan("hosts: 1\netcd: {members: 3, arguments: [--debug]}")
    for number in (1, 2, 3):
        words = made.node(f"etcd{number}").arguments
        cluster = words[words.index("--initial-cluster") + 1]
        assert cluster.split(",") == [f"etcd{n}=http://192.0.2.20{n}:2380" for n in (1, 2, 3)]
        assert words[words.index("--advertise-client-urls") + 1] == f"http://192.0.2.20{number}:2379"
        assert words[-1] == "--debug"


def test_a_members_uplink_is_as_wide_as_the_widest_and_loses_nothing():
    made = plan("hosts: {a: {mtu: 9000, loss: 10%}, b: {mtu: 1400}}\netcd: {members: 1}")
    assert (made.node("etcd1").uplink.mtu, made.node("etcd1").uplink.loss) == (9000, 0)


def test_a_plan_survives_its_file():
    made = plan("hosts: 3\netcd: {members: 3}\nunderlay: {kind: routed, loss: 1%}")
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


# --- links


CLUSTER = plan("hosts: 3\netcd: {members: 3}")


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("h1", ["h1"]),
        ("etcd2", ["etcd2"]),
        ("etcd", ["etcd1", "etcd2", "etcd3"]),
        ("h1:h2", ["h1:h2"]),
        ("h2:h1", ["h1:h2"]),
        ("h1:etcd", ["etcd1:h1", "etcd2:h1", "etcd3:h1"]),
        ("h2:hosts", ["h1:h2", "h2:h3"]),
        ("hosts:hosts", ["h1:h2", "h1:h3", "h2:h3"]),
    ],
)
def test_a_link_is_named(text, links):
    assert [show_link(link) for link in parse_link(CLUSTER, text)] == links


@pytest.mark.parametrize("text", ["h4", "h1:h4", "h1:", ":", "", "h1:h1", "h1:h2:h3", "underlay"])
def test_what_is_no_link_is_refused(text):
    with pytest.raises(PlanError) as caught:
        parse_link(CLUSTER, text)
    assert caught.value.hint


def test_a_lab_without_etcd_has_no_such_link():
    with pytest.raises(PlanError, match="has no etcd"):
        parse_link(plan("hosts: 2"), "h1:etcd")
