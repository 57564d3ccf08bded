"""Reading back what our tables hold, as the records that describe it.

Rules are read by the tags in their user data, never by what they do; of that only whether it is the same as at the last
reading. What has been changed in a way that our records have no word for reads as something that differs from all of
them, so that it is repaired: a table put to sleep as missing (creating it wakes it), a chain with another policy or with
other contents as one with a rule too many, a set of another making as one of no type.
"""

import errno
import sys
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, cast

from sealane.kernel.nft import TABLE, Element, Hook, NftFamily, ObservedChain, Set, Table, TypeName, Verdict
from sealane.kernel.state import Object
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.nft_expr import NFPROTO, VERDICT_CODES, VerdictCode
from sealane.linux.netlink.socket import NetlinkError, Socket
from sealane.linux.rule_contents import ChainRef, RuleContents, content

OBSERVE_ATTEMPTS = 5
"""Readings of several dumps each, begun again when a transaction came between two of them."""

_FAMILIES: dict[int, NftFamily] = {NFPROTO["ip"]: "ip", NFPROTO["ip6"]: "ip6", NFPROTO["bridge"]: "bridge"}
_CODES: dict[int, VerdictCode] = {number: code for code, number in VERDICT_CODES.items()}
_OUR_SET_FLAGS = nfnl.SET_INTERVAL | nfnl.SET_MAP | nfnl.SET_CONCAT


def learn_contents(socket: Socket, contents: RuleContents, chains: Iterable[ChainRef]) -> None:
    """Read chains that we have made anew, or taken away, just now. Raises NetlinkError."""
    for chain in chains:
        contents.learn(chain, ())
        family, name = chain
        attrs = codec.string(1, TABLE) + codec.string(2, name)
        contents.learn(chain, [_content(rule) for rule in _dump(socket, nfnl.GETRULE, family, attrs)])
    contents.keep()


def observe_nft(socket: Socket, contents: RuleContents | None = None) -> list[Object]:
    """Tables `sealane` of the families ip, ip6 and bridge, their sets, chains and elements. Elements of interval sets
    always have their `end`. `contents`: of the readings before; a chain with others reads as one with a rule too many.
    Raises NetlinkError."""
    contents = contents or RuleContents()
    for _ in range(OBSERVE_ATTEMPTS):
        before = generation(socket)
        try:
            found = _observe(socket, contents)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:  # What one dump named was gone at the next.
                raise
            continue
        if generation(socket) == before:
            contents.keep()
            return found
    raise NetlinkError(errno.EAGAIN, f"nftables changed during each of {OBSERVE_ATTEMPTS} readings")


def observe_sets(socket: Socket, family: NftFamily) -> list[Set]:
    """Sets and maps of our table, without what rules keep for themselves. Raises NetlinkError."""
    try:
        answers = _dump(socket, nfnl.GETSET, family, codec.string(1, TABLE))
        return [item for found in answers if (item := _set(family, found)) is not None]
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


class HeldRule(NamedTuple):
    """A rule as the kernel gave it, good to be given back."""

    chain: str
    attrs: bytes
    """Expressions and user data."""
    sets: frozenset[str]
    """Which it looks something up in."""


def observe_rules(socket: Socket, family: NftFamily) -> list[HeldRule]:
    """Every rule of our table, in the order of each chain. Raises NetlinkError."""
    found = []
    for rule in _dump(socket, nfnl.GETRULE, family, codec.string(1, TABLE)):
        attrs = b"".join([codec.attr(kind, bytes(rule[kind])) for kind in (4, 7) if kind in rule])
        found.append(HeldRule(codec.text(rule[2]), attrs, _looked_up(rule.get(4, memoryview(b"")))))
    return found


def _looked_up(expressions: memoryview) -> frozenset[str]:
    names = set()
    for _, payload in codec.attr_list(expressions):
        expression = codec.attrs(payload)
        if codec.text(expression[1]) == "lookup":
            names.add(codec.text(codec.attrs(expression[2])[1]))
    return frozenset(names)


