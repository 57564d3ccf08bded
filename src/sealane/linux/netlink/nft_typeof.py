"""`typeof`, the type of a set by the example of what is compared with it, as nft keeps it in the set's user data.

The kernel does not look at it; it is what `nft list` prints the type of an integer from. Expressions and protocols have
numbers that nft keeps for its own sake (nftables: include/expression.h, include/proto.h; libnftnl: include/udata.h).
"""

import struct
from collections.abc import Sequence

from sealane.kernel.nft import Meta, Payload

_KEY_TYPEOF = 3
_EXPRESSION, _DATA = 0, 1
_CONCAT, _META, _PAYLOAD = 13, 9, 7
_META_KEYS = {"iifname": 6}
_DESCRIPTION, _TYPE, _BASE, _OFFSET, _LENGTH = range(5)
_BASES = {"link": 1, "network": 2, "transport": 3}
_NAMED = {"ether saddr": (17, 2)}
"""Protocol and field; a field without a name (`@th,64,64`) is of protocol 0, and says where it stands, in bits."""


def typeof(loads: Sequence[Meta | Payload]) -> bytes:
    """User data for a key that is a concatenation of loads."""
    parts = b"".join(_nested(index, _expression(load)) for index, load in enumerate(loads))
    return _nested(_KEY_TYPEOF, _number(_EXPRESSION, _CONCAT) + _nested(_DATA, parts))


def _expression(load: Meta | Payload) -> bytes:
    if isinstance(load, Meta):
        return _number(_EXPRESSION, _META) + _nested(_DATA, _number(0, _META_KEYS[load.key]))
    description, field = _NAMED.get(load.name, (0, 0))
    data = _number(_DESCRIPTION, description) + _number(_TYPE, field)
    if not description:
        data += _number(_BASE, _BASES[load.base])
        data += _number(_OFFSET, 8 * load.offset) + _number(_LENGTH, 8 * load.length)
    return _number(_EXPRESSION, _PAYLOAD) + _nested(_DATA, data)


def _number(kind: int, value: int) -> bytes:
    return struct.pack("=BBI", kind, 4, value)


def _nested(kind: int, body: bytes) -> bytes:
    return bytes((kind, len(body))) + body
