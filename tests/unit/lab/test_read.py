"""Lab files: what they give, and every mistake at its line and field."""

import pytest

from sealane.compose.problems import BadValue, ComposeError
from sealane.lab.read import parse_lab_name, read_lab
from sealane.lab.spec import MAX_ARGUMENTS, MAX_HOSTS, EtcdSpec, HostSpec, LabSpec, Underlay, Uplink

FULL = """
name: demo
underlay:
  kind: routed
  ipv4: 198.51.96.0/20
  ipv6: fd00:1::/48
  mtu: 9000
  loss: 0.5%
etcd:
  members: 3
  arguments: [--quota-backend-bytes, "16777216"]
daemon_arguments: [--log-level, debug]
hosts:
  h1:
  web-2:
    mtu: 1400
    loss: 100%
    latency: 2.5ms
    daemon_arguments: ["--x={etcd}", "{host}"]
"""


def problems(text):
    with pytest.raises(ComposeError) as caught:
        read_lab(text)
    return [(p.line, p.path, p.message) for p in caught.value.problems]


def test_everything_is_read():
    common = ("--log-level", "debug")
    assert read_lab(FULL) == LabSpec(
        name="demo",
        underlay=Underlay(kind="routed", ipv4="198.51.96.0/20", ipv6="fd00:1::/48"),
        etcd=EtcdSpec(members=3, arguments=("--quota-backend-bytes", "16777216")),
        hosts=(
            HostSpec(name="h1", uplink=Uplink(mtu=9000, loss=500), daemon_arguments=common),
            HostSpec(
                name="web-2",
                uplink=Uplink(mtu=1400, loss=100_000, latency_ms=2.5),
                daemon_arguments=(*common, "--x={etcd}", "{host}"),
            ),
        ),
    )


def test_a_number_is_that_many_hosts():
    lab = read_lab("hosts: 3")
    assert [host.name for host in lab.hosts] == ["h1", "h2", "h3"]
    assert lab == LabSpec(hosts=tuple(HostSpec(name=name) for name in ("h1", "h2", "h3")))


def test_a_list_is_the_names_of_hosts():
    lab = read_lab("hosts: [left, right]\nunderlay: {mtu: 1300}")
    assert [(host.name, host.uplink.mtu) for host in lab.hosts] == [("left", 1300), ("right", 1300)]


@pytest.mark.parametrize(
    ("text", "members"), [("etcd:", 0), ("etcd: {}", 1), ("etcd: {members: 0}", 0), ("etcd: {members: 3}", 3)]
)
def test_members_of_etcd_are_counted(text, members):
    assert read_lab(f"hosts: 1\n{text}").etcd.members == members


