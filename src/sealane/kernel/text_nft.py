"""nftables objects in nft's own language, as `nft list` prints them and `nft -f` takes them.

Every statement stands for itself. `nft list` leaves out what it can conclude from the next statement and says
`tcp dport 80` for `meta l4proto tcp th dport 80`: which of the two a rule was made from is not to be seen in a listing,
so here stands what the kernel is given, and no two statements look alike. Each such difference is listed in `tests/kernel/nft_divergences.py`; apart from
them kernel tests hold this text and the listing equal.
"""

import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from sealane.kernel.nft import (
    TABLE,
    TYPE_BYTES,
    TYPEOF,
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Element,
    Fib,
    Hook,
    Load,
    Lookup,
    Masquerade,
    Meta,
    NftFamily,
    Notrack,
    ObservedChain,
    Payload,
    Rule,
    Set,
    Snat,
    Statement,
    Table,
    TypeName,
    Verdict,
    VerdictMap,
)

Sets = Mapping[tuple[NftFamily, str], Set]
"""Sets by family and name: elements are bytes, and only their set knows what these mean."""

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
_META_NAMES = {
    "iifname": "iifname",
    "oifname": "oifname",
    "iifgroup": "iifgroup",
    "oifgroup": "oifgroup",
    "l4proto": "meta l4proto",
    "protocol": "meta protocol",
}
_ADDRESS_BITS = {"ipv4_addr": 32, "ipv6_addr": 128}

_PRIORITIES_IP = {-300: "raw", -150: "mangle", -100: "dstnat", 0: "filter", 50: "security", 100: "srcnat"}
_PRIORITIES_BRIDGE = {-300: "dstnat", -200: "filter", 100: "out", 300: "srcnat"}
_PRIORITY_HOOKS = {"dstnat": "prerouting", "srcnat": "postrouting", "out": "output"}
"""Names that nft takes at one hook only."""
_PRIORITY_REACH = 10
"""How far from a named priority nft says `filter + 10` and not the number."""


def load(what: Load) -> str:
    match what:
        case Meta(key=key):
            return _META_NAMES[key]
        case Payload(name=name):
            return name
        case Ct(key=key):
            return f"ct {key}"
        case Fib(of_source=of_source):
            return f"fib {'saddr' if of_source else 'daddr'} type"
        case Concat(loads=loads):
            return " . ".join(load(item) for item in loads)


def statement(family: NftFamily, what: Statement) -> str:
    match what:
        case Cmp() | CmpPrefix() | CmpRange() | BitTest() | Lookup():
            return _match(what)
        case VerdictMap(load=key, map=name):
            return f"{load(key)} vmap @{name}"
        case Verdict(code=code, chain=chain):
            return f"{code} {chain}" if chain else code
        case Counter():
            return "counter"
        case Notrack():
            return "notrack"
        case DnatMap(load=key, map=name, with_port=with_port):
            to = f"dnat {family} to" if with_port else "dnat to"
            return f"{to} {load(key)} map @{name}"
        case Snat(address=address):
            return f"snat to {address}"
        case Masquerade():
            return "masquerade fully-random"


def _match(what: Cmp | CmpPrefix | CmpRange | BitTest | Lookup) -> str:
    match what:
        case Cmp(op=op, shown=value) | CmpPrefix(op=op, prefix=value):
            return f"{load(what.load)} {_not(negate=op == '!=')}{value}"
        case CmpRange(shown=value) | BitTest(shown=value):
            return f"{load(what.load)} {value}"
        case Lookup(set=name, negate=negate):
            return f"{load(what.load)} {_not(negate=negate)}@{name}"


def _not(*, negate: bool) -> str:
    return "!= " if negate else ""


def rule(family: NftFamily, what: Rule) -> str:
    """A rule with its comment: its tag, by which it is found again, and the id of what it serves."""
    comment = f"{what.tag()} {what.comment}".rstrip()
    return " ".join([*(statement(family, item) for item in what.statements), f'comment "{comment}"'])


