"""link, inet, neigh: what is asked of the kernel reads back as the record it came from."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.kernel.links import Bridge, Veth
from sealane.kernel.objects import (
    GROUP_DOOMED,
    GROUP_LIVE,
    RTPROT_SEALANE,
    Address,
    BridgePort,
    FdbEntry,
    Link,
    Neighbour,
    Route,
)
from sealane.linux.netlink import codec, inet, link, neigh

IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str)
IPS = st.one_of(IPV4, IPV6)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
PORTS = st.builds(
    BridgePort, isolated=st.booleans(), learning=st.booleans(), flood=st.booleans(), guard=st.booleans()
)


def body(message):
    ((kind, flags, _, payload),) = codec.messages(memoryview(message))
    return kind, flags, payload


@given(IPS, st.integers(0, 32), st.integers(1, 2**31 - 1))
def test_addresses_come_back(host, length, index):
    item = Address(link="x", address=f"{host}/{length}")
    kind, flags, payload = body(inet.create_address(item, index))
    assert (kind, flags & codec.NLM_F_EXCL) == (inet.RTM_NEWADDR, codec.NLM_F_EXCL)
    assert inet.parse_address(payload) == inet.RawAddress(index, item.address)
    kind, flags, payload = body(inet.delete_address(item, index))
    assert (kind, flags & codec.NLM_F_CREATE) == (inet.RTM_DELADDR, 0)
    assert inet.parse_address(payload) == inet.RawAddress(index, item.address)


def test_ipv6_addresses_skip_duplicate_detection_and_ipv4_ones_have_no_flags():
    _, _, six = body(inet.create_address(Address(link="x", address="fd00::1/64"), 3))
    assert bytes(codec.attrs(six[8:])[8]) == struct.pack("=I", 2)
    _, _, four = body(inet.create_address(Address(link="x", address="10.0.0.1/24"), 3))
    assert 8 not in codec.attrs(four[8:])


@given(
    st.sampled_from(["10.1.0.0/24", "0.0.0.0/0", "fd00::/64", "::/0", "10.1.2.3/32", "fd00::1/128"]),
    st.integers(0, 2**31),
    st.integers(0, 2**32 - 1).filter(lambda metric: metric != 1024),
    st.integers(1, 2**32 - 1),
    st.booleans(),
    st.booleans(),
)
def test_routes_come_back(dst, index, metric, table, onlink, gateway):
    six = ":" in dst
    item = Route(
        dst=dst,
        link="x",
        metric=metric,
        table=table,
        onlink=onlink,
        gateway=("fd00::9" if six else "10.1.0.9") if gateway else "",
        src="fd00::8" if six else "10.1.0.8",
    )
    _, _, payload = body(inet.create_route(item, index))
    assert inet.parse_route(payload) == inet.RawRoute(
        dst=dst,
        table=table,
        protocol=RTPROT_SEALANE,
        type=inet.RTN_UNICAST,
        index=index,
        gateway=item.gateway,
        src=item.src,
        metric=metric,
        onlink=onlink,
    )


def test_route_verbs_differ_in_what_they_may_overwrite():
    item = Route(dst="10.0.0.0/8", link="x")
    _, create, _ = body(inet.create_route(item, 1))
    _, replace, _ = body(inet.replace_route(item, 1))
    assert (create & codec.NLM_F_EXCL, create & codec.NLM_F_REPLACE) == (codec.NLM_F_EXCL, 0)
    assert (replace & codec.NLM_F_EXCL, replace & codec.NLM_F_REPLACE) == (0, codec.NLM_F_REPLACE)


def test_a_deletion_names_our_protocol_and_any_scope():
    _, _, payload = body(inet.delete_route(Route(dst="10.0.0.0/8", link="x"), 1))
    assert (payload[5], payload[6]) == (RTPROT_SEALANE, 255)


@pytest.mark.parametrize(("dst", "metric"), [("10.0.0.0/8", 0), ("fd00::/8", 1024)])
def test_the_default_metric_is_named_in_each_family_and_reads_back_as_zero(dst, metric):
    _, _, payload = body(inet.create_route(Route(dst=dst, link="x"), 1))
    assert bytes(codec.attrs(payload[12:])[6]) == struct.pack("=I", metric)
    assert inet.parse_route(payload).metric == 0


def test_a_multipath_route_reads_as_over_its_first_link():
    hop = struct.pack("=HBBi", 8, 0, 0, 7) + struct.pack("=HBBi", 8, 0, 0, 9)
    header = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 0, 1, 0)
    payload = memoryview(header + codec.attr(1, bytes((10, 0, 0, 0))) + codec.attr(9, hop))
    assert inet.parse_route(payload).index == 7


@pytest.mark.parametrize("text", ["::1.2.3.4", "::ffff:1.2.3.4", "::102:304", "fd00::1", "::"])
def test_addresses_are_written_as_our_canon_writes_them(text):
    import ipaddress

    packed = ipaddress.IPv6Address(text).packed
    assert inet.unpack_address(inet.AF_INET6, memoryview(packed)) == str(ipaddress.IPv6Address(text))


@given(st.binary(max_size=40))
def test_an_address_of_another_length_is_no_address(data):
    for family, size in ((inet.AF_INET, 4), (inet.AF_INET6, 16)):
        assert (inet.unpack_address(family, memoryview(data)) == "") == (len(data) != size)


@given(IPS, st.one_of(st.just(""), MACS), st.integers(1, 2**31 - 1))
def test_neighbours_and_proxies_come_back(address, mac, index):
    _, _, payload = body(neigh.put(Neighbour(link="x", address=address, mac=mac), index))
    found = neigh.parse(payload)
    assert (found.index, found.address, found.mac) == (index, address, mac)
    assert (found.state, found.flags) == ((neigh.NUD_PERMANENT, 0) if mac else (0, neigh.NTF_PROXY))
    assert neigh.parse_head(payload) == (index, found.state, found.flags)


@given(MACS, st.integers(1, 2**31 - 1), st.booleans())
def test_fdb_entries_come_back_static_or_the_bridges_own(mac, index, is_own):
    for message in (neigh.put_fdb, neigh.delete_fdb):
        _, _, payload = body(message(FdbEntry(link="x", mac=mac, is_own=is_own), index))
        found = neigh.parse(payload)
        assert (found.family, found.index, found.mac) == (neigh.AF_BRIDGE, index, mac)
        own, ports = (neigh.NUD_PERMANENT, neigh.NTF_SELF), (neigh.NUD_NOARP, neigh.NTF_MASTER)
        assert (found.state, found.flags) == (own if is_own else ports)
        assert not found.is_tagged


def test_a_bridge_is_made_without_spanning_tree_and_snooping():
    item = Link(name="b0", kind=Bridge(ageing_off=True), mtu=1400, mac="02:00:00:00:00:01", alias="a")
    kind, flags, payload = body(link.create(item, 77, 0))
    assert (kind, flags & codec.NLM_F_EXCL) == (link.RTM_NEWLINK, codec.NLM_F_EXCL)
    found = link.parse(payload)
    # Its MTU comes with its settings: one that it is made with goes with its last port.
    assert (found.index, found.name, found.mtu, found.mac) == (77, "b0", 0, "02:00:00:00:00:01")
    assert link.parse(body(link.settings(item, 77))[2]).mtu == 1400
    assert (found.kind, found.group) == (Bridge(ageing_off=True), GROUP_LIVE)
    data = codec.attrs(codec.attrs(codec.attrs(payload[16:])[18])[2])
    assert bytes(data[5]) == bytes(4)
    assert bytes(data[23]) == b"\0"


def test_a_veth_is_made_with_both_ends_in_one_message():
    item = Link(name="h0", kind=Veth(), mtu=1400, mac="02:00:00:00:00:01", master="b0", port=BridgePort())
    peer = Link(name="eth0", kind=Veth(), mtu=1400, mac="02:00:00:00:00:02")
    _, _, payload = body(link.create_veth(item, 10, 5, peer, 11, 42))
    found = link.parse(payload)
    assert (found.index, found.name, found.master, found.kind) == (10, "h0", 5, Veth())
    inner = codec.attrs(codec.attrs(codec.attrs(payload[16:])[18])[2])[1]
    other = link.parse(inner)
    assert (other.index, other.name, other.mac, other.mtu) == (11, "eth0", "02:00:00:00:00:02", 1400)
    assert bytes(codec.attrs(inner[16:])[28]) == struct.pack("=I", 42)


@given(PORTS, st.booleans(), st.sampled_from([0, 68, 1279, 1280, 1500]))
def test_settings_carry_what_creation_does_not_take(port, quiet, mtu):
    item = Link(name="h0", kind=Veth(), mtu=mtu, alias="sealane/x/e/1", port=port, addr_gen_none=quiet)
    found = link.parse(body(link.settings(item, 9))[2])
    assert (found.index, found.alias, found.port) == (9, "sealane/x/e/1", port)
    # Below 1280 a link has no IPv6 to set anything of.
    assert found.addr_gen_none == (True if quiet and mtu not in {68, 1279} else None)


def test_a_link_that_needs_no_settings_needs_no_message():
    assert link.settings(Link(name="h0", kind=Veth()), 9) is None


def test_a_kernel_without_ipv6_is_told_nothing_of_it():
    """It would refuse the whole message (EAFNOSUPPORT)."""
    item = Link(name="h0", kind=Veth(), addr_gen_none=True)
    assert link.settings(item, 9, ipv6=False) is None
    (only,) = (body(m)[2] for m in link.change(item, 9, 0, mac=False, moves=False, up=None, ipv6=False))
    assert link.parse(only).addr_gen_none is None


def test_a_port_that_moves_is_down_from_before_until_it_is_set():
    item = Link(
        name="h0", kind=Veth(), mtu=1400, mac="02:00:00:00:00:01", master="b1", port=BridgePort(isolated=True)
    )
    first, second = (body(m)[2] for m in link.change(item, 9, 6, mac=True, moves=True, up=True))
    assert (link.parse(first).master, first[8] & 1, first[12] & 1) == (6, 0, 1)
    assert (link.parse(second).port, second[8] & 1, second[12] & 1) == (BridgePort(isolated=True), 1, 1)


def test_a_change_in_place_leaves_up_and_mac_alone_unless_told():
    item = Link(name="h0", kind=Veth(), mtu=1400, mac="02:00:00:00:00:01", alias="a")
    (only,) = (body(m)[2] for m in link.change(item, 9, 0, mac=False, moves=False, up=None))
    found = link.parse(only)
    assert (found.mac, found.mtu, found.alias, found.group) == ("", 1400, "a", GROUP_LIVE)
    assert not only[12] & link.IFF_UP
    (down,) = (body(m)[2] for m in link.change(item, 9, 0, mac=True, moves=False, up=False))
    assert (link.parse(down).mac, down[8] & 1, down[12] & 1) == (item.mac, 0, 1)


def test_deletion_by_group_names_nothing_but_the_group():
    _, _, payload = body(link.delete_doomed())
    assert {k: bytes(v) for k, v in codec.attrs(payload[16:]).items()} == {
        27: struct.pack("=I", GROUP_DOOMED)
    }
    assert link.parse(body(link.doom(9))[2]).group == GROUP_DOOMED


def test_the_bridges_own_message_about_a_port_has_its_settings():
    port = BridgePort(isolated=True, learning=True)
    data = b"".join(
        codec.u8(kind, value) for kind, value in ((33, 1), (8, 1), (9, 0), (5, 1), (27, 1), (30, 1))
    )
    payload = struct.pack("=BxHiII", 7, 1, 9, 0, 0) + codec.string(3, "h0") + codec.nested(12, data)
    assert link.parse(memoryview(payload)).port == port


@given(st.binary(min_size=16, max_size=300))
def test_no_attributes_make_a_link_raise(data):
    found = link.parse(memoryview(data))
    assert link.parse_name(memoryview(data))[0] == found.index


@given(st.binary(min_size=12, max_size=200))
def test_no_attributes_make_addresses_routes_or_neighbours_raise(data):
    payload = memoryview(data)
    assert isinstance(inet.parse_address(payload).address, str)
    assert isinstance(inet.parse_route(payload).gateway, str)
    assert isinstance(neigh.parse(payload).mac, str)
