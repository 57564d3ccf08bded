"""Statements of `sealane.kernel.nft` as nf_tables register programs.

A rule is a list of expressions over sixteen 32-bit registers and a verdict register. Loads write registers,
comparisons end the rule when they do not hold, and lookups and actions read what was loaded. Every statement here
starts afresh at the first register, so none depends on what another left behind.

Loads and immediates are padded with zeros to whole registers by the kernel (nft_payload_eval, nft_reg_store8), which is
why `kernel.nft.concat` pads as well. (include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nft_*.c)
"""

import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Literal

from sealane.kernel.nft import (
    BitTest,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Fib,
    Load,
    Lookup,
    Masquerade,
    Meta,
    NftFamily,
    Notrack,
    Payload,
    Rule,
    Snat,
    Statement,
    Verdict,
    VerdictMap,
)
from sealane.linux.netlink.codec import attr as attribute
from sealane.linux.netlink.codec import be32, nested, string

NFPROTO = {"ip": 2, "ip6": 10, "bridge": 7}
"""enum in include/uapi/linux/netfilter.h."""

VerdictCode = Literal["accept", "drop", "return", "jump", "goto"]
VERDICT_CODES: dict[VerdictCode, int] = {
    "drop": 0,
    "accept": 1,
    "jump": -3 & 0xFFFFFFFF,
    "goto": -4 & 0xFFFFFFFF,
    "return": -5 & 0xFFFFFFFF,
}

_REG_VERDICT = 0
_REG = 8
"""NFT_REG32_00, the first of the 32-bit registers (the same bytes as NFT_REG_1)."""
_REG_BYTES = 64

_LIST_ELEM = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2

_CMP_OPS = {"==": 0, "!=": 1}
_META_KEYS = {"protocol": 1, "iifname": 6, "oifname": 7, "l4proto": 16, "iifgroup": 21, "oifgroup": 22}
_META_NFTRACE = 12
_META_BYTES = {"protocol": 2, "iifname": 16, "oifname": 16, "l4proto": 1, "iifgroup": 4, "oifgroup": 4}
_CT_KEYS = {"state": 0, "direction": 1, "status": 2}
_PAYLOAD_BASES = {"link": 0, "network": 1, "transport": 2}

_FIB_RESULT_ADDRTYPE = 3
_FIB_F_SADDR, _FIB_F_DADDR = 1, 2
_LOOKUP_F_INV = 1
_NAT_SNAT, _NAT_DNAT = 0, 1
_NAT_RANGE_PROTO_RANDOM_FULLY = 16


def data(value: bytes | Verdict) -> bytes:
    """The inside of an attribute of nft_data_attributes: plain bytes, or a verdict."""
    if not isinstance(value, Verdict):
        return attribute(_DATA_VALUE, value)
    code = be32(_VERDICT_CODE, VERDICT_CODES[value.code])
    if value.code in {"jump", "goto"}:
        code += string(_VERDICT_CHAIN, value.chain)
    return nested(_DATA_VERDICT, code)


def expressions(family: NftFamily, rule: Rule) -> bytes:
    """The payload of NFTA_RULE_EXPRESSIONS. Raises ValueError for what the family cannot do."""
    return b"".join([_encode(family, statement) for statement in rule.statements])


def mark_for_tracing() -> bytes:
    """`meta nftrace set 1`, behind the other expressions of a rule. No statement: no rule of ours keeps it."""
    return _immediate(_REG, b"\x01") + _expr("meta", be32(2, _META_NFTRACE), be32(3, _REG))


def _encode(family: NftFamily, statement: Statement) -> bytes:
    encoder = _ENCODERS[type(statement)]
    return encoder(family, statement)


def _expr(name: str, *attrs: bytes) -> bytes:
    return nested(_LIST_ELEM, string(_EXPR_NAME, name), nested(_EXPR_DATA, *attrs))


def _load(load: Load, register: int = _REG) -> bytes:
    match load:
        case Meta(key=key):
            return _expr("meta", be32(2, _META_KEYS[key]), be32(1, register))
        case Payload(base=base, offset=offset, length=length):
            return _payload(base, offset, length, register)
        case Ct(key=key):
            return _expr("ct", be32(2, _CT_KEYS[key]), be32(1, register))
        case Fib(of_source=of_source):
            request = _FIB_F_SADDR if of_source else _FIB_F_DADDR
            return _expr("fib", be32(3, request), be32(2, _FIB_RESULT_ADDRTYPE), be32(1, register))
        case Concat(loads=loads):
            return _load_concat(loads, register)


def _load_concat(loads: tuple[Meta | Payload, ...], register: int) -> bytes:
    parts = []
    for load in loads:
        parts.append(_load(load, register))
        register += (_width(load) + 3) // 4
    if register > _REG + _REG_BYTES // 4:
        raise ValueError(f"a concatenation of {4 * (register - _REG)} bytes: at most {_REG_BYTES} fit")
    return b"".join(parts)


