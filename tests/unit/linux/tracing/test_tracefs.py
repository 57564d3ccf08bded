"""Events of tracefs as sightings of one packet."""

from __future__ import annotations

import os

import pytest

from sealane.explain.packet import Tuple
from sealane.explain.traced.event import Headers
from sealane.explain.traced.signature import ProbeSignature
from sealane.linux.tracing import tracefs
from sealane.linux.tracing.tracefs import KEPT_EVENTS, TracefsFollower, parse_line

WEB, HOST, API = 11, 1, 12
FLOW = Tuple("tcp", "10.1.0.2", 40000, "10.1.0.3", 80)
SCOUT = ProbeSignature(
    headers=Headers(flow=FLOW, ttl=64, size=60, mark=()),
    ethertype=0x0800,
    sizes=frozenset({52, 60}),
    link="sle1",
    sender=WEB,
    host=HOST,
    peers={"sle1": WEB, "sle2": API, "slb1": 0},
)
_clock = iter(range(1, 10**6))


def line(event: str, rest: str) -> str:
    return f"  python-7   [001] b..1.  12.{next(_clock):06}: {event}: {rest}"


def queue(link: str, skb: int = 0xAB, size: int = 60) -> str:
    return line("net_dev_queue", f"dev={link} skbaddr={skb:016x} len={size + 14}")


def transmit(link: str, skb: int = 0xAB, size: int = 60, protocol: int = 0x0800) -> str:
    more = f"vlan_tagged=0 vlan_proto=0x0000 protocol=0x{protocol:04x} ip_summed=3 len={size + 14} data_len=0"
    return line("net_dev_start_xmit", f"dev={link} queue_mapping=0 skbaddr={skb:016x} {more}")


def receive(link: str, skb: int = 0xAB, size: int = 60) -> str:
    return line("netif_receive_skb", f"dev={link} skbaddr={skb:016x} len={size}")


def drop(reason: str, skb: int = 0xAB) -> str:
    return line(
        "kfree_skb",
        f"skbaddr={skb:016x} rx_sk=(null) protocol=2048 location=tcp_v4_rcv+0x1/0x2 reason: {reason}",
    )


def consume(skb: int = 0xAB) -> str:
    return line("consume_skb", f"skbaddr={skb:016x} location=icmp_rcv+0x1/0x2")


@pytest.fixture
def follower(tmp_path, monkeypatch):
    """One whose instance is a folder and whose pipe is ours."""
    monkeypatch.setattr(tracefs, "ROOTS", (str(tmp_path),))
    (tmp_path / "instances").mkdir()
    monkeypatch.setattr(TracefsFollower, "_arm", lambda self: None)
    made = TracefsFollower(SCOUT)
    made._pipe, feed = os.pipe2(os.O_NONBLOCK)

    def told(*lines: str) -> list[tuple[str, int, str, str]]:
        os.write(feed, "".join(f"{one}\n" for one in lines).encode())
        return [(s.point, s.netns, s.link, s.reason) for s in made.read()]

    yield told
    made.close()
    os.close(feed)
    assert list((tmp_path / "instances").iterdir()) == []


WAY = (
    ("queue", WEB, "eth0", ""), ("transmit", WEB, "eth0", ""), ("receive", HOST, "sle1", ""),
    ("queue", HOST, "sle2", ""), ("receive", API, "eth0", ""),
)  # fmt: skip


def way(skb: int = 0xAB) -> list[str]:
    return [
        queue("eth0", skb), transmit("eth0", skb), receive("sle1", skb), queue("sle2", skb), receive("eth0", skb),
    ]  # fmt: skip


def test_namespaces_are_known_by_the_links_in_between(follower) -> None:
    assert tuple(follower(*way(), drop("NO_SOCKET"))) == (*WAY, ("drop", API, "eth0", "NO_SOCKET"))


def test_it_may_come_in_pieces(follower) -> None:
    found = [item for one in [*way(), consume()] for item in follower(one)]
    assert tuple(found) == (*WAY, ("consume", API, "eth0", ""))


def test_others_are_not_taken_for_it(follower) -> None:
    assert follower(queue("eth0", 1, 28), transmit("eth0", 1, 28, 0x0806), receive("sle1", 1, 28)) == []
    assert follower(queue("eth0", 2), transmit("eth0", 2, protocol=0x86DD), receive("sle1", 2)) == []
    assert follower(queue("eth9", 3), transmit("eth9", 3), receive("sle2", 3)) == []
    assert len(follower(*way())) == 5
    assert follower(*way(0xCD)) == []


def test_what_the_address_was_before_is_another_packet(follower) -> None:
    before = [queue("eth0"), transmit("eth0"), consume()]
    assert tuple(follower(*before, *way())) == WAY


def test_what_comes_after_its_end_is_another_packet(follower) -> None:
    assert len(follower(*way(), consume())) == 6
    assert follower(*way()) == []


def test_so_many_events_are_kept_until_it_is_known(follower) -> None:
    start = [queue("eth0"), transmit("eth0")]
    noise = [queue("eth7", 0xFF) for _ in range(KEPT_EVENTS - 3)]
    for batch in (start, noise):
        for one in batch:
            assert follower(one) == []
    assert len(follower(receive("sle1"))) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CPU:1 [LOST 5 EVENTS]",
        "# tracer: nop",
        line("sched_switch", "prev=1"),
        line("net_dev_queue", "dev=x"),
    ],
)
def test_lines_of_other_kinds_are_left_out(text: str) -> None:
    assert parse_line(text) is None


def test_time_is_in_nanoseconds() -> None:
    found = parse_line(
        "  ping-1 [000] ..... 3.000012: netif_receive_skb: dev=e skbaddr=00000000000000ff len=5"
    )
    assert found is not None
    assert (found.time_ns, found.skb, found.length) == (3_000_012_000, 255, 5)


def test_instances_of_the_dead_are_swept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tracefs, "ROOTS", (str(tmp_path),))
    folder = tmp_path / "instances"
    folder.mkdir()
    living, dead = f"sealane-{os.getpid()}-1", "sealane-999999999-1"
    for name in (living, dead, "others", "sealane-x"):
        (folder / name).mkdir()
    tracefs.sweep()
    assert sorted(item.name for item in folder.iterdir()) == sorted([living, "others", "sealane-x"])


def test_without_tracefs_it_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tracefs, "ROOTS", (str(tmp_path),))
    tracefs.sweep()
    with pytest.raises(FileNotFoundError, match="mount -t tracefs"):
        TracefsFollower(SCOUT)
