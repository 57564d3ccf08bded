"""The command line against a real daemon and real containers, where the daemon's double could flatter it."""

import json
import shutil
import subprocess

import pytest

from harness.host import Host
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

HOST_NUMBER = 41

if not any(shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin") for name in ("runc", "crun")):
    pytest.skip("needs runc or crun", allow_module_level=True)


@pytest.fixture
def machine(lan):
    with Host(lan, number=HOST_NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.73.0.0/24", "front")
        host.sealane("network", "create", "--subnet", "10.74.0.0/24", "--ipv6", "both")
        yield host
        host.sealane("rm", "-f", *host.sealane("ps", "-aq").stdout.split(), check=False)


def test_wait_has_the_codes_also_of_what_is_removed_meanwhile(machine):
    machine.sealane("run", "-d", "--name", "ends", "--network", "front", "sh", "-c", "exit 7")
    machine.sealane(
        "run", "-d", "--rm", "--name", "goes", "--network", "front", "sh", "-c", "sleep 1; exit 3"
    )
    assert machine.sealane("wait", "ends", "goes").stdout == "7\n3\n"


def test_port_says_what_the_daemon_published(machine):
    ports = ("-p", "8080:80", "-p", "127.0.0.1:9000-9001:90-91/udp", "-p", "443")
    machine.sealane("run", "-d", "--name", "web", "--network", "both", *ports, "sleep", "60")
    lines = machine.sealane("port", "web").stdout.splitlines()
    assert {
        "80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080",
        "90/udp -> 127.0.0.1:9000", "91/udp -> 127.0.0.1:9001",
    } <= set(lines)  # fmt: skip
    assert len(lines) == 6
    four, six = machine.sealane("port", "web", "443/tcp").stdout.splitlines()
    assert four.rpartition(":")[2] == six.rpartition(":")[2] != "0"
    machine.sealane("kill", "web")
    machine.sealane("wait", "web")
    assert machine.sealane("port", "web", "80", check=False).returncode == 1


def test_an_output_that_cannot_be_written_is_one_line(machine):
    for words in (("ps",), ("run", "--rm", "--network", "front", "echo", "x"), ("--json", "network", "ls")):
        with open("/dev/full", "w") as full:
            process = machine.sealane_process(*words, stdin=subprocess.DEVNULL, stdout=full)
            _, errors = process.communicate(timeout=100)
        assert (process.returncode, errors.count("\n")) == (
            125 if words[0] == "run" else 1,
            2 - ("--json" in words),
        )
        assert "the output cannot be written: No space left on device" in errors
    eventually(
        lambda: json.loads(machine.sealane("--json", "ps", "-a").stdout) == [], what="--rm all the same"
    )


def test_a_rate_of_attach_is_the_kernels(machine):
    machine.sealane("sandbox", "create", "lab")
    machine.sealane("attach", "lab", "front", "--ingress", "10mbit", "--egress", "500kbit")
    shown = machine.ns.run("tc", "qdisc", "show").stdout
    assert "rate 10Mbit" in shown
    ran = machine.sealane("attach", "lab", "both", "--egress", "1", check=False)
    assert (ran.returncode, "\nfield: --egress\n" in ran.stderr) == (1, True)


def test_ps_filters_what_runs_and_what_has_ended(machine):
    machine.sealane("run", "-d", "--name", "web", "--network", "front", "-l", "tier=web", "sleep", "60")
    machine.sealane("run", "-d", "--name", "job", "--network", "both", "true")
    machine.sealane("wait", "job")
    assert machine.sealane("ps", "-q", "-f", "status=exited").stdout == "job\n"
    assert machine.sealane("ps", "-q", "-f", "network=front", "-f", "label=tier=web").stdout == "web\n"
    assert machine.sealane("ps", "-ql").stdout == "job\n"
    assert machine.sealane("ps", "-q", "-n", "2").stdout == "job\nweb\n"


def test_dockers_ways_to_write_values_are_the_daemons(machine):
    flags = (
        "--tty=false",
        "--rm=false",
        "--read-only=true",
        "--pids-limit",
        "-1",
        "--cpus",
        ".5",
        "-p",
        "0:80",
    )
    machine.sealane("run", "-d", "--name", "web", "--network", "front", *flags, "sleep", "60")
    (view,) = json.loads(machine.sealane("inspect", "web").stdout)
    assert view["request"]["spec"]["limits"] == {"cpus": 0.5}
    assert view["request"]["spec"]["read_only"]
    assert int(machine.sealane("port", "web", "80").stdout.rpartition(":")[2]) > 1024


def test_a_refusal_names_the_word_that_was_typed(machine):
    machine.sealane("network", "create", "gone")
    machine.sealane("run", "-d", "--name", "web", "--network", "front", "sleep", "60")
    machine.sealane("run", "-d", "--name", "job", "--network", "gone", "true")
    machine.sealane("wait", "job")
    machine.sealane("network", "rm", "-f", "gone")
    for words, field in (
        (("explain", "nobody", "web:80"), "FROM"),
        (("explain", "web", "nobody:80"), "TO"),
        (("explain", "web", "web"), "TO"),
        (("check", "web", "nobody"), "B"),
        (("doctor", "nobody"), "SUBJECT"),
        (("start", "job"), "CONTAINER"),
        (("rm", "web", "nobody"), "CONTAINER"),
    ):
        assert f"\nfield: {field}\n" in machine.sealane(*words, check=False).stderr, words


@pytest.mark.parametrize("flags", [(), ("-d",), ("-i",), ("--rm",)])
def test_a_name_of_a_registrys_image_is_told_that_there_is_none(machine, tmp_path, flags):
    ran = machine.sealane("run", *flags, "--network", "front", "alpine", "echo", "hi", check=False)
    assert (ran.returncode, "hint: there are no registries here: an image is oci:PATH" in ran.stderr) == (
        127,
        True,
    )
    ran = machine.sealane(
        "run", *flags, "--network", "front", "--rootfs", str(tmp_path), "oci:./img:bb", "id", check=False
    )
    assert (ran.returncode, "leave out --rootfs, or oci:./img:bb" in ran.stderr) == (127, True)


def test_up_tells_who_has_ended_and_how(machine, tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "name: ends\nservices:\n  one: {command: [sh, -c, 'echo here; exit 3'], networks: []}\n"
        "  two: {command: [sleep, '1'], networks: []}\n"
    )
    ran = machine.sealane("up", "-f", str(tmp_path))
    assert "one-1 | here\n" in ran.stdout
    assert sorted(ran.stderr.splitlines()) == [
        "ends-one-1 exited with code 3",
        "ends-two-1 exited with code 0",
    ]


def test_hints_fit_what_is_wrong(machine):
    machine.sealane("run", "-d", "--name", "web", "--network", "front", "sleep", "60")
    ran = machine.sealane("exec", "-w", "/nosuch", "web", "true", check=False)
    assert "\nfield: --workdir\nhint: name a directory" in ran.stderr
    ran = machine.sealane("run", "-d", "--network", "front", "-p", "[2001:db8::1]:80:80", "true", check=False)
    assert "\nfield: --publish\nhint: publish at an address of a family that the network has" in ran.stderr
