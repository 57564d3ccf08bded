"""The front end as a process: what podman may write, what it is answered, and that it costs no import."""

import json
import os
import subprocess
import sys

import pytest

import sealane
from harness.stub_daemon import Daemon

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))
IMPORTS = {"__future__", "_json", "_socket", "posix", "sys"}
PROGRAM = (
    f"import sys; sys.path.insert(0, {SOURCE!r}); from sealane.programs.netavark.main import main; "
    "socket = sys.argv.pop(1); sys.exit(main(socket))"
)
CONTAINER = {"container_id": "c1", "container_name": "web", "networks": {}, "network_info": {}}
# As podman 4.3.1 calls it.
FLAGS = (
    "--config", "/run/containers/networks", "--rootless=false", "--aardvark-binary=/usr/lib/podman/aardvark-dns",
)  # fmt: skip


def answer(_):
    return 200, {"status": {"front": {}}, "network": {"name": "front"}}


@pytest.fixture
def netavark(tmp_path):
    def call(*arguments, stdin=b"", **environ):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(tmp_path / "s.sock"), *arguments],
            input=stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode(),
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert done.stderr == b""
        done.text = done.stdout.decode()
        return done

    return call


def error_of(done):
    assert done.returncode == 1
    return json.loads(done.text)["error"]


def test_nothing_is_imported_but_c_modules():
    probe = f"{PROGRAM.partition('; ')[2].partition('; socket')[0]}; print(*(set(sys.modules) - before))"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; before = set(sys.modules); {probe}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name for name in found if not name.startswith("sealane")} <= IMPORTS


def test_setup_asks_once_and_prints_the_status(netavark, daemon):
    asked = daemon(answer)
    done = netavark(*FLAGS, "setup", "/run/netns/a", stdin=CONTAINER)
    assert (done.returncode, json.loads(done.text)) == (0, {"front": {}})
    assert asked.asked == [{"verb": "setup", "netns": "/run/netns/a", "container": CONTAINER}]


def test_teardown_prints_nothing(netavark, daemon):
    asked = daemon(answer)
    done = netavark(*FLAGS, "teardown", "/run/netns/a", stdin=CONTAINER)
    assert (done.returncode, done.text) == (0, "")
    assert asked.asked[0]["verb"] == "teardown"


def test_the_input_may_be_a_file(netavark, daemon, tmp_path):
    asked = daemon(answer)
    (tmp_path / "c.json").write_text(json.dumps(CONTAINER))
    netavark("-f", str(tmp_path / "c.json"), "setup", "/run/netns/a")
    assert asked.asked[0]["container"] == CONTAINER
    assert "No such file" in error_of(netavark("--file", "/nowhere", "setup", "/run/netns/a"))


@pytest.mark.parametrize(
    ("arguments", "servers"),
    [
        (["update", "front", "--network-dns-servers", "192.0.2.1,192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
        (
            ["update", "front", "--network-dns-servers", "192.0.2.1", "--network-dns-servers=192.0.2.2"],
            ["192.0.2.1", "192.0.2.2"],
        ),
        (["update", "front", "--network-dns-servers", ""], []),
    ],
)
def test_update(netavark, daemon, arguments, servers):
    asked = daemon(answer)
    assert netavark(*FLAGS, *arguments).returncode == 0
    assert asked.asked == [{"verb": "update", "network": "front", "dns_servers": servers}]


def test_create_prints_the_network(netavark, daemon):
    asked = daemon(answer)
    done = netavark("create", stdin={"network": {"name": "front"}})
    assert json.loads(done.text) == {"name": "front"}
    assert asked.asked == [{"verb": "create", "create": {"network": {"name": "front"}}}]


def test_reload(netavark, daemon):
    asked = daemon(answer)
    assert netavark("firewall-reload").returncode == 0
    assert asked.asked == [{"verb": "firewall-reload"}]


def test_versions(netavark):
    told = json.loads(netavark("version").text)
    assert told["version"] == "2.1.0"
    assert sealane.__version__ in told["commit"]
    assert netavark("--version").text == f"netavark 2.1.0 (sealane {sealane.__version__})\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help(netavark, arguments):
    assert "setup NETNS" in netavark(*arguments).text


@pytest.mark.parametrize(
    ("arguments", "stdin", "text"),
    [
        (["setup"], CONTAINER, "setup takes one namespace path"),
        (["setup", "/a", "/b"], CONTAINER, "setup takes one namespace path"),
        (["setup", "/a"], b"garbage", "the input is not JSON"),
        (["setup", "/a"], b"", "the input is not JSON"),
        (["--surprise", "setup", "/a"], CONTAINER, "no option --surprise"),
        (["setup", "/a", "--file"], CONTAINER, "--file needs a value"),
        (["--rootless=true", "setup", "/a"], CONTAINER, "rootless"),
        (["explode"], b"", "no command 'explode'"),
        (["--config", "/x"], b"", "no command ''"),
        (["firewalld-reload"], b"", "not needed"),
    ],
)
def test_what_is_wrong_is_told_as_json(netavark, daemon, arguments, stdin, text):
    asked = daemon(answer)
    assert text in error_of(netavark(*arguments, stdin=stdin))
    assert asked.asked == []


def test_without_a_daemon_it_says_what_to_start(netavark):
    told = error_of(netavark("setup", "/a", stdin=CONTAINER))
    assert "no sealane daemon at" in told
    assert "start `sealane daemon`" in told


def test_a_refusal_comes_with_field_and_hint(netavark, daemon):
    refused = {"code": "conflict", "field": "publish[0]", "message": "is held", "hint": "choose another"}
    daemon(lambda _: (409, {"error": refused}))
    assert error_of(netavark("setup", "/a", stdin=CONTAINER)) == "publish[0]: is held: choose another"


def test_a_daemon_that_hangs_up_is_told(netavark, daemon):
    daemon(lambda _: None)
    assert "hung up" in error_of(netavark("setup", "/a", stdin=CONTAINER))


def test_the_environment_names_another_socket(netavark, tmp_path):
    asked = Daemon(str(tmp_path / "other.sock"), lambda _: (200, {"status": {}}))
    try:
        netavark("setup", "/a", stdin=CONTAINER, SEALANE_SOCKET=str(tmp_path / "other.sock"))
        assert len(asked.asked) == 1
    finally:
        asked.close()
