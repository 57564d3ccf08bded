"""Published ports as map elements."""

from hypothesis import given
from hypothesis import strategies as st

from harness.engines import Bench, publish, subnets
from sealane.compile.publish import published_ranges
from sealane.kernel.nft import Element
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
