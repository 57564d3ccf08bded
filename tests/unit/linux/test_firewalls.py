"""Which chains of others count, as the kernel tells of them (nf_tables_fill_chain_info)."""

import struct
from typing import Any

import pytest

from sealane.linux import firewalls as module
from sealane.linux.firewalls import firewalls, may_add
from sealane.linux.netlink import nfnl
from sealane.linux.netlink.codec import be32, nested, string

INET, IP, NETDEV, BRIDGE, IP6 = 1, 2, 5, 7, 10
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING, INGRESS = range(6)
ALL = ("ip", "ip6", "bridge")


def chain(
    family: int = IP,
    hook: int | None = FORWARD,
    *,
    table: str = "others",
    kind: str = "filter",
    policy: int | None = 1,
    use: int = 1,
    device: str = "",
    devices: tuple[str, ...] = (),
) -> memoryview:
    body = string(1, table) + string(3, "c")
    if hook is not None:
        inner = [be32(1, hook), be32(2, 0)]
        inner += [string(3, device)] if device else []
        inner += [nested(4, *(string(1, name) for name in devices))] if devices else []
        body += nested(4, *inner)
    if policy is not None:
        body += be32(5, policy)
    return memoryview(struct.pack(">BBH", family, 0, 0) + body + be32(6, use) + string(7, kind))


class Kernel:
    """A socket that answers one dump."""

    def __init__(self, *chains: memoryview) -> None:
        self._chains = chains

    def dump(self, message: bytes) -> list[tuple[int, memoryview]]:
        assert message[4] == nfnl.GETCHAIN
        return [(nfnl.NEWCHAIN, item) for item in self._chains]


@pytest.fixture(autouse=True)
def no_legacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEGACY", {})


def found(*chains: memoryview) -> tuple[str, ...]:
    return firewalls(Kernel(*chains)).judges  # type: ignore[arg-type]


def translated(*chains: memoryview) -> tuple[str, ...]:
    return firewalls(Kernel(*chains)).translators  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "families"), [(IP, ("ip",)), (IP6, ("ip6",)), (BRIDGE, ("bridge",)), (INET, ("ip", "ip6"))]
)
@pytest.mark.parametrize("hook", [PREROUTING, FORWARD, POSTROUTING])
def test_a_chain_with_rules_where_packets_pass_counts(family: int, families: tuple, hook: int) -> None:
    assert found(chain(family, hook)) == families


@pytest.mark.parametrize(
    "harmless",
    [
        chain(hook=INPUT),
        chain(hook=OUTPUT),
        chain(hook=None),
        chain(use=0),
        chain(kind="nat"),
        chain(table="sealane"),
        chain(BRIDGE, table="sealane"),
        chain(table="sealane-trace-4711"),
        chain(NETDEV, 0, device="eth0"),
        chain(NETDEV, 0, devices=("eth0", "lo")),
        chain(INET, INGRESS, device="eth0"),
        chain(99),
    ],
)
def test_what_no_such_packet_meets_does_not(harmless: memoryview) -> None:
    assert found(harmless) == ()
    assert found(harmless, chain(IP6)) == ("ip6",)


@pytest.mark.parametrize("policy", [0, None])
def test_an_empty_chain_counts_if_it_drops(policy: int | None) -> None:
    assert found(chain(policy=policy, use=0)) == (("ip",) if policy == 0 else ())


@pytest.mark.parametrize(
    "at_link",
    [
        chain(NETDEV, 0, device="sle0123"),
        chain(NETDEV, 1, devices=("eth0", "slb0123")),
        chain(INET, INGRESS, device="sle0123"),
    ],
)
def test_a_chain_at_a_link_of_ours_counts(at_link: memoryview) -> None:
    assert found(at_link) == (ALL if at_link[0] == NETDEV else ("ip", "ip6"))


def test_several_are_told_in_one_order() -> None:
    assert found(chain(BRIDGE), chain(IP6), chain(IP)) == ALL


@pytest.mark.parametrize(("family", "families"), [(IP, ("ip",)), (IP6, ("ip6",)), (INET, ("ip", "ip6"))])
def test_a_chain_of_nat_before_routing_may_translate(family: int, families: tuple) -> None:
    assert translated(chain(family, PREROUTING, kind="nat")) == families
    assert found(chain(family, PREROUTING, kind="nat")) == ()


@pytest.mark.parametrize(
    "other",
    [
        chain(hook=PREROUTING),
        chain(hook=OUTPUT, kind="nat"),
        chain(hook=POSTROUTING, kind="nat"),
        chain(hook=None, kind="nat"),
        chain(hook=PREROUTING, kind="nat", use=0),
        chain(hook=PREROUTING, kind="nat", table="sealane"),
        chain(NETDEV, 0, device="sle0123"),
    ],
)
def test_no_other_does(other: memoryview) -> None:
    assert translated(other) == ()
    assert translated(other, chain(IP6, PREROUTING, kind="nat")) == ("ip6",)


@pytest.mark.parametrize(
    ("text", "families", "translating"),
    [
        ("", (), ()),
        ("nat\n", (), ("ip",)),
        ("nat\nfilter\n", ("ip",), ("ip",)),
        ("mangle\n", ("ip",), ()),
    ],
)
def test_tables_of_iptables_legacy_count_by_their_names(
    text: str, families: tuple, translating: tuple, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "names"
    names.write_text(text)
    monkeypatch.setattr(module, "LEGACY", {"ip": str(names), "ip6": str(tmp_path / "none")})
    assert found() == families
    assert translated() == translating


@pytest.mark.parametrize(
    ("kind", "payload", "families"),
    [
        (nfnl.NEWCHAIN, chain(), ("ip",)),
        (nfnl.NEWCHAIN, chain(hook=None), ()),
        (nfnl.DELCHAIN, chain(), ()),
        (nfnl.NEWRULE, chain(hook=None), ("ip",)),
        (nfnl.NEWRULE, chain(INET, hook=None), ("ip", "ip6")),
        (nfnl.NEWRULE, chain(table="sealane"), ()),
        (nfnl.DELRULE, chain(hook=None), ()),
        (nfnl.NEWRULE, chain(3), ()),
    ],
)
def test_what_is_new_is_worth_a_look(kind: int, payload: memoryview, families: tuple) -> None:
    assert may_add(payload, kind) == families
