"""runc, crun and podman with our hook: names, ports, several networks, and what a killed container leaves."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness.podman
from harness.audit import audit
from harness.bundles import OciRuntime, has, rootfs
from harness.host import Host, Lan
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if not has("busybox"):
    pytest.skip("needs busybox", allow_module_level=True)

NUMBER = 36
FRONT, BACK = "10.90.0.0/24", "10.91.0.0/24"
GATEWAY = "10.90.0.1"
SERVER = ("httpd", "-f", "-p", "80", "-h", "/etc")


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", FRONT, "--subnet", "fd00:90::/64", "front")
        host.sealane("network", "create", "--subnet", BACK, "back")
        yield host
        assert audit(host) == []


def clean(machine: Host) -> None:
    status = machine.api.status()
    assert (status["endpoints"], status["sandboxes"]) == (0, 0), "poststop has taken all of it away"
    assert audit(machine) == []


@pytest.fixture(params=["runc", "crun"])
def runtime(request: Any, machine: Host, tmp_path: Path) -> Iterator[OciRuntime]:
    if not has(request.param):
        pytest.skip(f"needs {request.param}")
    runtime = OciRuntime(machine, request.param, tmp_path)
    machine.sealane("oci", "install", "--bin", runtime.hook, "--hooks-dir", str(tmp_path / "hooks.d"))
    yield runtime
    runtime.close()
    clean(machine)


def endpoints(machine: Host) -> list[dict[str, Any]]:
    return list(machine.api.get("/endpoints"))


def fetch(lan: Lan, address: str, port: int) -> str:
    return lan.ext.run("curl", "-s", "-m2", f"http://{address}:{port}/motd").stdout


def test_bundles_reach_each_other_by_name_and_are_reached_from_outside(
    lan: Lan, machine: Host, runtime: OciRuntime
) -> None:
    web = runtime.bundle("web", *SERVER, networks="front", name="www", aliases="site", publish="8080:80")
    (web / "rootfs" / "etc" / "motd").write_text("hello")
    runtime.run(web)
    client = runtime.bundle("client", networks="front,back", nameserver=GATEWAY)
    runtime.run(client)
    for name in ("www", "site", "web"):
        wget = ("wget", "-qO-", f"http://{name}/motd")
        eventually(lambda wget=wget: runtime.exec("client", *wget, check=False) == "hello", what=name)
    for address in (machine.address(4), f"[{machine.address(6)}]"):
        eventually(lambda address=address: fetch(lan, address, 8080) == "hello", what=address)
    assert "inet 10.91.0." in runtime.exec("client", "ip", "-4", "addr", "show", "dev", "eth1")
    assert "default via 10.90.0.1 dev eth0" in runtime.exec("client", "ip", "route")
    runtime("delete", "--force", "web")
    assert {e["name"] for e in endpoints(machine)} == {"client"}
    assert fetch(lan, machine.address(4), 8080) == ""


def test_what_is_asked_for_is_given(machine: Host, runtime: OciRuntime) -> None:
    said = {"front__ip": "10.90.0.77,fd00:90::77", "front__mac": "02:00:00:00:00:77", "front__ifname": "lan0"}
    runtime.run(runtime.bundle("web", networks="back,front", labels="tier=db", **said))
    by_network = {endpoint["network"]: endpoint for endpoint in endpoints(machine)}
    front = by_network["front"]
    assert front["addresses"] == ["10.90.0.77/24", "fd00:90::77/64"]
    assert (front["mac"], front["ifname"]) == ("02:00:00:00:00:77", "lan0")
    assert by_network["back"]["labels"]["tier"] == "db"
    assert "10.90.0.77/24" in runtime.exec("web", "ip", "addr", "show", "dev", "lan0")


def test_a_container_that_is_killed_goes_with_its_delete(machine: Host, runtime: OciRuntime) -> None:
    runtime.run(runtime.bundle("web", networks="front,back", publish="8080:80"))
    os.kill(runtime.pid("web"), signal.SIGKILL)
    eventually(lambda: "stopped" in runtime("state", "web").stdout, 5, "the container has stopped")
    runtime("delete", "web")
    clean(machine)


def test_one_that_nobody_deletes_is_found_dead(machine: Host, runtime: OciRuntime) -> None:
    runtime.run(runtime.bundle("web", networks="front"))
    os.kill(runtime.pid("web"), signal.SIGKILL)
    machine.restart()
    eventually(lambda: endpoints(machine) == [], 20, "the daemon finds that the namespace is gone")
    runtime("delete", "web")


def test_under_the_same_id_it_comes_back(machine: Host, runtime: OciRuntime) -> None:
    bundle = runtime.bundle("web", networks="front", ip="10.90.0.66", publish="8080:80")
    for _ in range(3):
        runtime.run(bundle)
        (endpoint,) = endpoints(machine)
        assert endpoint["addresses"][0] == "10.90.0.66/24"
        runtime("delete", "--force", "web")


def test_a_hook_that_is_called_twice_is_called_once_too_often_and_no_harm_is_done(
    machine: Host, runtime: OciRuntime
) -> None:
    twice = {stage: [*entries, *entries] for stage, entries in runtime.hooks().items()}
    runtime.run(runtime.bundle("web", networks="front", publish="8080:80", hooks=twice))
    assert len(endpoints(machine)) == 1


def test_without_a_daemon_the_container_does_not_start_and_it_is_said_why(
    machine: Host, runtime: OciRuntime
) -> None:
    machine.stop()
    try:
        done = runtime.run(runtime.bundle("web", networks="front"), check=False)
        assert done.returncode != 0
        if runtime.program == "runc":
            assert "sealane: no sealane daemon at" in done.stdout
        runtime.run(runtime.bundle("other"))
        assert runtime.names() == ["other"], "who asks for no network of ours starts"
    finally:
        machine.start()


def test_crun_writes_what_a_hook_says_where_it_is_told(
    machine: Host, runtime: OciRuntime, tmp_path: Path
) -> None:
    if runtime.program != "crun":
        pytest.skip("runc shows it by itself")
    bundle = runtime.bundle("web", networks="nowhere")
    config = json.loads((bundle / "config.json").read_text())
    config["annotations"]["run.oci.hooks.stderr"] = str(tmp_path / "hook.err")
    (bundle / "config.json").write_text(json.dumps(config))
    assert runtime.run(bundle, check=False).returncode != 0
    assert "sealane.networks: network 'nowhere' not found" in (tmp_path / "hook.err").read_text()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"networks": "front,nowhere"}, "sealane.networks: network 'nowhere' not found"),
        ({"networks": "front", "ipp": "10.90.0.5"}, "sealane.ipp: there is no such annotation"),
        ({"networks": "front", "ip": "10.99.0.5"}, "sealane.ip"),
    ],
)
def test_a_container_that_asks_for_what_cannot_be_does_not_start(
    machine: Host, runtime: OciRuntime, said: dict[str, str], what: str
) -> None:
    done = runtime.run(runtime.bundle("web", **said), check=False)
    assert done.returncode != 0
    if runtime.program == "runc":
        assert what in done.stdout
    events = json.loads(f"[{','.join(machine.sealane('--json', 'events').stdout.splitlines())}]")
    refused = [event for event in events if event["kind"] == "container.refused"][-1]
    assert what in refused["detail"]["error"]
    assert runtime.names() == []


@pytest.mark.parametrize("namespaces", [(), ({"type": "network", "path": "/proc/1/ns/net"},)])
def test_the_hosts_own_network_is_refused(
    machine: Host, runtime: OciRuntime, namespaces: tuple[dict[str, str], ...]
) -> None:
    """Without a namespace of its own it has the runtime's; another way to say so is the host's by its path."""
    if namespaces:
        namespaces = ({"type": "network", "path": machine.ns.path},)
    before = machine.ns.ip("link")
    done = runtime.run(runtime.bundle("web", networks="front", namespaces=namespaces), check=False)
    assert done.returncode != 0
    if runtime.program == "runc":
        assert "host's own network namespace" in done.stdout
        assert "linux.namespaces" in done.stdout
    assert machine.ns.ip("link") == before
    assert runtime.names() == []


def test_traffic_goes_on_while_the_daemon_is_away(lan: Lan, machine: Host, runtime: OciRuntime) -> None:
    web = runtime.bundle("web", *SERVER, networks="front", publish="8080:80")
    (web / "rootfs" / "etc" / "motd").write_text("hello")
    runtime.run(web)
    eventually(lambda: fetch(lan, machine.address(4), 8080) == "hello", what="web is published")
    machine.kill9()
    try:
        eventually(lambda: fetch(lan, machine.address(4), 8080) == "hello", what="it goes on")
        # It goes without us, and leaves its record: poststop is logged and no more.
        runtime("delete", "--force", "web", check=False)
    finally:
        machine.start()
    eventually(lambda: endpoints(machine) == [], 20, "the daemon finds that the namespace is gone")


# --- podman


class Podman(harness.podman.Podman):
    """With our hook, and without networks of its own."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.hook, self.hooks_dir = str(directory / "libexec" / "oci-hook"), str(directory / "hooks.d")
        here = ("--cgroup-manager=cgroupfs", "--events-backend=file", f"--hooks-dir={self.hooks_dir}")
        super().__init__(host, directory, options=here)
        rootfs(Path(self.image))

    def start(
        self, identity: str, /, *options: str, command: tuple[str, ...] = ("sleep", "300"), **annotations: str
    ) -> None:
        said = [f"--annotation=sealane.{key}={value}" for key, value in annotations.items()]
        limits = ("--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512", "--log-driver", "k8s-file")
        more = ("-d", "--network", "none", "--name", identity, *limits, *said, *options)
        self("run", *more, "--rootfs", self.image, *command)


