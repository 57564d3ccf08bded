"""Evidence as the adapter reads it in this namespace: what the kernel says, and the bounds of reading."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from harness.netns import Netns
from sealane.explain.doctor.evidence import Evidence, Request, SandboxEvidence
from sealane.linux import evidence, foreign_nft, netns
from sealane.linux.netlink import sock_diag
from sealane.linux.netlink.socket import NETLINK_NETFILTER, NETLINK_SOCK_DIAG, NetlinkError, Socket
from sealane.model.endpoint import NetnsRef

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def box() -> Iterator[Netns]:
    with Netns("box") as made:
        yield made


@pytest.fixture(scope="module")
def other() -> Iterator[Netns]:
    with Netns("other") as made:
        yield made


def ref(ns: Netns) -> NetnsRef:
    return netns.resolve(ns.path)


def read(**refs: NetnsRef) -> Evidence:
    return evidence.read_evidence("abcdef", Request(upstreams=False), refs, lambda: False)


def seen(ns: Netns) -> SandboxEvidence:
    return read(box=ref(ns)).sandboxes["box"]


@contextlib.contextmanager
def listening(address: str, proto: str = "tcp", *, v6_only: bool = False) -> Iterator[tuple[str, int]]:
    """In the namespace of the test itself."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_only))
        server.bind((address, 0))
        if proto == "tcp":
            server.listen(5)
        yield proto, server.getsockname()[1]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("address", "v6_only", "families"),
    [("0.0.0.0", False, (4,)), ("127.0.0.1", False, (4,)), ("::", False, (4, 6)), ("::", True, (6,))],
)
def test_listeners_and_the_families_that_they_take(
    proto: str, address: str, v6_only: bool, families: tuple[int, ...]
) -> None:
    with listening(address, proto, v6_only=v6_only) as where, Socket(NETLINK_SOCK_DIAG) as diag:
        (found,) = [i for i in sock_diag.listeners(diag) if (i.proto, i.port) == where]
        assert (found.address, found.families) == (address, families)
        assert (found.waiting, found.backlog) == (0, 5 if proto == "tcp" else 0)
        (ours,) = [i for i in read().host.listeners if (i.proto, i.port) == where]
        assert (ours.ours, ours.process.endswith(")")) == (True, True)


def test_listeners_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("127.0.0.1"), listening("127.0.0.1"), Socket(NETLINK_SOCK_DIAG) as diag:
        count = len(sock_diag.listeners(diag))
        monkeypatch.setattr(sock_diag, "SOCKETS_MAX", count)
        assert len(sock_diag.listeners(diag)) == count
        monkeypatch.setattr(sock_diag, "SOCKETS_MAX", count - 1)
        with pytest.raises(NetlinkError):
            sock_diag.listeners(diag)


def test_default_routes_have_the_metric_that_the_kernel_compares(box: Netns) -> None:
    box.batch("link add d0 type veth peer name d1", "link set d0 up", "link set d1 up")
    box.batch("route add default dev d0", "route add ::/0 dev d0", "route add ::/0 dev d1 metric 7")
    found = {(r.dst, r.link, r.metric) for r in seen(box).defaults}
    assert found == {("0.0.0.0/0", "d0", 0), ("::/0", "d0", 1024), ("::/0", "d1", 7)}
    box.ip("link", "del", "d0")
    assert seen(box).defaults == ()


def test_a_route_tells_its_mtu(box: Netns) -> None:
    box.batch(
        "link add d0 type veth peer name d1",
        "link set d0 up",
        "route add default dev d0 mtu 1380",
        "route add 10.0.0.0/8 dev d0",
    )
    assert [(r.dst, r.mtu) for r in seen(box).defaults] == [("0.0.0.0/0", 1380)]
    box.ip("link", "del", "d0")


