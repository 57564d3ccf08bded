"""Podman with the netavark front end: nothing changed on its side but a line of configuration."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit
from harness.doctored import port_taken
from harness.host import Host, Lan
from harness.netns import eventually
from harness.podman import Podman, PodmanFailed, install, on_netavark, unanswered

pytestmark = [pytest.mark.real, pytest.mark.kernel]

for program in ("podman", "runc", "busybox"):
    if not shutil.which(program, path="/usr/sbin:/usr/bin:/bin"):
        pytest.skip(f"needs {program}", allow_module_level=True)

NUMBER = 34
SERVER = ("httpd", "-f", "-p", "80", "-h", "/etc")


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        install(host)
        yield host
        assert audit(host) == []


@pytest.fixture
def podman(machine: Host, tmp_path: Path) -> Iterator[Podman]:
    with on_netavark(machine, tmp_path) as podman:
        yield podman


def endpoints(machine: Host) -> dict[str, dict[str, Any]]:
    return {f"{e['name']}/{e['network']}": e for e in machine.api.get("/endpoints")}


def address(podman: Podman, name: str, network: str) -> str:
    return str(podman.networks(name)[network]["IPAddress"])


def resolve(podman: Podman, source: str, name: str) -> list[str]:
    """By the container's own resolv.conf. Busybox is static, so of its applets only this one can ask."""
    lines = podman("exec", source, "nslookup", name, check=False).partition("Name:")[2].splitlines()
    return [line.partition(": ")[2].strip() for line in lines if line.startswith("Address")]


def reaches(podman: Podman, source: str, target: str) -> bool:
    """Over HTTP; a name must be one."""
    if not target[0].isdigit() or not target.replace(".", "").isdigit():
        found = [a for a in resolve(podman, source, target) if "." in a]
        if not found:
            return False
        target = found[0]
    ask = f"printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {target} 80"
    return " 200 OK" in podman("exec", source, "sh", "-c", ask, check=False)


def test_podman_knows_us_as_netavark(podman: Podman) -> None:
    assert podman("info", "--format", "{{.Host.NetworkBackend}}") == "netavark"


def test_a_container_has_its_address_its_name_and_its_port(lan: Lan, machine: Host, podman: Podman) -> None:
    podman("network", "create", "--subnet", "10.66.0.0/24", "--ipv6", "--subnet", "fd66::/64", "front")
    networks = podman.run("web", "--network", "front", "-p", "8080:80", command=SERVER)
    endpoint = endpoints(machine)["web/front"]
    assert endpoint["ports"] == ["*:8080->80/tcp"]
    assert endpoint["addresses"] == ["10.66.0.2/24", "fd66::2/64"]
    front = networks["front"]
    assert (front["IPAddress"], front["IPPrefixLen"], front["Gateway"]) == ("10.66.0.2", 24, "10.66.0.1")
    assert (front["GlobalIPv6Address"], front["IPv6Gateway"]) == ("fd66::2", "fd66::1")
    assert front["MacAddress"] == endpoint["mac"]
    for host in (machine.address(4), f"[{machine.address(6)}]"):
        assert eventually(
            lambda: lan.ext.run("curl", "-s", "-m2", f"http://{host}:8080/hostname"), 5
        ).stdout.strip()
    podman.run("client", "--network", "front")
    resolv = podman("exec", "client", "cat", "/etc/resolv.conf")
    assert "nameserver 10.66.0.1" in resolv
    assert "search dns.podman" in resolv
    assert reaches(podman, "client", "web")
    assert reaches(podman, "client", "web.dns.podman")
    identity = podman("inspect", "--format", "{{.Id}}", "web")[:12]
    assert reaches(podman, "client", identity), "podman names containers by the beginning of their id, too"


def test_two_networks_two_links_and_the_first_is_the_way_out(podman: Podman, machine: Host) -> None:
    for name, subnet in (("zone", "10.66.1.0/24"), ("area", "10.66.2.0/24"), ("inner", "10.66.3.0/24")):
        internal = ["--internal"] if name == "inner" else []
        podman("network", "create", *internal, "--subnet", subnet, name)
    podman.run("both", "--network", "zone,area,inner")
    routes = podman("exec", "both", "ip", "route")
    # Podman 4 numbers links as it likes: the lowest of those with a way out is it.
    mine = endpoints(machine)
    way_out = min((mine["both/zone"], mine["both/area"]), key=lambda e: e["ifname"])
    assert routes.count("default") == 1
    assert f"default via {way_out['gateways'][0]} dev {way_out['ifname']}" in routes
    assert {e["ifname"] for e in mine.values()} == {"eth0", "eth1", "eth2"}
    podman.run("far", "--network", "area", command=SERVER)
    podman.run("inside", "--network", "inner", command=SERVER)
    assert reaches(podman, "both", "far")
    assert reaches(podman, "both", "inside")
    assert not reaches(podman, "far", address(podman, "inside", "inner"))