@pytest.mark.parametrize(
    ("text", "units"), [("0%", 0), ("1%", 1000), ("0.25%", 250), ("12.345%", 12345), ("100%", 100000)]
)
def test_loss_is_a_percentage(text, units):
    assert read_lab(f"hosts: {{a: {{loss: {text}}}}}").hosts[0].uplink.loss == units


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("", None, "", "the file is empty"),
        ("- a", 1, "", "the file is not a mapping"),
        ("name: x", 1, "", "no hosts"),
        ("hosts: {}", 1, "hosts", "no hosts"),
        ("hosts: []", 1, "hosts", "no hosts"),
        ("hosts: 0", 1, "hosts", "0 is out of range"),
        ("hosts: many", 1, "hosts", "'many' is not a whole number"),
        ("hosts: [a, a]", 1, "hosts[1]", "'a' is in the list twice"),
        ("hosts:\n  a:\n  a:", 3, "", "duplicate key 'a'"),
        ("hosts: 1\nhost: 2", 2, "host", "unknown key 'host'"),
        ("name: Ärger\nhosts: 1", 1, "name", "'\\xc4rger' is not a lab's name"),
        ("name: ../x\nhosts: 1", 1, "name", "'../x' is not a lab's name"),
        ("hosts:\n  H1:", 2, "hosts.H1", "'H1' is not a host's name"),
        ("hosts:\n  a-:", 2, "hosts.a-", "'a-' is not a host's name"),
        ("hosts:\n  abcdefghijklmnop:", 2, "hosts.abcdefghijklmnop", "'abcdefghijklmnop' is not a host's name"),
        ("hosts:\n  etcd1:", 2, "hosts.etcd1", "etcd1 is a reserved name"),
        ("hosts: [underlay]", 1, "hosts[0]", "underlay is a reserved name"),
        ("hosts:\n  a:\n    mtu: 1279", 3, "hosts.a.mtu", "1279 is out of range"),
        ("hosts:\n  a:\n    mtu: 65536", 3, "hosts.a.mtu", "65536 is out of range"),
        ("hosts:\n  a:\n    loss: 1", 3, "hosts.a.loss", "'1' is not a loss"),
        ("hosts:\n  a:\n    loss: 100.001%", 3, "hosts.a.loss", "'100.001%' is not a loss"),
        ("hosts:\n  a:\n    latency: 1s", 3, "hosts.a.latency", "'1s' is not a latency"),
        ("hosts:\n  a:\n    latency: 10001ms", 3, "hosts.a.latency", "'10001ms' is not a latency"),
        ("hosts:\n  a: 7", 2, "hosts.a", "a text where a mapping is expected"),
        ("hosts:\n  a:\n    name: b", 3, "hosts.a.name", "unknown key 'name'"),
        ("hosts: 1\netcd: {members: 2}", 2, "etcd.members", "'2' is not a number of members"),
        ("hosts: 1\nunderlay: {kind: mesh}", 2, "underlay.kind", "'mesh' is not a kind of underlay"),
        ("hosts: 1\nunderlay: {ipv4: 10.0.0.1/24}", 2, "underlay.ipv4", "'10.0.0.1/24' is not a prefix"),
        ("hosts: 1\nunderlay: {ipv4: 'fd00::/64'}", 2, "underlay.ipv4", "'fd00::/64' is not IPv4"),
        ("hosts: 1\nunderlay: {ipv6: 'fe80::/64'}", 2, "underlay.ipv6", "'fe80::/64' cannot be an underlay"),
        ("hosts: 1\nunderlay: {ipv4: 10.0.0.0/25}", 2, "underlay.ipv4", "10.0.0.0/25 is too small for a segment"),
        (
            "hosts: 8\nunderlay: {kind: routed, ipv4: 10.0.0.0/21}",
            2,
            "underlay.ipv4",
            "10.0.0.0/21 has no room for 8 subnets of /24",
        ),
        ("hosts: 1\ndaemon_arguments: ['{etcd}']", 2, "daemon_arguments[0]", "{etcd} stands for members, and there are none"),
        ("hosts: 1\ndaemon_arguments: ['{ip}']", 2, "daemon_arguments[0]", "unknown placeholder '{ip}'"),
        ("hosts:\n  a:\n    daemon_arguments: -x", 3, "hosts.a.daemon_arguments", "a text where a list is expected"),
        ("hosts:\n  a:\n    daemon_arguments: ['{x}']", 3, "hosts.a.daemon_arguments[0]", "unknown placeholder '{x}'"),
        ("%TAG ! x\nhosts: 1", 1, "", "a line begins with %, which is a YAML directive"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_and_field(text, line, field, message):
    assert (line, field, message) in problems(text)


def test_what_is_not_yaml_is_refused_at_its_line():
    [(line, field, message)] = problems("name: a\nhosts: [")
    assert (line, field, message[:9]) == (2, "", "not YAML:")


def test_all_mistakes_are_told_at_once_in_the_order_of_lines():
    text = "underlay:\n  mtu: 5\nhosts:\n  B:\n    loss: x\nmore: 1"
    assert [line for line, _, _ in problems(text)] == [2, 4, 5, 6]


def test_hosts_have_a_bound():
    assert len(read_lab(f"hosts: {MAX_HOSTS}").hosts) == MAX_HOSTS
    names = ", ".join(f"a{number}" for number in range(MAX_HOSTS))
    assert len(read_lab(f"hosts: [{names}]").hosts) == MAX_HOSTS
    assert problems(f"hosts: [{names}, b]") == [(1, "hosts", f"{MAX_HOSTS + 1} hosts")]
    assert problems(f"hosts: {MAX_HOSTS + 1}")[0] == (1, "hosts", f"{MAX_HOSTS + 1} is out of range")


def test_arguments_have_a_bound():
    words = ", ".join(["x"] * MAX_ARGUMENTS)
    assert len(read_lab(f"hosts: 1\ndaemon_arguments: [{words}]").hosts[0].daemon_arguments) == MAX_ARGUMENTS
    text = f"hosts: 1\ndaemon_arguments: [{words}, y]"
    assert problems(text) == [(2, "daemon_arguments", f"{MAX_ARGUMENTS + 1} arguments")]


@pytest.mark.parametrize("name", ["a", "9", "demo-1", "a.b_c", "a" * 32])
def test_a_lab_name_is_taken(name):
    assert parse_lab_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a/b", "A", "a\n", "a" * 33, "é"])
def test_a_lab_name_is_no_path_and_no_flag(name):
    with pytest.raises(BadValue):
        parse_lab_name(name)
