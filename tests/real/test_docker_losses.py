"""What a real dockerd and our daemon lose of each other: processes, answers, whole databases."""

from collections.abc import Iterator

import pytest

from harness.audit import audit
from harness.docker import DOCKERD, PLUGIN_SOCKET
from harness.docker_relay import Relay
from harness.docker_rig import Rig, running
from harness.host import Lan

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if DOCKERD is None:
    pytest.skip("needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 40
TARGET = "/run/plugin-behind-the-relay.sock"


@pytest.fixture(scope="module")
def relayed(lan: Lan) -> Iterator[tuple[Rig, Relay]]:
    with running(lan, HOST_NUMBER, TARGET) as rig:
        relay = Relay(rig.host.path(PLUGIN_SOCKET), rig.host.path(TARGET))
        yield rig, relay
        rig.clear()
        relay.close()


@pytest.fixture
def relay(relayed: tuple[Rig, Relay]) -> Iterator[Relay]:
    rig, relay = relayed
    relay.seen.clear()
    with rig.cleared():
        yield relay
        relay.after, relay.lose = lambda path: None, ""


@pytest.fixture
def rig(relayed: tuple[Rig, Relay], relay: Relay) -> Rig:
    del relay
    return relayed[0]


def works(rig: Rig) -> None:
    rig.serve("web", "front", "-p", "8080:80", "--ip", "10.50.0.40")
    rig.run("db", "front")
    rig.reaches("db", "web", "web")
    rig.published("127.0.0.1", 8080, "web")


def test_our_daemon_is_killed_after_every_request(rig: Rig, relay: Relay) -> None:
    """Between CreateEndpoint and Join, between Join and the namespace, …: dockerd tells nothing again."""

    def restart(path: str) -> None:
        del path
        rig.host.kill9()
        rig.start()

    relay.after = restart
    rig.network("front")
    works(rig)
    rig.network("back", subnet="10.51.0.0/24")
    rig.docker("network", "connect", "back", "web")
    rig.docker("restart", "-t", "0", "web")
    rig.reaches("db", "web", "web")
    assert rig.host.api.audit() == []
    rig.docker("rm", "-f", "web", "db")
    rig.docker("network", "rm", "front", "back")
    verbs = {path.partition(".")[2] for path, _ in relay.seen}
    assert {"RequestPool", "RequestAddress", "CreateNetwork", "CreateEndpoint", "Join"} <= verbs
    assert {"ProgramExternalConnectivity", "RevokeExternalConnectivity", "EndpointOperInfo"} <= verbs
    assert {"Leave", "DeleteEndpoint", "ReleaseAddress", "ReleasePool", "DeleteNetwork"} <= verbs
    assert rig.host.api.get("/networks") == rig.host.api.get("/sandboxes") == []
    assert audit(rig.host) == []


@pytest.mark.parametrize(
    "method",
    [
        "IpamDriver.RequestPool",
        "IpamDriver.RequestAddress",
        "NetworkDriver.CreateNetwork",
        "NetworkDriver.CreateEndpoint",
        "NetworkDriver.Join",
        "NetworkDriver.ProgramExternalConnectivity",
        "NetworkDriver.EndpointOperInfo",
        "NetworkDriver.RevokeExternalConnectivity",
        "NetworkDriver.Leave",
        "NetworkDriver.DeleteEndpoint",
        "IpamDriver.ReleaseAddress",
        "IpamDriver.ReleasePool",
        "NetworkDriver.DeleteNetwork",
    ],
)
@pytest.mark.parametrize("subnet", ["10.50.0.0/24", ""], ids=["given", "found"])
def test_an_answer_is_lost(rig: Rig, relay: Relay, method: str, subnet: str) -> None:
    """It is done, dockerd does not know, and asks again without saying what. What it says to its user then is to
    be tried again: that works, and nothing is left over."""
    create = ("network", "create", "-d", "sealane", "--ipam-driver", "sealane", "-o", "sealane.name=front")
    create = (*create, *(("--subnet", subnet) if subnet else ()), "front")
    run = ("run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", "busybox", "sleep", "600")
    steps = (create, run, ("stop", "-t", "0", "web"), ("rm", "-f", "web"), ("network", "rm", "front"))
    relay.lose = f"/{method}"
    for step in steps:
        done = rig.docker.run(*step, check=False)
        if done.returncode:
            assert "no body" in done.stderr, "it is told what has happened"
            if step is run:
                rig.docker("rm", "-f", "web")
            rig.docker(*step)
    assert any(path == f"/{method}" and not body for path, body in relay.seen), (
        "it was asked, and asked again"
    )
    assert rig.links() == []
    pools = [network for network in rig.host.api.get("/networks") if network["driver"] == "none"]
    if pools:
        assert (method, subnet) == ("IpamDriver.RequestPool", ""), (
            "of a pool that it never heard of it asks another"
        )
        rig.host.sealane("network", "rm", "--force", pools[0]["name"])
    assert rig.host.api.get("/networks") == []