def test_networks_are_connected_and_disconnected(podman: Podman, machine: Host, lan: Lan) -> None:
    podman("network", "create", "--subnet", "10.66.1.0/24", "one")
    podman("network", "create", "--subnet", "10.66.2.0/24", "two")
    podman.run("web", "--network", "one", "-p", "8080:80", command=SERVER)
    podman.run("client", "--network", "two")
    assert not reaches(podman, "client", address(podman, "web", "one"))
    podman("network", "connect", "--alias", "shop", "two", "web")
    assert reaches(podman, "client", "shop")
    podman("network", "disconnect", "one", "web")
    assert [e for e in endpoints(machine) if e.startswith("web/")] == ["web/two"]
    # The ports that the first network had are the second's now.
    assert endpoints(machine)["web/two"]["ports"] == ["*:8080->80/tcp"]
    url = f"http://{machine.address(4)}:8080/hostname"
    assert eventually(lambda: lan.ext.run("curl", "-s", "-m2", url).stdout.strip(), what=url)
    assert [n["name"] for n in machine.api.get("/networks")] == ["two"]


def test_addresses_macs_aliases_and_ports_asked_for_are_given(podman: Podman, machine: Host) -> None:
    podman("network", "create", "--subnet", "10.66.0.0/24", "--opt", "mtu=1380", "front")
    networks = podman.run(
        "web", "--network", "front", "--ip", "10.66.0.77", "--mac-address", "02:00:00:00:00:77",
        "--network-alias", "shop", "-p", "127.0.0.1:9000-9002:9000-9002/udp", "-p", "8081:81",
    )  # fmt: skip
    assert networks["front"]["IPAddress"] == "10.66.0.77"
    endpoint = endpoints(machine)["web/front"]
    assert endpoint["mac"] == networks["front"]["MacAddress"] == "02:00:00:00:00:77"
    assert "shop" in endpoint["aliases"]
    assert sorted(endpoint["ports"]) == ["*:8081->81/tcp", "127.0.0.1:9000-9002->9000-9002/udp"]
    assert "mtu 1380" in podman("exec", "web", "ip", "link", "show", "eth0")


