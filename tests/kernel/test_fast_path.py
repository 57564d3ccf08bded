"""The fast path between workloads of one network: taken, the same as the long way, closed where others have a say, repaired,
and gone with what it was for. (What its program delivers is tested in test_fast_path_program.)"""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from harness import frames
from harness.host import Host, Lan, Workload
from harness.netns import eventually
from harness.patience import pause
from sealane.limits import SYSCTL_POLL_S
from sealane.linux.bpf import fast_path, syscall
from sealane.linux.bpf.fast_path_program import DRIVERS, GATE_VALUE, GATES, TARGETS, gate

pytestmark = pytest.mark.kernel

DATAGRAMS = 20
NETWORKS = {"bridge": ("10.66.0.0/24", "fd66::/64"), "routed": ("10.67.0.0/24", "fd67::/64")}
MARK = "seen on the way "
HEED_S = 3.0
REOPEN_S = SYSCTL_POLL_S + HEED_S
"""Rules of others are heeded at once, and that they are gone is seen with the poll."""


@pytest.fixture(scope="module", autouse=True)
def usable() -> None:
    reason = fast_path.probe()
    if reason:
        pytest.skip(f"no fast path: {reason}")


class Town:
    """A host with a network of each kind and two workloads on it."""

    def __init__(self, machine: Host) -> None:
        self.machine, self.ns, self.api = machine, machine.ns, machine.api
        self.frames_pass_ip_hooks("0")
        machine.start()
        self.members: dict[str, tuple[Workload, Workload]] = {}
        for driver, prefixes in NETWORKS.items():
            self.api.network(driver, *prefixes, driver=driver)
            pair = (Workload(machine, f"a-{driver}"), Workload(machine, f"b-{driver}"))
            for workload in pair:
                workload.attach(driver)
            self.members[driver] = pair
        self.servers = {
            (driver, family): b.ns.listen("udp", "0.0.0.0" if family == 4 else "::", 7000 + family)
            for driver, (_, b) in self.members.items()
            for family in (4, 6)
        }

    def frames_pass_ip_hooks(self, value: str) -> None:
        for name in ("iptables", "ip6tables"):
            self.ns.sysctl(f"net/bridge/bridge-nf-call-{name}", value)

    def close(self) -> None:
        for pair in self.members.values():
            for workload in pair:
                workload.close()
        self.machine.close()

    def reaches(self, driver: str, family: int) -> bool:
        a, b = self.members[driver]
        return a.ns.reaches(self.servers[driver, family], b.address(family), timeout=0.5)

    def is_fast(self, driver: str, family: int) -> bool:
        """Whether packets pass the host's end of the receiver's link by: each way's are counted there."""
        _, b = self.members[driver]
        before = self.sent_by(b.host_link)
        for _ in range(DATAGRAMS):
            assert self.reaches(driver, family)
        passed = self.sent_by(b.host_link) - before
        # ARP, neighbour discovery and what IPv6 says of itself come by, too.
        return passed < DATAGRAMS / 2

    def sent_by(self, link: str) -> int:
        (found,) = self.ns.json("ip", "-s", "link", "show", link)
        return int(found["stats64"]["tx"]["packets"])

    def open_gates(self) -> set[tuple[str, int]]:
        return {(driver, family) for driver in DRIVERS for family in (4, 6) if self.is_fast(driver, family)}

    def maps(self) -> dict[str, int]:
        """Descriptors of the pinned maps by their kind: `gates`, `targets4`, `targets6`."""
        found = {}
        for path in Path(self.machine.path("/run/sealane/bpf")).glob("fast-*"):
            kind = path.name.split("-")[1]
            if kind not in DRIVERS:
                found[kind] = syscall.open_pinned(str(path))
        return {kind: fd for kind, fd in found.items() if fd is not None}

    def elements(self) -> dict[str, dict[bytes, bytes]]:
        return {
            spec.name.removeprefix("sl_"): dict(
                syscall.map_items(self.maps()[spec.name.removeprefix("sl_")], syscall.map_info(fd))
            )
            for spec in TARGETS.values()
            for fd in [self.maps()[spec.name.removeprefix("sl_")]]
        }

    def filters(self, link: str) -> list[dict[str, Any]]:
        shown = self.ns.sh("tc", "-j", "filter", "show", "dev", link, "ingress")
        return [item for item in json.loads(shown or "[]") if item.get("options", {}).get("bpf_name")]

    def status(self) -> list[str]:
        return [c["message"] for c in self.api.status()["conditions"] if c["subject"] == "fast path"]

    @contextmanager
    def rules(self, family: str, text: str) -> Iterator[None]:
        self.ns.sh("nft", "-f", "-", text=f"table {family} others {{ {text} }}".replace("}", "\n}"))
        try:
            yield
        finally:
            self.ns.sh("nft", "delete", "table", family, "others")


