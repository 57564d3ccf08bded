"""nf_tables messages: requests about tables, chains, rules, sets and elements, and the layout of the answers.

Requests are built here without a sequence number; `Socket.batch` puts them into one transaction between `BEGIN` and
`END`. Nothing carries NLM_F_EXCL, so creating what is there already and equal succeeds. Deletions come in two kinds:
NFT_MSG_DESTROY* (6.3) succeed for what is gone, NFT_MSG_DEL* answer ENOENT. (include/uapi/linux/netfilter/nf_tables.h)
"""

import struct
import sys
from typing import Literal

from sealane.kernel.nft import (
    TABLE,
    TYPE_BYTES,
    TYPEOF,
    Chain,
    Element,
    Hook,
    NftFamily,
    Rule,
    Set,
    TypeName,
    Verdict,
)
from sealane.linux.netlink import codec
from sealane.linux.netlink.codec import be32, nested, string
from sealane.linux.netlink.nft_expr import NFPROTO, data, expressions
from sealane.linux.netlink.nft_typeof import typeof

NEWTABLE, GETTABLE, DELTABLE, DESTROYTABLE = 0, 1, 2, 26
NEWCHAIN, GETCHAIN, DELCHAIN, DESTROYCHAIN = 3, 4, 5, 27
NEWRULE, GETRULE, DELRULE, DESTROYRULE = 6, 7, 8, 28
NEWSET, GETSET, DELSET, DESTROYSET = 9, 10, 11, 29
NEWSETELEM, GETSETELEM, DELSETELEM, DESTROYSETELEM = 12, 13, 14, 30
GETGEN = 16

SUBSYSTEM = 10 << 8
"""NFNL_SUBSYS_NFTABLES, the high byte of a message's type."""

HookName = Literal["prerouting", "input", "forward", "output", "postrouting"]

TYPE_IDS: dict[TypeName, int] = {
    "integer": 4,
    "ipv4_addr": 7,
    "ipv6_addr": 8,
    "ether_addr": 9,
    "inet_proto": 12,
    "inet_service": 13,
    "devgroup": 35,
    "ifname": 41,
}
"""nft's own numbers (include/datatype.h of nftables), which the kernel only keeps: by them `nft list` prints."""

TYPE_BITS = 6
"""A concatenation's number is those of its fields, six bits each."""

DATA_VERDICT = 0xFFFFFF00

SET_ANONYMOUS, SET_INTERVAL, SET_MAP, SET_CONCAT = 1, 4, 8, 0x80
ELEM_INTERVAL_END, ELEM_CATCHALL = 1, 2

HOOKS: tuple[HookName, ...] = ("prerouting", "input", "forward", "output", "postrouting")
"""By number: NF_INET_* and NF_BR_* agree."""

POLICY_ACCEPT = 1

TAG_CHARS = 16
COMMENT_BYTES_MAX = 128
"""nft's own limit on what it shows as a comment (NFTNL_UDATA_COMMENT_MAXLEN)."""

ELEMENTS_BYTES_MAX = 60_000
"""Elements of one message: an attribute's length is 16 bits."""

_KIND_BYTE, _SUBSYSTEM_BYTE = (4, 5) if sys.byteorder == "little" else (5, 4)
_NFGENMSG = struct.Struct(">BBH")
HEADER_BYTES = _NFGENMSG.size
"""Of an answer, before its attributes; the first byte is the family."""
_UDATA_COMMENT = 0
_UDATA_KEY_BYTEORDER, _UDATA_DATA_BYTEORDER = 0, 1
_BIG_ENDIAN = 2
_BYTE_ORDERS: dict[TypeName, int] = {"ifname": 1, "devgroup": 1, "verdict": 0}
"""Host order, and none: of the others nft says big-endian."""

_OUR_TABLE = string(1, TABLE)

BEGIN = codec.message(0x10, codec.NLM_F_REQUEST, 0, _NFGENMSG.pack(0, 0, 10))
"""NFNL_MSG_BATCH_BEGIN, for the nf_tables subsystem."""
END = codec.message(0x11, codec.NLM_F_REQUEST, 0, _NFGENMSG.pack(0, 0, 10))

GENERATION = codec.message(
    SUBSYSTEM | GETGEN, codec.NLM_F_REQUEST | codec.NLM_F_ACK, 0, _NFGENMSG.pack(0, 0, 0)
)
"""Asks for the number of the last transaction in this namespace."""


