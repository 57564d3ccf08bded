"""Docker's plugin protocol on the real kernel: a client that speaks as dockerd 20.10.24 was recorded to, and moves links
as libnetwork does."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit
from harness.cnm import PORTMAP, Box, Dockerd, PluginError, PluginSocket
from harness.host import Host, Lan, Workload
from harness.netns import eventually

pytestmark = pytest.mark.kernel

NETWORK = "a1" * 32
WEB, DB = "b2" * 32, "c3" * 32
POOL, POOL6 = "10.50.0.0/24", "fd00:50::/64"
PORTS = {PORTMAP: [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}]}

# Hands itself two sockets as systemd does (sd_listen_fds(3)), and then becomes the daemon.
ACTIVATED = """
import os, socket, sys
listeners = []
for number, path in enumerate(sys.argv[1:3], 3):
    listener = socket.socket(socket.AF_UNIX)
    listeners.append(listener)
    listener.bind(path)
    listener.listen(8)
    os.dup2(listener.fileno(), number)
    os.set_inheritable(number, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "sealane.socket:docker"}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Machine:
    """A host whose daemon is Docker's driver, and dockerd's half."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.path = f"{host.dir}/plugins/sealane.sock"
        self.start()
        self.plugin = PluginSocket(self.path)
        self.docker = Dockerd(self.plugin)
        self.boxes: dict[str, Box] = {}

    def start(self) -> None:
        self.host.start(options=("--docker-plugin-socket", self.path))

    def network(self, *pools: str, **options: str) -> list[dict[str, Any]]:
        data = [self.docker.pool(pool) for pool in pools or (POOL,)]
        self.docker.create_network(NETWORK, *data, sealane__name="front", **options)
        return data

    def run(self, endpoint: str, name: str, *pools: str, **options: Any) -> Box:
        """`docker run`: join first, the namespace comes after."""
        box = self.boxes[name] = Box(self.host, name)
        named = {"sealane.name": name, **options}
        joined = self.docker.start(NETWORK, endpoint, box.key, *(pools or (POOL,)), options=named)
        box.appear()
        view = self.endpoint(endpoint)
        box.take(joined, view["mac"], *view["addresses"])
        return box

    def endpoints(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.host.api.get("/endpoints")
        return found

    def sandboxes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.host.api.get("/sandboxes")
        return found

    def endpoint(self, identity: str) -> dict[str, Any]:
        return next(e for e in self.endpoints() if e["id"] == identity)

    def address(self, identity: str, family: int = 4) -> str:
        found = [a.partition("/")[0] for a in self.endpoint(identity)["addresses"]]
        return next(a for a in found if (":" in a) is (family == 6))

    def links(self, prefix: str) -> list[str]:
        return [i["ifname"] for i in self.host.ns.json("ip", "link") if i["ifname"].startswith(prefix)]

    def close(self) -> None:
        self.plugin.close()
        for box in self.boxes.values():
            box.close()


@pytest.fixture
def machine(lan: Lan) -> Iterator[Machine]:
    with Host(lan, number=24) as host, closing(Machine(host)) as machine:
        yield machine


def test_the_handshake_is_answered_with_an_empty_host_and_on_one_connection(machine: Machine) -> None:
    machine.docker.activate()
    kept = machine.plugin._http
    machine.docker.activate()
    assert machine.plugin._http is kept, "the connection is kept open"
    with closing(PluginSocket(machine.path)) as second:
        assert second("/Plugin.Activate", b"") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert machine.plugin.post("/NetworkDriver.GwAllocCheck", b"{}\n")[0] == 404, "not implemented"


@pytest.mark.parametrize("name", ["", "plugin.moby.localhost", "%2Frun%2Fdocker%2Fplugins%2Fsealane.sock"])
def test_whatever_host_docker_names_is_us(machine: Machine, name: str) -> None:
    """None in 20.10, its own word in later ones, and a path where Go 1.20.6 had broken that."""
    with closing(PluginSocket(machine.path, host=name)) as plugin:
        assert plugin("/Plugin.Activate", b"")["Implements"]
        body = json.dumps({"NetworkID": NETWORK, "EndpointID": WEB}).encode()
        assert "Err" in plugin("/NetworkDriver.EndpointOperInfo", body + b"\n")


def test_a_retry_without_its_body_is_answered_at_once(machine: Machine) -> None:
    """dockerd sends it up to four times over 15 s, and gives up only then."""
    for method, key in (("/NetworkDriver.Join", "Err"), ("/IpamDriver.RequestAddress", "Error")):
        status, text = machine.plugin.post(method, b"")
        assert status == 200
        assert "try again" in json.loads(text)[key]


def test_nobody_is_asked_about_docker_unless_told_to(lan: Lan) -> None:
    with Host(lan, number=24).start() as host:
        assert not os.path.exists(f"{host.dir}/plugins")
        assert host.ns.run("test", "-e", "/run/docker/plugins/sealane.sock").returncode == 1


def test_the_service_manager_may_hand_the_socket_over(lan: Lan, tmp_path: Path) -> None:
    paths = str(tmp_path / "api.sock"), str(tmp_path / "plugin.sock")
    with Host(lan, number=24) as host:
        host.start(wait=False, wrapper=(sys.executable, "-c", ACTIVATED, *paths))
        eventually(lambda: os.path.exists(paths[1]), what="the socket is there")
        with closing(PluginSocket(paths[1])) as plugin:
            Dockerd(plugin).activate()
        host.stop()
        assert os.path.exists(paths[1]), "it is the service manager's, for the next start"


@pytest.mark.parametrize("family", [4, 6])
def test_containers_workloads_and_the_world_reach_each_other(machine: Machine, lan: Lan, family: int) -> None:
    machine.network(POOL, POOL6)
    web = machine.run(WEB, "web", POOL, POOL6, **PORTS)
    db = machine.run(DB, "db", POOL, POOL6)
    anywhere = "0.0.0.0" if family == 4 else "::"
    outside = lan.ext.listen("tcp", anywhere, 7000)
    with closing(Workload(machine.host, "lab")) as lab:
        lab.attach("front")
        servers = [where.listen("tcp", anywhere, 80) for where in (web.ns, lab.ns)]
        assert db.ns.reaches(servers[0], machine.address(WEB, family))
        assert lab.ns.reaches(servers[0], machine.address(WEB, family)), "from another integration's sandbox"
        assert web.ns.reaches(servers[1], lab.address(family)), "and to it"
        assert lan.ext.reaches(servers[0], machine.host.address(family), 8080), "published"
        assert machine.host.ns.reaches(servers[0], "127.0.0.1" if family == 4 else "::1", 8080)
        assert web.ns.reaches(outside, "192.0.2.200" if family == 4 else "2001:db8::200")
        assert machine.endpoint(WEB)["ports"] == ["*:8080->80/tcp"]
        assert audit(machine.host) == []
        assert machine.host.api.audit() == []
    outside.close()


def test_names_of_containers_are_answered_to_sandboxes_of_other_integrations(machine: Machine) -> None:
    machine.network()
    machine.run(WEB, "web")
    with closing(Workload(machine.host, "lab")) as lab:
        lab.attach("front")

        def answer() -> str:
            return lab.ns.run("dig", "+short", "+time=1", "+tries=1", "@10.50.0.1", "web").stdout.strip()

        eventually(lambda: answer() == machine.address(WEB), what="the name is known")


def test_the_link_has_its_mtu_before_it_is_taken(machine: Machine) -> None:
    """What is set later is lost: libnetwork takes the link down and renames it."""
    machine.network(com__docker__network__driver__mtu="1380")
    web = machine.run(WEB, "web")
    assert web.ns.json("ip", "link", "show", "eth0")[0]["mtu"] == 1380


def test_before_it_is_taken_the_link_carries_nothing_and_is_nobodys_port(machine: Machine) -> None:
    machine.network()
    joined = machine.docker.start(NETWORK, WEB, f"{machine.host.dir}/never", POOL)
    (loose,) = machine.host.ns.json("ip", "-d", "link", "show", joined["InterfaceName"]["SrcName"])
    assert "UP" not in loose["flags"]
    assert "master" not in loose
    assert "ifalias" not in loose
    assert machine.host.api.audit() == []
    machine.docker.stop(NETWORK, WEB)
    assert machine.links("sl") == machine.links("slb"), "both ends are gone"


def test_a_container_that_takes_another_address_or_mac_is_not_heard(machine: Machine) -> None:
    machine.network()
    web, db = machine.run(WEB, "web"), machine.run(DB, "db")
    server = db.ns.listen("udp", "0.0.0.0", 7000)
    assert web.ns.reaches(server, machine.address(DB))
    web.ns.batch("addr add 10.50.0.66/24 dev eth0")
    assert not web.ns.reaches(server, machine.address(DB), source="10.50.0.66", timeout=0.5)
    web.ns.batch("link set eth0 address 02:00:00:00:00:66")
    assert not web.ns.reaches(server, machine.address(DB), timeout=0.5)
    assert [p for p, *_ in server.peers()] == [machine.address(WEB)]


@pytest.mark.parametrize("is_given_back", [True, False])
def test_leaving_finds_the_link_wherever_it_is(machine: Machine, is_given_back: bool) -> None:
    machine.network()
    web = machine.run(WEB, "web")
    source = machine.endpoints()[0]["host_link"].replace("sle", "slh")
    if is_given_back:
        web.give_back("eth0", source)
    machine.docker.stop(NETWORK, WEB, (POOL, machine.address(WEB)))
    assert machine.links("sle") == machine.links("slh") == []
    assert [i["ifname"] for i in web.ns.json("ip", "link")] == ["lo"]
    assert machine.endpoints() == []


def test_the_daemon_may_be_killed_after_any_request(machine: Machine) -> None:
    """Nothing is ever sent to it again. The namespace appears while it is away, too."""

    def restart(path: str) -> None:
        del path
        machine.host.kill9()
        machine.start()

    machine.docker.after = restart
    (pool,) = machine.network()
    web = machine.run(WEB, "web", **PORTS)
    address = machine.address(WEB)
    server = web.ns.listen("tcp", "0.0.0.0", 80)
    assert machine.host.ns.reaches(server, address)
    assert machine.host.ns.reaches(server, "127.0.0.1", 8080)
    assert machine.host.api.audit() == []
    machine.docker.stop(NETWORK, WEB, (POOL, address))
    machine.docker.remove_network(NETWORK, pool)
    assert machine.links("sl") == []
    assert audit(machine.host) == []


def test_containers_talk_on_while_the_daemon_is_killed_and_started(machine: Machine) -> None:
    machine.network()
    web, db = machine.run(WEB, "web"), machine.run(DB, "db")
    server = web.ns.listen("tcp", "0.0.0.0", 80)
    address = machine.address(WEB)
    before = machine.host.ns.json("ip", "link")
    machine.host.kill9()
    assert db.ns.reaches(server, address)
    machine.start()
    assert db.ns.reaches(server, address)
    assert machine.host.api.status()["writes"] == 0, "that the links were taken is no drift"
    assert [i["ifindex"] for i in machine.host.ns.json("ip", "link")] == [i["ifindex"] for i in before]


@pytest.mark.parametrize("is_away", [True, False])
def test_a_container_that_ends_untold_is_released(machine: Machine, is_away: bool) -> None:
    """dockerd gives up after 15 s a call, and does not tell again."""
    machine.network()
    web = machine.run(WEB, "web", **PORTS)
    assert web.key == machine.sandboxes()[0]["netns"]
    eventually(lambda: _is_noted(machine), what="the namespace is noted")
    if is_away:
        machine.host.kill9()
    machine.boxes.pop("web").close()
    if is_away:
        machine.start()
    eventually(lambda: machine.endpoints() == [], what="it is released")
    assert machine.links("sle") == machine.links("slh") == []
    machine.docker.stop(NETWORK, WEB, (POOL, "10.50.0.2"))


def _is_noted(machine: Machine) -> bool:
    return "sandbox.found" in machine.host.sealane("events").stdout


def test_half_a_request_does_nothing(machine: Machine) -> None:
    machine.network()
    body = json.dumps({"NetworkID": NETWORK, "EndpointID": WEB, "Interface": {}, "Options": {}}).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(machine.path)
        head = f"POST /NetworkDriver.CreateEndpoint HTTP/1.1\r\nHost: \r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:40])
    with pytest.raises(PluginError, match="no endpoint"):
        machine.docker.call("/NetworkDriver.EndpointOperInfo", NetworkID=NETWORK, EndpointID=WEB)


def test_a_container_that_runs_joins_another_network(machine: Machine) -> None:
    """`docker network connect`: the namespace is there already."""
    machine.network()
    web = machine.run(WEB, "web")
    other, endpoint = "d4" * 32, "e5" * 32
    machine.docker.create_network(other, machine.docker.pool("10.51.0.0/24"), sealane__name="back")
    joined = machine.docker.start(other, endpoint, web.key, "10.51.0.0/24")
    view = machine.endpoint(endpoint)
    web.take({**joined, "Gateway": ""}, view["mac"], *view["addresses"], number=1)
    assert len(machine.sandboxes()) == 1
    with closing(Workload(machine.host, "lab")) as lab:
        lab.attach("back")
        server = lab.ns.listen("tcp", "0.0.0.0", 7000)
        assert web.ns.reaches(server, lab.address(4))
    machine.docker.call("/NetworkDriver.Leave", NetworkID=other, EndpointID=endpoint)
    machine.docker.call("/NetworkDriver.DeleteEndpoint", NetworkID=other, EndpointID=endpoint)
    assert [i["ifname"] for i in web.ns.json("ip", "link")] == ["lo", "eth0"]


def test_a_container_that_docker_set_up_is_attached_by_hand_too(machine: Machine) -> None:
    """What Docker gave it, its default route above all, is left alone."""
    machine.network()
    web = machine.run(WEB, "web")
    machine.host.api.network("back", "10.51.0.0/24")
    machine.host.api.attach(web.key, "back")
    assert machine.host.api.audit() == []
    assert len(machine.sandboxes()) == 1
    assert web.ns.json("ip", "route", "show", "default")[0]["gateway"] == "10.50.0.1"
    with closing(Workload(machine.host, "lab")) as lab:
        lab.attach("back")
        server = lab.ns.listen("tcp", "0.0.0.0", 7000)
        assert web.ns.reaches(server, lab.address(4))
