"""Debian's dockerd on our driver: what a person does with `docker`, and what dockerd and we do to each other."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from harness.docker import DOCKERD
from harness.docker_rig import Rig, running
from harness.host import Lan, Workload
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if DOCKERD is None:
    pytest.skip("needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 25


@pytest.fixture(scope="module")
def shared(lan: Lan) -> Iterator[Rig]:
    with running(lan, HOST_NUMBER) as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    with shared.cleared():
        yield shared


def test_containers_reach_each_other_by_dockers_names_and_by_address(rig: Rig) -> None:
    rig.network("front")
    rig.serve("web", "front", "--network-alias", "www")
    rig.run("db", "front")
    assert "policy drop" in rig.host.ns.sh("nft", "list", "chain", "ip", "filter", "FORWARD"), (
        "Docker's rules"
    )
    assert rig.host.ns.sysctl("net/bridge/bridge-nf-call-iptables") == "1"
    for name in ("web", "www", rig.address("web", "front")):
        rig.reaches("db", name, "web")
    assert rig.host.api.audit() == []


def test_a_network_with_every_option_of_dockers(rig: Rig) -> None:
    rig.network(
        "front",
        *("--ip-range", "10.50.0.128/25", "--gateway", "10.50.0.9", "--aux-address", "sw=10.50.0.128"),
        *("--ipv6", "--subnet", "fd00:50::/64", "-o", "com.docker.network.driver.mtu=1380"),
        *(
            "-o",
            "com.docker.network.bridge.name=br-front",
            "-o",
            "com.docker.network.container_iface_prefix=net",
        ),
    )
    rig.serve("web", "front", port=80)
    rig.run("db", "front", "--ip", "10.50.0.77", "--ip6", "fd00:50::77")
    view = rig.host.api.get("/networks/front")
    assert (view["link"], view["mtu"], view["subnets"][0]["gateway"]) == ("br-front", 1380, "10.50.0.9")
    assert rig.address("web", "front") == "10.50.0.129", "the range's first that is not kept back"
    assert rig.address("db", "front") == "10.50.0.77"
    inside = rig.docker("exec", "web", "ip", "link")
    assert re.search(r"net0@.*mtu 1380", inside)
    rig.reaches("db", "10.50.0.129", "web")
    six = rig.docker("inspect", "-f", "{{.NetworkSettings.Networks.front.GlobalIPv6Address}}", "web")
    rig.reaches("db", six, "web")
    rig.docker("rm", "-f", "web", "db")
    assert rig.docker.run(
        "run", "--network", "front", "--ip", "10.50.0.9", "busybox", "true", check=False
    ).returncode


def test_an_internal_network_leads_nowhere(rig: Rig, lan: Lan) -> None:
    rig.network("back", "--internal")
    rig.serve("web", "back")
    rig.run("db", "back")
    rig.reaches("db", "web", "web")
    assert "default" not in rig.docker("exec", "db", "ip", "route")
    assert "eth1" not in rig.docker("exec", "db", "ip", "link")


@pytest.mark.parametrize("program", [True, False], ids=["both", "loopback only"])
def test_ports_are_published_by_sealane(rig: Rig, lan: Lan, program: bool) -> None:
    rig.network("front")
    where = "8080:80" if program else "127.0.0.1:8080:80"
    rig.serve("web", "front", "-p", where)
    rig.run("db", "front")
    rig.published("127.0.0.1", 8080, "web")
    (shown,) = [e["ports"] for e in rig.endpoints() if e["ports"]]
    assert shown == [f"{'*' if program else '127.0.0.1'}:8080->80/tcp"]
    assert shown[0] in rig.host.sealane("endpoint", "ls").stdout
    if program:
        address = rig.host.address(4)
        rig.published(address, 8080, "web", lan=lan)
        rig.reaches("db", address, "web", 8080)
        rig.reaches("web", address, "web", 8080)
    done = rig.docker.run("run", "--network", "front", "-p", where, "busybox", "true", check=False)
    assert "held by endpoint" in done.stderr
    assert rig.docker("port", "web") == "", "Docker takes no driver's word for it (libnetwork#2451)"
    rig.docker("rm", "-f", "web")
    rig.serve("web", "front", "-p", where)
    rig.published("127.0.0.1", 8080, "web")


def test_ports_are_published_by_docker(rig: Rig, lan: Lan) -> None:
    rig.network("front", "-o", "sealane.ports=docker")
    rig.serve("web", "front", "-p", "8081:80")
    rig.run("db", "front")
    assert "8081" in rig.docker("port", "web")
    assert rig.docker("exec", "web", "ip", "-o", "link").count("eth1") == 1, "on a second link"
    rig.reaches("db", "web", "web")
    rig.published("127.0.0.1", 8081, "web")
    rig.published(rig.host.address(4), 8081, "web", lan=lan)
    (shown,) = [e["ports"] for e in rig.endpoints() if e["ports"]]
    assert shown == ["*:8081->80/tcp by docker"]


def test_sandboxes_of_other_integrations_are_on_the_same_network(rig: Rig) -> None:
    rig.network("front")
    rig.serve("web", "front")
    with closing(Workload(rig.host, "lab")) as lab:
        lab.attach("front")
        server = lab.ns.listen("tcp", "0.0.0.0", 7000)
        assert lab.ns.probe("tcp", rig.address("web", "front"), 80)["answer"].strip() == "web"
        checked = rig.host.sealane("check")
        assert "0 not" in checked.stdout, "explain predicts what packets do, in Docker's sandbox too"
        followed = rig.host.sealane("trace", "lab", f"{rig.address('web', 'front')}:80")
        assert "as predicted" in followed.stdout.splitlines()[0], "and trace sees them there"
        said = rig.docker("exec", "web", "sh", "-c", f"echo | nc -w 1 {lab.address(4)} 7000")
        assert said.startswith(server.token)
        assert rig.docker.run("network", "rm", "front", check=False).returncode, "somebody is on it"


def test_a_network_that_docker_removes_under_others_is_theirs(rig: Rig) -> None:
    """dockerd heeds no refusal of a plugin's: for Docker the network is gone."""
    rig.network("front")
    with closing(Workload(rig.host, "lab")) as lab:
        lab.attach("front")
        rig.docker("network", "rm", "front")
        assert "front" not in rig.docker("network", "ls", "--format", "{{.Name}}").split()
        assert "front" in rig.events("network.released")
        assert lab.ns.reaches(rig.host.ns.listen("tcp", "0.0.0.0", 7000), "10.50.0.1"), "and works on"
        rig.host.sealane("detach", lab.ns.path, "front")
    assert rig.host.sealane("network", "rm", "front").returncode == 0


