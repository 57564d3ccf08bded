"""The auditor itself: each kind of leak is planted, and found. Without this a clean audit would say nothing.

The daemon is dead meanwhile, or it would repair what is planted. One host serves all plants, which stay where they
are put, those that take much away last; a plant must bring a finding that was not there before."""

import glob
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from harness.audit import audit
from harness.foreign import changes, foreign
from harness.host import Host, Lan, Workload
from harness.netns import Netns
from sealane.linux.bpf import syscall

pytestmark = pytest.mark.kernel


class Scene:
    def __init__(self, host: Host) -> None:
        self.host, self.ns = host, host.ns
        self.bridge = str(host.api.network("front", "10.80.0.0/24", "fd80::/64")["link"])
        host.api.network("routed", "10.81.0.0/24", "fd81::/64", driver="routed")
        self.a = Workload(host, "a")
        self.a.attach("front", publish=[{"proto": "udp", "host_first": 8080, "port": 80}])
        self.a.attach("routed")
        self.web, self.link = self.a.endpoints["front"], str(self.a.endpoints["front"]["host_link"])

    def nft(self, *words: str) -> None:
        self.ns.sh("nft", *words)

    def sql(self, statement: str, *values: str) -> None:
        with sqlite3.connect(self.host.path(f"{self.host.state_dir}/state.db")) as db:
            db.execute(statement, values)
        db.close()


@pytest.fixture(scope="module")
def scene(lan: Lan) -> Iterator[Scene]:
    with Host(lan, number=9).start() as host:
        made = Scene(host)
        assert audit(host) == []
        host.kill9()
        assert audit(host) == []
        yield made
        made.a.ns.close()


def forget_a_target(scene: Scene) -> None:
    *_, (fd, key, _) = targets(scene)
    syscall.map_delete(fd, key)


def lead_elsewhere(scene: Scene) -> None:
    """Packets for an address to another link, as a stale index would."""
    (fd, key, value), *_ = targets(scene)
    syscall.map_update(fd, key, (1).to_bytes(4, "little") + value[4:])


def targets(scene: Scene) -> Iterator[tuple[int, bytes, bytes]]:
    (path,) = glob.glob(scene.host.path("/run/sealane/bpf/fast-targets6-") + "*")
    fd = syscall.open_pinned(path)
    assert fd is not None
    for key, value in list(syscall.map_items(fd, syscall.map_info(fd))):
        yield fd, key, value