def hook(family: NftFamily, what: Hook) -> str:
    return f"type {what.type} hook {what.hook} priority {_priority(family, what)}; policy accept;"


def _priority(family: NftFamily, what: Hook) -> str:
    names = _PRIORITIES_BRIDGE if family == "bridge" else _PRIORITIES_IP
    for value, name in names.items():
        offset = what.priority - value
        if abs(offset) <= _PRIORITY_REACH and _PRIORITY_HOOKS.get(name, what.hook) == what.hook:
            sign = "+" if offset > 0 else "-"
            return f"{name} {sign} {abs(offset)}" if offset else name
    return str(what.priority)


# --- elements -------------------------------------------------------------------------------------------------------


def field(kind: TypeName, value: bytes) -> str:
    """One value of a type, the reverse of `kernel.nft.field`."""
    match kind:
        case "ifname":
            return f'"{"".join(map(_character, value.rstrip(bytes(1))))}"'
        case "devgroup":
            return f"0x{int.from_bytes(value, sys.byteorder):08x}"
        case "ipv4_addr":
            return socket.inet_ntop(socket.AF_INET, value)
        case "ipv6_addr":
            return socket.inet_ntop(socket.AF_INET6, value)
        case "ether_addr":
            return value.hex(":")
        case "inet_proto":
            return _PROTOCOLS.get(value[0], str(value[0]))
        case "integer":
            return f"0x{int.from_bytes(value, 'big'):x}"
        case _:
            return str(int.from_bytes(value, "big"))


def _character(code: int) -> str:
    """A byte of a name. What is not to be seen, `"` and `\\` are shown as numbers."""
    return chr(code) if 0x20 <= code < 0x7F and code not in b'"\\' else f"\\x{code:02x}"


def _split(kinds: Sequence[TypeName], value: bytes) -> list[bytes]:
    """The fields of a concatenation, without their padding."""
    parts = []
    offset = 0
    for kind in kinds:
        size = TYPE_BYTES[kind]
        parts.append(value[offset : offset + size])
        offset += size + 3 & ~3
    return parts


def _range(kind: TypeName, low: bytes, high: bytes) -> str:
    """`10.1.0.0/24`, `80-90`, or the value if there is but one."""
    if low == high:
        return field(kind, low)
    if kind in _ADDRESS_BITS:
        first, last = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        host_bits = (first ^ last).bit_length()
        if last - first == (1 << host_bits) - 1:
            return f"{field(kind, low)}/{_ADDRESS_BITS[kind] - host_bits}"
    return f"{field(kind, low)}-{field(kind, high)}"


def element(item: Element, owner: Set | None) -> str:
    """An element as nft writes it between the braces; without its set, the bytes."""
    if not item.value:
        key = "*"
    elif owner is None or not all(_fits(owner.type, part) for part in (item.value, item.end) if part):
        key = "-".join(f"0x{part.hex()}" for part in (item.value, item.end) if part)
    else:
        lows = _split(owner.type, item.value)
        highs = _split(owner.type, item.end or item.value)
        key = " . ".join(_range(*bounds) for bounds in zip(owner.type, lows, highs, strict=True))
    return f"{key} : {_datum(item.data, owner)}" if item.data else key


def _datum(value: bytes | Verdict, owner: Set | None) -> str:
    if isinstance(value, Verdict):
        return f"{value.code} {value.chain}" if value.chain else value.code
    if owner is None or not _fits(owner.data, value):
        return f"0x{value.hex()}"
    return " . ".join(map(field, owner.data, _split(owner.data, value)))


def _fits(kinds: Sequence[TypeName], value: bytes) -> bool:
    """Whether the fields of a type say all of a value: each is there, and the padding is empty."""
    if not kinds or not TYPE_BYTES.keys() >= set(kinds):
        return False
    parts = _split(kinds, value)
    padded = parts if len(parts) == 1 else [part.ljust(len(part) + 3 & ~3, bytes(1)) for part in parts]
    return [len(part) for part in parts] == [TYPE_BYTES[kind] for kind in kinds] and b"".join(padded) == value


