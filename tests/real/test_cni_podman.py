"""podman 4 with its CNI backend on our network: names, ports, addresses, several networks, and what `rm` leaves."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit import audit
from harness.cni import PLUGINS, CniRuntime
from harness.doctored import port_taken
from harness.host import Host, Lan
from harness.netns import eventually
from harness.podman import SETTINGS, Podman, unanswered

pytestmark = [pytest.mark.real, pytest.mark.kernel]

for program in ("podman", "runc", "busybox"):
    if not shutil.which(program, path="/usr/sbin:/usr/bin:/bin"):
        pytest.skip(f"needs {program}", allow_module_level=True)

NUMBER = 33
NETWORK_SETTINGS = """[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin_dir}", "{plugins}"]
network_config_dir = "{conf_dir}"
default_network = "pods"
"""


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.ns.sh("mount", "-t", "tmpfs", "tmpfs", "/var/lib/cni") if os.path.isdir("/var/lib/cni") else None
        yield host
        assert audit(host) == []


@pytest.fixture
def podman(machine: Host, tmp_path: Path) -> Iterator[Podman]:
    runtime = CniRuntime(machine, str(tmp_path), "--resolver")
    config = tmp_path / "containers.conf"
    settings = NETWORK_SETTINGS.format(bin_dir=runtime.bin_dir, plugins=PLUGINS, conf_dir=runtime.conf_dir)
    config.write_text(settings + SETTINGS)
    podman = Podman(machine, tmp_path, {"CONTAINERS_CONF": str(config)})
    yield podman
    podman("rm", "-f", "-t", "0", "-a")
    status = machine.api.status()
    assert (status["endpoints"], status["sandboxes"]) == (0, 0), "podman's DEL has taken all of it away"
    for network in machine.api.get("/networks"):
        machine.api.remove_network(network["name"])


def add_network(podman: Podman, name: str) -> None:
    """As `podman network create` would, of a plugin that it does not know."""
    directory = podman.directory / "net.d"
    (pods,) = directory.glob("*.conflist")
    document = json.loads(pods.read_text()) | {"name": name}
    (directory / f"20-{name}.conflist").write_text(json.dumps(document))


def ports_of(machine: Host) -> list[list[str]]:
    return [sorted(e["ports"]) for e in machine.api.get("/endpoints")]


def test_a_container_has_its_address_its_name_and_its_port(lan: Lan, machine: Host, podman: Podman) -> None:
    networks = podman.run("web", "-p", "8080:80", command=("httpd", "-f", "-p", "80", "-h", "/etc"))
    (endpoint,) = machine.api.get("/endpoints")
    assert endpoint["name"] == "web"
    assert endpoint["ports"] == ["*:8080->80/tcp"]
    assert networks["pods"]["IPAddress"] == endpoint["addresses"][0].partition("/")[0]
    assert networks["pods"]["MacAddress"] == endpoint["mac"]
    url = f"http://{machine.address(4)}:8080/hostname"
    assert eventually(lambda: lan.ext.run("curl", "-s", "-m2", url).stdout.strip(), what=url)
    podman.run("client")
    assert endpoint["addresses"][0].partition("/")[0] in podman(
        "exec", "client", "nslookup", "web", endpoint["dns"][0]
    )
    podman("rm", "-f", "-t", "0", "web")
    assert [e["name"] for e in machine.api.get("/endpoints")] == ["client"]


def test_addresses_and_macs_asked_for_are_given(podman: Podman, machine: Host) -> None:
    machine.sealane("network", "create", "--subnet", "10.88.0.0/24", "pods")
    networks = podman.run("web", "--ip", "10.88.0.77", "--mac-address", "02:00:00:00:00:77")
    assert networks["pods"]["IPAddress"] == "10.88.0.77"
    assert networks["pods"]["MacAddress"] == "02:00:00:00:00:77"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_published_on_the_hosts_loopback_is_answered(
    podman: Podman, machine: Host, address: str
) -> None:
    machine.api.network("pods", "10.88.0.0/24", "fd88::/64")
    at = f"[{address}]" if ":" in address else address
    podman.run("web", "-p", f"{at}:8080-8081:80-81", "-p", f"{at}:9100:53/udp")
    assert unanswered(podman, "web", address) == []
    podman("network", "reload", "web")
    assert unanswered(podman, "web", address) == []
    assert port_taken(machine) == []


def test_reload_keeps_address_mac_and_port(podman: Podman, machine: Host) -> None:
    machine.api.network("pods", "10.88.0.0/24")
    podman.run("web", "--ip", "10.88.0.77", "--mac-address", "02:00:00:00:00:77", "-p", "8080:80")
    before = podman.networks("web")["pods"]
    podman("network", "reload", "web")
    after = podman.networks("web")["pods"]
    assert (after["IPAddress"], after["MacAddress"]) == (before["IPAddress"], before["MacAddress"])
    assert after["IPAddress"] == "10.88.0.77"
    (endpoint,) = machine.api.get("/endpoints")
    assert (endpoint["ports"], endpoint["addresses"]) == (["*:8080->80/tcp"], ["10.88.0.77/24"])
    assert unanswered(podman, "web", "127.0.0.1", machine.address(4)) == []


def test_a_container_on_two_networks_publishes_on_one_of_them(podman: Podman, machine: Host) -> None:
    add_network(podman, "others")
    podman.run("web", "--network", "pods,others", "-p", "8080:80", "-p", "9100:53/udp")
    assert sorted(ports_of(machine)) == [[], ["*:8080->80/tcp", "*:9100->53/udp"]]
    assert unanswered(podman, "web", "127.0.0.1", machine.address(4)) == []
    podman("network", "reload", "web")
    assert sorted(ports_of(machine)) == [[], ["*:8080->80/tcp", "*:9100->53/udp"]]
    assert unanswered(podman, "web", "127.0.0.1", machine.address(4)) == []


def test_networks_are_connected_and_disconnected_and_the_ports_move(podman: Podman, machine: Host) -> None:
    add_network(podman, "others")
    podman.run("web", "-p", "8080:80")
    podman("network", "connect", "others", "web")
    assert {e["network"]: e["ports"] for e in machine.api.get("/endpoints")} == {
        "pods": ["*:8080->80/tcp"],
        "others": [],
    }
    podman("network", "disconnect", "pods", "web")
    assert {e["network"]: e["ports"] for e in machine.api.get("/endpoints")} == {"others": ["*:8080->80/tcp"]}
    assert unanswered(podman, "web", "127.0.0.1", machine.address(4)) == []
    podman("network", "connect", "pods", "web")
    assert sorted(ports_of(machine)) == [[], ["*:8080->80/tcp"]]


def test_a_restart_is_a_new_namespace_and_one_attachment(podman: Podman, machine: Host) -> None:
    podman.run("web")
    first = machine.api.get("/endpoints")[0]
    podman("restart", "-t", "0", "web")
    (second,) = machine.api.get("/endpoints")
    assert second["netns"] != first["netns"]


def test_a_container_that_is_killed_is_released(podman: Podman, machine: Host) -> None:
    podman.run("web")
    podman("kill", "web")
    podman("rm", "-f", "web")
    assert machine.api.get("/endpoints") == []


def test_a_port_in_use_is_told_in_our_words_and_nothing_stays(podman: Podman, machine: Host) -> None:
    podman.run("web", "-p", "8080:80")
    with pytest.raises(AssertionError, match="held by endpoint web"):
        podman.run("other", "-p", "8080:80")
    assert [e["name"] for e in machine.api.get("/endpoints")] == ["web"]


def test_without_a_daemon_podman_says_what_to_start(podman: Podman, machine: Host) -> None:
    machine.stop()
    try:
        with pytest.raises(AssertionError, match="no sealane daemon at"):
            podman.run("web")
    finally:
        machine.start()
