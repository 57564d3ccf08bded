"""Packets, and what became of them: Trace → Hop (a namespace) → Step → one Disposition (Batfish's words).

A trace is complete data: it renders, compares and travels as JSON without the states that it was made from.
"""

import enum
from typing import Literal

import msgspec

from sealane.compile.reads import Unit
from sealane.kernel.objects import Key
from sealane.model.net import Family, family_of

Protocol = Literal["tcp", "udp", "sctp", "icmp", "arp"]
"""`icmp` is ICMP over IPv4 and ICMPv6 over IPv6."""

SNAT, DNAT = 16, 32
"""IPS_SRC_NAT, IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h)."""

SMALL_PACKET_BYTES = 60
"""A SYN with its options, or a short datagram."""

DEFAULT_TTL = 64

CLIENT_PORT = 40000
"""Any port out of the ephemeral range: sealane's rules do not look at it, and foreign ones do not know it."""


class Disposition(enum.StrEnum):
    DELIVERED = "delivered"
    """To the namespace that has the address. Whether somebody listens there is not known here."""
    EXITS = "exits"
    """By a foreign link, towards what sealane knows nothing of."""
    DENIED = "denied"
    """By a rule, named in the reason."""
    SPOOFED = "spoofed"
    """By a guard: the source is not the sender's."""
    MARTIAN = "martian"
    """By the kernel's own check of the source address (fib_validate_source)."""
    NO_ROUTE = "no route"
    UNREACHABLE = "unreachable"
    """By a route that says so."""
    NO_ADDRESS = "no address"
    """The sender has none of this family."""
    NEIGHBOUR_UNREACHABLE = "neighbour unreachable"
    NOT_FORWARDED = "not forwarded"
    """This namespace does not forward at all."""
    LINK_DOWN = "link down"
    LOST = "lost"
    """On a bridge: no port has the address, or the only one that has it may not be used."""
    TOO_BIG = "too big"
    LOOP = "loop"
    UNANSWERED = "unanswered"
    """It arrives, and its answer does not."""
    TRANSLATED = "translated by foreign rules"
    """Its destination is, or may be, changed by rules that are not followed: where it ends cannot be said."""


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    proto: Protocol = "tcp"
    source: str = ""
    """Empty: the kernel chooses. In ARP: the sender's address."""
    source_port: int = 0
    destination: str
    """In ARP: the address asked for, or the one answered to."""
    destination_port: int = 0
    """Of ICMP both ports are the echo's id."""
    size: int = SMALL_PACKET_BYTES
    """Bytes of the IP packet."""
    fragment: int = 0
    """Bytes of the largest fragment that it travels in; 0: in one piece."""
    dont_fragment: bool = False
    ttl: int = DEFAULT_TTL
    mac_source: str = ""
    mac_destination: str = ""
    icmp_type: int = 0
    """0: an echo request."""
    target: str = ""
    """Of neighbour discovery: the address asked for."""
    sender_mac: str = ""
    """In ARP, the sender's MAC as the body says; empty: the frame's own source."""
    about: "Packet | None" = None
    """The packet that this ICMP error quotes."""

    @property
    def family(self) -> Family:
        return family_of(self.destination)

    @property
    def wire_size(self) -> int:
        """Bytes of the largest piece on the wire."""
        return self.fragment or self.size

    def __str__(self) -> str:
        if self.proto == "icmp":
            return f"{self.source} → {self.destination} icmp"
        source, destination = (
            socket_text(self.source, self.source_port),
            socket_text(self.destination, self.destination_port),
        )
        return f"{source} → {destination} {self.proto}"


def socket_text(address: str, port: int) -> str:
    shown = f"[{address}]" if ":" in address and port else address
    return f"{shown}:{port}" if port else shown


class Tuple(msgspec.Struct, frozen=True):
    """What connection tracking knows a direction of a flow by."""

    proto: str
    source: str
    source_port: int
    destination: str
    destination_port: int

    @property
    def inverse(self) -> "Tuple":
        return Tuple(self.proto, self.destination, self.destination_port, self.source, self.source_port)


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A connection tracking entry."""

    netns: str
    original: Tuple
    reply: Tuple
    status: int = 0
    """SNAT, DNAT: which ends were translated."""
    replied: bool = False
    """IPS_SEEN_REPLY: packets are `established` from now on."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the kernel did."""

    kind: Literal[
        "socket",
        "route",
        "source",
        "rule",
        "conntrack",
        "nat",
        "neighbour",
        "bridge",
        "link",
        "fast path",
        "mtu",
        "local",
        "end",
    ]
    text: str
    detail: str = ""
    """The rule, the element or the entry in the kernel's own spelling."""
    why: str = ""
    """A rule's comment: which intent it serves."""
    object: Key | None = None
    """Key of the kernel object that decided, in the hop's namespace."""
    origin: Unit | None = None
    """The intent object that it was compiled from; None: not of ours, or the kernel's own."""
    origin_name: str = ""
    """`network front`."""


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace on the way."""

    netns: str
    name: str
    steps: tuple[Step, ...]


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """A question to the routing tables of one namespace, and the answer that the verdict rests on."""

    netns: str
    proto: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    iif: str = ""
    """Empty: a local process sends."""
    mark: int | None = 0
    size: int = SMALL_PACKET_BYTES
    kind: str
    """`local`, `unicast`, `unreachable` or `none`."""
    link: str = ""
    gateway: str = ""


class Device(msgspec.Struct, frozen=True):
    """A link that the packet, or a question for a neighbour, passes."""

    netns: str
    link: str
    way: Literal["in", "out"]


class Resolved(msgspec.Struct, frozen=True):
    """A neighbour whose MAC the packet needs; empty: of a foreign link, where anything may be right."""

    netns: str
    link: str
    address: str
    mac: str


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """What the verdict rests on, to be held against the kernel."""

    lookups: tuple[Lookup, ...] = ()
    devices: tuple[Device, ...] = ()
    neighbours: tuple[Resolved, ...] = ()
    bridged: tuple[tuple[str, str, str], ...] = ()
    """(namespace, bridge, MAC) that a frame went up by: the bridge's own."""
    doubts: tuple[str, ...] = ()
    """Foreign rules of which it cannot be told what they do to the packet."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    packet: Packet
    """As it was asked for."""
    sent: Packet
    """As it left the socket: the kernel has chosen the source, the socket program perhaps another destination."""
    hops: tuple[Hop, ...]
    disposition: Disposition
    reason: str
    hint: str
    """Empty where nothing is wrong."""
    final: Packet
    """As it arrived, or as it was when it ended."""
    netns: str
    """Where it ended."""
    link: str
    """By which link it came to where it ended, or left."""
    flows: tuple[Flow, ...] = ()
    """Connection tracking afterwards: what `walk` of the answer starts from."""
    question: str = ""
    """`web -> db:5432 tcp`."""
    met: Met = Met()
    answer: str = ""
    """What becomes of its answer, where that is lost: `denied by the port guard`."""

    @property
    def passes(self) -> bool:
        return self.disposition in (Disposition.DELIVERED, Disposition.EXITS)

    @property
    def is_unknown(self) -> bool:
        """Where it ends cannot be said."""
        return self.disposition is Disposition.TRANSLATED


class Sent(msgspec.Struct, frozen=True):
    """A packet begins at a socket in a namespace."""

    netns: str


class Arrives(msgspec.Struct, frozen=True):
    """A packet begins as a frame that comes in by a link: from outside, or from software that makes its own frames."""

    netns: str
    link: str


Start = Sent | Arrives
