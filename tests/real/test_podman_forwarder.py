"""podman where there is no cgroup v2: the forwarder serves the host's own loopback, and podman binds the ports."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit import audit
from harness.doctored import port_taken
from harness.host import Host, Lan
from harness.netns import eventually
from harness.podman import Podman, install, on_netavark, unanswered

pytestmark = [pytest.mark.real, pytest.mark.kernel]

for program in ("podman", "runc", "busybox"):
    if not shutil.which(program, path="/usr/sbin:/usr/bin:/bin"):
        pytest.skip(f"needs {program}", allow_module_level=True)

NUMBER = 42
PORTS = ("-p", "8080-8081:80-81", "-p", "9100:53/udp")


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER) as host:
        for line in host.ns.sh("cat", "/proc/self/mounts").splitlines():
            if line.split()[2] == "cgroup2":
                host.ns.sh("umount", "-l", line.split()[1])
        host.start()
        assert host.api.status()["loopback"] == "forwarder"
        install(host)
        yield host
        assert audit(host) == []


@pytest.fixture
def podman(machine: Host, tmp_path: Path) -> Iterator[Podman]:
    with on_netavark(machine, tmp_path) as podman:
        podman("network", "create", "--subnet", "10.66.0.0/24", "--ipv6", "--subnet", "fd66::/64", "front")
        yield podman


def answered(podman: Podman, name: str, *addresses: str) -> bool:
    """The forwarder looks for what reserves the ports for some moments after the container has started."""
    return eventually(lambda: unanswered(podman, name, *addresses) == [])


def test_ports_on_every_address_are_answered_on_the_loopback_too(podman: Podman, machine: Host) -> None:
    podman.run("web", "--network", "front", *PORTS)
    assert answered(podman, "web", "127.0.0.1", "::1", machine.address(4))
    assert port_taken(machine) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_ports_on_the_loopback_alone_are_answered(podman: Podman, address: str) -> None:
    podman.run("web", "--network", "front", *(f"{address}:{p}" if p != "-p" else p for p in PORTS))
    assert answered(podman, "web", address.strip("[]"))


def test_a_restart_finds_its_ports_free(podman: Podman, machine: Host) -> None:
    """What the forwarder has of podman's sockets it lets go of in time."""
    podman.run("web", "--network", "front", *PORTS)
    assert answered(podman, "web", "127.0.0.1")
    podman("restart", "-t", "0", "web")
    assert answered(podman, "web", "127.0.0.1", "::1")
    podman("network", "reload", "web")
    assert answered(podman, "web", "127.0.0.1", "::1")
    podman("rm", "-f", "-t", "0", "web")
    machine.ns.listen("tcp", "0.0.0.0", 8080).close()


def test_a_daemon_that_comes_back_serves_them_again(podman: Podman, machine: Host) -> None:
    podman.run("web", "--network", "front", *PORTS)
    machine.kill9()
    machine.start()
    assert answered(podman, "web", "127.0.0.1", "::1")
