"""Chained with the reference plugins (Debian's, of before 1.1.0), before and after them, and on their IPAM."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit
from harness.cni import PLUGINS, CniFailed, CniRuntime, conflist, ranges
from harness.host import Host, Lan
from harness.netns import Netns

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if not os.path.exists(f"{PLUGINS}/host-local"):
    pytest.skip("needs containernetworking-plugins", allow_module_level=True)

NUMBER = 32
DUAL = ranges("10.88.0.0/24", "fd00:88::/64")
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        # Plugins keep what they know below /var/lib/cni and /run: this host's own.
        host.ns.sh("mount", "-t", "tmpfs", "tmpfs", "/var/lib")
        yield host
        assert audit(host) == []


@pytest.fixture
def runtime(machine: Host, tmp_path: Path) -> Iterator[CniRuntime]:
    runtime = CniRuntime(machine, str(tmp_path))
    yield runtime
    assert machine.api.status()["endpoints"] == 0, "each test deletes what it added"
    for network in machine.api.get("/networks"):
        machine.api.remove_network(network["name"])


@pytest.fixture
def pod() -> Iterator[Netns]:
    with Netns("pod") as pod:
        yield pod


def test_portmap_after_ours_publishes(lan: Lan, machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    """Its rules are in iptables' tables and ours in our own; packets pass both."""
    network = conflist(
        {"type": "portmap", "capabilities": {"portMappings": True}}, version="1.0.0", ipam=DUAL
    )
    network["plugins"][0]["capabilities"] = {}
    runtime.add(network, "c1", pod.path, portMappings=PORTS)
    server = pod.listen("tcp", "0.0.0.0", 80)
    assert lan.ext.reaches(server, machine.address(4), 8080)
    # Its CHECK of 1.1.1 does not find its own rule again, after `bridge` neither: iptables lists the prefix otherwise.
    runtime.delete(network, "c1", pod.path, portMappings=PORTS)
    assert not lan.ext.reaches(server, machine.address(4), 8080)


