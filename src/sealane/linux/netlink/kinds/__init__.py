"""How each kind of link is said to the kernel: its IFLA_INFO_DATA, both ways. One module a kind, in one table.

    info(kind)     the attributes of a kind's settings, for a new link or a change
    parse(data)    the kind that attributes tell; fields that they do not tell stay at their defaults

A kind that another program makes (`OtherKind`) is read and never written.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from sealane.kernel.links import Bridge, LinkKind, Loopback, Macvlan, OtherKind, Veth
from sealane.linux.netlink import codec
from sealane.linux.netlink.kinds import bridge, macvlan, veth

IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2


class KindCodec(Protocol):
    def info(self, kind: Any, /) -> bytes: ...

    def parse(self, data: Mapping[int, memoryview], /) -> LinkKind: ...


_CODECS: Final[Mapping[type[LinkKind], KindCodec]] = {Bridge: bridge, Veth: veth, Macvlan: macvlan}
_BY_WORD: Final = {kind.word: codec_of for kind, codec_of in _CODECS.items()}


def link_info(kind: LinkKind, extra: bytes = b"") -> bytes:
    """IFLA_LINKINFO of a kind. `extra`: further attributes of IFLA_INFO_DATA."""
    data = _CODECS[type(kind)].info(kind) + extra
    return codec.nested(
        IFLA_LINKINFO,
        codec.string(_IFLA_INFO_KIND, kind.word),
        codec.nested(_IFLA_INFO_DATA, data) if data else b"",
    )


def can_change(kind: LinkKind) -> bool:
    """Whether a kind has settings that a message can change later."""
    return type(kind) in _CODECS and bool(_CODECS[type(kind)].info(kind))


def parse(word: str, data: Mapping[int, memoryview], *, is_loopback: bool) -> LinkKind:
    if is_loopback:
        return Loopback()
    found = _BY_WORD.get(word)
    return found.parse(data) if found is not None else OtherKind(name=word)