def set_type(what: Set) -> str:
    """`type inet_proto . inet_service : ipv4_addr . inet_service`."""
    if what.type in TYPEOF and not what.data:
        return f"typeof {load(Concat(TYPEOF[what.type]))}"
    kinds = " . ".join(what.type) or "unknown"
    return f"type {kinds} : {' . '.join(what.data)}" if what.data else f"type {kinds}"


def set_word(what: Set) -> str:
    return "map" if what.data else "set"


# --- one line an object, and whole tables ---------------------------------------------------------------------------


def lines(item: Table | Chain | ObservedChain | Set | Element, sets: Sets) -> list[str]:
    """An object as the commands that make it; a chain is one line and one more for each rule."""
    where = f"{item.family} {TABLE}"
    match item:
        case Table():
            return [f"add table {where}"]
        case Set():
            flags = " flags interval;" if item.interval else ""
            return [f"add {set_word(item)} {where} {item.name} {{ {set_type(item)};{flags} }}"]
        case Element():
            text = element(item, sets.get((item.family, item.set)))
            return [f"add element {where} {item.set} {{ {text} }}"]
        case Chain() | ObservedChain():
            head = f"add chain {where} {item.name}"
            first = f"{head} {{ {hook(item.family, item.hook)} }}" if item.hook else head
            return [first, *(f"add rule {where} {item.name} {text}" for text in _rules(item))]


def deletion(item: Table | Chain | ObservedChain | Set | Element, sets: Sets) -> str:
    where = f"{item.family} {TABLE}"
    match item:
        case Table():
            return f"delete table {where}"
        case Set():
            return f"delete {set_word(item)} {where} {item.name}"
        case Element():
            text = element(item, sets.get((item.family, item.set)))
            return f"delete element {where} {item.set} {{ {text} }}"
        case Chain() | ObservedChain():
            return f"delete chain {where} {item.name}"


def _rules(chain: Chain | ObservedChain) -> list[str]:
    if isinstance(chain, ObservedChain):
        return [f'... comment "{tag}"' for tag in chain.tags]
    return [rule(chain.family, item) for item in chain.rules]


def ruleset(family: NftFamily, objects: Iterable[object]) -> str:
    """The table of one family as `nft -s list table FAMILY sealane` prints it, sets and chains in the order given and
    elements in that of their bytes; nothing if the family has no object."""
    ours = [item for item in objects if getattr(item, "family", None) == family]
    elements: dict[str, list[Element]] = {}
    for item in _only(Element, ours):
        elements.setdefault(item.set, []).append(item)
    blocks = [_set_block(item, elements.get(item.name, [])) for item in _only(Set, ours)]
    blocks += [_chain_block(item) for item in _only(Chain, ours)]
    if not blocks and not _only(Table, ours):
        return ""
    return "\n".join([f"table {family} {TABLE} {{", "\n\n".join(blocks), "}"]) + "\n"


_Kind = TypeVar("_Kind")


def _only(kind: type[_Kind], objects: Iterable[object]) -> list[_Kind]:
    return [item for item in objects if isinstance(item, kind)]


def _set_block(what: Set, elements: Sequence[Element]) -> str:
    body = [set_type(what)]
    if what.interval:
        body.append("flags interval")
    if elements:
        shown = [element(item, what) for item in sorted(elements, key=lambda item: (item.value, item.end))]
        separator = ",\n\t\t\t     "
        body.append(f"elements = {{ {separator.join(shown)} }}")
    return _block(f"{set_word(what)} {what.name}", body)


def _chain_block(chain: Chain) -> str:
    head = [hook(chain.family, chain.hook)] if chain.hook else []
    return _block(f"chain {chain.name}", [*head, *_rules(chain)])


def _block(head: str, body: Sequence[str]) -> str:
    return "\n".join([f"\t{head} {{", *(f"\t\t{text}" for text in body), "\t}"])
