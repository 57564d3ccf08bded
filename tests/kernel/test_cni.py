"""The CNI executable and the daemon together, with packets; calls that come twice, late, at once, or are killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from harness.audit import audit
from harness.cni import CniFailed, CniRuntime, conflist, ranges
from harness.host import EXT4, Host, Lan
from harness.netns import Netns, eventually
from harness.patience import Watch
from sealane.linux.bpf import fast_path
from sealane.programs.cni.spec import VERSIONS

pytestmark = pytest.mark.kernel

NUMBER = 31
DUAL = ranges("10.88.0.0/24", "fd00:88::/64")
TRANSFER_BYTES = 1_500_000
RATE = 24_000_000
"""Bits per second: the transfer takes half a second."""


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        yield host
        assert audit(host) == []


@pytest.fixture
def runtime(machine: Host, tmp_path: Any) -> Iterator[CniRuntime]:
    """Whatever a test attaches is taken away by GC, and its networks with it."""
    runtime = CniRuntime(machine, str(tmp_path))
    yield runtime
    if machine.daemon is None:
        machine.start()
    for network in machine.api.get("/networks"):
        runtime.gc(conflist(name=network["name"]), [])
        machine.api.remove_network(network["name"])
    assert machine.api.status()["endpoints"] == machine.api.status()["sandboxes"] == 0
    assert machine.api.audit() == []


@pytest.fixture
def pods() -> Iterator[list[Netns]]:
    made = [Netns("pod1"), Netns("pod2")]
    yield made
    for pod in made:
        pod.close()


def addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


def test_pods_reach_each_other_and_the_world_reaches_their_ports(
    lan: Lan, machine: Host, runtime: CniRuntime, pods: list[Netns]
) -> None:
    network = conflist(ipam=DUAL, resolver=True)
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}]
    web = runtime.add(
        network, "c1", pods[0].path, args="IgnoreUnknown=1;K8S_POD_NAME=web;X=1", portMappings=ports
    )
    runtime.add(network, "c2", pods[1].path)
    for server_address, address in zip(("0.0.0.0", "::"), addresses(web), strict=True):
        server = pods[0].listen("tcp", server_address, 80)
        assert pods[1].reaches(server, address, 80)
        assert machine.ns.reaches(server, machine.address(6 if ":" in address else 4), 8080)
        assert lan.ext.reaches(server, machine.address(6 if ":" in address else 4), 8080)
        server.close()
    # Names follow the intent a moment later.
    eventually(
        lambda: "10.88.0.2" in pods[1].run("dig", "+short", "web", "@10.88.0.1").stdout, what="web's name"
    )
    assert pods[0].run("ping", "-c1", "-W2", EXT4).returncode == 0
    runtime.check(network, "c1", pods[0].path, portMappings=ports)
    runtime.delete(network, "c1", pods[0].path, portMappings=ports)
    assert pods[0].run("ip", "link", "show", "eth0").returncode != 0


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_from_add_to_del(runtime: CniRuntime, pods: list[Netns], version: str) -> None:
    network = conflist(version=version, ipam=DUAL)
    result = runtime.add(network, "c1", pods[0].path)
    assert result["cniVersion"] == version
    found = result.get("ip4", {}).get("ip") or result["ips"][0]["address"]
    assert found == "10.88.0.2/24"
    for verb, since in (("check", "0.4.0"), ("status", "1.1.0"), ("gc", "1.1.0")):
        call = {
            "check": lambda: runtime.check(network, "c1", pods[0].path),
            "status": lambda: runtime.status(network),
            "gc": lambda: runtime.gc(network, [("c1", "eth0")]),
        }[verb]
        if VERSIONS.index(version) >= VERSIONS.index(since):
            call()
        else:
            with pytest.raises(CniFailed) as caught:
                call()
            assert caught.value.code == 1
    runtime.delete(network, "c1", pods[0].path)


STATIC = {"type": "static", "addresses": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1"}]}
"""The one of Debian's IPAM plugins that may be asked twice."""


@pytest.mark.parametrize("ipam", [DUAL, STATIC], ids=["own", "static"])
@pytest.mark.parametrize("before", [(), ({"type": "loopback"},)], ids=["alone", "chained"])
@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
def test_handed_over_or_not_the_answer_is_the_same(
    runtime: CniRuntime, pods: list[Netns], version: str, before: tuple[dict[str, Any]], ipam: dict[str, Any]
) -> None:
    hindered(runtime, "handed", "sys.modules['sealane.programs.cni.whole'] = None")
    hindered(runtime, "alone", "main.__globals__['HANDED_OVER'] = ()")
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    given: dict[str, Any] = {"args": "K8S_POD_NAME=web;IgnoreUnknown=1", "portMappings": ports}
    results = [
        runtime.add(
            conflist(version=version, ipam=ipam, before=before, type=plugin), "c1", pods[0].path, **given
        )
        for plugin in ("handed", "alone", "handed")
    ]
    assert results[0] == results[1] == results[2]
    assert "10.88.0." in json.dumps(results[0])
    with pytest.raises(CniFailed, match="sealane.programs.cni.whole"):
        runtime.status(conflist(ipam=DUAL, type="handed"))


