"""`apply_nft` and `observe_nft` on the real kernel: what is applied is there, and is read back."""

import errno

import pytest

from kernel.nft_support import (
    BACKEND,
    BOX,
    FORWARD,
    IP,
    PORT,
    a_set,
    as_observed,
    chain_handle,
    create,
    delete,
    element,
    everything,
    fresh_socket,
    generation,
    nft,
    observed,
    operations,
    rule,
    with_table,
)
from sealane.kernel.nft import (
    ACCEPT,
    DROP,
    IP_SADDR,
    Chain,
    Element,
    Lookup,
    Table,
    Verdict,
    concat,
    field,
)
from sealane.linux.netlink import nfnl
from sealane.linux.netlink.socket import NetlinkError
from sealane.linux.nft import ATTEMPTS, apply_nft, observe_nft

pytestmark = pytest.mark.kernel


@pytest.fixture
def socket():
    with fresh_socket() as found:
        yield found


# --- reading back ---------------------------------------------------------------------------------------------------


def test_an_empty_namespace_holds_nothing_of_ours(socket):
    assert observe_nft(socket) == []


def test_only_our_tables_of_our_families_are_read(socket):
    nft(
        "-f",
        "-",
        text="table ip other { set s { type ipv4_addr; elements = { 10.0.0.1 } }\n }\ntable inet sealane { }",
    )
    create(socket, with_table("ip6"))
    assert observe_nft(socket) == [Table(family="ip6")]