@pytest.fixture
def podman(machine: Host, tmp_path: Path) -> Iterator[Podman]:
    if not has("podman", "runc"):
        pytest.skip("needs podman and runc")
    podman = Podman(machine, tmp_path)
    machine.sealane("oci", "install", "--bin", podman.hook, "--hooks-dir", podman.hooks_dir)
    yield podman
    podman("rm", "-f", "-t", "0", "-a")
    clean(machine)


def test_podmans_containers_without_a_network_get_ours(lan: Lan, machine: Host, podman: Podman) -> None:
    (Path(podman.image) / "etc" / "motd").write_text("hello")
    resolver = podman.directory / "resolv.conf"
    resolver.write_text(f"nameserver {GATEWAY}\n")
    podman.start("web", command=SERVER, networks="front", name="www", publish="8080:80")
    podman.start("client", "-v", f"{resolver}:/etc/resolv.conf:ro", networks="front back")
    identity = podman("inspect", "--format", "{{.Id}}", "web")
    for name in ("www", identity[:12]):
        wget = ("wget", "-qO-", f"http://{name}/motd")
        eventually(lambda wget=wget: podman("exec", "client", *wget, check=False) == "hello", what=name)
    eventually(lambda: fetch(lan, machine.address(4), 8080) == "hello", what="web is published")


def test_podmans_restart_is_one_attachment(machine: Host, podman: Podman) -> None:
    podman.start("web", networks="front", name="www")
    (first,) = endpoints(machine)
    podman("restart", "-t", "0", "web")
    (second,) = eventually(lambda: len(endpoints(machine)) == 1 and endpoints(machine))
    assert second["netns"] != first["netns"]


def test_podman_says_what_is_refused_and_leaves_nothing(machine: Host, podman: Podman) -> None:
    with pytest.raises(AssertionError, match="network 'nowhere' not found"):
        podman.start("web", networks="nowhere")
    with pytest.raises(AssertionError, match="sealane.network is of no network"):
        podman.start("web2", network="front")
    assert endpoints(machine) == []


def test_podmans_container_of_nobody_is_left_alone(machine: Host, podman: Podman) -> None:
    podman.start("plain")
    assert endpoints(machine) == []


def test_what_was_uninstalled_is_called_no_more(machine: Host, podman: Podman) -> None:
    machine.sealane("oci", "uninstall", "--bin", podman.hook, "--hooks-dir", podman.hooks_dir)
    podman.start("web", networks="front")
    assert endpoints(machine) == []
