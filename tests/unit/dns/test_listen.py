"""Where networks are served, and what happens if somebody is there already."""

import errno
import socket

import pytest

from sealane.dns.listen import Listener, Place, Places
from sealane.dns.records import ZoneNetwork


def network(name: str, *listen: str, device: str | None = None) -> ZoneNetwork:
    return ZoneNetwork(id=f"id-{name}", name=name, listen=listen, subnets=(), device=device)


def served(places: Places) -> dict[Place, tuple[str, ...]]:
    return {listener.place: listener.arrival for listener in places.listeners}


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def close(listener: Listener) -> None:
    for held in (listener.datagrams, listener.stream):
        if held:
            held.close()
    listener.datagrams = listener.stream = None


def test_networks_are_served_at_their_places_and_may_share_one() -> None:
    places = Places(53)
    places.assign([network("a", "10.0.0.1", "FD00::0:1", device="sl1"), network("b", "169.254.1.1")], [])
    places.assign([network("c", "169.254.1.1")], [])
    assert served(places) == {
        Place("10.0.0.1", "sl1"): ("id-a",),
        Place("fd00::1", "sl1"): ("id-a",),
        Place("169.254.1.1"): ("id-b", "id-c"),
    }
    assert places.addresses == {"10.0.0.1", "fd00::1", "169.254.1.1"}


def test_an_unchanged_place_keeps_its_listener_and_forgets_its_askers() -> None:
    places = Places(53)
    places.assign([network("a", "10.0.0.1")], [])
    listener = places.listeners[0]
    listener.askers["10.0.0.9"] = object()  # type: ignore[assignment]
    places.assign([network("a", "10.0.0.1"), network("b", "10.0.0.2")], [])
    assert places.listeners[0] is listener
    assert listener.askers == {}


def test_a_place_is_retired_once_with_its_last_network() -> None:
    places = Places(53)
    places.assign([network("a", "10.0.0.1"), network("b", "10.0.0.1")], [])
    places.assign([], ["id-a", "id-unknown"])
    assert places.take_retired() == []
    places.assign([network("b", "10.0.0.2")], [])
    assert [listener.place for listener in places.take_retired()] == [Place("10.0.0.1")]
    assert places.take_retired() == []
    assert served(places) == {Place("10.0.0.2"): ("id-b",)}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_sockets_are_open_and_not_opened_twice(address: str) -> None:
    listener = Listener(Place(address), free_port())
    assert len(listener.open()) == 2
    assert listener.open() == []
    assert listener.problems == {}
    assert not listener.is_stranded()
    close(listener)


def test_an_address_that_is_not_there_yet_can_be_bound() -> None:
    """IPv6 before duplicate address detection, or any address the engine is about to add."""
    for address in ("192.0.2.53", "2001:db8::53"):
        listener = Listener(Place(address), free_port())
        listener.open()
        assert listener.problems == {}
        close(listener)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(
    ("kind", "protocol", "other"),
    [(socket.SOCK_DGRAM, "UDP", "stream"), (socket.SOCK_STREAM, "TCP", "datagrams")],
)
@pytest.mark.parametrize("foreign_address", ["0.0.0.0", "127.0.0.1"])
def test_a_foreign_listener_is_told_and_outlived(
    foreign_address: str, kind: socket.SocketKind, protocol: str, other: str, reuse: bool
) -> None:
    """Even if it set SO_REUSEADDR: we do not want half of its questions, nor it half of ours."""
    with socket.socket(socket.AF_INET, kind) as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        foreign.bind((foreign_address, 0))
        if kind == socket.SOCK_STREAM:
            foreign.listen()
        port = foreign.getsockname()[1]
        places = Places(port)
        places.assign([network("web", "127.0.0.1")], [])
        listener = places.listeners[0]
        listener.open()
        assert listener.problems[protocol].errno == errno.EADDRINUSE
        assert getattr(listener, other) is not None
        [text] = places.problems()
        assert text.startswith(
            f"network web: names cannot be served on 127.0.0.1 port {port} ({protocol}): EADDRINUSE"
        )
    assert len(listener.open()) == 1
    assert places.problems() == []
    close(listener)


def test_a_missing_bridge_is_told() -> None:
    places = Places(free_port())
    places.assign([network("web", "127.0.0.1", device="sl-missing")], [])
    places.listeners[0].open()
    texts = places.problems()
    assert len(texts) == 2
    assert all("ENODEV" in text and "bridge is missing" in text for text in texts)


def test_one_place_too_many_is_told() -> None:
    places = Places(53)
    places.assign([network("web", "127.0.0.1")], [])
    places.listeners[0].decline()
    assert "EMFILE" in places.problems()[0]