def test_reload_and_restart_keep_what_was_asked_for(podman: Podman, machine: Host) -> None:
    podman("network", "create", "--subnet", "10.66.0.0/24", "front")
    before = podman.run("web", "--network", "front", "-p", "8080:80", command=SERVER)["front"]
    podman("network", "reload", "web")
    after = podman.networks("web")["front"]
    assert (after["IPAddress"], after["MacAddress"]) == (before["IPAddress"], before["MacAddress"])
    first = endpoints(machine)["web/front"]
    podman("restart", "-t", "0", "web")
    second = endpoints(machine)["web/front"]
    assert second["netns"] != first["netns"]
    assert second["ports"] == ["*:8080->80/tcp"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_published_on_the_hosts_loopback_is_answered(
    podman: Podman, machine: Host, address: str
) -> None:
    """Podman's monitor listens on the very same address and ports, so that no other program takes them."""
    podman("network", "create", "--subnet", "10.66.0.0/24", "--ipv6", "--subnet", "fd66::/64", "front")
    at = f"[{address}]" if ":" in address else address
    ports = ["-p", f"{at}:8080:80", "-p", f"{at}:9000-9002:9000-9002", "-p", f"{at}:9100-9101:53-54/udp"]
    podman.run("web", "--network", "front", *ports)
    assert unanswered(podman, "web", address) == []
    podman("network", "reload", "web")
    assert unanswered(podman, "web", address) == []
    podman("restart", "-t", "0", "web")
    assert unanswered(podman, "web", address) == []
    assert port_taken(machine) == []


def test_doctor_tells_who_takes_a_port_from_a_container(podman: Podman, machine: Host) -> None:
    """And nothing of podman's monitor, which listens for that very container."""
    podman("network", "create", "--subnet", "10.66.0.0/24", "--ipv6", "--subnet", "fd66::/64", "front")
    podman.run("web", "--network", "front", "-p", "8080:80")
    assert port_taken(machine) == []
    taker = machine.ns.listen("tcp", "::", 8080)
    try:
        assert [(f["subject"], "listens at :: port 8080" in f["message"]) for f in port_taken(machine)] == [
            ("web/front", True)
        ]
    finally:
        taker.close()


@pytest.mark.parametrize("name", ["podman", "conmon", "another"])
def test_a_port_that_another_program_holds_is_refused_whatever_it_calls_itself(
    podman: Podman, machine: Host, tmp_path: Path, name: str
) -> None:
    podman("network", "create", "front")
    holder = tmp_path / name
    shutil.copy("/bin/busybox", holder)
    listen = 'exec -a httpd "$0" -f -p 127.0.0.1:8080'
    with subprocess.Popen(
        ["nsenter", f"--net={machine.ns.path}", "--", "bash", "-c", listen, holder]
    ) as process:
        try:
            eventually(lambda: not machine.ns.run("curl", "-s", "127.0.0.1:8080").returncode, 10)
            with pytest.raises(PodmanFailed, match=f"held by {name}|address already in use"):
                podman.run("web", "--network", "front", "-p", "127.0.0.1:8080:80")
            assert (endpoints(machine), machine.api.get("/networks")) == ({}, [])
        finally:
            process.kill()


def test_a_pod_is_one_sandbox(podman: Podman, machine: Host, lan: Lan) -> None:
    podman("network", "create", "--subnet", "10.66.0.0/24", "front")
    podman("pod", "create", "--name", "shop", "--network", "front", "-p", "8080:80")
    podman.run("web", "--pod", "shop", command=SERVER)
    podman.run("client", "--pod", "shop")
    (endpoint,) = endpoints(machine).values()
    assert endpoint["ports"] == ["*:8080->80/tcp"]
    assert reaches(podman, "client", "127.0.0.1")
    url = f"http://{machine.address(4)}:8080/hostname"
    assert eventually(lambda: lan.ext.run("curl", "-s", "-m2", url).stdout.strip(), what=url)
    podman("pod", "restart", "shop")
    assert len(endpoints(machine)) == 1


def test_a_container_that_is_killed_is_released(podman: Podman, machine: Host) -> None:
    podman("network", "create", "front")
    podman.run("web", "--network", "front")
    podman("kill", "web")
    podman("rm", "-f", "web")
    assert machine.api.get("/endpoints") == []


def test_a_port_in_use_is_told_in_our_words_and_nothing_stays(podman: Podman, machine: Host) -> None:
    podman("network", "create", "front")
    podman("network", "create", "back")
    podman.run("web", "--network", "front", "-p", "8080:80")
    # Podman 5 asks the kernel for the port before it asks us.
    with pytest.raises(PodmanFailed, match="held by endpoint web|address already in use"):
        podman.run("other", "--network", "front,back", "-p", "8080:80")
    assert list(endpoints(machine)) == ["web/front"]
    assert [n["name"] for n in machine.api.get("/networks")] == ["front"]


def test_the_daemon_may_be_away_while_podman_waits_for_nobody(podman: Podman, machine: Host) -> None:
    podman("network", "create", "front")
    podman.run("web", "--network", "front")
    machine.kill9()
    with pytest.raises(PodmanFailed, match="no sealane daemon at"):
        podman.run("other", "--network", "front")
    machine.start()
    podman("rm", "-f", "other", check=False)
    podman.run("other", "--network", "front")
    assert reaches(podman, "other", "web") is False
    assert "web/front" in endpoints(machine)


def test_a_network_of_sealanes_own_is_joined(podman: Podman, machine: Host) -> None:
    """Addresses are sealane's to give, and so its other containers are met by name."""
    machine.sealane("network", "create", "--subnet", "10.77.0.0/24", "shared")
    podman("network", "create", "--ipam-driver", "none", "shared")
    networks = podman.run("web", "--network", "shared", command=SERVER)
    assert (
        networks["shared"]["IPAddress"] == endpoints(machine)["web/shared"]["addresses"][0].partition("/")[0]
    )
    machine.sealane("run", "-d", "--name", "own", "--network", "shared", "sleep", "300")
    try:
        assert machine.sealane("exec", "own", "curl", "-s", "-m2", "http://web/hostname").stdout.strip()
    finally:
        machine.sealane("rm", "-f", "own")
    podman("rm", "-f", "-t", "0", "web")
    assert [n["name"] for n in machine.api.get("/networks")] == ["shared"], "podman did not make it"
    machine.sealane("network", "rm", "shared")


def test_inspect_is_json_that_podman_understands(podman: Podman) -> None:
    podman("network", "create", "--subnet", "10.66.0.0/24", "front")
    (network,) = json.loads(podman("network", "inspect", "front"))
    assert network["subnets"] == [{"subnet": "10.66.0.0/24", "gateway": "10.66.0.1"}]
