"""podman 4 with its CNI backend on our network: names, ports, addresses, several networks, and what `rm` leaves."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit import audit
from harness.cni import PLUGINS, CniRuntime
from harness.host import Host, Lan
from harness.netns import eventually
from harness.podman import SETTINGS, Podman

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
    runtime = CniRuntime(machine, str(tmp_path))
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


def test_a_container_has_its_address_its_name_and_its_port(lan: Lan, machine: Host, podman: Podman) -> None:
    networks = podman.run("web", "-p", "8080:80", command=("httpd", "-f", "-p", "80", "-h", "/etc"))
    (endpoint,) = machine.api.get("/endpoints")
    assert endpoint["name"] == "web"
    assert endpoint["ports"] == ["*:8080->80/tcp"]
    assert networks["pods"]["IPAddress"] == endpoint["addresses"][0].partition("/")[0]
    assert networks["pods"]["MacAddress"] == endpoint["mac"]
    url = f"http://{machine.address(4)}:8080/hostname"
    assert eventually(lambda: lan.ext.run("curl", "-s", "-m2", url), 5).stdout.strip()
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
