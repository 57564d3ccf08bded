"""What is known of a packet that will be sent."""

import pytest

from sealane.compile.names import endpoint_link
from sealane.explain.packet import Trace
from sealane.explain.question import Question, explain
from sealane.explain.traced.signature import ProbeSignature, signature_of
from sealane.kernel.state import HOST
from unit.explain.worlds import OUTSIDE, Town

PLACES = {1: HOST, 11: "sandbox-web", 12: "sandbox-api", 13: "sandbox-db"}


def signature(source: str, target: str, **fields) -> ProbeSignature | None:
    town = Town()
    asked = Question(source=source, target=target, **fields)
    trace: Trace = explain(asked, town.intent, town.compiled, town.foreign_state)
    return signature_of(town.world, trace, PLACES)


def test_it_is_known_by_the_hosts_end_of_its_link() -> None:
    found = signature("web", "api:80")
    assert found is not None
    assert (found.link, found.sender, found.host) == (endpoint_link(Town().web.id), 11, 1)
    assert found.peers[found.link] == 11
    assert found.peers["uplink0"] == 0
    assert (found.headers.flow.destination, found.headers.mark) == ("10.1.0.11", ())


@pytest.mark.parametrize(
    ("proto", "family", "size"), [("tcp", 4, 60), ("tcp", 6, 80), ("udp", 4, 28), ("icmp", 6, 48)]
)
def test_it_is_as_long_as_a_probe_is(proto: str, family: int, size: int) -> None:
    found = signature("web", "api:80" if proto != "icmp" else "api", proto=proto, family=family)
    assert found is not None
    assert size in found.sizes
    assert found.ethertype == {4: 0x0800, 6: 0x86DD}[family]


def test_a_neighbour_solicitation_is_not_taken_for_it() -> None:
    found = signature("web", "api:80", family=6)
    assert found is not None
    assert 72 not in found.sizes


def test_from_the_host_it_is_known_by_the_link_that_it_leaves_by() -> None:
    found = signature("host", "web:80")
    assert found is not None
    assert (found.link, found.sender) == (endpoint_link(Town().web.id), 1)


def test_what_does_not_leave_its_sender_cannot_be_found() -> None:
    assert signature("web", "10.1.0.99:80") is None
    assert signature("host", f"{OUTSIDE[4]}:80") is None
