"""Docker, podman, CNI and a plain process on one network: the scene that examples/every-engine plays, as people play it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from harness.host import ROOT

pytestmark = [pytest.mark.real, pytest.mark.kernel, pytest.mark.timeout(1200)]

for program in ("dockerd", "docker", "podman", "runc", "busybox", "ip"):
    if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
        pytest.skip(f"needs {program}", allow_module_level=True)

PLAY = (
    os.path.join(ROOT, "scripts", "in-namespaces"),
    sys.executable,
    "-m",
    "examples.every-engine.demo",
    "--fast",
)
DOORS = ("docker-box", "podman-box", "pod-box", "plain-box")
PINGS = 40


@pytest.fixture(scope="module")
def played() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        PLAY,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_all_is_as_it_must_be(played: subprocess.CompletedProcess[str]) -> None:
    assert played.returncode == 0, played.stdout + played.stderr
    assert "✗" not in played.stdout


def test_each_reaches_each_by_name_and_by_both_families(played: subprocess.CompletedProcess[str]) -> None:
    for integration in DOORS:
        (row,) = re.findall(rf"^ *{integration} +(✓.*)$", played.stdout, re.MULTILINE)
        assert row.split("   ") == ["✓ IPv4, IPv6"] * len(DOORS)


def test_a_port_of_each_is_reached_from_outside(played: subprocess.CompletedProcess[str]) -> None:
    for number, integration in enumerate(DOORS):
        assert f"visitor$ curl http://192.0.2.10:{8081 + number}/\n  {integration}\n" in played.stdout


def test_nothing_is_lost_while_the_daemon_is_dead(played: subprocess.CompletedProcess[str]) -> None:
    assert "kill -9" in played.stdout
    assert played.stdout.count(f"{PINGS} of {PINGS} pings answered") == len(DOORS)
    assert re.search(r"ready again \d+ ms after its start, 0 kernel objects written", played.stdout)
    pages = re.search(r"no ping lost, and (\d+) pages from outside, none failed", played.stdout)
    assert pages is not None
    assert int(pages[1]) > 0


def test_each_leaves_by_its_own_integration_and_nothing_stays(
    played: subprocess.CompletedProcess[str],
) -> None:
    left = played.stdout.partition("Each leaves by its own integration")[2]
    for command in ("sealane detach", "CNI_COMMAND=DEL", "podman rm", "docker rm", "docker network rm"):
        assert f"$ {command}" in left
    assert "clean:" in left
    assert "nothing is left" in left
