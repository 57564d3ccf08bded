"""The plugin `loopback` beside the reference one: the same answers, and `lo` is up."""

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from harness.cni import PLUGINS
from harness.netns import Netns
from sealane.cli.install import program
from sealane.programs.cni import VERSIONS

pytestmark = pytest.mark.kernel

REFERENCE = f"{PLUGINS}/loopback"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bin") / "loopback"
    path.write_text(program("loopback", "# by a test", None))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def pod() -> Iterator[Netns]:
    with Netns("pod") as pod:
        pod.sh("ip", "link", "set", "lo", "down")
        yield pod


def call(executable: str, verb: str, netns: str, version: str = "0.3.1", **config: Any) -> Any:
    done = subprocess.run(
        [executable],
        input=json.dumps({"cniVersion": version, "name": "cni-loopback", "type": "loopback", **config}),
        env={
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "lo",
            "CNI_NETNS": netns,
            "CNI_PATH": os.path.dirname(executable),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def is_up(pod: Netns) -> bool:
    return "UP" in json.loads(pod.sh("ip", "-j", "link", "show", "lo"))[0]["flags"]


@pytest.mark.parametrize("version", VERSIONS)
def test_add_sets_it_up_and_says_what_it_has(pod: Netns, ours: str, version: str) -> None:
    assert not is_up(pod)
    code, answer = call(ours, "ADD", pod.path, version)
    assert code == 0, answer
    assert is_up(pod)
    assert pod.sh("ping", "-c", "1", "-W", "2", "127.0.0.1")
    assert answer["cniVersion"] == version
    assert ("ip4" in answer) == (version in {"0.1.0", "0.2.0"})
    assert "127.0.0.1/8" in json.dumps(answer)
    assert "::1/128" in json.dumps(answer)


def test_the_answer_is_that_of_the_reference_plugin(pod: Netns, ours: str) -> None:
    """Of 1.0.0, which is what plugins 1.1.1 of Debian 12 answer under every version's name."""
    _, answer = call(ours, "ADD", pod.path, "1.0.0")
    pod.sh("ip", "link", "set", "lo", "down")
    _, theirs = call(REFERENCE, "ADD", pod.path, "1.0.0")
    assert _plain(answer) == _plain(theirs)


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An empty `dns` is left out by us."""
    return {key: value for key, value in answer.items() if value != {}}


def test_without_ipv6_it_has_one_address(pod: Netns, ours: str) -> None:
    pod.sh("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1")
    _, answer = call(ours, "ADD", pod.path, "1.1.0")
    assert [ip["address"] for ip in answer["ips"]] == ["127.0.0.1/8"]


def test_twice_is_once_whatever_other_links_are_there(pod: Netns, ours: str) -> None:
    first = call(ours, "ADD", pod.path)
    pod.sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    for number in range(1, 30):
        pod.sh("ip", "addr", "add", f"fd00:{number:x}::{number:x}/64", "dev", "eth0", "nodad")
    assert call(ours, "ADD", pod.path) == first


def test_what_came_before_in_a_chain_is_the_answer(pod: Netns, ours: str) -> None:
    before = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}]}
    _, answer = call(ours, "ADD", pod.path, "1.0.0", prevResult=before)
    assert answer == before
    assert is_up(pod)


def test_check_fails_while_it_is_down(pod: Netns, ours: str) -> None:
    code, answer = call(ours, "CHECK", pod.path, "1.0.0")
    assert (code, answer["code"]) == (1, 100)
    call(ours, "ADD", pod.path)
    assert call(ours, "CHECK", pod.path, "1.0.0") == (0, None)


def test_del_leaves_it_up_and_needs_no_namespace(pod: Netns, ours: str) -> None:
    call(ours, "ADD", pod.path)
    assert call(ours, "DEL", pod.path) == (0, None)
    assert is_up(pod), "what still runs there talks to itself"
    assert call(ours, "DEL", "/run/netns/none") == (0, None)


def test_the_callers_own_namespace_is_refused(ours: str) -> None:
    code, answer = call(ours, "ADD", f"/proc/{os.getpid()}/ns/net")
    assert (code, answer["code"]) == (1, 8)


def test_the_systems_python_runs_it_too(pod: Netns, tmp_path: pathlib.Path) -> None:
    """Of 3.11, which has no `os.setns`, and of later ones."""
    path = tmp_path / "loopback"
    lines = program("loopback", "# by a test", None).splitlines(keepends=True)
    path.write_text("".join(["#!/usr/bin/python3 -IS\n", *lines[1:]]))
    path.chmod(0o755)
    assert call(str(path), "ADD", pod.path)[0] == 0
    assert is_up(pod)