def generation(socket: Socket) -> bytes:
    """Of the namespace's last transaction; empty if the kernel does not tell."""
    for _, payload in socket.dump(nfnl.GENERATION):
        return bytes(codec.attrs(payload[nfnl.HEADER_BYTES :])[1])
    return b""


def _dump(
    socket: Socket, kind: int, family: NftFamily, attrs: bytes = b""
) -> Iterator[dict[int, memoryview]]:
    for _, payload in socket.dump(nfnl.dump(kind, family, attrs)):
        yield codec.attrs(payload[nfnl.HEADER_BYTES :])


def _observe(socket: Socket, contents: RuleContents) -> list[Object]:
    found: list[Object] = []
    for family in _FAMILIES.values():
        tables = [t for t in _dump(socket, nfnl.GETTABLE, family) if codec.text(t[1]) == TABLE]
        if not tables:
            continue
        found += [Table(family=family) for table in tables if not nfnl.number(table.get(2))]
        sets = observe_sets(socket, family)
        found += sets
        found += _chains(socket, family, contents)
        for item in sets:
            found += _elements(socket, item)
    return found


def _chains(socket: Socket, family: NftFamily, known: RuleContents) -> Iterator[ObservedChain]:
    tags: dict[str, list[str]] = {}
    contents: dict[str, list[bytes]] = {}
    chains = [c for c in _dump(socket, nfnl.GETCHAIN, family) if codec.text(c[1]) == TABLE]
    for rule in _dump(socket, nfnl.GETRULE, family, codec.string(1, TABLE)):
        name = codec.text(rule[2])
        tags.setdefault(name, []).append(nfnl.rule_tag(rule.get(7)))
        contents.setdefault(name, []).append(_content(rule))
    for chain in chains:
        name = codec.text(chain[3])
        found = tags.get(name, [])
        if nfnl.number(chain.get(5, None)) != nfnl.POLICY_ACCEPT and 4 in chain:
            found.append("?")
        if not known.are_known((family, name), contents.get(name, ())):
            found.append("?")
        yield ObservedChain(family=family, name=name, tags=tuple(found), hook=_hook(chain))


def _content(rule: dict[int, memoryview]) -> bytes:
    return content(rule.get(4, b""))


def _hook(chain: dict[int, memoryview]) -> Hook | None:
    if 4 not in chain:
        return None
    where = codec.attrs(chain[4])
    number = nfnl.number(where[1])
    return Hook(
        type=cast("Literal['filter', 'nat']", codec.text(chain[7])),
        hook=cast("nfnl.HookName", nfnl.HOOKS[number] if number < len(nfnl.HOOKS) else str(number)),
        priority=int.from_bytes(where[2], "big", signed=True),
    )


def _set(family: NftFamily, found: dict[int, memoryview]) -> Set | None:
    flags = nfnl.number(found.get(3))
    if flags & nfnl.SET_ANONYMOUS:
        return None
    kinds = nfnl.types_of(nfnl.number(found[4]))
    values = _data_types(found)
    is_ours = (
        nfnl.type_bytes(kinds) == nfnl.number(found[5])
        and not flags & ~_OUR_SET_FLAGS
        and bool(values) == bool(flags & nfnl.SET_MAP)
        and not (9 in found and 1 in codec.attrs(found[9]))  # It has no limit of elements.
    )
    return Set(
        family=family,
        name=codec.text(found[2]),
        type=kinds if is_ours else (),
        data=values,
        interval=bool(flags & nfnl.SET_INTERVAL),
    )


def _data_types(found: dict[int, memoryview]) -> tuple[TypeName, ...]:
    kind = nfnl.number(found.get(6))
    return ("verdict",) if kind == nfnl.DATA_VERDICT else nfnl.types_of(kind)


def _elements(socket: Socket, owner: Set) -> list[Element]:
    """Elements of one set; of one that is not of our making none, since it will be made anew."""
    if not owner.type:
        return []
    reader = _Reader(owner)
    attrs = codec.string(1, TABLE) + codec.string(2, owner.name)
    for answer in _dump(socket, nfnl.GETSETELEM, owner.family, attrs):
        if 3 in answer:
            reader.feed(bytes(answer[3]))
    return reader.elements()


