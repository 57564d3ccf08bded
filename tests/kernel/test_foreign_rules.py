"""Tables of others as they are read: what nft was told comes back as what may happen to a packet."""

import errno
import subprocess

import pytest

from sealane.explain.foreign.judge import Sight, judge
from sealane.explain.foreign.rules import ForeignRules, Load
from sealane.linux import foreign_rules as module
from sealane.linux.foreign_rules import TranslatingRules, foreign_rules
from sealane.linux.netlink.socket import NETLINK_NETFILTER, NetlinkError, Socket
from sealane.linux.netns import in_new_namespace

pytestmark = pytest.mark.kernel

PACKET = {
    ("meta", (16,)): (6,),
    ("meta", (15,)): (2,),
    ("meta", (6,)): tuple(b"eth0".ljust(16, b"\0")),
    ("ct", (0,)): (8, 0, 0, 0),
}
"""TCP from 10.1.0.2 to 10.1.0.3, port 80, in by eth0, new."""
TABLE = """table ip t {{
{sets}
chain sub {{ }}
chain c {{
    type filter hook forward priority 0;
    {rule}
}}
}}
"""


HEADERS = {1: dict(enumerate((10, 1, 0, 2, 10, 1, 0, 3), 12)), 2: {2: 0, 3: 80}}
"""Octets that are known, by header and place."""


def load(asked: Load) -> tuple[int | None, ...]:
    if asked.kind == "payload":
        base, offset, size = asked.of
        return tuple(HEADERS.get(base, {}).get(place) for place in range(offset, offset + size))
    return PACKET.get((asked.kind, asked.of), ())


def read(text: str) -> ForeignRules:
    """What is read of a fresh namespace that nft was told this in."""

    def inside() -> ForeignRules:
        subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)
        with Socket(NETLINK_NETFILTER) as socket:
            return foreign_rules(socket, {"lo": 1})

    return in_new_namespace(inside)


def outcome(text: str) -> str:
    (pair,) = read(text).at("ip", "forward")
    found = judge(*pair, Sight(load, 0))
    if found.is_certain_drop:
        return "drops"
    return "doubt" if found.doubts or found.translations else "accepts"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("", "accepts"),
        ("drop", "drops"),
        ("reject", "drops"),
        ("counter log", "accepts"),
        ("tcp dport 80 drop", "drops"),
        ("tcp dport != 80 drop", "accepts"),
        ("tcp dport 70-90 drop", "drops"),
        ("tcp dport { 22, 80, 443 } drop", "drops"),
        ("tcp dport { 22, 8000-9000 } drop", "accepts"),
        ("tcp dport != { 22, 70-90 } drop", "accepts"),
        ("udp dport 80 drop", "accepts"),
        ("ip saddr 10.1.0.0/16 drop", "drops"),
        ("ip saddr 10.1.0.0/30 drop", "drops"),
        ("ip saddr != 10.0.0.0/8 drop", "accepts"),
        ("ip saddr . tcp dport { 10.1.0.2 . 80 } drop", "drops"),
        ("ip saddr . tcp dport { 10.1.0.0/24 . 70-90 } drop", "drops"),
        ("ip saddr . tcp dport { 10.1.0.0/24 . 90-99 } drop", "accepts"),
        ("iifname eth0 drop", "drops"),
        ('iifname "eth*" drop', "drops"),
        ('iifname "br*" drop', "accepts"),
        ("ct state new drop", "drops"),
        ("ct state established,related drop", "accepts"),
        ("ct state vmap { established : accept, new : drop }", "drops"),
        ("meta l4proto vmap { tcp : jump sub, udp : drop }", "accepts"),
        ("tcp dport vmap { 70-90 : drop }", "drops"),
        ("meta mark set 7 meta mark 7 drop", "drops"),
        ("meta mark and 0x10 == 0x10 drop", "accepts"),
        ("ip ttl 1 drop", "doubt"),
        ("tcp sport 1024-65535 drop", "doubt"),
        ("meta skuid 0 drop", "doubt"),
        ("limit rate 1/second drop", "doubt"),
        ("ip saddr @grows drop", "doubt"),
        ("ip saddr @ends drop", "doubt"),
        ("ip saddr @fixed drop", "drops"),
        ("numgen random mod 2 0 drop", "doubt"),
        ("notrack", "doubt"),
        ("ip ttl set 1", "doubt"),
        ("meta priority set 1:2", "accepts"),
        ("ct mark set 1", "accepts"),
        ("tcp option maxseg size set 1200", "doubt"),
    ],
)  # fmt: skip
def test_a_rule_is_read_as_it_was_told(rule: str, expected: str) -> None:
    sets = (
        "set grows { type ipv4_addr; flags dynamic; size 9; }\n"
        "set ends { type ipv4_addr; flags timeout; }\n"
        "set fixed { type ipv4_addr; elements = { 10.1.0.2 } }"
    )
    assert outcome(TABLE.format(sets=sets, rule=rule)) == expected


def test_ours_and_tables_that_sleep_are_not_read() -> None:
    chain = "{ chain c { type filter hook forward priority 0; drop; }\n}"
    assert read(f"table ip sealane {chain}").tables == ()
    assert (
        read("table ip t { flags dormant; chain c { type filter hook forward priority 0; drop; }\n}").tables
        == ()
    )
    assert read(f"table inet sealane {chain}").tables != (), "that family is not ours"


def test_a_table_without_a_base_chain_is_not_read() -> None:
    assert read("table ip t { chain c { drop; }\n}").tables == ()


def test_what_only_filters_is_not_among_what_may_translate() -> None:
    def inside() -> list[str]:
        text = (
            "table ip a { chain c { type filter hook forward priority 0; drop; }\n}\n"
            "table ip b { chain c { type nat hook prerouting priority 0; dnat to 10.1.0.9; }\n}\n"
        )
        subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)
        cache, found = TranslatingRules(), []
        with Socket(NETLINK_NETFILTER) as socket:
            found.append(cache.read(socket, {}))
            found.append(cache.read(socket, {}))
            subprocess.run(["nft", "delete", "table", "ip", "b"], check=True)
            found.append(cache.read(socket, {}))
        return [" ".join(table.name for table in rules.tables) for rules in found]

    assert in_new_namespace(inside) == ["b", "b", ""]


def test_a_kernel_without_nf_tables_has_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the subsystem's absence looks like: EINVAL to any of its messages (nfnetlink_rcv_msg)."""

    def refuse(_: Socket) -> bytes:
        raise NetlinkError(errno.EINVAL)

    monkeypatch.setattr(module, "generation", refuse)
    with Socket(NETLINK_NETFILTER) as socket:
        assert foreign_rules(socket, {}).tables == ()
        assert TranslatingRules().read(socket, {}).tables == ()


def test_another_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Socket) -> bytes:
        raise NetlinkError(errno.EPERM)

    monkeypatch.setattr(module, "generation", refuse)
    with Socket(NETLINK_NETFILTER) as socket, pytest.raises(NetlinkError):
        foreign_rules(socket, {})