@pytest.fixture(scope="module")
def town(lan: Lan) -> Iterator[Town]:
    with closing(Town(Host(lan, number=26))) as made:
        yield made


ALL = {(driver, family) for driver in DRIVERS for family in (4, 6)}


def test_it_is_taken_within_a_network(town: Town) -> None:
    assert town.open_gates() == ALL
    assert town.status() == []
    assert town.api.audit() == []


# --- the same as the long way ---------------------------------------------------------------------------------------


Oddity = tuple[str, Any]


def oddities(town: Town, driver: str, family: int) -> list[Oddity]:
    """Everything about a plain packet that may be otherwise: (field, value)."""
    others = [w.address(family) for pair in town.members.values() for w in pair]
    others += (
        ["10.66.0.77", "10.67.0.77", "10.66.0.1", "10.67.0.1"] if family == 4 else ["fd66::77", "fd67::1"]
    )
    macs = [town.members[driver][1].mac, "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:99"]
    found: list[Oddity] = [("source", other) for other in others] + [("target", other) for other in others]
    found += [("mac", mac) for mac in macs] + [("to", mac) for mac in macs]
    found += [("hops", hops) for hops in (0, 1, 2, 255)] + [("sport", port) for port in (67, 547)]
    found += [("tag", 7), ("tcp", "S"), ("tcp", "PA")]
    if family == 4:
        found += [("flags", "MF"), ("flags", "DF"), ("frag", 3), ("options", [frames.IPOption_NOP()] * 4)]
    return found


def frame(town: Town, driver: str, family: int, number: int, odd: dict[str, Any]) -> str:
    """A packet from `a` to `b`, with what is odd about it."""
    a, b = town.members[driver]
    to_mac = b.mac
    if driver == "routed":
        gateway = {4: "10.67.0.1", 6: "fd67::1"}[family]
        to_mac = str(a.ns.json("ip", "neigh", "show", gateway, "dev", a.ifname)[0]["lladdr"])
    fields = {name: odd[name] for name in ("flags", "frag", "options") if name in odd}
    fields["ttl" if family == 4 else "hlim"] = odd.get("hops", 64)
    if family == 4:
        # Fragments of one number would be put together.
        fields["id"] = number + 1
    sport = odd.get("sport", 4000)
    body = (
        frames.TCP(sport=sport, dport=7999, flags=odd["tcp"])
        if "tcp" in odd
        else frames.UDP(sport=sport, dport=7999)
    )
    header = frames.ip(odd.get("source", a.address(family)), odd.get("target", b.address(family)), **fields)
    link = frames.Ether(src=odd.get("mac", a.mac), dst=odd.get("to", to_mac))
    packet = link / header / body / frames.Raw(f"{MARK}{number:05}".encode())
    return frames.tagged(packet) if "tag" in odd else frames.raw(packet)


def corpus(town: Town, driver: str, family: int) -> list[str]:
    """The plain packet, every oddity, and every two of them."""
    every = oddities(town, driver, family)
    cases: list[dict[str, Any]] = [{}, *({name: value} for name, value in every)]
    cases += [dict(pair) for pair in combinations(every, 2) if pair[0][0] != pair[1][0]]
    return [frame(town, driver, family, number, odd) for number, odd in enumerate(cases)]


