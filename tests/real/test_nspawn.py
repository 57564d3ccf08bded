"""systemd-nspawn in a namespace that was attached by its path: names, ports, and what is left when it has ended."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit import audit
from harness.bundles import has, rootfs
from harness.host import Host, Lan
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if not has("systemd-nspawn", "busybox"):
    pytest.skip("needs systemd-nspawn and busybox", allow_module_level=True)

NUMBER = 40
GATEWAY = "10.95.0.1"
# No systemd here to register a machine with, or to ask for a unit; the root has none of the host's files.
FLAGS = (
    "--quiet",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
)


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.95.0.0/24", "front")
        yield host
        assert audit(host) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = rootfs(tmp_path / "root")
    (root / "usr").mkdir()
    (root / "etc" / "os-release").write_text("ID=busybox\n")
    (root / "etc" / "resolv.conf").write_text(f"nameserver {GATEWAY}\n")
    (root / "etc" / "motd").write_text("hello")
    return root


def nspawn(machine: Host, root: Path, name: str, *command: str) -> subprocess.Popen[str]:
    inside = ["nsenter", f"--net={machine.ns.path}", f"--mount=/proc/{machine.ns.pid}/ns/mnt", "--"]
    place = ("--network-namespace-path", f"/run/netns/{name}", "--machine", name, "--directory", str(root))
    return subprocess.Popen(
        [*inside, "systemd-nspawn", *FLAGS, *place, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_container_of_nspawns_is_found_and_reached(
    lan: Lan, machine: Host, root: Path, tmp_path: Path
) -> None:
    machine.ns.sh("ip", "netns", "add", "lab")
    machine.sealane("attach", "/run/netns/lab", "front", "--name", "lab", "-p", "8080:80")
    server = nspawn(machine, root, "lab", "/bin/httpd", "-f", "-p", "80", "-h", "/etc")
    try:
        url = f"http://{machine.address(4)}:8080/motd"
        assert eventually(lambda: lan.ext.run("curl", "-s", "-m2", url).stdout, 20) == "hello"
        with machine.workload("front", "client") as client:
            assert "10.95.0.2" in client.ns.sh("dig", "+short", "lab", f"@{GATEWAY}")
            (other := rootfs(tmp_path / "other") / "usr").mkdir()
            (other.parent / "etc" / "os-release").write_text("ID=busybox\n")
            (other.parent / "etc" / "resolv.conf").write_text(f"nameserver {GATEWAY}\n")
            machine.ns.sh("ip", "netns", "add", "asks")
            machine.sealane("attach", "/run/netns/asks", "front", "--name", "asks")
            asks = nspawn(machine, other.parent, "asks", "/bin/wget", "-qO-", "http://lab/motd")
            assert asks.communicate(timeout=100)[0].strip() == "hello"
            assert asks.returncode == 0
    finally:
        server.terminate()
        server.communicate(timeout=100)
    for name in ("lab", "asks"):
        machine.sealane("detach", f"/run/netns/{name}", "--all")
        machine.ns.sh("ip", "netns", "del", name)
    assert machine.api.get("/endpoints") == machine.api.get("/sandboxes") == []
    assert audit(machine) == []


def test_its_interface_is_ours_alone(machine: Host, root: Path) -> None:
    """The control: without an attachment the container sees `lo`, and with one it sees it by its address."""
    machine.ns.sh("ip", "netns", "add", "lab")
    try:
        bare = nspawn(machine, root, "lab", "/bin/ip", "-o", "link").communicate(timeout=100)[0]
        assert [line.split(":")[1].strip() for line in bare.splitlines()] == ["lo"]
        machine.sealane("attach", "/run/netns/lab", "front", "--ip", "10.95.0.9")
        seen = nspawn(machine, root, "lab", "/bin/ip", "addr", "show", "dev", "eth0").communicate(
            timeout=100
        )[0]
        assert "10.95.0.9/24" in seen
        machine.sealane("detach", "/run/netns/lab", "--all")
    finally:
        machine.ns.sh("ip", "netns", "del", "lab")