def test_sandboxes_are_bounded(box: Netns, other: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = {"box": ref(box), "other": ref(other)}
    monkeypatch.setattr(evidence, "SANDBOXES_MAX", 2)
    assert (set(read(**refs).sandboxes), read(**refs).unseen) == ({"box", "other"}, {})
    monkeypatch.setattr(evidence, "SANDBOXES_MAX", 1)
    found = read(**refs)
    assert (set(found.sandboxes), set(found.unseen)) == ({"box"}, {"other"})
    assert "name some" in found.unseen["other"]


def test_routes_are_bounded() -> None:
    with Netns("routed") as routed:
        routed.batch("link add r0 type veth peer name r1", "link set r0 up", "route add 10.0.0.0/8 dev r0")
        # The bound is of the host's routes: they are read there.
        done = routed.python(BOUNDED.format(path=sys.path, bound=1))
        assert done == {"unseen": {}, "routes": ["10.0.0.0/8"]}
        done = routed.python(BOUNDED.format(path=sys.path, bound=0))
        assert (done["routes"], list(done["unseen"])) == ([], ["routes"])


BOUNDED = """
import sys
sys.path[:0] = {path!r}
from sealane.linux import evidence
from sealane.explain.doctor.evidence import Request
evidence.ROUTES_MAX = {bound}
seen = evidence.read_evidence("abcdef", Request(upstreams=False), {{}}, lambda: False)
routes = [r.dst for r in seen.host.routes if ":" not in r.dst]
result = {{"unseen": seen.unseen, "routes": routes}}
"""


@pytest.mark.parametrize(("bound", "is_refused"), [(3, False), (2, True)])
def test_rules_of_a_table_are_bounded(
    box: Netns, monkeypatch: pytest.MonkeyPatch, bound: int, is_refused: bool
) -> None:
    box.sh("nft", "add table ip t; add chain ip t c; " + "; ".join(["add rule ip t c counter"] * 3))
    monkeypatch.setattr(foreign_nft, "RULES_MAX", bound)
    try:
        found = read(box=ref(box))
        assert list(found.unseen) == (["box"] if is_refused else [])
    finally:
        box.sh("nft", "delete", "table", "ip", "t")


@pytest.mark.parametrize(("bound", "is_refused"), [(2, False), (1, True)])
def test_tables_are_bounded(
    box: Netns, monkeypatch: pytest.MonkeyPatch, bound: int, is_refused: bool
) -> None:
    box.sh("nft", "add table ip t; add table inet u")
    monkeypatch.setattr(foreign_nft, "TABLES_MAX", bound)
    try:
        found = read(box=ref(box))
        assert list(found.unseen) == (["box"] if is_refused else [])
    finally:
        box.sh("nft", "delete table ip t; delete table inet u")


def test_tracked_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound they are counted, and not gone through."""
    monkeypatch.setattr(evidence, "FLOWS_MAX", -1)
    found = read()
    if found.host.conntrack is None:
        pytest.skip("nothing is tracked here")
    assert list(found.unseen) == ["flows"]


def test_our_own_tables_are_not_foreign(box: Netns) -> None:
    """Of the family inet a table of our name is somebody else's."""
    box.sh("nft", "add table ip sealane; add table inet sealane; add table bridge sealane")
    assert [(t.family, t.name) for t in seen(box).tables] == [("inet", "sealane")]
    box.sh("nft", "delete table ip sealane; delete table inet sealane; delete table bridge sealane")


def test_a_table_that_goes_meanwhile_is_empty(monkeypatch: pytest.MonkeyPatch, box: Netns) -> None:
    box.sh("nft", "add table ip t; add chain ip t c { type filter hook input priority 0; policy drop; }")
    descriptor = netns.open_ref(ref(box))
    dump = foreign_nft._dump

    def late(where: Socket, kind: int, *rest: object) -> object:
        if kind == foreign_nft.nfnl.GETRULE:
            box.run("nft", "delete", "table", "ip", "t")
        return dump(where, kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(foreign_nft, "_dump", late)
    with netns.open_socket(descriptor, NETLINK_NETFILTER) as nft:
        os.close(descriptor)
        (table,) = foreign_nft.foreign_tables(nft)
    assert [(chain.name, chain.rules) for chain in table.chains] == [("c", 0)]


def test_it_ends_early_when_it_should(box: Netns) -> None:
    found = evidence.read_evidence("abcdef", Request(), {"box": ref(box)}, lambda: True)
    assert (found.sandboxes, found.unseen["box"]) == ({}, "the daemon is ending")