def arrived(town: Town, driver: str, sent: list[str]) -> list[bytes]:
    a, b = town.members[driver]
    with b.ns.sniff(b.ifname) as seen:
        for start in range(0, len(sent), 50):
            a.ns("frames", ifname=a.ifname, raw=sent[start : start + 50])
            assert town.reaches(driver, 4)
        # What takes the long way may be overtaken.
        pause(0.1)
    return [frame for frame in seen if MARK.encode() in frame]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_arrives_is_what_the_long_way_brings(town: Town, driver: str, family: int) -> None:
    """Frame by frame and byte by byte: spoofed, tagged, fragmented, with options, tired of life."""
    sent = corpus(town, driver, family)
    fast = arrived(town, driver, sent)
    assert town.is_fast(driver, family)
    with held(town):
        assert not town.is_fast(driver, family)
        slow = arrived(town, driver, sent)
    assert numbers(fast) == numbers(slow)
    assert sorted(fast) == sorted(slow)
    assert 5 < len(fast) < len(sent) / 2


@contextmanager
def held(town: Town) -> Iterator[None]:
    """The gates closed behind the daemon's back."""
    maps = town.maps()
    before = dict(syscall.map_items(maps["gates"], syscall.map_info(maps["gates"])))
    for key in before:
        syscall.map_update(maps["gates"], key, GATE_VALUE.pack(fast_path.HELD, 0))
    try:
        yield
    finally:
        for key, value in before.items():
            syscall.map_update(maps["gates"], key, value)


def numbers(seen: list[bytes]) -> list[int]:
    """Which of the cases, by what they carry."""
    return sorted(int(found.partition(MARK.encode())[2][:5]) for found in seen)


def test_a_packet_that_is_forwarded_has_a_hop_less(town: Town) -> None:
    """As `traceroute` and the receiver would have it: a bridge takes none, a router takes one."""
    for driver, hops in (("bridge", 64), ("routed", 63)):
        a, b = town.members[driver]
        with b.ns.sniff(b.ifname) as seen:
            a.ns.probe("udp", b.v4, 7004, timeout=0.5)
        assert {frame[22] for frame in seen if frame[12:14] == b"\x08\x00" and frame[23] == 17} == {hops}


# --- others have a say ----------------------------------------------------------------------------------------------

CLOSING = {
    "bridge": (
        "chain c { type filter hook forward priority 500; counter accept }",
        {("bridge", 4), ("bridge", 6)},
    ),
    "ip": ("chain c { type filter hook forward priority 500; counter accept }", {("routed", 4)}),
    "ip6": ("chain c { type filter hook prerouting priority 0; counter accept }", {("routed", 6)}),
}


@pytest.mark.parametrize("family", ["bridge", "ip", "ip6"])
def test_rules_of_others_are_met(town: Town, family: str) -> None:
    text, closed = CLOSING[family]
    with town.rules(family, text):
        eventually(lambda: town.open_gates() == ALL - closed, HEED_S, "it is closed")
        assert town.status() == [
            f"somebody else's rules ({family}) are on the way within networks: packets go that way and meet them"
        ]
        assert town.api.audit() == []
    eventually(lambda: town.open_gates() == ALL, REOPEN_S, "it is open again")


@pytest.mark.parametrize("family", [4, 6])
def test_a_firewall_of_the_administrators_drops_what_it_says(town: Town, family: int) -> None:
    """Set while connections are under way, it is obeyed within milliseconds."""
    name = "ip" if family == 4 else "ip6"
    assert town.reaches("routed", family)
    port = 7000 + family
    with town.rules(name, f"chain c {{ type filter hook forward priority 0; udp dport {port} drop }}"):
        eventually(lambda: not town.reaches("routed", family), HEED_S, "the rule is obeyed")
        assert not town.reaches("routed", family)
    assert town.reaches("routed", family)
    eventually(lambda: town.is_fast("routed", family), REOPEN_S, "it is open again")


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("inet", "chain i { type filter hook input priority 0; tcp dport 1 drop }"),
        ("inet", "chain f { type filter hook forward priority 0; }"),
        ("ip", "chain p { type nat hook postrouting priority 100; ip saddr 192.0.2.77 masquerade }"),
        ("ip", "chain o { type filter hook output priority 0; counter }"),
        ("ip", "chain c { counter drop }"),
        ("netdev", 'chain n { type filter hook ingress device "lo" priority 0; counter }'),
    ],
)
def test_rules_that_no_such_packet_meets_change_nothing(town: Town, family: str, text: str) -> None:
    with town.rules(family, text):
        # A chain that counts, made after it, is heeded at once; so this one would have been.
        with town.rules("ip6", CLOSING["ip6"][0]):
            eventually(lambda: not town.is_fast("routed", 6), HEED_S, "the other is heeded")
        eventually(lambda: town.open_gates() == ALL, REOPEN_S, "it is open")
    assert town.open_gates() == ALL


