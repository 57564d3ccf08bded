"""Kinds of links: each says itself to the kernel and reads itself back; what the kernel does not tell is not compared."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.kernel.links import Bridge, Loopback, Macvlan, OtherKind, Veth, word_of
from sealane.kernel.objects import Link
from sealane.linux.netlink import codec, kinds
from sealane.linux.netlink.kinds import macvlan
from sealane.reconcile.ownership import is_deletable, is_same

bridges = st.builds(Bridge, ageing_off=st.booleans(), stp=st.booleans(), snooping=st.booleans())
veths = st.one_of(
    st.builds(Veth, peer=st.one_of(st.none(), st.just(("box", "eth0")))),
    st.builds(Veth, handover=st.just("x")),
)
macvlans = st.builds(Macvlan, parent=st.sampled_from(["", "up0"]), mode=st.sampled_from(list(macvlan.MODES)))
made = st.one_of(bridges, veths, macvlans)


def read_back(kind):
    """What the kernel would tell of a link that was made like this."""
    info = codec.attrs(codec.attrs(memoryview(kinds.link_info(kind)))[kinds.IFLA_LINKINFO])
    data = codec.attrs(info.get(2, memoryview(b"")))
    return kinds.parse(codec.text(info[1]), data, is_loopback=False)


@given(made)
def test_a_kind_reads_back_as_it_was_said_but_for_what_is_not_read(kind) -> None:
    assert read_back(kind) == kind.as_read


@given(made, made)
def test_links_are_the_same_if_all_that_is_read_is(one, other) -> None:
    desired, observed = Link(name="x", kind=one), Link(name="x", kind=read_back(other))
    assert is_same(desired, observed) == (one.as_read == other.as_read)


@pytest.mark.parametrize("field", [f for f in Link.__struct_fields__ if f not in ("kind", "name")])
def test_every_other_field_of_a_link_is_compared(field: str) -> None:
    link = Link(name="x", kind=Bridge(), mtu=1, mac="m", alias="a", master="b", port=None)
    others = {"up": False, "arp": False, "addr_gen_none": True, "port": None, "mtu": 2, "group": 7}
    value = others.get(field, "z")
    changed = msgspec.structs.replace(link, **{field: value})
    assert is_same(link, changed) == (changed == link)
    assert field == "port" or changed != link


def test_of_loopback_only_up_is_compared() -> None:
    assert is_same(Link(name="lo", kind=Loopback()), Link(name="lo", kind=Loopback(), mtu=65536, group=0))
    assert not is_same(Link(name="lo", kind=Loopback()), Link(name="lo", kind=Loopback(), up=False))
    assert not is_deletable(Link(name="lo", kind=Loopback()))


@pytest.mark.parametrize("word", ["", "dummy", "vxlan", "bond"])
def test_a_kind_that_is_never_made_is_read_by_its_word_and_differs_from_all(word: str) -> None:
    found = kinds.parse(word, {}, is_loopback=False)
    assert found == OtherKind(name=word)
    assert word_of(found) == word
    assert not found.is_sealanes
    for kind in (Bridge(), Veth(), Macvlan()):
        assert not is_same(Link(name="x", kind=kind), Link(name="x", kind=found))


def test_a_device_of_the_loopback_type_is_loopback_whatever_its_word() -> None:
    assert kinds.parse("", {}, is_loopback=True) == Loopback()


def test_a_mode_that_is_never_set_differs_from_the_default() -> None:
    """MACVLAN_MODE_SOURCE is 16."""
    source = {1: memoryview((16).to_bytes(4, "little"))}
    assert macvlan.parse(source) != Macvlan()
