"""A macvlan's mode (IFLA_MACVLAN_MODE, linux/if_link.h). Its parent is IFLA_LINK of the message."""

import sys
from collections.abc import Mapping
from typing import Final

from sealane.kernel.links import Macvlan, MacvlanMode
from sealane.linux.netlink import codec

_IFLA_MACVLAN_MODE = 1

MODES: Final[Mapping[MacvlanMode, int]] = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
"""MACVLAN_MODE_*."""
_NAMES: Final = {number: mode for mode, number in MODES.items()}


def info(kind: Macvlan) -> bytes:
    return codec.u32(_IFLA_MACVLAN_MODE, MODES[kind.mode])


def parse(data: Mapping[int, memoryview]) -> Macvlan:
    """MACVLAN_MODE_SOURCE, which sealane never sets, reads as `private`: it differs from what is desired, too."""
    number = int.from_bytes(data.get(_IFLA_MACVLAN_MODE, b""), sys.byteorder)
    return Macvlan(mode=_NAMES.get(number, "private"))
