"""What a real dockerd and our daemon lose of each other: processes, answers, whole databases."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from harness.audit import audit
from harness.docker import DOCKER, DOCKERD, PLUGIN_SOCKET
from harness.docker_relay import Relay
from harness.docker_rig import Rig, running
from harness.host import Lan
from harness.netns import Netns, eventually

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


def inside(rig: Rig, container: str) -> Netns:
    pid = rig.docker("inspect", "-f", "{{.State.Pid}}", container)
    return Netns.enter(container, f"/proc/{pid}/ns/net")


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_dockers_rules_are_made_anew_under_traffic(rig: Rig, lan: Lan, how: str) -> None:
    """FORWARD drops, and dockerd takes its rules out and puts them in again: not one datagram is lost, neither from
    container to container nor to a published port."""
    rig.network("front")
    rig.run("web", "front", "-p", "7000:7000/udp")
    rig.run("db", "front")
    with contextlib.closing(inside(rig, "web")) as web, contextlib.closing(inside(rig, "db")) as db:
        server = web.listen("udp", "0.0.0.0", 7000)
        streams = ((db, "inner", rig.address("web", "front")), (lan.ext, "outer", rig.host.address(4)))
        for where, name, address in streams:
            where("stream_start", name=name, address=address, port=7000, interval=0.001)
        for _ in range(2):
            if how == "restarted":
                rig.docker.stop()
            else:
                rig.docker.kill9()
            rig.docker.start()
        sent = {name: where("stream_stop", name=name) for where, name, _ in streams}
        assert "policy drop" in rig.host.ns.sh("nft", "list", "chain", "ip", "filter", "FORWARD")

        def missing() -> dict[str, int]:
            arrived = [payload.split()[0] for _, _, payload in server.peers()]
            return {name: count - arrived.count(name) for name, count in sent.items()}

        eventually(lambda: not any(missing().values()), what=f"all of {sent} arrive")
        assert min(sent.values()) > 200, "a restart takes longer than 0.1 s"


def test_ten_containers_at_once_each_with_a_port(rig: Rig) -> None:
    rig.network("front")
    numbers = range(10)
    jobs = [
        subprocess.Popen(
            [
                *(DOCKER, "--host", f"unix://{rig.docker.socket}", "run", "-d", "--name", f"c{n}"),
                *(
                    "--network",
                    "front",
                    "-p",
                    f"{8100 + n}:80",
                    "busybox",
                    "nc",
                    "-ll",
                    "-p",
                    "80",
                    "-e",
                    "echo",
                    f"c{n}",
                ),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for n in numbers
    ]
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    assert len({a for e in rig.endpoints() for a in e["addresses"]}) == len(numbers)
    for n in numbers:
        rig.published("127.0.0.1", 8100 + n, f"c{n}")
    assert rig.host.api.audit() == []
    assert audit(rig.host) == []


def test_dockerd_loses_its_database(rig: Rig) -> None:
    """Then nobody but us knows of its networks: their user removes them by force, as the refusal says."""
    rig.network("front")
    rig.docker.stop()
    os.rename(f"{rig.docker.root}/data/network", f"{rig.docker.root}/network-lost")
    rig.docker.start()
    assert "front" not in rig.docker("network", "ls", "--format", "{{.Name}}").split()
    create = ("network", "create", "-d", "sealane", "--ipam-driver", "sealane", "-o", "sealane.name=front")
    refused = rig.docker.run(*create, "--subnet", "10.50.0.0/24", "front", check=False)
    assert "overlaps 10.50.0.0/24 of network front" in refused.stderr
    told = rig.host.sealane("network", "rm", "front", check=False)
    assert told.returncode
    assert "force" in told.stderr
    rig.host.sealane("network", "rm", "--force", "front")
    rig.network("front")
    works(rig)


def test_we_lose_our_store(rig: Rig) -> None:
    """Docker is told so, and what to do; what runs is not touched meanwhile."""
    rig.network("front")
    rig.serve("web", "front")
    rig.run("db", "front")
    rig.host.stop()
    shutil.rmtree(rig.host.state_dir)
    rig.start()
    assert rig.get("db", "web") == "web", "traffic goes on"
    refused = rig.docker.run("run", "--rm", "--network", "front", "busybox", "true", check=False)
    assert refused.returncode
    assert "the records were lost: remove it there too, and create it anew" in refused.stderr
    rig.docker("rm", "-f", "web", "db")
    rig.docker("network", "rm", "front")
    rig.host.sealane("gc", "--confirm")
    rig.network("front")
    works(rig)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_container_is_removed_while_we_are_away(rig: Rig, relay: Relay) -> None:
    """dockerd waits 15 s a call, succeeds, and never tells again; its namespaces it keeps for up to a minute more
    (libnetwork/osl, gpmCleanupPeriod)."""
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80")
    eventually(lambda: "sandbox.found" in rig.host.sealane("events").stdout, what="its namespace is noted")
    relay.away = True
    rig.docker.run("rm", "-f", "web", timeout_s=120)
    relay.away = False
    eventually(lambda: rig.endpoints() == [], 90, "it is found dead, and released")
    works(rig)