class _Reader:
    """Elements of one set from the kernel's lists of them.

    Elements of nothing but a key and plain data all have one layout. So when one has been taken apart by its
    attributes, those behind it are cut out as long as the bytes between their values are the same.
    """

    def __init__(self, owner: Set) -> None:
        self._family = owner.family
        self._name = owner.name
        self._is_single_range = owner.interval and len(owner.type) == 1
        self._verdicts: dict[bytes, Verdict] = {}
        self._found: list[Element] = []
        self._edges: list[tuple[bytes, bool, bytes | Verdict]] = []

    def feed(self, block: bytes) -> None:
        view = memoryview(block)
        offset = 0
        while offset + 4 <= len(block):
            size = int.from_bytes(block[offset : offset + 2], sys.byteorder) + 3 & ~3
            if size < 4:
                return
            body = codec.attrs(view[offset + 4 : offset + size])
            key = bytes(codec.attrs(body[1])[1]) if 1 in body else b""
            value = self._value(body[2]) if 2 in body else b""
            if self._is_single_range:
                is_end = bool(nfnl.number(body.get(3)) & nfnl.ELEM_INTERVAL_END)
                self._edges.append((key, not is_end, value))
            else:
                end = bytes(codec.attrs(body[10])[1]) if 10 in body else b""
                self._found.append(self._element(key, end, value))
            offset += size
            if body.keys() <= _PLAIN and isinstance(value, bytes) and not self._is_single_range:
                offset = self._cut(block, offset, size, len(key), len(value))

    def _cut(self, block: bytes, offset: int, size: int, key_size: int, data_size: int) -> int:
        """Take elements like the one of `size` bytes that ends at `offset`; where the first other one begins."""
        add, family, name = self._found.append, self._family, self._name
        gap = _KEY_OFFSET + (key_size + 3 & ~3)
        first = offset - size
        head = block[first : first + _KEY_OFFSET]
        middle = block[first + gap : first + gap + 8] if data_size else b""
        while block.startswith(head, offset) and block.startswith(middle, offset + gap):
            key = block[offset + _KEY_OFFSET : offset + _KEY_OFFSET + key_size]
            data = block[offset + gap + 8 : offset + gap + 8 + data_size] if data_size else b""
            add(Element(family=family, set=name, value=key, data=data))
            offset += size
        return offset

    def _element(self, value: bytes, end: bytes, data: bytes | Verdict) -> Element:
        return Element(family=self._family, set=self._name, value=value, end=end, data=data)

    def _value(self, payload: memoryview) -> bytes | Verdict:
        found = codec.attrs(payload)
        if 1 in found:
            return bytes(found[1])
        raw = bytes(payload)
        if raw not in self._verdicts:
            verdict = codec.attrs(found[2])
            chain = codec.text(verdict[2]) if 2 in verdict else ""
            self._verdicts[raw] = Verdict(_CODES[nfnl.number(verdict[1])], chain)
        return self._verdicts[raw]

    def elements(self) -> list[Element]:
        """All that was fed.

        A range is two elements: its first value, and what follows its last, where the next range may begin; behind a
        range up to the last value of all there is no second one. (nft puts a lone end at 0; it says nothing.)
        """
        edges = sorted(self._edges, key=_edge_order)
        for index, (key, is_start, data) in enumerate(edges):
            if is_start:
                beyond = edges[index + 1][0] if index + 1 < len(edges) else bytes(len(key))
                end = (int.from_bytes(beyond, "big") - 1) % (1 << 8 * len(key))
                self._found.append(self._element(key, end.to_bytes(len(key), "big"), data))
        return self._found


def _edge_order(edge: tuple[bytes, bool, bytes | Verdict]) -> tuple[bytes, bool]:
    return edge[0], edge[1]


_PLAIN = frozenset({1, 2})
_KEY_OFFSET = 12
"""Of a value in its element: behind the headers of the element, of NFTA_SET_ELEM_KEY and NFTA_DATA_VALUE."""