def test_a_rule_that_is_added_to_an_empty_chain_is_heeded(town: Town) -> None:
    with town.rules("ip", "chain f { type filter hook forward priority 0; }"):
        assert town.is_fast("routed", 4)
        town.ns.sh("nft", "add", "rule", "ip", "others", "f", "udp", "dport", "7004", "drop")
        eventually(lambda: not town.reaches("routed", 4), HEED_S, "the rule is obeyed")
    eventually(lambda: town.is_fast("routed", 4), REOPEN_S, "it is open again")


def test_where_bridges_pass_the_ip_hooks_their_rules_count_there_too(town: Town) -> None:
    with town.rules("ip", CLOSING["ip"][0]):
        town.frames_pass_ip_hooks("1")
        closed = {("bridge", 4), ("routed", 4)}
        eventually(lambda: town.open_gates() == ALL - closed, REOPEN_S, "both are closed")
        town.frames_pass_ip_hooks("0")
        eventually(lambda: town.open_gates() == ALL - {("routed", 4)}, REOPEN_S, "the bridge's is open again")
    eventually(lambda: town.open_gates() == ALL, REOPEN_S, "all are open again")


# --- while nobody looks ---------------------------------------------------------------------------------------------


def test_a_daemon_that_ends_holds_it_and_one_that_starts_opens_it(town: Town) -> None:
    """Rules that others make meanwhile would not be seen."""
    assert town.machine.stop() == 0
    assert town.open_gates() == set()
    town.machine.start()
    assert town.api.status()["writes"] == 0
    assert town.open_gates() == ALL


def test_of_one_that_is_killed_it_closes_by_itself_and_the_next_finds_all_in_place(town: Town) -> None:
    programs = {w.host_link: town.filters(w.host_link) for pair in town.members.values() for w in pair}
    town.machine.kill9()
    eventually(lambda: town.open_gates() == set(), fast_path.LEASE_S + 5, "it is closed")
    town.machine.start()
    assert town.api.status()["writes"] == 0
    assert town.open_gates() == ALL
    assert programs == {link: town.filters(link) for link in programs}
    assert all(len(found) == 1 for found in programs.values())


def test_a_daemon_that_lives_says_so_for_as_long_as_it_does(town: Town) -> None:
    time.sleep(fast_path.LEASE_S + 1)
    assert town.open_gates() == ALL


def test_a_start_under_new_rules_of_others_does_not_open_it(town: Town) -> None:
    town.machine.stop()
    with town.rules("bridge", CLOSING["bridge"][0]):
        town.machine.start()
        assert town.open_gates() == {("routed", 4), ("routed", 6)}
    eventually(lambda: town.open_gates() == ALL, REOPEN_S, "it is open again")


def test_a_trace_sees_the_long_way(town: Town) -> None:
    """Each hop and rule, as predicted; and afterwards the packets are fast again."""
    for driver, (_, receiver) in town.members.items():
        a, b = (w.endpoints[driver]["sandbox"] for w in town.members[driver])
        shown = town.machine.sealane("trace", a, f"{b}:7004", "--json").stdout
        lines = [json.loads(line) for line in shown.splitlines()]
        observed_paths = [item for item in lines if item["kind"] == "path"]
        assert observed_paths
        assert all(item["passes"] and item["agrees"] for item in observed_paths), shown
        assert receiver.host_link in shown
    eventually(lambda: town.open_gates() == ALL, what="what was held is let go")


# --- repair ---------------------------------------------------------------------------------------------------------


