"""In which families somebody else's rules may judge what passes between two links: there the fast path stays closed. And in
which they may translate where it goes: there the answers have to be tracked (`compile.network`).

Judges are base chains at a hook that such packets pass, with a rule or a policy to drop. Not counted are chains of NAT,
which untracked packets never meet (nf_nat_inet_fn, net/netfilter/nf_nat_core.c), and those at `input` and `output`.
Translators are chains of NAT at `prerouting` with a rule, whatever it does. Of iptables-legacy only the names of tables
can be read, so that a table counts.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, get_args

from sealane.compile.names import LINK_PREFIXES
from sealane.kernel.nft import TABLE, NftFamily
from sealane.linux.marks import TRACE_TABLES
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.socket import Socket

_ALL: tuple[NftFamily, ...] = get_args(NftFamily)
_FAMILIES: dict[int, tuple[NftFamily, ...]] = {
    1: ("ip", "ip6"),  # inet
    2: ("ip",),
    5: _ALL,  # netdev: at a link, before any of them
    7: ("bridge",),
    10: ("ip6",),
}
"""By NFPROTO_* (linux/netfilter.h)."""
_INET, _NETDEV = 1, 5
_INGRESS_OF_INET = 5
_PREROUTING = 0
_PASSED = frozenset({_PREROUTING, 2, 4})
"""prerouting, forward, postrouting"""
LEGACY: dict[NftFamily, str] = {
    "ip": "/proc/thread-self/net/ip_tables_names",
    "ip6": "/proc/thread-self/net/ip6_tables_names",
}
"""Where iptables-legacy's tables are named."""
_LEGACY_BYTES = 4096
_CHAIN_TABLE, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE = 1, 4, 5, 6, 7
_HOOK_NUMBER, _HOOK_DEVICE, _HOOK_DEVICES = 1, 3, 4


class Firewalls(NamedTuple):
    judges: tuple[NftFamily, ...]
    translators: tuple[NftFamily, ...]


def firewalls(socket: Socket) -> Firewalls:
    """Families of the namespace that `socket` and this thread are in. Raises OSError."""
    judges: set[NftFamily] = set()
    translators: set[NftFamily] = set()
    for family, tables in _legacy():
        if tables - {"nat"}:
            judges.add(family)
        if "nat" in tables:
            translators.add(family)
    for _, payload in socket.dump(nfnl.dump_every(nfnl.GETCHAIN)):
        chain = codec.attrs(payload[nfnl.HEADER_BYTES :])
        if _CHAIN_HOOK not in chain or not is_foreign(payload, chain):
            continue
        if _judges(payload[0], chain):
            judges.update(_FAMILIES[payload[0]])
        if _translates(payload[0], chain):
            translators.update(_FAMILIES[payload[0]])
    return Firewalls(*(tuple(f for f in _ALL if f in found) for found in (judges, translators)))


def may_add(payload: memoryview, kind: int) -> tuple[NftFamily, ...]:
    """Of an nf_tables notification: families in which there may be more to heed now."""
    found = codec.attrs(payload[nfnl.HEADER_BYTES :])
    is_more = kind == nfnl.NEWRULE or (kind == nfnl.NEWCHAIN and _CHAIN_HOOK in found)
    return _FAMILIES.get(payload[0], ()) if is_more and is_foreign(payload, found) else ()


def is_foreign(payload: memoryview, found: dict[int, memoryview]) -> bool:
    """Whether the table, attribute 1 of every chain and rule, is not ours; those are ours, too, that a trace has for a while
    (`linux.tracing.rules`)."""
    name = codec.text(found[_CHAIN_TABLE])
    return payload[0] in _FAMILIES and name != TABLE and not name.startswith(TRACE_TABLES)


def _judges(family: int, chain: dict[int, memoryview]) -> bool:
    hook = codec.attrs(chain[_CHAIN_HOOK])
    number = nfnl.number(hook.get(_HOOK_NUMBER))
    if family == _NETDEV or (family == _INET and number == _INGRESS_OF_INET):
        if not any(name.startswith(LINK_PREFIXES) for name in _devices(hook)):
            return False
    elif number not in _PASSED or _is_nat(chain):
        return False
    drops = _CHAIN_POLICY in chain and nfnl.number(chain[_CHAIN_POLICY]) != nfnl.POLICY_ACCEPT
    return drops or _has_rules(chain)


def _translates(family: int, chain: dict[int, memoryview]) -> bool:
    is_before_routing = nfnl.number(codec.attrs(chain[_CHAIN_HOOK]).get(_HOOK_NUMBER)) == _PREROUTING
    return family != _NETDEV and is_before_routing and _is_nat(chain) and _has_rules(chain)


def _is_nat(chain: dict[int, memoryview]) -> bool:
    return codec.text(chain.get(_CHAIN_TYPE, memoryview(b""))) == "nat"


def _has_rules(chain: dict[int, memoryview]) -> bool:
    # A base chain is referred to by its rules alone: nothing can jump to it.
    return nfnl.number(chain.get(_CHAIN_USE)) > 0


def _devices(hook: dict[int, memoryview]) -> Iterator[str]:
    if _HOOK_DEVICE in hook:
        yield codec.text(hook[_HOOK_DEVICE])
    for _, name in codec.attr_list(hook.get(_HOOK_DEVICES, memoryview(b""))):
        yield codec.text(name)


def _legacy() -> Iterator[tuple[NftFamily, set[str]]]:
    for family, path in LEGACY.items():
        with suppress(OSError), open(path, encoding="ascii") as file:
            yield family, set(file.read(_LEGACY_BYTES).split())
