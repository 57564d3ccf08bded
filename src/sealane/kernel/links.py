"""The kinds of links, each a record of what is set and checked of it beside the fields that all links have.

How a kind is said to the kernel, and read back, is in `linux/netlink/kinds`.
"""

from typing import ClassVar, Literal

import msgspec

MacvlanMode = Literal["private", "vepa", "bridge", "passthru"]


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of a kind as such is a class variable."""

    word: ClassVar[str]
    """The kernel's, IFLA_INFO_KIND."""
    has_ports: ClassVar[bool] = False
    """Others are made its ports, so it stands before them."""
    is_sealanes: ClassVar[bool] = True
    """Made and deleted by us, with an alias, an MTU and a MAC."""
    is_pair: ClassVar[bool] = False
    """Both ends are made by one request, of the host's side."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Fields that the kernel does not tell, so that no observed link has them: not compared."""

    @property
    def as_read(self) -> "_Kind":
        """Without the fields that are not read."""
        if not self.unread:
            return self
        return type(self)(**{f: getattr(self, f) for f in self.__struct_fields__ if f not in self.unread})


class Loopback(_Kind, frozen=True, kw_only=True):
    """`lo`, which every namespace has. Of it only `up` is ours."""

    word = "loopback"
    is_sealanes = False


class Bridge(_Kind, frozen=True, kw_only=True):
    word = "bridge"
    has_ports = True

    ageing_off: bool = False
    stp: bool = False
    """A spanning tree holds ports back for 30 s, and tells workloads of the bridge."""
    snooping: bool = False
    """Of multicast groups. It loses multicast where no host queries."""


class Veth(_Kind, frozen=True, kw_only=True):
    word = "veth"
    is_pair = True
    unread = ("peer", "handover")
    # The kernel names the other end by an index in another namespace; the pairing is known by the alias of both.

    peer: tuple[str, str] | None = None
    """(namespace, name) of the other end."""
    handover: str = ""
    """Instead of `peer`: name of the other end, made with it on the host, unmarked, and from then on another engine's.
    It is no object of ours, so that it moves away is no drift; it dies with this end."""


class Macvlan(_Kind, frozen=True, kw_only=True):
    """A link with a MAC of its own on a parent link of the host, whose segment it is on."""

    word = "macvlan"
    unread = ("parent",)
    # Told as an index in the parent's namespace; it never changes, and a parent that goes takes the link with it.

    parent: str = ""
    """Name of the parent, on the host."""
    mode: MacvlanMode = "bridge"


class OtherKind(_Kind, frozen=True, kw_only=True):
    """A kind that sealane never makes, as observed: it differs from everything desired."""

    word = ""
    is_sealanes = False

    name: str


LinkKind = Loopback | Bridge | Veth | Macvlan | OtherKind


def word_of(kind: LinkKind) -> str:
    return kind.name if isinstance(kind, OtherKind) else kind.word
