"""Containers of the daemon's on networks that come and go while they run."""

import json
import os
import pathlib
import shutil
import signal

import pytest

from harness.audit import audit
from harness.host import Host
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

HOST_NUMBER = 16

if not any(shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin") for name in ("runc", "crun")):
    pytest.skip("needs runc or crun", allow_module_level=True)


@pytest.fixture
def machine(lan):
    with Host(lan, number=HOST_NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.71.0.0/24", "front")
        host.sealane("network", "create", "--subnet", "10.72.0.0/24", "back")
        yield host
        host.sealane("rm", "-f", "web", "db", check=False)


def run(host, name, network):
    host.sealane("run", "-d", "--name", name, "--network", network, "sleep", "60")


def read(host, path):
    return host.sealane("exec", "web", "cat", path).stdout


def test_a_running_container_finds_the_names_of_a_network_that_it_joins(machine):
    """Its files are rewritten in place: the process that runs in it sees them without being started again."""
    run(machine, "web", "front")
    run(machine, "db", "back")
    assert "10.72.0.1" not in read(machine, "/etc/resolv.conf")
    machine.sealane("detach", "web", "front")
    machine.sealane("attach", "web", "back")
    eventually(lambda: "10.72.0.1" in read(machine, "/etc/resolv.conf"), what="the resolver of back")
    eventually(lambda: "10.72.0.3 web" in read(machine, "/etc/hosts").replace("\t", " "), what="its own name")
    assert "10.71.0." not in read(machine, "/etc/resolv.conf") + read(machine, "/etc/hosts")
    assert "10.72.0.2" in machine.sealane("exec", "web", "getent", "hosts", "db").stdout


def events(host, name):
    """Kinds of what was told of a container, in order."""
    told = [json.loads(line) for line in host.sealane("--json", "events").stdout.splitlines()]
    return [
        e["kind"].removeprefix("container.")
        for e in told
        if e["subject"] == name and "container." in e["kind"]
    ]


def test_a_container_that_ends_by_itself_gives_up_its_name_and_its_port(machine, tmp_path):
    """Docker's way: who asks for `web` gets those that run, and the port is free for the next version."""
    run(machine, "db", "front")
    script = "until test -e /kept/enough; do sleep 0.1; done; exit 3"
    publish = ("--publish", "8080:80")
    options = ("--network", "front", *publish, "-v", f"{tmp_path}:/kept")
    machine.sealane("run", "-d", "--name", "web", *options, "sh", "-c", script)
    asks = ("exec", "db", "getent", "hosts", "web")
    assert "10.71.0." in machine.sealane(*asks).stdout
    assert "8080" in machine.ns.sh("nft", "list", "map", "ip", "sealane", "publish")
    (tmp_path / "enough").touch()
    eventually(lambda: events(machine, "web") == ["started", "exited"], what="its end")
    eventually(lambda: not machine.sealane(*asks, check=False).stdout, what="the end of its name")
    assert "8080" not in machine.ns.sh("nft", "list", "map", "ip", "sealane", "publish")
    [listed] = [line for line in machine.sealane("ps", "--all").stdout.splitlines() if line.startswith("web")]
    assert "exited 3" in listed
    machine.sealane("run", "-d", "--name", "web2", "--network", "front", *publish, "sleep", "60")
    machine.sealane("rm", "-f", "web2")
    assert audit(machine) == []


def test_a_restart_is_told_and_loses_nothing(machine, tmp_path):
    run(machine, "db", "front")
    once = "test -e /kept/again && exec sleep 60; touch /kept/again; exit 1"
    options = ("--network", "front", "--restart", "always", "-v", f"{tmp_path}:/kept")
    machine.sealane("run", "-d", "--name", "web", *options, "sh", "-c", once)
    eventually(lambda: events(machine, "web")[-1:] == ["restarted"], what="its restart")
    assert events(machine, "web") in (["started", "exited", "restarted"], ["started", "restarted"])
    assert "10.71.0." in machine.sealane("exec", "db", "getent", "hosts", "web").stdout


def test_health_is_told_by_itself(machine):
    options = ("--network", "front", "--health-cmd", "test -e /tmp/well", "--health-interval", "200ms")
    machine.sealane("run", "-d", "--name", "web", *options, "--health-retries", "1", "sleep", "60")
    eventually(lambda: events(machine, "web")[-1:] == ["unhealthy"], what="its illness")
    machine.sealane("exec", "web", "touch", "/tmp/well")
    eventually(lambda: events(machine, "web")[-1:] == ["healthy"], what="its recovery")


REFUSED = {
    "--pids-limit": "-5",
    "--cap-add": "FOO",
    "--restart": "sometimes",
    "--volume": "/nonexistent:/x",
    "--user": "nobody_such",
    "--dns": "300.1.1.1",
    "--workdir": "relative",
    "--hostname": "a b",
    "--ip": "1.2.3.4",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_a_flag_that_is_wrong_is_named_with_the_hint_and_nothing_is_left(machine, flag):
    ran = machine.sealane("run", "-d", "--name", "web", flag, REFUSED[flag], "sleep", "60", check=False)
    assert ran.returncode == 125
    assert f"\nfield: {flag}\nhint: " in ran.stderr
    assert "spec." not in ran.stderr
    assert "web" not in machine.sealane("ps", "--all").stdout
    assert "default" not in machine.sealane("network", "ls").stdout


def test_a_container_is_told_of_by_its_name(machine):
    run(machine, "web", "front")
    ran = machine.sealane("rm", "web", check=False)
    assert ran.stderr == "error: container web is running\nhint: `sealane stop web` first, or `--force`\n"
    machine.sealane("stop", "-t", "0", "web")
    ran = machine.sealane("exec", "web", "true", check=False)
    assert ran.stderr.startswith(
        "error: container web is not running (it is exited)\nhint: `sealane start web`"
    )
    machine.sealane("rm", "web")
    ran = machine.sealane("logs", "web", check=False)
    assert (
        ran.stderr == "error: there is no container 'web'\nfield: CONTAINER\nhint: see `sealane ps --all`\n"
    )


def test_a_name_without_a_dot_is_a_services_and_its_own_hostname_is_its_own(machine):
    run(machine, "db", "front")
    options = ("--network", "front", "--dns-search", "own.example", "--hostname", "box")
    machine.sealane("run", "-d", "--name", "web", *options, "sleep", "60")
    written = read(machine, "/etc/resolv.conf")
    assert "search own.example" in written
    assert "ndots:0" in written
    for name, address in (("db", "10.71.0.2"), ("box", "10.71.0.3"), ("web", "10.71.0.3")):
        assert address in machine.sealane("exec", "web", "getent", "ahostsv4", name).stdout, name


# --- in the foreground ------------------------------------------------------------------------------------------------


def foreground(host, *words):
    return host.sealane_process("run", "--name", "web", "--network", "front", *words)


def is_ended(host):
    return "running" not in host.sealane("ps", "--all").stdout


def test_the_exit_code_is_there_however_slowly_the_output_is_taken(machine):
    """The daemon keeps it while somebody attends, and who removes it by force takes nothing from who has waited."""
    with foreground(machine, "--rm", "sh", "-c", "seq 30000; exit 3") as client:
        # Not before it reads: what is removed until then is nobody's output.
        assert client.stdout.readline() == "1\n"
        eventually(lambda: is_ended(machine), what="its end")
        # On a busy machine it goes before by itself: the client has all of it, and has not asked for the code yet.
        machine.sealane("rm", "-f", "web", check=False)
        _, err = client.communicate(timeout=100)
    assert (client.returncode, err) == (3, "")


def test_one_that_is_removed_while_it_runs_ended_by_being_killed(machine):
    with foreground(machine, "sleep", "60") as client:
        eventually(lambda: "running" in machine.sealane("ps").stdout, what="its start")
        machine.sealane("rm", "-f", "web")
        client.communicate(timeout=100)
    assert client.returncode == 137


def test_one_whose_supervisor_is_killed_ended_by_being_killed(machine):
    with foreground(machine, "sleep", "60") as client:
        eventually(lambda: "running" in machine.sealane("ps").stdout, what="its start")
        [record] = pathlib.Path(machine.state_dir).glob("**/status.json")
        os.kill(json.loads(record.read_bytes())["shim"]["pid"], signal.SIGKILL)
        client.communicate(timeout=100)
    assert client.returncode == 137
    assert "exited 137" in machine.sealane("ps", "--all").stdout


def test_a_name_is_free_as_soon_as_one_that_is_not_to_be_kept_has_stopped(machine):
    options = ("--rm", "-d", "--name", "web", "--network", "front", "--ip", "10.71.0.9")
    for _ in range(2):
        machine.sealane("run", *options, "sleep", "60")
        machine.sealane("stop", "-t", "0", "web")
    machine.sealane("run", *options, "sleep", "60")
    assert audit(machine) == []