def test_names_go_both_ways_where_they_are_given(rig: Rig) -> None:
    """Docker tells no names; `--dns` lets it ask for ours."""
    rig.network("front")
    gateway = "10.50.0.1"
    rig.serve("web", "front")
    name = rig.endpoints()[0]["name"]
    with closing(Workload(rig.host, "lab")) as lab:
        lab.attach("front")
        rig.run("db", "front", "--dns", gateway)
        eventually(
            lambda: lab.address(4) in rig.docker.run("exec", "db", "nslookup", "lab", check=False).stdout
        )
        found = lab.ns.run("dig", "+short", f"@{gateway}", name).stdout
        assert found.strip() == rig.address("web", "front")


def test_connect_disconnect_and_several_networks(rig: Rig) -> None:
    rig.network("front")
    rig.network("back", subnet="10.51.0.0/24")
    rig.serve("web", "front", "-p", "8080:80")
    rig.serve("db", "back", port=81)
    assert rig.get("web", "10.51.0.2", 81) == "", "networks are apart"
    rig.docker("network", "connect", "--ip", "10.51.0.40", "back", "web")
    rig.reaches("web", "db", "db", 81)
    assert len(rig.host.api.get("/sandboxes")) == 2
    # Docker leaves by the network that is first by name, and moves the ports with it.
    rig.published("127.0.0.1", 8080, "web")
    rig.docker("network", "disconnect", "back", "web")
    rig.published("127.0.0.1", 8080, "web")
    assert [e["network"] for e in rig.endpoints() if e["ports"]] == ["front"]
    assert len(rig.endpoints("back")) == 1
    assert rig.host.api.audit() == []


def test_restart_stop_and_start(rig: Rig) -> None:
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80", "--ip", "10.50.0.40")
    rig.run("db", "front")
    rig.docker("restart", "-t", "0", "web")
    rig.reaches("db", "web", "web")
    rig.published("127.0.0.1", 8080, "web")
    rig.docker("stop", "-t", "0", "web")
    assert len(rig.links("sle")) == 1
    rig.docker("start", "web")
    rig.reaches("db", "10.50.0.40", "web")


def test_a_mac_of_the_users(rig: Rig) -> None:
    rig.network("front")
    rig.serve("web", "front")
    rig.run("db", "front", "--mac-address", "02:42:aa:bb:cc:dd")
    assert "02:42:aa:bb:cc:dd" in rig.docker("exec", "db", "ip", "link")
    rig.reaches("db", "web", "web")


def test_the_daemon_is_replaced_under_running_containers(rig: Rig, lan: Lan) -> None:
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80")
    rig.run("db", "front")
    rig.host.kill9()
    assert rig.get("db", "web") == "web", "traffic goes on without it"
    rig.start()
    assert rig.host.api.status()["writes"] == 0
    rig.reaches("db", "web", "web")
    rig.published(rig.host.address(4), 8080, "web", lan=lan)
    rig.docker("rm", "-f", "web")
    rig.serve("web", "front", "-p", "8080:80")
    rig.published("127.0.0.1", 8080, "web")


