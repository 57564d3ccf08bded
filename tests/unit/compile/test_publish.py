"""Published ports as map elements."""

from hypothesis import given
from hypothesis import strategies as st

from harness.engines import Bench, publish, subnets
from sealane.compile.publish import published_ranges
from sealane.engine.ports import Reserver
from sealane.kernel.nft import Element
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
    reserver = Reserver(process=40, netns=1)
    with bench.engine.drafts.publisher.reserved_by(reserver, always=True):
        bench.attach(
            "/run/netns/a",
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
    wanted = {(p.proto, p.port + n) for p in published for n in range(p.host_last - p.host_first + 1)}
    assert [(proto, n) for proto, first, last in merged for n in range(first, last + 1)] == sorted(wanted)
    for (proto, _, last), (other, first, _) in zip(merged, merged[1:], strict=False):
        assert proto != other or last + 1 < first