def hindered(runtime: CniRuntime, name: str, line: str) -> None:
    """The executable under another name, with one of its two ways closed by a line of Python."""
    with open(f"{runtime.bin_dir}/sealane", encoding="utf-8") as file:
        text = file.read().replace("posix._exit(", f"{line}\nposix._exit(")
    with open(f"{runtime.bin_dir}/{name}", "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o755)


def test_a_link_that_is_there_already_is_an_error_and_stays(
    machine: Host, runtime: CniRuntime, pods: list[Netns]
) -> None:
    pods[0].ip("link", "add", "eth0", "type", "bridge")
    with pytest.raises(CniFailed) as caught:
        runtime.add(conflist(ipam=DUAL), "c1", pods[0].path)
    assert caught.value.code == 102
    assert "eth0" in caught.value.message
    assert "bridge" in pods[0].ip("-d", "link", "show", "eth0")
    assert machine.api.get("/networks") == [], "nothing was made for it"


def test_the_hosts_own_namespace_and_none_at_all_are_code_8(
    runtime: CniRuntime, machine: Host, tmp_path: Any
) -> None:
    (tmp_path / "file").touch()
    for path in (machine.ns.path, str(tmp_path / "none"), str(tmp_path / "file")):
        with pytest.raises(CniFailed) as caught:
            runtime.add(conflist(ipam=DUAL), "c1", path)
        assert caught.value.code == 8, path
        runtime.delete(conflist(ipam=DUAL), "c1", path)


def test_del_succeeds_whatever_is_left(machine: Host, runtime: CniRuntime) -> None:
    network = conflist(ipam=DUAL)
    pod = Netns("gone")
    runtime.add(network, "c1", pod.path)
    pod.close()
    runtime.delete(network, "c1", pod.path)
    runtime.delete(network, "c1", pod.path)
    with closing(Netns("bare")) as bare:
        runtime.add(network, "c2", bare.path)
        bare.ip("link", "del", "eth0")
        runtime.delete(network, "c2", "")
    assert machine.api.status()["endpoints"] == 0


def test_gc_takes_the_dead_and_leaves_the_living(
    machine: Host, runtime: CniRuntime, pods: list[Netns]
) -> None:
    network = conflist(ipam=DUAL)
    for number, pod in enumerate(pods):
        runtime.add(network, f"c{number}", pod.path)
    runtime.gc(network, [("c0", "eth0")])
    assert [e["labels"]["sealane.cni.container"] for e in machine.api.get("/endpoints")] == ["c0"]
    runtime.check(network, "c0", pods[0].path)


def test_a_daemon_that_starts_again_knows_its_attachments(
    machine: Host, runtime: CniRuntime, pods: list[Netns]
) -> None:
    network = conflist(ipam=DUAL)
    first = runtime.add(network, "c1", pods[0].path)
    machine.kill9()
    watch = Watch()
    with pytest.raises(CniFailed) as caught:
        runtime.add(network, "c1", pods[0].path)
    assert caught.value.code == 11
    assert watch.elapsed_s() < 5
    with pytest.raises(CniFailed) as caught:
        runtime.status(network)
    assert caught.value.code == 50
    machine.start()
    runtime.status(network)
    assert runtime.add(network, "c1", pods[0].path) == first
    runtime.check(network, "c1", pods[0].path)


def test_check_sees_what_somebody_took_away_inside(
    runtime: CniRuntime, pods: list[Netns], machine: Host
) -> None:
    network = conflist(ipam=DUAL)
    runtime.add(network, "c1", pods[0].path)
    pods[0].ip("route", "del", "default")
    with pytest.raises(CniFailed, match="missing: route"):
        runtime.check(network, "c1", pods[0].path)
    machine.sealane("gc")
    runtime.check(network, "c1", pods[0].path)


def test_many_at_once_have_an_address_each_and_go_at_once(machine: Host, runtime: CniRuntime) -> None:
    network = conflist(ipam=DUAL)
    pods = [Netns(f"many{n}") for n in range(16)]
    try:
        adds = [lambda n=n, p=p: runtime.add(network, f"c{n}", p.path) for n, p in enumerate(pods)]
        # Each twice: a runtime that lost its answer asks again.
        results = runtime.together(*adds, *adds)
        assert not [r for r in results if isinstance(r, CniFailed)]
        assert results[:16] == results[16:]
        assert len({addresses(r)[0] for r in results}) == 16
        deletes = [lambda n=n: runtime.delete(network, f"c{n}") for n in range(16)]
        assert runtime.together(*deletes, *deletes) == [None] * 32
        assert machine.api.status()["endpoints"] == 0
    finally:
        for pod in pods:
            pod.close()


@pytest.mark.parametrize(
    "ipam", [DUAL, {"type": "host-local", "subnet": "10.88.0.0/24"}], ids=["own", "host-local"]
)
def test_calls_that_are_killed_leave_nothing_and_their_retries_succeed(
    machine: Host, runtime: CniRuntime, pods: list[Netns], tmp_path: Any, ipam: dict[str, Any]
) -> None:
    """At moments all over a call of some 15 ms; a lease in a file is what a crash could leave."""
    if ipam["type"] == "host-local":
        ipam = {**ipam, "dataDir": str(tmp_path / "leases")}
    network = conflist(version="1.0.0", ipam=ipam)
    for number in range(20):
        verb = ("ADD", "DEL")[number % 2]
        _killed(runtime, network, verb, pods[0].path, 0.004 + number * 0.0013)
        if number % 3 == 0:
            result = runtime.add(network, "c1", pods[0].path)
            assert pods[0].json("ip", "addr", "show", "eth0")[0]["addr_info"]
            assert runtime.add(network, "c1", pods[0].path) == result
    runtime.delete(network, "c1", pods[0].path)
    assert machine.api.status()["endpoints"] == 0
    if ipam["type"] == "host-local":
        # An empty file is host-local's own: killed between making it and writing whose it is, it never finds it again.
        left = [
            path.read_text() for path in (tmp_path / "leases" / "pods").iterdir() if path.name[0].isdigit()
        ]
        assert not any(left)


def _killed(runtime: CniRuntime, network: dict[str, Any], verb: str, netns: str, after_s: float) -> None:
    config = {**network["plugins"][0], "cniVersion": network["cniVersion"], "name": network["name"]}
    inside = ["nsenter", f"--net={runtime.host.ns.path}", f"--mount=/proc/{runtime.host.ns.pid}/ns/mnt", "--"]
    process = subprocess.Popen(
        [*inside, f"{runtime.bin_dir}/sealane"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            "CNI_COMMAND": verb,
            "CNI_PATH": runtime.path,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": netns,
        },
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    time.sleep(after_s)
    # The group: a delegate that went on would free or take a lease behind our back, as no dead machine does.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.mark.parametrize("asked", [False, True])
def test_a_fast_path_is_there_for_the_asking(
    machine: Host, runtime: CniRuntime, pods: list[Netns], asked: bool
) -> None:
    """Of the executable too, which knows the keys that there are."""
    if fast_path.probe():
        pytest.skip(f"no fast path: {fast_path.probe()}")
    network = conflist(ipam=DUAL, **({"fastPath": True} if asked else {}))
    found = [runtime.add(network, f"c{number}", pods[number].path) for number in (0, 1)]
    for result in found:
        link = result["interfaces"][0]["name"]
        assert ("sealane-bridge" in machine.ns.sh("tc", "filter", "show", "dev", link, "ingress")) is asked
    server = pods[1].listen("tcp", "0.0.0.0", 7000)
    assert pods[0].reaches(server, addresses(found[1])[0])
    server.close()


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("kind", ["bridge", "routed"])
def test_a_rate_is_kept_in_its_direction_and_not_in_the_other(
    machine: Host, runtime: CniRuntime, pods: list[Netns], direction: str, kind: str
) -> None:
    network = conflist(driver=kind, ipam=DUAL)
    runtime.add(network, "c2", pods[1].path)
    limited = {f"{direction}Rate": RATE, f"{direction}Burst": 400_000}
    address = addresses(runtime.add(network, "c1", pods[0].path, bandwidth=limited))[0]
    rates = {
        "ingress": _transfer(pods[1], pods[0], address, TRANSFER_BYTES),
        "egress": _transfer(
            pods[0], pods[1], addresses(runtime.cache["pods", "c2", "eth0"])[0], TRANSFER_BYTES
        ),
    }
    # The bucket holds it below, whatever the machine does; from above a busy machine may fall short, but not by the
    # factor of 8 that bits and bytes are apart.
    found = rates.pop(direction)
    assert RATE / 4 < found < 1.15 * RATE
    assert rates.popitem()[1] > 2 * found


def _transfer(sender: Netns, receiver: Netns, address: str, size: int) -> float:
    """Bits per second as the receiver sees them, from the first byte to the last."""
    receiver.python(_RECEIVE)
    sender.python(_SEND.format(address=address, size=size))
    return float(
        eventually(
            lambda: receiver.python("import builtins; result = builtins.found.get('rate', 0)"),
            10,
            "all has come",
        )
    )


_RECEIVE = """
import builtins, socket, threading, time
builtins.found = found = {}
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 5001))
listener.listen()
def take():
    connection, _ = listener.accept()
    listener.close()
    total, begun = len(connection.recv(65536)), time.monotonic()
    while part := connection.recv(65536):
        total += len(part)
    found["rate"] = total * 8 / (time.monotonic() - begun)
threading.Thread(target=take, daemon=True).start()
"""
_SEND = """
import socket
with socket.create_connection(("{address}", 5001), 5) as connection:
    connection.sendall(bytes({size}))
"""