def request(kind: int, family: NftFamily, attrs: bytes, flags: int = 0) -> bytes:
    header = _NFGENMSG.pack(NFPROTO[family], 0, 0)
    return codec.message(SUBSYSTEM | kind, flags | codec.NLM_F_REQUEST, 0, header + attrs)


def is_destroy(message: bytes) -> bool:
    """Whether it is an NFT_MSG_DESTROY*."""
    return message[_SUBSYSTEM_BYTE] == SUBSYSTEM >> 8 and message[_KIND_BYTE] >= DESTROYTABLE


def dump(kind: int, family: NftFamily, attrs: bytes = b"") -> bytes:
    return request(kind, family, attrs, codec.NLM_F_DUMP)


def dump_every(kind: int, family: int = 0, attrs: bytes = b"") -> bytes:
    """A dump of anybody's tables, by the family's number; 0: of all families. Answers begin with theirs."""
    header = _NFGENMSG.pack(family, 0, 0)
    return codec.message(SUBSYSTEM | kind, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header + attrs)


def new_table(family: NftFamily) -> bytes:
    """Flags zero: creating wakes a table that someone has put to sleep (NFT_TABLE_F_DORMANT)."""
    return request(NEWTABLE, family, _OUR_TABLE + be32(2, 0), codec.NLM_F_CREATE)


def delete_table(family: NftFamily, *, destroy: bool) -> bytes:
    return request(DESTROYTABLE if destroy else DELTABLE, family, _OUR_TABLE)


def new_chain(chain: Chain) -> bytes:
    """The chain, empty. Of a base chain that exists the policy is set (to accept), and the hook must be the same."""
    attrs = _OUR_TABLE + string(3, chain.name)
    if chain.hook is not None:
        attrs += _hook(chain.hook)
    return request(NEWCHAIN, chain.family, attrs, codec.NLM_F_CREATE)


def _hook(hook: Hook) -> bytes:
    where = nested(4, be32(1, HOOKS.index(hook.hook)), be32(2, hook.priority & 0xFFFFFFFF))
    return where + be32(5, POLICY_ACCEPT) + string(7, hook.type)


def delete_chain(family: NftFamily, name: str, *, destroy: bool) -> bytes:
    return request(DESTROYCHAIN if destroy else DELCHAIN, family, _OUR_TABLE + string(3, name))


def flush_chain(family: NftFamily, name: str, *, destroy: bool) -> bytes:
    return request(DESTROYRULE if destroy else DELRULE, family, _OUR_TABLE + string(2, name))


def new_rule(chain: Chain, rule: Rule) -> bytes:
    """Appended to its chain. Raises ValueError for a comment that is no id of ours."""
    body = nested(4, expressions(chain.family, rule)) + codec.attr(7, _comment(rule))
    return append_rule(chain.family, chain.name, body)


def append_rule(family: NftFamily, chain: str, body: bytes) -> bytes:
    """A rule whose expressions and user data are attributes already."""
    attrs = _OUR_TABLE + string(2, chain) + body
    return request(NEWRULE, family, attrs, codec.NLM_F_CREATE | codec.NLM_F_APPEND)


def _comment(rule: Rule) -> bytes:
    """User data as nft writes a rule's comment: type, length, text with its NUL."""
    text = f"{rule.tag()} {rule.comment}" if rule.comment else rule.tag()
    if not text.isascii() or not text.isprintable() or '"' in text or len(text) >= COMMENT_BYTES_MAX:
        raise ValueError(f"rule comment {rule.comment!r}: it must be a short id in ASCII, without quotes")
    return bytes((_UDATA_COMMENT, len(text) + 1)) + text.encode("ascii") + b"\0"


def rule_tag(userdata: memoryview | None) -> str:
    """The tag that `new_rule` left, `?` if the user data is not ours."""
    comment = comment_of(userdata)
    return comment[:TAG_CHARS] if len(comment) >= TAG_CHARS else "?"


def comment_of(userdata: memoryview | None) -> str:
    """A rule's comment, as nft and iptables-nft write it; empty if there is none."""
    offset = 0
    while userdata is not None and offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _UDATA_COMMENT:
            return codec.text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def number(payload: memoryview | None) -> int:
    """An integer of nfnetlink's; 0 if it is not there."""
    return 0 if payload is None else int.from_bytes(payload, "big")