SPANS = {
    a_set("ipv4_addr", interval=True): [
        ("0.0.0.0", "0.0.0.0"),
        ("0.0.0.1", "0.0.0.1"),  # Begins where the one before has ended.
        ("10.0.0.0", "10.0.0.255"),
        ("10.0.2.0", "10.0.2.5"),
        ("255.255.255.254", "255.255.255.255"),  # Nothing is left behind it.
    ],
    a_set("ipv4_addr", interval=True, name="whole"): [("0.0.0.0", "255.255.255.255")],
    a_set("inet_service", interval=True, name="ports"): [(0, 0), (1, 1023), (65535, 65535)],
    a_set("inet_service", interval=True, name="all-ports"): [(0, 65535)],
    a_set("ipv6_addr", interval=True, family="ip6"): [
        ("::", "::"),
        ("fd00::", "fd00::ffff:ffff:ffff:ffff"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
    a_set("ipv4_addr", data=("ipv4_addr",), interval=True, name="to"): [
        ("10.0.0.0", "10.0.0.255"),
        ("10.0.1.0", "10.0.1.0"),
    ],
}


@pytest.mark.parametrize("owner", SPANS, ids=lambda owner: f"{owner.family}-{owner.name}")
def test_ranges_are_read_back_with_their_edges(socket, owner):
    data = field("ipv4_addr", "10.9.9.9") if owner.data else b""
    items = [element(owner, low, ends=(high,), data=data) for low, high in SPANS[owner]]
    objects = with_table(owner.family, owner, *items)
    create(socket, objects)
    assert observed(socket) == as_observed(objects)
    assert delete(socket, items) == []
    assert observed(socket) == as_observed(objects[:2])


@pytest.mark.parametrize("gone", range(5))
def test_a_range_goes_without_its_neighbours(socket, gone):
    owner, spans = next(iter(SPANS.items()))
    items = [element(owner, low, ends=(high,)) for low, high in spans]
    create(socket, with_table(IP, owner, *items))
    assert delete(socket, [items.pop(gone)]) == []
    assert observed(socket) == as_observed(with_table(IP, owner, *items))


def test_boxes_are_read_back_with_their_corners(socket):
    owner = a_set(*BOX, interval=True)
    corners = [
        (("0.0.0.0", 6, 0), ("255.255.255.255", 6, 65535)),
        (("10.0.0.0", 17, 53), ("10.0.0.255", 17, 53)),
        (("10.0.1.1", 17, 1), ("10.0.1.1", 17, 9)),
        (("255.255.255.255", 255, 65535), ("255.255.255.255", 255, 65535)),
    ]
    items = [element(owner, *low, ends=high) for low, high in corners]
    create(socket, with_table(IP, owner, *items))
    assert observed(socket) == as_observed(with_table(IP, owner, *items))
    assert delete(socket, [items.pop(1)]) == []
    assert observed(socket) == as_observed(with_table(IP, owner, *items))


def test_values_of_sixteen_bytes_are_one_address_or_four_fields_as_their_set_says(socket):
    """Added later, without their sets at hand, when only the kernel knows."""
    single = a_set("ipv6_addr", interval=True, family="ip6", name="one")
    many = a_set("ipv4_addr", "ipv4_addr", *PORT, interval=True, name="four")
    create(socket, [*with_table("ip6", single), *with_table(IP, many)])
    items = [
        element(single, "fd00::", ends=("fd00::ff",)),
        element(many, "10.0.0.0", "10.1.0.0", 6, 80, ends=("10.0.0.9", "10.1.0.9", 6, 90)),
    ]
    create(socket, items)
    assert observed(socket) == as_observed([*with_table("ip6", single), *with_table(IP, many), *items])
    assert delete(socket, items) == []
    assert not [item for item in observe_nft(socket) if isinstance(item, Element)]


def test_verdict_maps_are_read_back_with_their_chains(socket):
    owner = a_set("ifname", data=("verdict",))
    verdicts = [ACCEPT, DROP, Verdict("return"), Verdict("jump", "a"), Verdict("goto", "b")]
    items = [element(owner, f"eth{n}", data=verdict) for n, verdict in enumerate(verdicts)]
    chains = [Chain(family=IP, name="a"), Chain(family=IP, name="b")]
    create(socket, with_table(IP, owner, *chains, *items))
    assert observed(socket) == as_observed(with_table(IP, owner, *chains, *items))


def test_tags_are_read_in_the_order_of_the_rules(socket):
    rules = tuple(rule(Lookup(IP_SADDR, "s", negate=n % 2 == 1), DROP, comment=f"n:{n}") for n in range(300))
    objects = with_table(IP, a_set("ipv4_addr"), Chain(family=IP, name="c", rules=rules, hook=FORWARD))
    create(socket, objects)
    assert observed(socket) == as_observed(objects)


# --- applying -------------------------------------------------------------------------------------------------------


def test_creating_twice_is_creating_once(socket):
    create(socket, everything())
    once = nft("-a", "list", "chain", "ip", "sealane", "base").split("\n", 3)[:3]
    create(socket, everything())
    assert observed(socket) == as_observed(everything())
    assert nft("-a", "list", "chain", "ip", "sealane", "base").split("\n", 3)[:3] == once


@pytest.mark.parametrize("verb", ["create", "change"])
def test_filling_a_chain_keeps_the_chain(socket, verb):
    """The same handle: it was never unhooked."""
    create(socket, everything())
    handle = chain_handle("base")
    new = Chain(family=IP, name="base", rules=(rule(ACCEPT), rule(DROP)), hook=FORWARD)
    old = as_observed(everything())[new.key]
    assert apply_nft(socket, operations(verb, [new], before=old)) == []
    assert observed(socket)[new.key] == as_observed([new])[new.key]
    assert chain_handle("base") == handle


def test_changing_an_element_changes_its_data(socket):
    owner = a_set(*PORT, data=BACKEND)
    old = element(owner, 6, 80, data=concat(BACKEND, ("10.1.0.2", 80)))
    new = element(owner, 6, 80, data=concat(BACKEND, ("10.1.0.3", 81)))
    create(socket, with_table(IP, owner, old))
    assert apply_nft(socket, operations("change", [new], before=old)) == []
    assert observed(socket) == as_observed(with_table(IP, owner, new))


def test_changing_a_range_changes_its_data(socket):
    owner = a_set("ipv4_addr", data=("ipv4_addr",), interval=True)
    old, new = (
        element(owner, "10.0.0.0", ends=("10.0.0.9",), data=field("ipv4_addr", value))
        for value in ("10.1.0.1", "10.1.0.2")
    )
    create(socket, with_table(IP, owner, old))
    assert apply_nft(socket, operations("change", [new], before=old)) == []
    assert observed(socket) == as_observed(with_table(IP, owner, new))


@pytest.mark.parametrize("spare_the_table", [True, False])
def test_everything_goes_in_one_transaction(socket, spare_the_table):
    create(socket, everything())
    before = generation(socket)
    assert delete(socket, observe_nft(socket)[spare_the_table:]) == []
    assert observe_nft(socket) == ([Table(family=IP)] if spare_the_table else [])
    assert generation(socket) == before + 1


@pytest.mark.parametrize("left", ["everything", "the table", "nothing"])
def test_deleting_what_is_gone_succeeds(socket, left):
    create(socket, everything())
    gone = observe_nft(socket)
    if left != "everything":
        delete(socket, gone[left == "the table" :])
    for item in gone[::-1] if left != "everything" else ():
        assert delete(socket, [item]) == []
    assert delete(socket, gone) == []
    assert delete(socket, gone[1:]) == []
    assert observe_nft(socket) == []


class OldKernel:
    """The kernel as before 6.3, which does not know NFT_MSG_DESTROY*. What it knows is done by the real one."""

    def __init__(self, socket):
        self._socket = socket
        self.transactions = 0

    def dump(self, message):
        return self._socket.dump(message)

    def batch(self, messages):
        self.transactions += 1
        errors = [NetlinkError(errno.EINVAL) if nfnl.is_destroy(message) else None for message in messages]
        return errors if any(errors) else self._socket.batch(messages)


def test_kernels_without_destroy_are_served_by_asking_again(socket):
    """Of what is to go half is gone already: table by table, set by set, element by element."""
    old = OldKernel(socket)
    assert apply_nft(old, operations("create", everything())) == []
    owner = a_set("ipv4_addr", name="more")
    items = [element(owner, f"10.0.0.{n}") for n in range(10)]
    create(socket, [owner, *items[::2]])
    assert apply_nft(old, operations("delete", items)) == []
    assert observed(socket) == as_observed([*everything(), owner])
    assert apply_nft(old, operations("delete", [*everything(), *items, *with_table("ip6")])) == []
    assert observe_nft(socket) == []
    before = old.transactions
    assert apply_nft(old, operations("delete", [*everything(), *items])) == []
    assert old.transactions - before <= ATTEMPTS


def test_nothing_to_do_is_done_without_the_kernel():
    assert apply_nft(None, []) == []
