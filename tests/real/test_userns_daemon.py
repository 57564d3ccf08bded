"""What the daemon makes of `--userns`: namespaces, warnings, what shares them, and what comes back."""

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit import audit
from harness.host import Host, Lan

pytestmark = [pytest.mark.real, pytest.mark.kernel]

NUMBER = 41
NET_ADMIN = "warning: net-admin-outside: "

if not any(shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin") for name in ("runc", "crun")):
    pytest.skip("needs runc or crun", allow_module_level=True)


@pytest.fixture
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.97.0.0/24", "front")
        yield host
        host.sealane("rm", "-f", "web", "db", "guest", check=False)
        assert audit(host) == []


def run(host: Host, name: str, *options: str) -> Any:
    return host.sealane("run", "-d", "--name", name, *options, "sleep", "60")


def inspect(host: Host, name: str) -> dict[str, Any]:
    view: dict[str, Any] = host.api.get(f"/containers/{name}")
    return view


def namespace(host: Host, name: str) -> str:
    return os.readlink(f"/proc/{inspect(host, name)['pid']}/ns/user")


def notes(host: Host) -> list[str]:
    return [c["subject"] for c in host.api.status()["conditions"]]


def test_it_is_the_default_and_can_be_left_out(machine: Host) -> None:
    assert NET_ADMIN not in run(machine, "web", "--network", "front", "--cap-add", "NET_ADMIN").stderr
    assert namespace(machine, "web") != os.readlink("/proc/self/ns/user")
    assert inspect(machine, "web")["warnings"] == []
    assert "user namespace" not in notes(machine)
    assert "NET_ADMIN" not in notes(machine)
    ran = run(machine, "db", "--network", "front", "--userns", "host", "--cap-add", "NET_ADMIN")
    assert NET_ADMIN in ran.stderr
    assert namespace(machine, "db") == os.readlink("/proc/self/ns/user")
    assert inspect(machine, "db")["warnings"][0].startswith("net-admin-outside: ")
    assert "NET_ADMIN" in notes(machine)
    assert "10.97.0.2" in machine.sealane("exec", "db", "getent", "hosts", "web").stdout


def test_who_is_in_the_foreground_is_warned_as_well(machine: Host) -> None:
    options = ("--rm", "--name", "web", "--network", "front", "--userns", "host", "--cap-add", "NET_ADMIN")
    ran = machine.sealane("run", *options, "echo", "said")
    assert (ran.stdout, ran.stderr.startswith(NET_ADMIN)) == ("said\n", True)


def test_a_guest_of_a_network_is_one_of_its_user_namespace(machine: Host) -> None:
    run(machine, "web", "--network", "front")
    run(machine, "guest", "--network", "container:web")
    assert namespace(machine, "guest") == namespace(machine, "web")
    ran = machine.sealane(
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "container:web",
        "--userns",
        "private",
        "sleep",
        "60",
        check=False,
    )
    assert ran.stderr.startswith(
        "error: the network of another container belongs to another user namespace\nfield: --userns"
    )


def test_on_the_hosts_network_there_is_none(machine: Host) -> None:
    run(machine, "web", "--network", "host")
    assert namespace(machine, "web") == os.readlink("/proc/self/ns/user")
    ran = machine.sealane(
        "run", "-d", "--name", "db", "--network", "host", "--userns", "private", "sleep", "60", check=False
    )
    assert ran.returncode == 125
    assert "field: --userns" in ran.stderr


def test_it_outlives_the_daemon_and_comes_back_with_the_machine(machine: Host) -> None:
    run(machine, "web", "--network", "front", "--restart", "always")
    before = namespace(machine, "web")
    machine.restart()
    assert namespace(machine, "web") == before
    machine.sealane("stop", "-t", "0", "web")
    machine.sealane("start", "web")
    assert namespace(machine, "web") == before
    assert "10.97.0.2" in machine.sealane("exec", "web", "cat", "/etc/hosts").stdout


def test_a_compose_file_says_it_too(machine: Host, tmp_path: Any) -> None:
    services = {"web": {"userns_mode": "host"}, "db": {}}
    common = {"image": "host", "command": ["sleep", "60"]}
    file = tmp_path / "compose.yaml"
    file.write_text(json.dumps({"name": "p", "services": {k: common | v for k, v in services.items()}}))
    machine.sealane("up", "-d", "-f", str(file))
    mine = os.readlink("/proc/self/ns/user")
    assert [namespace(machine, f"p-{name}-1") == mine for name in ("web", "db")] == [True, False]
    machine.sealane("down", "-f", str(file))
