"""Databases that earlier releases wrote, kept whole (releases/*.db.gz): each opens, and says what it said then.

They hold every kind of record with every field of that release at another value than its default. A database is made
with the code of its commit and never changed; `said` below is written by hand.
"""

import contextlib
import gzip
from pathlib import Path

import pytest

from harness.engines import FACTS
from sealane.compile.host import compile_host
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.intent import Intent
from sealane.model.network import GatewayLink, Network
from sealane.store.sqlite import SqliteStore

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.db.gz"))


@pytest.fixture(params=RELEASES, ids=lambda path: path.name.removesuffix(".db.gz"))
def intent(request, tmp_path):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    (directory / "state.db").write_bytes(gzip.decompress(request.param.read_bytes()))
    with contextlib.closing(SqliteStore(str(directory), reserve_bytes=4096)) as store:
        found = Intent(store.snapshot().records)
        assert store.meta("instance") == "abcdef"
    # And once more: what was migrated is sound.
    with contextlib.closing(SqliteStore(str(directory), reserve_bytes=4096)) as store:
        assert list(Intent(store.snapshot().records).records()) == list(found.records())
    return found


def network(intent: Intent, name: str) -> Network:
    found = intent.network_named(name)
    assert found is not None
    return found


def only(intent: Intent, name: str) -> Endpoint:
    (found,) = (e for e in intent.endpoints.values() if e.name == name)
    return found


def sandbox(intent: Intent, name: str) -> Sandbox:
    found = intent.sandbox_named(name)
    assert found is not None
    return found


def test_there_is_one() -> None:
    assert RELEASES


def test_networks(intent: Intent) -> None:
    front, many, dock = network(intent, "front"), network(intent, "many"), network(intent, "dock")
    assert {n.name for n in intent.networks.values()} >= {"front", "many", "old-bridge", "dock", "onhost"}
    assert [s.prefix for s in front.subnets] == ["10.128.0.0/22", "fd00:1::/64"]
    assert front.subnets[1].reserved == ("fd00:1::9",)
    assert (front.mtu, front.icc, front.labels, front.dns_servers) == (
        1400,
        False,
        {"a": "b"},
        ("192.0.2.53",),
    )
    assert (front.publish_addresses, front.source_addresses) == (("192.0.2.7",), ("192.0.2.8",))
    assert (many.driver, many.masquerade, many.fast_path, many.link_prefix) == ("routed", False, False, "net")
    assert (dock.internal, dock.owner) == (True, "docker")
    assert network(intent, "onhost").driver == "host"


def test_what_only_a_bridge_has_is_kept(intent: Intent) -> None:
    """Version 1 had these beside the fields of every network."""
    old, front = network(intent, "old-bridge"), network(intent, "front")
    assert old.host_link == GatewayLink(name="br0", adopted=True, has_gateway=False)
    assert network(intent, "dock").link == "br-dock"
    assert front.host_link is None
    assert front.gateway_on_link


def test_sandboxes(intent: Intent) -> None:
    web, lab = sandbox(intent, "web"), sandbox(intent, "lab")
    assert web.netns is not None
    assert web.netns.identity == (4026532001, 17)
    assert lab.implicit
    assert lab.sysctls == (("net/ipv4/ip_unprivileged_port_start", "0"),)
    assert intent.containers_by_sandbox[web.id]["c1"].labels == {"k": "v"}


def test_endpoints(intent: Intent) -> None:
    web, lab = only(intent, "web"), only(intent, "lab")
    assert web.addresses == ("10.128.0.2/22", "fd00:1::2/64")
    assert web.aliases == ("shop",)
    assert [str(port) for port in web.ports] == [
        "*:8080->80/tcp",
        "127.0.0.1:5000-5009->5000-5009/udp",
        "*:32768->443/tcp",
    ]
    assert (web.gateway_priority, web.fast_path, web.dns_servers) == (7, False, ("192.0.2.54",))
    assert web.ingress is not None
    assert web.ingress.rate == 10**7
    assert lab.without_gateway


def test_docker_finds_what_it_keeps_in_its_books(intent: Intent) -> None:
    assert intent.leases[network(intent, "dock").id, "172.30.0.3"] == f"lease-{'9' * 32}"
    dock = only(intent, "dock")
    assert dock.sandbox is not None
    assert intent.sandboxes[dock.sandbox].awaited == "/var/run/docker/netns/3"


def test_it_compiles(intent: Intent) -> None:
    assert len(compile_host(intent, FACTS)["host"]) > 50
