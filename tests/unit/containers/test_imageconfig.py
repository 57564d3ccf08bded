"""An image's configuration, and what goes before what."""

import json

import pytest

from sealane.containers.errors import ImageError
from sealane.containers.imageconfig import Image, filled, read_config

IMAGE = Image(
    digest="ab" * 32,
    reference="oci:/x",
    entrypoint=("/entry", "-e"),
    cmd=("serve",),
    env={"A": "1", "PATH": "/bin"},
    working_dir="/srv",
    user="web",
    stop_signal="SIGQUIT",
)


def read(config, **more):
    return read_config("ab" * 32, "oci:/x", json.dumps({"config": config, **more}).encode())


def test_all_that_is_said_is_read():
    image = read(
        {
            "Entrypoint": ["/entry"],
            "Cmd": ["serve"],
            "Env": ["A=1", "B=x=y", "C", "D="],
            "WorkingDir": "/srv/app/",
            "User": "1000:1000",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Labels": {"a": "b"},
        },
        os="linux",
        architecture="amd64",
    )
    assert (image.entrypoint, image.cmd) == (("/entry",), ("serve",))
    assert image.env == {"A": "1", "B": "x=y", "C": "", "D": ""}
    assert (image.working_dir, image.user, image.stop_signal) == ("/srv/app", "1000:1000", "SIGQUIT")
    assert image.exposed == ("53/udp", "80/tcp")


@pytest.mark.parametrize(
    "config", [None, {}, dict.fromkeys(["Entrypoint", "Cmd", "Env", "WorkingDir", "User"])]
)
def test_what_is_not_said_is_empty(config):
    image = read(config)
    assert (image.entrypoint, image.cmd, image.env, image.user) == ((), (), {}, "")
    assert image.working_dir == "/"


@pytest.mark.parametrize(
    ("said", "path"), [("app", "/app"), ("/a/../b", "/b"), ("//a", "/a"), ("../..", "/"), ("", "/")]
)
def test_a_working_directory_is_in_its_shortest_spelling(said, path):
    assert read({"WorkingDir": said}).working_dir == path


DEEP = b'{"config": {"ExposedPorts": {"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"config": []}',
        b'{"config": {"Env": "A=1"}}',
        b"\xff",
        b'{"config": {"User": "\xff"}}',
        DEEP,
    ],
    ids=range(7),
)
def test_what_is_no_configuration_is_refused(data):
    with pytest.raises(ImageError):
        read_config("ab" * 32, "oci:/x", data)


def test_an_image_for_another_system_is_refused():
    with pytest.raises(ImageError, match="windows"):
        read({}, os="windows")


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, ["/entry", "-e", "serve"]),
        ({"command": []}, ["/entry", "-e", "serve"]),
        ({"command": ["x"]}, ["/entry", "-e", "x"]),
        ({"entrypoint": ["/own"]}, ["/own"]),
        ({"entrypoint": ["/own"], "command": ["x"]}, ["/own", "x"]),
        ({"entrypoint": [], "command": ["x"]}, ["x"]),
        ({"entrypoint": []}, []),
    ],
)
def test_commands_are_put_together_as_docker_does(given, command):
    found = filled(given, IMAGE)
    assert found["command"] == command
    assert "entrypoint" not in found


def test_what_is_asked_for_goes_before_the_image():
    given = {
        "env": {"A": "2", "B": "3"},
        "working_dir": "/w",
        "user": "root",
        "stop_signal": "SIGTERM",
        "rootfs": "r",
    }
    found = filled(given, IMAGE)
    assert found["env"] == {"A": "2", "PATH": "/bin", "B": "3"}
    assert (found["working_dir"], found["user"], found["stop_signal"]) == ("/w", "root", "SIGTERM")
    assert found["rootfs"] == "r"
    assert given == {
        "env": {"A": "2", "B": "3"}, "working_dir": "/w", "user": "root", "stop_signal": "SIGTERM", "rootfs": "r",
    }  # fmt: skip


def test_what_is_left_open_is_as_the_image_says():
    found = filled({"user": ""}, IMAGE)
    assert (found["working_dir"], found["user"], found["stop_signal"]) == ("/srv", "web", "SIGQUIT")
    assert "user" not in filled({}, Image(digest="", reference=""))
