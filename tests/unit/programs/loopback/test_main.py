"""The plugin `loopback` as a process: what it prints and imports; its namespaces are for `tests/kernel/test_loopback_plugin.py`."""

import json
import os
import subprocess
import sys

import pytest

import sealane

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))
IMPORTS = {"__future__", "_json", "_socket", "errno", "fcntl", "posix", "sys"}
PROGRAM = f"import sys; sys.path.insert(0, {SOURCE!r}); from sealane.programs.loopback.main import main; sys.exit(main())"
CONFIG = {"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"}


def call(verb, config=CONFIG, **environ):
    given = {
        "CNI_COMMAND": verb,
        "CNI_PATH": "/opt/cni/bin",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "lo",
        "CNI_NETNS": "/run/netns/none",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web-0",
        **environ,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM],
        input=config if isinstance(config, bytes) else json.dumps(config).encode(),
        env={key: value for key, value in given.items() if value is not None},
        capture_output=True,
        timeout=20,
        check=False,
    )
    done.answer = json.loads(done.stdout) if done.stdout else None
    return done


def test_nothing_is_imported_but_c_modules():
    program = f"import sys; before = set(sys.modules); sys.path.insert(0, {SOURCE!r})"
    modules = "from sealane.programs.loopback import link, main; from sealane.programs.cni import result"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{program}; {modules}; print(*(set(sys.modules) - before))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name for name in found if not name.startswith("sealane")} <= IMPORTS


def test_without_a_command_it_says_what_it_is():
    done = call(None)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"loopback" in done.stderr


@pytest.mark.parametrize("stdin", [b"", b"garbage", b'{"cniVersion": "0.4.0"}'])
def test_version_is_told_whatever_is_on_the_input(stdin):
    done = call("VERSION", stdin, CNI_NETNS="dummy", CNI_IFNAME="dummy")
    assert (done.returncode, done.answer["supportedVersions"][-1]) == (0, "1.1.0")


@pytest.mark.parametrize("netns", ["/run/netns/none", None, ""])
def test_del_succeeds_whatever_is_left(netns):
    done = call("DEL", CNI_NETNS=netns)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_there_is_nothing_to_collect_and_nothing_to_wait_for(verb):
    config = {**CONFIG, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    done = call(verb, config, CNI_CONTAINERID=None, CNI_IFNAME=None, CNI_NETNS=None)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize(
    "netns", ["/run/netns/none", "/proc/self/ns/net", "/etc/hostname", "/proc/self/ns/mnt"]
)
def test_what_is_no_namespace_of_a_pod_is_code_8(verb, netns):
    """The host's own among them: its `lo` is not ours to set."""
    done = call(verb, {**CONFIG, "cniVersion": "1.0.0"}, CNI_NETNS=netns)
    assert (done.returncode, done.answer["code"]) == (1, 8)
    assert netns in done.answer["msg"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"verb": "PLAY"}, 4),
        ({"verb": "ADD", "CNI_CONTAINERID": None}, 4),
        ({"verb": "ADD", "config": b"{"}, 6),
        ({"verb": "ADD", "config": {**CONFIG, "cniVersion": "9.0.0"}}, 1),
        ({"verb": "CHECK"}, 1),
    ],
)
def test_a_wrong_call_has_the_codes_of_the_reference_library(fields, code):
    done = call(fields.pop("verb"), fields.pop("config", CONFIG), **fields)
    assert (done.returncode, done.answer["code"]) == (1, code)