def test_a_filter_that_is_gone_comes_back(town: Town) -> None:
    a, _ = town.members["bridge"]
    for what in (["filter"], ["qdisc"]):
        link = ["dev", a.host_link, "ingress"]
        town.ns.sh("tc", what[0], "del", *link)
        eventually(lambda: len(town.filters(a.host_link)) == 1, what=f"the {what[0]} is put back")
        assert town.is_fast("bridge", 4)
    # Somebody has a `clsact` there instead, on which filters hang as well.
    lines = f"qdisc del dev {a.host_link} ingress\nqdisc add dev {a.host_link} clsact\n"
    town.ns.sh("tc", "-batch", "-", text=lines)
    eventually(lambda: len(town.filters(a.host_link)) == 1, what="it hangs on what is there")
    assert town.is_fast("bridge", 4)


def test_somebody_elses_filters_are_left_alone_and_come_first(town: Town) -> None:
    a, _ = town.members["routed"]
    match = ["u32", "match", "ip", "protocol", "17", "0xff", *"action mirred egress redirect dev lo".split()]
    town.ns.sh("tc", "filter", "add", "dev", a.host_link, "ingress", "pref", "10", "protocol", "ip", *match)
    assert not town.reaches("routed", 4)
    assert town.reaches("routed", 6)
    town.ns.sh("tc", "filter", "del", "dev", a.host_link, "ingress", "pref", "10")
    assert town.is_fast("routed", 4)


def test_elements_that_differ_are_put_right_by_a_look(town: Town) -> None:
    before = town.elements()
    maps = town.maps()
    (first, value), *_ = before["targets4"].items()
    syscall.map_delete(maps["targets4"], first)
    syscall.map_update(maps["targets4"], bytes([10, 66, 0, 200]), value)
    syscall.map_update(maps["gates"], gate("routed", 4).to_bytes(4, "little"), bytes(GATES.value_size))
    found = town.api.audit()
    assert "host: missing: fast-gate routed 4" in found
    assert "host: unwanted: fast-target 10.66.0.200" in found
    assert len(found) == 3
    town.machine.sealane("gc")
    assert town.elements() == before
    assert town.open_gates() == ALL
    assert town.api.audit() == []


# --- what has none, and what is left --------------------------------------------------------------------------------


def without(town: Town, name: str, **fields: Any) -> bool:
    """Whether a workload on a network of these has nothing of it."""
    town.api.network(name, "10.68.0.0/24", **fields)
    try:
        with town.machine.workload(name, "c") as c:
            known = bytes(map(int, c.v4.split("."))) in town.elements()["targets4"]
            assert known == bool(town.filters(c.host_link)), "half of it"
            return not known
    finally:
        town.api.remove_network(name)


def test_a_network_may_do_without(town: Town) -> None:
    assert not without(town, "usual")
    assert without(town, "slow", options={"fast-path": "false"})
    assert without(town, "apart", options={"icc": "false"})


def test_where_a_rate_is_to_be_kept_packets_wait_for_it(town: Town) -> None:
    """What comes in waits at the host's end, so the long way it is; what goes out has waited inside."""
    town.api.network("held", "10.68.0.0/24")
    limit = {"rate": 100_000_000, "burst": 1_000_000}
    with town.machine.workload("held", "c", ingress=limit) as c, town.machine.workload("held", "d") as d:
        server = {w: w.ns.listen("udp", "0.0.0.0", 7000) for w in (c, d)}

        def passed(sender: Workload, receiver: Workload) -> int:
            before = town.sent_by(receiver.host_link)
            for _ in range(DATAGRAMS):
                assert sender.ns.reaches(server[receiver], receiver.v4)
            return town.sent_by(receiver.host_link) - before

        # Its answers come back by the other's end, or do not.
        assert passed(d, c) >= DATAGRAMS
        assert passed(c, d) < DATAGRAMS
    town.api.remove_network("held")


def test_it_ends_with_its_endpoint(town: Town) -> None:
    before = town.elements()
    with town.machine.workload("bridge", "e") as e:
        assert len(town.elements()["targets4"]) == len(before["targets4"]) + 1
        assert len(town.elements()["targets6"]) == len(before["targets6"]) + 1
        link = e.host_link
    assert town.elements() == before
    assert link not in town.ns.sh("ip", "-br", "link")
    e = Workload(town.machine, "f")
    e.attach("routed")
    e.ns.close()
    town.machine.sealane("gc")
    assert town.elements() == before
    assert town.api.audit() == []
