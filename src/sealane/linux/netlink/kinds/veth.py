"""A veth has no settings. Its other end stands in the message that makes both (VETH_INFO_PEER, linux/veth.h)."""

from collections.abc import Mapping

from sealane.kernel.links import Veth
from sealane.linux.netlink import codec

_VETH_INFO_PEER = 1


def info(_kind: Veth) -> bytes:
    return b""


def peer(other_end: bytes) -> bytes:
    """`other_end`: a link's message without its netlink header."""
    return codec.attr(_VETH_INFO_PEER | codec.NLA_F_NESTED, other_end)


def parse(_data: Mapping[int, memoryview]) -> Veth:
    return Veth()