def new_set(desired: Set, number: int) -> bytes:
    """`number` tells new sets of one transaction apart. A set that exists with another shape answers EEXIST."""
    flags = (SET_INTERVAL if desired.interval else 0) | (SET_MAP if desired.data else 0)
    description = b""
    if desired.interval and len(desired.type) > 1:
        flags |= SET_CONCAT
        widths = [nested(1, be32(1, TYPE_BYTES[kind])) for kind in desired.type]
        description = nested(9, nested(2, *widths))
    attrs = (
        _OUR_TABLE
        + string(2, desired.name)
        + be32(3, flags)
        + be32(4, type_id(desired.type))
        + be32(5, type_bytes(desired.type))
        + _data_type(desired)
        + description
        + be32(10, number)
        + codec.attr(13, _byte_orders(desired))
    )
    return request(NEWSET, desired.family, attrs, codec.NLM_F_CREATE)


def _data_type(desired: Set) -> bytes:
    if not desired.data:
        return b""
    if desired.data == ("verdict",):
        return be32(6, DATA_VERDICT) + be32(7, 0)
    return be32(6, type_id(desired.data)) + be32(7, type_bytes(desired.data))


def _byte_orders(desired: Set) -> bytes:
    """User data by which nft knows how to print; the kernel does not look at it."""
    key = _UDATA.pack(_UDATA_KEY_BYTEORDER, 4, _byte_order(desired.type))
    if desired.type in TYPEOF and not desired.data:
        return key + typeof(TYPEOF[desired.type])
    return key + (_UDATA.pack(_UDATA_DATA_BYTEORDER, 4, _byte_order(desired.data)) if desired.data else b"")


_UDATA = struct.Struct("=BBI")


def _byte_order(kinds: tuple[TypeName, ...]) -> int:
    if len(kinds) > 1:
        return 0
    return _BYTE_ORDERS.get(kinds[0], _BIG_ENDIAN)


def type_id(kinds: tuple[TypeName, ...]) -> int:
    number = 0
    for kind in kinds:
        if kind not in TYPE_IDS:
            raise ValueError(f"{kind} is no type of a key or datum")
        number = number << TYPE_BITS | TYPE_IDS[kind]
    return number


def types_of(number: int) -> tuple[TypeName, ...]:
    """The types behind a number; none for one that is not ours."""
    kinds: list[TypeName] = []
    while number:
        kind = _TYPE_NAMES.get(number & ((1 << TYPE_BITS) - 1))
        if kind is None:
            return ()
        kinds.insert(0, kind)
        number >>= TYPE_BITS
    return tuple(kinds)


_TYPE_NAMES = {number: kind for kind, number in TYPE_IDS.items()}


def type_bytes(kinds: tuple[TypeName, ...]) -> int:
    if len(kinds) == 1:
        return TYPE_BYTES[kinds[0]]
    return sum(TYPE_BYTES[kind] + 3 & ~3 for kind in kinds)


def delete_set(family: NftFamily, name: str, *, destroy: bool) -> bytes:
    return request(DESTROYSET if destroy else DELSET, family, _OUR_TABLE + string(2, name))


def elements(kind: int, family: NftFamily, name: str, parts: list[bytes]) -> bytes:
    """One message about elements of one set, each as `element`, `range_element` or `box_element` made it."""
    attrs = _OUR_TABLE + string(2, name) + nested(3, *parts)
    return request(kind, family, attrs, codec.NLM_F_CREATE if kind == NEWSETELEM else 0)


def elements_start(name: str) -> int:
    """Offset in a message of `elements` at which the first element stands."""
    return 16 + 4 + len(_OUR_TABLE) + len(string(2, name)) + 4


def element(item: Element) -> bytes:
    """An element of a hash set; without a value the one that matches everything (`*`)."""
    if not item.value:
        return nested(1, be32(3, ELEM_CATCHALL), _datum(item))
    return nested(1, _key(item.value), _datum(item))


def range_element(item: Element) -> bytes:
    """The two elements of a range in a set of one field (an rbtree): where it begins and, if anything is left behind
    it, where it has ended."""
    start = nested(1, _key(item.value), _datum(item))
    if item.end == b"\xff" * len(item.end):
        return start
    beyond = (int.from_bytes(item.end, "big") + 1).to_bytes(len(item.end), "big")
    return start + nested(1, _key(beyond), be32(3, ELEM_INTERVAL_END))


def box_element(item: Element) -> bytes:
    """An element of a set of concatenated ranges (pipapo): its first and last corner."""
    return nested(1, _key(item.value), nested(10, codec.attr(1, item.end)), _datum(item))


def _key(value: bytes) -> bytes:
    return nested(1, codec.attr(1, value))


def _datum(item: Element) -> bytes:
    return nested(2, data(item.data)) if isinstance(item.data, Verdict) or item.data else b""
