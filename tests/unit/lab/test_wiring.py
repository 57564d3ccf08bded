"""The text for ip and nft."""

import shutil
import subprocess

import pytest

from sealane.lab.plan import plan_lab
from sealane.lab.read import read_lab
from sealane.lab.wiring import (
    cut_elements,
    faults_ruleset,
    hosts_file,
    latency_commands,
    node_lines,
    underlay_lines,
)


def plan(text):
    return plan_lab(read_lab(text), "demo")


SMALL = plan("hosts: {h1: {mtu: 1400, loss: 2.5%}}")
ROUTED = plan("hosts: {h1: {mtu: 1400}}\nunderlay: {kind: routed}")
PATHS = {"h1": "/proc/self/fd/7"}
VETH = "link add name h1 mtu 1400 type veth peer name eth0 address 02:1a:b0:00:00:01 mtu 1400 netns /proc/self/fd/7"


def test_a_segment_is_a_bridge_with_a_port_per_node():
    assert underlay_lines(SMALL, PATHS) == [
        "link set lo up",
        "link add name underlay type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "link set dev underlay up",
        "addr add 192.0.2.1/24 dev underlay",
        "addr add 2001:db8:1::1/64 nodad dev underlay",
        VETH,
        "link set dev h1 master underlay",
        "link set dev h1 up",
    ]


def test_a_routed_underlay_has_an_address_per_port_and_no_bridge():
    assert underlay_lines(ROUTED, PATHS) == [
        "link set lo up",
        VETH,
        "addr add 198.18.1.1/24 dev h1",
        "addr add 2001:db8:2:1::1/64 nodad dev h1",
        "link set dev h1 up",
    ]


def test_a_node_has_both_families_and_their_default_routes():
    assert node_lines(SMALL.nodes[0]) == [
        "link set lo up",
        "addr add 192.0.2.11/24 dev eth0",
        "addr add 2001:db8:1::11/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 192.0.2.1",
        "route add default via 2001:db8:1::1",
    ]


def test_loss_is_drawn_in_both_directions():
    rules = [line for line in faults_ruleset(SMALL).splitlines() if "numgen" in line]
    assert rules == [
        'add rule bridge lab arriving iifname "h1" numgen random mod 100000 < 2500 drop',
        'add rule bridge lab leaving oifname "h1" numgen random mod 100000 < 2500 drop',
    ]
    assert "numgen" not in faults_ruleset(ROUTED)
    assert "add table inet lab" in faults_ruleset(ROUTED)


def test_a_cut_replaces_all_that_was_cut():
    assert cut_elements(SMALL, [("h2", "h3"), ("h1", "h1")]).splitlines() == [
        "flush set bridge lab uplinks",
        "flush set bridge lab pairs",
        'add element bridge lab uplinks { "h1" }',
        'add element bridge lab pairs { "h2" . "h3", "h3" . "h2" }',
    ]
    assert cut_elements(SMALL, []).splitlines() == [
        "flush set bridge lab uplinks",
        "flush set bridge lab pairs",
    ]


@pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/usr/bin") is None, reason="nft is not installed")
@pytest.mark.parametrize(
    "text", ["hosts: {h1: {loss: 1%}, h2: }", "hosts: {h1: {loss: 1%}}\nunderlay: {kind: routed}"]
)
def test_nft_finds_no_fault(text):
    made = plan(text)
    rules = faults_ruleset(made) + cut_elements(made, [("h1", "h1"), ("h1", "h2")])
    command = ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "-f", "-"]
    ran = subprocess.run(command, input=rules, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_latency_is_netem_on_the_port():
    made = plan("hosts: {h1: {latency: 20ms}, h2: {latency: 0.5ms}, h3: }")
    assert latency_commands(made) == [
        ["tc", "qdisc", "add", "dev", "h1", "root", "netem", "delay", "20ms"],
        ["tc", "qdisc", "add", "dev", "h2", "root", "netem", "delay", "0.5ms"],
    ]
    assert latency_commands(SMALL) == []


def test_every_node_knows_the_names_of_all():
    text = hosts_file(plan("hosts: 2\netcd: {members: 1}"))
    for line in ("127.0.0.1 localhost", "192.0.2.12 h2", "2001:db8:1::201 etcd1"):
        assert line in text.splitlines()
