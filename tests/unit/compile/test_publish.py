"""Published ports as map elements."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines import Bench, publish, subnets
from sealane.compile.publish import compile_publish_from, published_ranges
from sealane.engine.ports import Reserver
from sealane.explain.sets import IntervalIndex
from sealane.kernel.nft import Element, Set, concat
from sealane.kernel.objects import LoopbackPort
from sealane.kernel.state import HOST
from sealane.model.endpoint import PublishedPort


def elements(bench: Bench, which: str) -> list[Element]:
    return [o for o in bench.kernel.state[HOST].values() if isinstance(o, Element) and o.set == which]


def test_two_host_ports_may_lead_to_one_inner_port() -> None:
    """Found by explain's differential test: both made the same element of `open`, and the verb failed half-way."""
    bench = Bench()
    bench.network(subnets=list(subnets("10.1.0.0/24")), options={"masquerade": "false"})
    bench.attach("/run/netns/a", publish=[publish(8080, 80), publish(8081, 80), publish(9000, 79, count=2)])
    assert len(elements(bench, "publish")) == 4
    assert [(e.value[-4:-2], e.end[-4:-2]) for e in elements(bench, "open")] == [(b"\x00\x4f", b"\x00\x50")]
    assert bench.is_clean()


def test_a_loopback_publish_opens_nothing_to_the_outside() -> None:
    bench = Bench()
    bench.network(subnets=list(subnets("10.1.0.0/24")), options={"masquerade": "false"})
    bench.attach("/run/netns/a", publish=[publish(8080, 80, address="127.0.0.1"), publish(9090, 90)])
    assert [e.value[-4:-2] for e in elements(bench, "open")] == [b"\x00\x5a"]


def test_where_a_port_is_reserved_the_socket_program_knows() -> None:
    bench = Bench()
    bench.network(subnets=list(subnets("10.1.0.0/24", "fd01::/64")))
    bench.attach(
        "/run/netns/a",
        reserver=Reserver(process=40, netns=1, holds_all=True),
        publish=[publish(8080, 80), publish(81, 81, address="127.0.0.2"), publish(82, 82, address="::1")],
    )
    bench.attach("/run/netns/b", publish=[publish(90, 90)])
    found = [o for o in bench.kernel.state[HOST].values() if isinstance(o, LoopbackPort)]
    assert sorted((p.first, p.family, p.reserved) for p in found) == [
        (81, 4, "127.0.0.2"),
        (82, 6, "::1"),
        (90, 4, ""),
        (90, 6, ""),
        (8080, 4, "0.0.0.0"),
        (8080, 6, "::"),
    ]


@st.composite
def ports(draw: st.DrawFn) -> PublishedPort:
    first, length = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    return PublishedPort(
        proto=draw(st.sampled_from(["tcp", "udp"])), host_first=1000, host_last=999 + length, port=first
    )


@given(st.lists(ports(), max_size=8))
def test_ranges_cover_the_published_ports_exactly_and_never_meet(published: list[PublishedPort]) -> None:
    merged = published_ranges(published)
    desired = {(p.proto, p.port + n) for p in published for n in range(p.host_last - p.host_first + 1)}
    assert [(proto, n) for proto, first, last in merged for n in range(first, last + 1)] == sorted(desired)
    for (proto, _, last), (other, first, _) in zip(merged, merged[1:], strict=False):
        assert proto != other or last + 1 < first


# --- asked from another network of the sandbox -----------------------------------------------------------------------


def two_networks(**published: object) -> Bench:
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    bench.network("back", subnets=list(subnets("10.2.0.0/24")))
    bench.network("vault", subnets=list(subnets("10.3.0.0/24")), internal=True)
    bench.attach(
        "/run/netns/a", "front", publish=[publish(8080, 80), publish(9000, 9000, count=3)], **published
    )
    return bench


def test_there_is_nothing_for_one_network_nor_for_an_internal_one() -> None:
    bench = two_networks()
    bench.attach("/run/netns/a", "vault", name="a-vault")
    assert elements(bench, "publish_from") + elements(bench, "publish_from_ranges") == []


def test_a_second_network_brings_it_and_takes_it_away() -> None:
    bench = two_networks()
    bench.attach("/run/netns/a", "back", name="a-back")
    assert [e.data for e in elements(bench, "publish_from")] == [
        concat(("ipv4_addr", "inet_service"), ("10.2.0.2", 80))
    ]
    assert len(elements(bench, "publish_from_ranges")) == 1
    bench.engine.remove_network("back", force=True)
    assert elements(bench, "publish_from") + elements(bench, "publish_from_ranges") == []
    assert bench.is_clean()


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.10"])
def test_an_address_of_the_host_is_looked_at(address: str) -> None:
    bench = two_networks()
    bench.attach("/run/netns/a", "back", name="a-back", publish=[publish(8090, 90, address=address)])
    found = [e for e in elements(bench, "publish_from") if e.data[4:6] == (90).to_bytes(2, "big")]
    assert [(e.value[4:8], e.end[4:8]) for e in found] == (
        [] if address == "127.0.0.1" else [(bytes([192, 0, 2, 10]),) * 2]
    )


@given(st.lists(ports(), max_size=6), st.integers(1, 4))
def test_no_two_of_its_elements_meet(published: list[PublishedPort], count: int) -> None:
    """The kernel takes no intervals that do, and `explain` finds the one there is. (Nobody publishes a port twice.)"""
    bench = Bench()
    for index in range(count):
        bench.network(f"n{index}", subnets=list(subnets(f"10.{index}.0.0/24")))
        bench.attach("/run/netns/a", f"n{index}", name=f"a{index}")
    apart = [
        msgspec.structs.replace(
            p, host_first=1000 + 10 * n, host_last=1000 + 10 * n + p.host_last - p.host_first
        )
        for n, p in enumerate(published)
    ]
    endpoints = list(bench.engine.intent.endpoints.values())
    endpoints[0] = msgspec.structs.replace(endpoints[0], ports=tuple(apart))
    made = list(compile_publish_from(endpoints, bench.engine.intent.networks))
    assert len(made) == (count - 1) * sum(
        1 if p.host_first != p.host_last and p.host_first == p.port else p.host_last - p.host_first + 1
        for p in apart
    )
    for which in ("publish_from", "publish_from_ranges"):
        kinds = ("ipv4_addr", "ipv4_addr", "inet_proto", "inet_service")
        owner = Set(family="ip", name=which, type=kinds, data=("ipv4_addr",), interval=True)
        mine = [e for e in made if e.set == which]
        index = IntervalIndex(owner, mine)
        for one, other in itertools.combinations(mine, 2):
            assert one.value != other.value
        for item in mine:
            assert index.find(item.value) == item
            assert index.find(item.end) == item
