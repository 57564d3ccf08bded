"""`docker-compose` on networks of ours, and docs/integrations/docker.md, whose recipe for it is run with the rest of the page."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docs.markdown import Command, blocks, commands
from harness.docker import COMPOSE, DOCKERD
from harness.docker_rig import Rig, running
from harness.host import Lan, Workload
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if DOCKERD is None:
    pytest.skip("needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 39
PAGE = (Path(__file__).parents[2] / "docs" / "integrations" / "docker.md").read_text(encoding="utf-8")
FILE = """
version: "3.7"
services:
  web:
    image: busybox
    command: nc -ll -p 80 -e echo web
    ports: ["8080:80", "127.0.0.1:9000-9001:9000-9001"]
    networks:
      front: {{aliases: [www], ipv4_address: 10.50.0.40, ipv6_address: "fd00:50::40"}}
      back:
  db:
    image: busybox
    command: nc -ll -p 81 -e echo db
    networks:
      back: {{aliases: [database]}}
networks:
  front:
    driver: sealane
    driver_opts: {{sealane.name: front, com.docker.network.driver.mtu: "1400", sealane.ports: {ports}}}
    enable_ipv6: true
    ipam: {{driver: sealane, config: [{{subnet: 10.50.0.0/24}}, {{subnet: "fd00:50::/64"}}]}}
  back:
    driver: sealane
    driver_opts: {{sealane.name: back}}
    ipam: {{driver: sealane}}
    internal: true
"""


@pytest.fixture(scope="module")
def shared(lan: Lan) -> Iterator[Rig]:
    with running(lan, HOST_NUMBER) as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    with shared.cleared():
        yield shared


class Project:
    def __init__(self, rig: Rig, folder: Path, ports: str) -> None:
        self._rig, self._file = rig, folder / "compose.yaml"
        # Of format 2.4, since those of 3 have no `enable_ipv6`.
        self._file.write_text(FILE.format(ports=ports).replace("3.7", "2.4"), encoding="utf-8")

    def __call__(self, *argv: str) -> str:
        done = subprocess.run(
            [str(COMPOSE), "--file", str(self._file), "--project-name", "shop", *argv],
            env={**os.environ, "DOCKER_HOST": f"unix://{self._rig.docker.socket}"},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"docker-compose {' '.join(argv)}: {done.stderr}{done.stdout}"
        return done.stdout


@pytest.mark.skipif(COMPOSE is None, reason="needs docker-compose")
@pytest.mark.parametrize("ports", ["sealane", "docker"])
def test_a_project_on_two_networks(rig: Rig, lan: Lan, tmp_path: Path, ports: str) -> None:
    compose = Project(rig, tmp_path, ports)
    compose("up", "-d")
    everything_works(rig, lan, compose, ports)
    compose("restart", "-t", "0")
    everything_works(rig, lan, compose, ports)
    compose("up", "-d", "--scale", "db=3")
    assert len(rig.endpoints("back")) == 4
    assert len({a for e in rig.endpoints("back") for a in e["addresses"]}) == 4
    compose("down", "-t", "0")
    assert rig.endpoints() == []
    assert rig.host.api.get("/networks") == []


def everything_works(rig: Rig, lan: Lan, compose: Project, ports: str) -> None:
    # Compose 2 joins a container's name by hyphens.
    states = dict(re.findall(r"^(shop[_-](\w+)[_-]1) .* Up ", compose("ps"), re.MULTILINE))
    web, db = sorted(states, key=lambda name: states[name], reverse=True)
    assert (states[web], states[db]) == ("web", "db")
    for name in ("database", "db", db):
        rig.reaches(web, name, "db", 81)
    rig.reaches(db, "web", "web")
    assert rig.address(web, "shop_front") == "10.50.0.40"
    assert "mtu 1400" in rig.docker("exec", web, "ip", "link")
    rig.published("127.0.0.1", 8080, "web")
    rig.published(rig.host.address(4), 8080, "web", lan=lan)
    shown = sorted(port for e in rig.endpoints("front") for port in e["ports"])
    by = " by docker" if ports == "docker" else ""
    assert shown == [f"*:8080->80/tcp{by}", f"127.0.0.1:9000-9001->9000-9001/tcp{by}"]
    assert (":8080->80/tcp" in compose("ps")) is (ports == "docker"), "libnetwork#2451"
    with closing(Workload(rig.host, "lab")) as lab:
        lab.attach("front")
        assert lab.ns.probe("tcp", "10.50.0.40", 80)["answer"].strip() == "web"
        # dockerd sets the address, and has the kernel ask first whether somebody else has it.
        eventually(
            lambda: lab.ns.probe("tcp", "fd00:50::40", 80).get("answer", "").strip() == "web",
            what="web over IPv6",
        )
    assert rig.host.api.audit() == []


def fits(said: str, expected: list[str]) -> bool:
    """`…` stands for anything, alone on its line for any number of lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "…" else _line(line) + r"\n" for line in expected)
    return re.fullmatch(pattern, said) is not None


def _line(line: str) -> str:
    return r"\s*.*?\s*".join(map(re.escape, re.split(r"\s*…\s*", line)))


def test_what_fits_the_page() -> None:
    assert fits("one\ntwo\n", ["…"])
    assert fits("a 1 b\n", ["a … b"])
    assert not fits("one\ntwo\n", ["one"])
    assert not fits("", ["one"])


@pytest.mark.skipif(COMPOSE is None, reason="needs docker-compose")
def test_the_page_prints_what_it_says(rig: Rig, tmp_path: Path) -> None:
    """docs/integrations/docker.md, command by command, in a folder with its compose file."""
    (file,) = blocks(PAGE, "yaml")
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text(file, encoding="utf-8")
    for block in blocks(PAGE, "console"):
        for command in commands(block):
            said = printed(rig, folder, command)
            assert fits(said, command.output), f"{command.text}: {said!r} is not {command.output!r}"
    assert rig.endpoints() == [], "the page clears up"


def printed(rig: Rig, folder: Path, command: Command) -> str:
    environ = {
        **os.environ,
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{rig.docker.socket}",
        "SEALANE_SOCKET": rig.host.socket_path,
        "COLUMNS": "160",
    }
    done = subprocess.run(
        ["/bin/sh", "-c", command.text],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return "".join(f"{' '.join(line.split())}\n" for line in lines if line.strip())