def test_a_container_that_ends_while_nobody_looks_leaves_nothing(rig: Rig) -> None:
    """Both are away. (With dockerd there it would give up after 15 s a call, a minute in all, and not tell again.)"""
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80")
    identity = rig.endpoints()[0]["id"]
    eventually(
        lambda: f"id={rig.endpoints()[0]['sandbox_id']}" in rig.events("sandbox.found"), what="it is noted"
    )
    pid = int(rig.docker("inspect", "-f", "{{.State.Pid}}", "web"))
    key = rig.endpoints()[0]["netns"]
    rig.host.kill9()
    rig.docker.kill9()
    os.kill(pid, 9)
    rig.host.ns.sh("umount", key)
    eventually(lambda: rig.links("sle") == [], what="its link dies with it")
    rig.start()
    eventually(lambda: identity not in [e["id"] for e in rig.endpoints()], what="it is released")
    assert rig.links("sle") == rig.links("slh") == []
    rig.docker.start()
    eventually(lambda: not rig.docker("ps", "-q"), what="Docker knows that it is dead")
    rig.docker("start", "web")
    rig.published("127.0.0.1", 8080, "web")


def test_live_restore(rig: Rig) -> None:
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80")
    rig.run("db", "front")
    before = rig.links()
    rig.docker.stop()
    rig.published("127.0.0.1", 8080, "web")
    rig.docker.start()
    assert rig.links() == before
    rig.reaches("db", "web", "web")
    assert rig.host.api.audit() == []
    rig.docker("rm", "-f", "web")
    assert len(rig.links("sle")) == 1


@pytest.mark.parametrize("damage", ["dockerd is killed", "FORWARD is flushed"])
def test_dockers_rules_are_made_anew(rig: Rig, damage: str) -> None:
    """Whoever does it, containers of ours are heard again at once."""
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80")
    rig.run("db", "front")
    if damage == "dockerd is killed":
        rig.docker.kill9()
        rig.host.ns.sh("iptables", "-P", "FORWARD", "DROP")
        rig.docker.start()
    else:
        rig.host.ns.sh("iptables", "-F")
    rig.reaches("db", "web", "web")
    rig.published("127.0.0.1", 8080, "web")
    rig.docker("run", "--rm", "busybox", "true")  # On Docker's own bridge, whose rules come and go.
    assert rig.host.ns.run("iptables", "-S", "FORWARD").returncode == 0
    rig.reaches("db", "web", "web")
    assert rig.host.api.audit() == []


def test_dockerd_killed_and_its_containers_with_it(rig: Rig) -> None:
    """At its start it takes leave of endpoints whose sandboxes are dead."""
    rig.network("front")
    rig.serve("web", "front", "--ip", "10.50.0.40")
    pid = int(rig.docker("inspect", "-f", "{{.State.Pid}}", "web"))
    rig.docker.kill9()
    os.kill(pid, 9)
    rig.docker.start()
    eventually(lambda: not rig.docker("ps", "-q"), what="Docker knows that it is dead")
    rig.docker("start", "web")
    rig.run("db", "front")
    rig.reaches("db", "10.50.0.40", "web")
    assert len(rig.links("sle")) == 2


def test_dockers_own_ipam_and_our_ipam_alone(rig: Rig) -> None:
    rig.docker(
        "network", "create", "-d", "sealane", "--subnet", "10.52.0.0/24", "-o", "sealane.name=own", "own"
    )
    rig.serve("web", "own")
    rig.run("db", "own")
    rig.reaches("db", "web", "web")
    rig.docker(
        "network", "create", "-d", "bridge", "--ipam-driver", "sealane", "--subnet", "10.53.0.0/24", "theirs"
    )
    rig.run("guest", "theirs")
    assert rig.address("guest", "theirs").startswith("10.53.0.")
    rig.docker("rm", "-f", "guest")
    rig.docker("network", "rm", "theirs")


def test_a_subnet_is_found_where_none_is_given(rig: Rig) -> None:
    rig.docker("network", "create", "-d", "sealane", "--ipam-driver", "sealane", "any")
    rig.serve("web", "any")
    rig.run("db", "any")
    rig.reaches("db", "web", "web")
    subnet = json.loads(rig.docker("network", "inspect", "any"))[0]["IPAM"]["Config"][0]["Subnet"]
    assert rig.host.api.get("/networks")[0]["subnets"][0]["prefix"] == subnet


def test_docker_is_told_what_is_wrong(rig: Rig) -> None:
    rig.network("front")
    create = ("network", "create", "-d", "sealane", "--ipam-driver", "sealane")
    refused = rig.docker.run(*create, "--subnet", "10.50.0.0/25", "second", check=False)
    assert "10.50.0.0/25 overlaps 10.50.0.0/24 of network front" in refused.stderr
    refused = rig.docker.run(*create, "-o", "enable_icc=false", "second", check=False)
    assert "there is no driver option 'enable_icc'" in refused.stderr
    assert len(rig.host.api.get("/networks")) == 1, "and nothing is left of it"


def test_many_containers_at_once(rig: Rig) -> None:
    rig.network("front")
    names = [f"c{i}" for i in range(8)]
    begun = time.monotonic()
    jobs = " & ".join(
        f"docker --host unix://{rig.docker.socket} run -d --network front --name {n} busybox sleep 600"
        for n in names
    )
    rig.host.ns.sh("sh", "-c", f"export PATH=/usr/bin:$PATH; {jobs} & wait")
    assert time.monotonic() - begun < 120
    addresses = {rig.address(name, "front") for name in names}
    assert len(addresses) == len(names)
    assert len(rig.endpoints()) == len(names)
