"""`sealane doctor` beside a real dockerd: silent about healthy containers, and right about broken ones."""

import json
from collections.abc import Iterator

import pytest

from harness.docker import DOCKERD
from harness.docker_rig import Rig, running
from harness.host import Lan
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if DOCKERD is None:
    pytest.skip("needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 61
ABOUT_SANDBOXES = {"wrong-resolver", "wrong-default-route"}


@pytest.fixture(scope="module")
def shared(lan: Lan) -> Iterator[Rig]:
    with running(lan, HOST_NUMBER) as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    with shared.cleared():
        yield shared


def diagnosed(rig: Rig) -> list[dict[str, str]]:
    """Findings about sandboxes' names and ways out, after every container was found."""
    eventually(
        lambda: all(sandbox["netns"] for sandbox in rig.host.api.get("/sandboxes")),
        what="every namespace is known",
    )
    view = json.loads(rig.host.sealane("doctor", "--json", check=False).stdout)
    return [finding for finding in view["findings"] if finding["cause"] in ABOUT_SANDBOXES]


def test_healthy_containers_of_every_shape(rig: Rig) -> None:
    rig.network("front")
    rig.network("back", "--internal", subnet="10.51.0.0/24")
    rig.network("side", "--ipv6", "--subnet", "fd00:52::/64", subnet="10.52.0.0/24")
    rig.network("theirs", "-o", "sealane.ports=docker", subnet="10.53.0.0/24")
    rig.serve("one", "front", "-p", "8080:80")
    rig.serve("inner", "back")
    rig.serve("dual", "side")
    rig.serve("published", "theirs", "-p", "8081:80")
    rig.serve("many", "front")
    for network in ("back", "side", "theirs"):
        rig.docker("network", "connect", network, "many")
    rig.docker(
        "run", "-d", "--name", "asks", "--network", "front", "--dns", "10.50.0.1", "busybox", "sleep", "600"
    )
    rig.reaches("many", "inner", "inner")
    rig.reaches("many", "dual", "dual")
    assert len(rig.host.api.get("/sandboxes")) == 6
    assert diagnosed(rig) == []
    # A bridge of Docker's that came after our networks keeps our switch for forwarding on, and the rules with it (ADR 0024).
    rig.clear()
    rig.docker("network", "rm", "docker_gwbridge")


def test_a_container_without_its_default_route(rig: Rig) -> None:
    rig.network("front")
    rig.docker(
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "--cap-add",
        "NET_ADMIN",
        "busybox",
        "sleep",
        "600",
    )
    rig.docker("exec", "web", "ip", "route", "del", "default")
    (finding,) = diagnosed(rig)
    assert (finding["cause"], finding["level"]) == ("wrong-default-route", "error")
    assert "docker restart" in finding["hint"]
    rig.docker("restart", "-t", "0", "web")
    assert diagnosed(rig) == []


def test_a_container_whose_resolver_went_with_dockerd(rig: Rig) -> None:
    """With live-restore the container goes on, and nothing answers at 127.0.0.11 until dockerd is back."""
    rig.network("front")
    rig.run("web", "front")
    assert diagnosed(rig) == []
    rig.docker.stop()
    (finding,) = diagnosed(rig)
    assert (finding["cause"], finding["level"]) == ("wrong-resolver", "error")
    assert "start dockerd" in finding["hint"]
    rig.docker.start()
    eventually(lambda: diagnosed(rig) == [], what="its resolver is back")
