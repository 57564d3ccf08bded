"""A lab file as records, every default filled in."""

from typing import Literal

import msgspec

MAX_HOSTS = 64
MAX_ARGUMENTS = 64
"""Extra arguments of one daemon or of etcd."""
ETCD_MEMBERS = (0, 1, 3)
MTU_MIN, MTU_MAX, MTU_DEFAULT = 1280, 65535, 1500
"""IPv6 needs 1280 (RFC 8200 §5); a veth takes up to 65535."""
LOSS_UNITS = 100_000
"""Loss is counted in packets of this many, as nft's numgen draws numbers."""
LATENCY_MAX_MS = 10_000

UnderlayKind = Literal["segment", "routed"]


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    mtu: int = MTU_DEFAULT
    loss: int = 0
    """Packets of 100,000 that are dropped, in each direction."""
    latency_ms: float = 0.0
    """Added to each packet on its way to the host."""


class Underlay(msgspec.Struct, frozen=True, kw_only=True):
    kind: UnderlayKind = "segment"
    ipv4: str = ""
    """A prefix in canonical text; empty: the kind's default."""
    ipv6: str = ""


class HostSpec(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    uplink: Uplink = Uplink()
    daemon_arguments: tuple[str, ...] = ()


class EtcdSpec(msgspec.Struct, frozen=True, kw_only=True):
    members: int = 0
    arguments: tuple[str, ...] = ()


class LabSpec(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    """Empty: the file gives none."""
    underlay: Underlay = Underlay()
    etcd: EtcdSpec = EtcdSpec()
    hosts: tuple[HostSpec, ...]