def _width(load: Meta | Payload) -> int:
    return _META_BYTES[load.key] if isinstance(load, Meta) else load.length


def _payload(base: str, offset: int, length: int, register: int = _REG) -> bytes:
    return _expr(
        "payload",
        be32(1, register),
        be32(2, _PAYLOAD_BASES[base]),
        be32(3, offset),
        be32(4, length),
    )


def _compare(op: str, value: bytes) -> bytes:
    return _expr("cmp", be32(1, _REG), be32(2, _CMP_OPS[op]), nested(3, data(value)))


def _mask(mask: bytes) -> bytes:
    return _expr(
        "bitwise",
        be32(1, _REG),
        be32(2, _REG),
        be32(3, len(mask)),
        nested(4, data(mask)),
        nested(5, data(bytes(len(mask)))),
    )


def _immediate(register: int, value: bytes | Verdict) -> bytes:
    return _expr("immediate", be32(1, register), nested(2, data(value)))


def _cmp(_: NftFamily, statement: Cmp) -> bytes:
    return _load(statement.load) + _compare(statement.op, statement.value)


def _cmp_prefix(_: NftFamily, statement: CmpPrefix) -> bytes:
    """Whole bytes of an IPv6 prefix are loaded and compared as they are. An IPv4 one is masked, also where whole
    bytes would do: loads of 4 bytes, 4-byte masks and comparisons are inlined in nft_do_chain, loads of 3 are not."""
    network = ipaddress.ip_network(statement.prefix)
    load, length = statement.load, network.prefixlen
    value = network.network_address.packed
    if len(value) != load.length:
        raise ValueError(f"{load.name} holds {load.length} bytes, {statement.prefix} is another family's")
    if length == network.max_prefixlen:
        return _load(load) + _compare(statement.op, value)
    if network.version == 6 and length and length % 8 == 0:
        size = length // 8
        return _payload(load.base, load.offset, size) + _compare(statement.op, value[:size])
    return _load(load) + _mask(network.netmask.packed) + _compare(statement.op, value)


def _cmp_range(_: NftFamily, statement: CmpRange) -> bytes:
    low, high = nested(3, data(statement.low)), nested(4, data(statement.high))
    return _load(statement.load) + _expr("range", be32(1, _REG), be32(2, 0), low, high)


def _bit_test(_: NftFamily, statement: BitTest) -> bytes:
    mask = statement.bits.to_bytes(4, sys.byteorder)
    return _load(statement.load) + _mask(mask) + _compare("!=", bytes(4))


def _find(name: str, *attrs: bytes) -> bytes:
    return _expr("lookup", string(1, name), be32(2, _REG), *attrs)


def _lookup(_: NftFamily, statement: Lookup) -> bytes:
    flags = (be32(5, _LOOKUP_F_INV),) if statement.negate else ()
    return _load(statement.load) + _find(statement.set, *flags)


def _verdict_map(_: NftFamily, statement: VerdictMap) -> bytes:
    return _load(statement.load) + _find(statement.map, be32(3, _REG_VERDICT))


def _verdict(_: NftFamily, statement: Verdict) -> bytes:
    return _immediate(_REG_VERDICT, statement)


def _counter(_: NftFamily, __: Counter) -> bytes:
    return _expr("counter")


def _notrack(_: NftFamily, __: Notrack) -> bytes:
    return _expr("notrack")


def _nat(family: NftFamily, kind: int, *registers: bytes) -> bytes:
    if family == "bridge":
        raise ValueError("the bridge family translates no addresses")
    return _expr("nat", be32(1, kind), be32(2, NFPROTO[family]), be32(3, _REG), *registers)


def _dnat_map(family: NftFamily, statement: DnatMap) -> bytes:
    """The map's data comes into the registers that held its key: the address, then the port."""
    port_register = _REG + (4 if family == "ip6" else 1)
    registers = (be32(5, port_register),) if statement.with_port else ()
    return _load(statement.load) + _find(statement.map, be32(3, _REG)) + _nat(family, _NAT_DNAT, *registers)


def _snat(family: NftFamily, statement: Snat) -> bytes:
    address = socket.inet_pton(socket.AF_INET6 if family == "ip6" else socket.AF_INET, statement.address)
    return _immediate(_REG, address) + _nat(family, _NAT_SNAT)


def _masquerade(_: NftFamily, __: Masquerade) -> bytes:
    return _expr("masq", be32(1, _NAT_RANGE_PROTO_RANDOM_FULLY))


_ENCODERS: dict[type, Callable[..., bytes]] = {
    Cmp: _cmp,
    CmpPrefix: _cmp_prefix,
    CmpRange: _cmp_range,
    BitTest: _bit_test,
    Lookup: _lookup,
    VerdictMap: _verdict_map,
    Verdict: _verdict,
    Counter: _counter,
    Notrack: _notrack,
    DnatMap: _dnat_map,
    Snat: _snat,
    Masquerade: _masquerade,
}
