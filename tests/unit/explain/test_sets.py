"""Interval sets: the index answers as a look at every element would."""

from hypothesis import given
from hypothesis import strategies as st

from sealane.explain.sets import IntervalIndex
from sealane.kernel.nft import Element, Set, concat, field

PORTS = Set(family="ip", name="ports", type=("ipv4_addr", "inet_proto", "inet_service"), interval=True)
PREFIXES = Set(family="ip", name="prefixes", type=("ipv4_addr",), interval=True)


def prefix(first: str, last: str) -> Element:
    return Element(family="ip", set="prefixes", value=field("ipv4_addr", first), end=field("ipv4_addr", last))


def ports(addresses: tuple[str, str], proto: int, first: int, last: int) -> Element:
    low, high = (concat(PORTS.type, (a, proto, p)) for a, p in zip(addresses, (first, last), strict=True))
    return Element(family="ip", set="ports", value=low, end=high)


def test_a_prefix_holds_its_ends_and_not_their_neighbours() -> None:
    mine = prefix("10.1.0.0", "10.1.0.255")
    index = IntervalIndex(PREFIXES, [prefix("10.0.0.0", "10.0.0.255"), mine])
    found = {
        a: index.find(field("ipv4_addr", a)) for a in ("10.0.255.255", "10.1.0.0", "10.1.0.255", "10.1.1.0")
    }
    assert found == {"10.0.255.255": None, "10.1.0.0": mine, "10.1.0.255": mine, "10.1.1.0": None}


def test_an_element_of_one_value_is_found_by_it() -> None:
    one = prefix("10.1.0.7", "10.1.0.7")
    index = IntervalIndex(PREFIXES, [one])
    assert index.find(field("ipv4_addr", "10.1.0.7")) == one
    assert index.find(field("ipv4_addr", "10.1.0.8")) is None


def test_a_range_of_ports_on_every_address_and_one_on_a_single_address() -> None:
    anywhere = ports(("0.0.0.0", "255.255.255.255"), 17, 20000, 20999)
    here = ports(("192.0.2.7", "192.0.2.7"), 17, 80, 90)
    index = IntervalIndex(PORTS, [anywhere, here])

    def find(address: str, proto: int, port: int) -> Element | None:
        return index.find(concat(PORTS.type, (address, proto, port)))

    assert find("10.9.9.9", 17, 20000) == find("192.0.2.7", 17, 20999) == anywhere
    assert find("192.0.2.7", 17, 90) == here
    assert find("192.0.2.8", 17, 90) is None
    assert find("192.0.2.7", 6, 20000) is None
    assert find("192.0.2.7", 17, 21000) is None


def test_fields_are_compared_one_by_one_and_not_as_one_number() -> None:
    """A port beyond the range's last is outside, however the address compares."""
    wide = ports(("10.0.0.0", "10.0.0.255"), 6, 80, 90)
    index = IntervalIndex(PORTS, [wide])
    assert index.find(concat(PORTS.type, ("10.0.0.7", 6, 85))) == wide
    assert index.find(concat(PORTS.type, ("10.0.0.7", 6, 95))) is None
    assert index.find(concat(PORTS.type, ("10.0.0.7", 6, 5))) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 4)), max_size=12), st.data())
def test_the_index_answers_as_a_scan_does(desired: list[tuple[int, int, int]], data: st.DataObject) -> None:
    taken: set[tuple[int, int]] = set()
    elements = []
    for address, first, length in desired:
        claimed = {(address, port) for port in range(first, first + length + 1)}
        if not claimed & taken:
            taken |= claimed
            text = f"10.0.0.{address}"
            elements.append(ports((text, text), 6, first, first + length))
    index = IntervalIndex(PORTS, elements)
    address, port = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 66))
    found = index.find(concat(PORTS.type, (f"10.0.0.{address}", 6, port)))
    assert (found is not None) == ((address, port) in taken)
    if found is not None:
        assert int.from_bytes(found.value[8:10], "big") <= port <= int.from_bytes(found.end[8:10], "big")