PLANTS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "link without alias": (
        lambda s: s.ns.ip("link", "add", "sle000000000000", "type", "bridge"),
        "half made",
    ),
    "link of nobody": (
        lambda s: s.ns.batch(
            "link add slb000000000000 type bridge", "link set slb000000000000 alias sealane/abcdef/n/x"
        ),
        "belongs to x",
    ),
    "link down": (lambda s: s.ns.ip("link", "set", s.link, "down"), "is down"),
    "filter gone": (
        lambda s: s.ns.sh("tc", "filter", "del", "dev", s.link, "ingress"),
        "I4: filter",
    ),
    "fast path elsewhere": (lead_elsewhere, "I1: fast path to"),
    "fast path to nobody": (forget_a_target, "I4: fast path to"),
    "doomed link": (lambda s: s.ns.ip("link", "set", s.link, "group", str(0x5EA0)), "doomed"),
    "link in another group": (
        lambda s: s.ns.ip("link", "set", s.bridge, "group", "7"),
        "is in group 7, not in",
    ),
    "workload element": (
        lambda s: s.nft("add", "element", "ip", "sealane", "from", "{ 7 : accept }"),
        "I1: ip from element",
    ),
    "port that learns": (
        lambda s: s.ns.ip("link", "set", s.link, "type", "bridge_slave", "learning", "on"),
        "learning is True",
    ),
    "address": (lambda s: s.ns.ip("addr", "add", "10.99.0.1/24", "dev", s.bridge), "I1: address"),
    "route": (lambda s: s.ns.ip("route", "add", "10.97.0.0/24", "dev", s.bridge, "proto", "94"), "I1: route"),
    "route of nobody": (lambda s: s.ns.ip("route", "add", "10.98.0.0/24", "dev", s.bridge), "is nobody's"),
    "neighbour": (
        lambda s: s.ns.ip(
            "neigh", "add", "10.80.0.99", "lladdr", "02:00:00:00:00:99", "dev", s.bridge, "nud", "permanent"
        ),
        "I1: neighbour",
    ),
    "FDB entry": (
        lambda s: s.ns.sh("bridge", "fdb", "add", "02:00:00:00:00:98", "dev", s.link, "master", "static"),
        "I1: FDB entry",
    ),
    "bridge's own FDB entry gone": (
        lambda s: s.ns.sh("bridge", "fdb", "flush", "dev", s.bridge),
        "I4: bridge's own FDB entry",
    ),
    "publish element": (
        lambda s: s.nft("add", "element", "ip", "sealane", "publish", "{ tcp . 81 : 10.80.0.2 . 80 }"),
        "I1: ip publish element",
    ),
    "publish element gone": (
        lambda s: s.nft("delete", "element", "ip6", "sealane", "publish", "{ udp . 8080 }"),
        "I4: ip6 publish element",
    ),
    "publish range": (
        lambda s: s.nft(
            "add", "element", "ip", "sealane", "publish_ranges", "{ 0.0.0.0/0 . tcp . 90-92 : 10.80.0.2 }"
        ),
        "I1: ip publish element",
    ),
    "guard element": (
        lambda s: s.nft("flush", "set", "bridge", "sealane", "sources4"),
        "I4: bridge sources4",
    ),
    "target element": (
        lambda s: s.nft("flush", "set", "bridge", "sealane", "nd_targets"),
        "I4: bridge nd_targets",
    ),
    "routed source": (lambda s: s.nft("flush", "map", "ip", "sealane", "sources"), "I4: ip sources"),
    "private element": (lambda s: s.nft("flush", "set", "ip6", "sealane", "private"), "I4: ip6 private"),
    "subnet element": (lambda s: s.nft("flush", "set", "ip6", "sealane", "subnets"), "I4: ip6 subnets"),
    "chain": (lambda s: s.nft("add", "chain", "ip", "sealane", "n_000000000000_from"), "I1: chain"),
    "table": (lambda s: s.nft("add", "table", "inet", "sealane"), "I1: nft table"),
    "lease": (
        lambda s: s.sql("UPDATE leases SET address = '10.80.0.77' WHERE address LIKE '10.80.0.%'"),
        "lease",
    ),
    "sandbox default route gone": (lambda s: s.a.ns.ip("route", "del", "default"), "IPv4: no default route"),
    "sandbox rule gone": (lambda s: s.a.ns.ip("rule", "flush"), "does not leave by"),
    "sandbox rule": (
        lambda s: s.a.ns.ip("rule", "add", "from", "10.80.0.99", "lookup", str(0x5EA1_0001)),
        "a routing rule for 10.80.0.99",
    ),
    "sandbox link down": (lambda s: s.a.ns.ip("link", "set", s.web["ifname"], "down"), "I3: in"),
    "sandbox address gone": (
        lambda s: s.a.ns.ip("addr", "flush", "dev", s.web["ifname"], "scope", "global"),
        "lacks 10.80.0",
    ),
    "namespace file": (
        lambda s: s.ns.sh(
            "sh", "-c", f"mkdir -p {s.host.run_dirs()[0]}/netns && touch {s.host.run_dirs()[0]}/netns/stray"
        ),
        "I1: namespace file",
    ),
    "stale flow": (
        lambda s: s.ns.sh(
            *"conntrack -I -p udp -s 192.0.2.200 -d 192.0.2.19 --sport 1 --dport 8080 -t 60".split(),
            *"--reply-src 10.80.0.66 --reply-dst 192.0.2.200 --reply-port-src 80 --reply-port-dst 1".split(),
        ),
        "still leads to",
    ),
    "port outside": (lambda s: s.ns.ip("link", "set", s.link, "nomaster"), "is a port of None"),
    "address gone": (lambda s: s.ns.ip("addr", "flush", "dev", s.bridge, "scope", "global"), "I4: address"),
    "route gone": (lambda s: s.ns.ip("route", "flush", "proto", "94"), "I4: route"),
    "neighbours gone": (lambda s: s.ns.ip("neigh", "flush", "nud", "permanent"), "I4: neighbour"),
    "link gone": (lambda s: s.ns.ip("link", "del", s.link), "I4: link"),
    "ruleset gone": (lambda s: s.nft("flush", "ruleset"), "I4: nft table"),
    "sandbox gone": (lambda s: s.a.ns.close(), "has lost its namespace"),
}


def test_a_link_that_comes_while_the_host_is_read_is_a_finding_of_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a daemon repairs meanwhile: who waits for a clean audit asks again."""
    asked = Netns.json

    def slow(ns: Netns, *words: str) -> object:
        if ns is scene.ns and words == ("ip", "addr", "show"):
            ns.batch("link add late type bridge", "addr add 192.0.2.77/32 dev late", "link set late up")
        return asked(ns, *words)

    with monkeypatch.context() as patched:
        patched.setattr(Netns, "json", slow)
        assert "link late came while the host was looked at" in audit(scene.host)
    scene.ns.ip("link", "del", "late")
    assert audit(scene.host) == []


def test_foreign_changes_are_found(scene: Scene) -> None:
    """One of each kind, gone or appeared."""
    scene.ns.batch("link add theirs type bridge", "addr add 10.9.9.1/24 dev theirs", "link set theirs up")
    scene.nft("add", "table", "ip", "theirs")
    before = foreign(scene.ns)
    assert changes(before, foreign(scene.ns)) == []
    scene.ns.batch("link set theirs mtu 1400", "addr del 10.9.9.1/24 dev theirs")
    scene.ns.ip("route", "add", "10.8.8.0/24", "via", "192.0.2.1")
    scene.ns.ip("rule", "add", "priority", "77", "lookup", "77")
    scene.nft("delete", "table", "ip", "theirs")
    found = changes(before, foreign(scene.ns))
    for kind in ("link", "address", "route", "rule", "nft object"):
        assert any(f"foreign {kind} " in line for line in found), (kind, found)


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_leak_is_found(scene: Scene, plant: str) -> None:
    action, expected = PLANTS[plant]
    before = audit(scene.host)
    action(scene)
    findings = [finding for finding in audit(scene.host) if finding not in before]
    assert any(expected in finding for finding in findings), findings
