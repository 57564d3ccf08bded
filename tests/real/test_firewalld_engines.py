"""Containers of Docker's and podman's on our networks, on a host with firewalld."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.docker import DOCKERD, PLUGIN_SOCKET, Docker
from harness.docker_rig import Rig
from harness.firewalld import Firewalld, why_not
from harness.host import EXT4, Host, Lan
from harness.netns import eventually
from harness.podman import install, on_netavark

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

HOST_NUMBER = 67
OPTIONS = ("--docker-plugin-socket", PLUGIN_SOCKET)


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[tuple[Host, Firewalld]]:
    with Host(lan, number=HOST_NUMBER) as host:
        firewalld = Firewalld(host)
        try:
            firewalld.start()
            host.start(options=OPTIONS)
            yield host, firewalld
        finally:
            firewalld.close()


def passes(lan: Lan, run: Callable[..., str], gateway: str, name: str, address: str) -> None:
    """From a container: out to the LAN, and a name that our resolver knows."""
    server = lan.ext.listen("tcp", EXT4)

    def out() -> bool:
        return run("sh", "-c", f"echo | nc -w 2 {EXT4} {server.port}").startswith(server.token)

    eventually(out, what="it gets out")
    eventually(lambda: address in run("nslookup", name, gateway), what="names are answered")


@pytest.mark.skipif(DOCKERD is None, reason="needs dockerd (docker.io)")
def test_docker(lan: Lan, machine: tuple[Host, Firewalld]) -> None:
    host, firewalld = machine
    docker = Docker(host)
    try:
        docker.start()
        docker.import_busybox()
        rig = Rig(host, docker, OPTIONS)
        rig.network("front")
        link = host.api.get("/networks/front")["link"]
        rig.serve("web", "front", "-p", "8080:80", "--ip", "10.50.0.40")
        rig.run("db", "front")
        name = next(e["name"] for e in rig.endpoints() if e["ports"])

        def run(*words: str) -> str:
            return docker.run("exec", "db", *words, check=False).stdout

        for change in ("", "--reload"):
            if change:
                firewalld(change)
            eventually(lambda: firewalld.trusted() == [link], what="the bridge is trusted")
            passes(lan, run, "10.50.0.1", name, "10.50.0.40")
            rig.reaches("db", "web", "web")
            rig.published(host.address(4), 8080, "web", lan=lan)
        rig.clear()
        eventually(lambda: firewalld.trusted() == [], what="nothing is left of it")
    finally:
        docker.close()


@pytest.mark.skipif(not shutil.which("podman", path="/usr/bin"), reason="needs podman")
def test_podman(lan: Lan, machine: tuple[Host, Firewalld], tmp_path: Path) -> None:
    """Its networks begin with their first container, whose first packet may be the first thing that it does."""
    host, firewalld = machine
    install(host)
    with on_netavark(host, tmp_path) as podman:
        podman("network", "create", "--subnet", "10.66.0.0/24", "front")
        podman.run("web", "--network", "front")
        podman.run("db", "--network", "front")
        (link,) = [n["link"] for n in host.api.get("/networks")]

        def run(*words: str) -> str:
            return podman("exec", "db", *words, check=False)

        for change in ("", "--reload"):
            if change:
                firewalld(change)
            eventually(lambda: firewalld.trusted() == [link], what="the bridge is trusted")
            passes(lan, run, "10.66.0.1", "web", podman.networks("web")["front"]["IPAddress"])
        podman("rm", "-f", "-t", "0", "web", "db")
        eventually(lambda: firewalld.trusted() == [], what="nothing is left of it")
        podman("network", "rm", "front")