def test_bandwidth_after_ours_holds_both_directions(machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    rates = {"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000}
    network = conflist({"type": "bandwidth", **rates}, version="1.0.0", ipam=DUAL)
    result = runtime.add(network, "c1", pod.path)
    link = result["interfaces"][0]["name"]
    assert "rate 8Mbit" in machine.ns.sh("tc", "qdisc", "show", "dev", link)
    runtime.check(network, "c1", pod.path)
    runtime.delete(network, "c1", pod.path)


def test_tuning_after_ours_sets_sysctls(runtime: CniRuntime, pod: Netns) -> None:
    network = conflist({"type": "tuning", "sysctl": {"net.core.somaxconn": "77"}}, version="1.0.0", ipam=DUAL)
    runtime.add(network, "c1", pod.path)
    assert pod.sysctl("net/core/somaxconn").strip() == "77"
    runtime.check(network, "c1", pod.path)
    runtime.delete(network, "c1", pod.path)


def test_firewall_after_ours_lets_its_addresses_pass(machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    network = conflist({"type": "firewall", "backend": "iptables"}, version="1.0.0", ipam=DUAL)
    runtime.add(network, "c1", pod.path)
    assert "10.88.0." in machine.ns.sh("iptables", "-S", "CNI-FORWARD")
    runtime.check(network, "c1", pod.path)
    runtime.delete(network, "c1", pod.path)


def test_all_of_them_in_one_chain(machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    chain = (
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "78"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "backend": "iptables"},
    )
    for version in ("0.4.0", "1.0.0"):
        network = conflist(*chain, version=version, ipam=DUAL)
        network["plugins"][0]["capabilities"] = {}
        result = runtime.add(network, "c1", pod.path, portMappings=PORTS)
        assert [i["name"] for i in result["interfaces"]][1:] == ["eth0"]
        runtime.delete(network, "c1", pod.path, portMappings=PORTS)


def test_after_loopback_ours_follows_it(runtime: CniRuntime, pod: Netns) -> None:
    network = conflist(version="1.0.0", before=({"type": "loopback"},), ipam=DUAL)
    result = runtime.add(network, "c1", pod.path)
    assert [i["name"] for i in result["interfaces"]][::2] == ["lo", "eth0"]
    ours = [ip for ip in result["ips"] if ip["address"].startswith(("10.88.", "fd00:88:"))]
    assert [ip["interface"] for ip in ours] == [2, 2]
    runtime.check(network, "c1", pod.path)
    runtime.delete(network, "c1", pod.path)


def test_after_a_plugin_that_made_the_link_ours_refuses(runtime: CniRuntime, pod: Netns) -> None:
    bridge = {
        "type": "bridge",
        "bridge": "cni9",
        "ipam": {"type": "static", "addresses": [{"address": "10.7.0.2/24"}]},
    }
    network = conflist(version="1.0.0", before=(bridge,), ipam=DUAL)
    with pytest.raises(CniFailed) as caught:
        runtime.add(network, "c1", pod.path)
    assert caught.value.code == 102
    assert "eth0" in caught.value.message
    runtime.delete(network, "c1", pod.path)


class TestHostLocal:
    @pytest.fixture
    def network(self, tmp_path: Path) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "ranges": [
                [{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.40"}],
                [{"subnet": "fd00:88::/64"}],
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "dataDir": str(tmp_path / "leases"),
        }
        return conflist(version="1.0.0", ipam=ipam)

    def leases(self, tmp_path: Path) -> list[str]:
        return [
            name for name in os.listdir(tmp_path / "leases" / "pods") if name[0].isdigit() or name[0] == "f"
        ]

    def test_its_addresses_are_ours(
        self, runtime: CniRuntime, pod: Netns, network: Any, tmp_path: Path
    ) -> None:
        result = runtime.add(network, "c1", pod.path)
        assert result["ips"][0]["address"] == "10.88.0.40/24"
        assert pod.run("ping", "-c1", "-W2", "10.88.0.1").returncode == 0
        assert pod.run("ping", "-c1", "-W2", "fd00:88::1").returncode == 0
        runtime.check(network, "c1", pod.path)
        assert len(self.leases(tmp_path)) == 2
        assert runtime.add(network, "c1", pod.path) == result, "host-local alone would refuse"
        runtime.delete(network, "c1", "")
        runtime.delete(network, "c1", pod.path)
        assert self.leases(tmp_path) == []

    def test_a_lease_is_given_back_when_the_daemon_refuses(
        self, runtime: CniRuntime, pod: Netns, network: Any, tmp_path: Path, machine: Host
    ) -> None:
        machine.api.network("pods", "10.99.0.0/24")
        with pytest.raises(CniFailed, match="IPv4 subnet"):
            runtime.add(network, "c1", pod.path)
        assert self.leases(tmp_path) == []

    def test_an_address_of_the_runtimes_choice(self, runtime: CniRuntime, pod: Netns, network: Any) -> None:
        network["plugins"][0]["ipam"]["ranges"].pop()
        result = runtime.add(network, "c1", pod.path, args="IP=10.88.0.77")
        assert result["ips"][0]["address"] == "10.88.0.77/24"
        runtime.delete(network, "c1", pod.path)

    def test_a_full_range_is_told_in_its_words(self, runtime: CniRuntime, pod: Netns, network: Any) -> None:
        network["plugins"][0]["ipam"]["ranges"] = [
            [{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.5", "rangeEnd": "10.88.0.5"}]
        ]
        runtime.add(network, "c1", pod.path)
        with pytest.raises(CniFailed, match="no IP addresses available"):
            runtime.add(network, "c2", pod.path, ifname="net1")
        runtime.delete(network, "c1", pod.path)

    def test_an_error_of_a_version_that_it_does_not_speak_is_told(
        self, runtime: CniRuntime, pod: Netns, network: Any
    ) -> None:
        network["cniVersion"] = "1.1.0"
        with pytest.raises(CniFailed) as caught:
            runtime.add(network, "c1", pod.path)
        assert caught.value.code == 1
        assert "host-local" in caught.value.message


def test_static_addresses(runtime: CniRuntime, pod: Netns) -> None:
    addresses = [{"address": "10.88.0.9/24", "gateway": "10.88.0.1"}, {"address": "fd00:88::9/64"}]
    network = conflist(version="1.0.0", ipam={"type": "static", "addresses": addresses})
    result = runtime.add(network, "c1", pod.path)
    assert [ip["address"] for ip in result["ips"]] == ["10.88.0.9/24", "fd00:88::9/64"]
    runtime.check(network, "c1", pod.path)
    runtime.delete(network, "c1", pod.path)
