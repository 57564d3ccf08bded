"""A bridge's own settings (IFLA_BR_*, linux/if_link.h)."""

import sys
from collections.abc import Mapping

from sealane.kernel.links import Bridge
from sealane.linux.netlink import codec

_IFLA_BR_AGEING_TIME = 4
_IFLA_BR_STP_STATE = 5
_IFLA_BR_MCAST_SNOOPING = 23

_AGEING_DEFAULT = 30000
"""300 seconds in clock_t (USER_HZ is 100)."""


def info(kind: Bridge) -> bytes:
    return (
        codec.u32(_IFLA_BR_AGEING_TIME, 0 if kind.ageing_off else _AGEING_DEFAULT)
        + codec.u32(_IFLA_BR_STP_STATE, kind.stp)
        + codec.u8(_IFLA_BR_MCAST_SNOOPING, kind.snooping)
    )


def parse(data: Mapping[int, memoryview]) -> Bridge:
    return Bridge(
        ageing_off=_IFLA_BR_AGEING_TIME in data and not _number(data, _IFLA_BR_AGEING_TIME),
        stp=bool(_number(data, _IFLA_BR_STP_STATE)),
        snooping=bool(_number(data, _IFLA_BR_MCAST_SNOOPING)),
    )


def _number(data: Mapping[int, memoryview], attribute: int) -> int:
    return int.from_bytes(data.get(attribute, b""), sys.byteorder)
