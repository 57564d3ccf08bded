"""What a rule's refusal means to a person, and what to do about it. Rules say why by the last word of their comment."""

from typing import NamedTuple

from sealane.explain.packet import Disposition
from sealane.kernel.nft import Rule

DENIED, SPOOFED = Disposition.DENIED, Disposition.SPOOFED


class Reason(NamedTuple):
    disposition: Disposition
    text: str
    """`{where}` stands for the intent object whose rule it is."""
    hint: str


_OWN_SOURCE = "send from the address that sealane gave to this link"
_BY_PORT = "publish the port and use the host's address, or attach both sandboxes to one network"

REASONS: dict[str, Reason] = {
    "isolation": Reason(
        DENIED, "{where} takes nothing from outside but answers and published ports", _BY_PORT
    ),
    "icc": Reason(
        DENIED,
        "{where} keeps its endpoints apart (icc=false)",
        "publish the port and use the host's address, or make the network with icc=true",
    ),
    "internal": Reason(
        DENIED, "{where} is internal: nothing leaves or enters it", "use a network that is not internal"
    ),
    "spoofed": Reason(
        SPOOFED,
        "the source address is not one that {where} gave to the sender",
        f"{_OWN_SOURCE}; on two networks the answer leaves by the default route (see gateway priority)",
    ),
    "base:spoofed": Reason(
        SPOOFED,
        "a packet from outside claims an address of one of sealane's networks",
        "look for the host that sends it",
    ),
    "host-source": Reason(
        SPOOFED,
        "a packet from outside claims an address of this host itself",
        "look for the host that sends it",
    ),
    "transit": Reason(
        DENIED,
        "the host forwards because sealane needs it to, and this is neither from a network of its nor to one",
        "if the host is to route: switch forwarding on before sealane does (`net.ipv4.ip_forward=1` in /etc/sysctl.d), then "
        "reboot",
    ),
    "direct": Reason(
        DENIED,
        "addresses of a masqueraded network are not reached from outside",
        "publish the port, or make the network with masquerade=false",
    ),
    "unplugged": Reason(
        DENIED,
        "the endpoint is not plugged into a network that has this family",
        "give the network a subnet of this family, or wait for `attach` to answer",
    ),
    "loopback": Reason(
        DENIED, "127.0.0.0/8 is the host's own, and nobody else's", "use an address that others may reach"
    ),
    "ethertype": Reason(DENIED, "endpoints send ARP, IPv4 and IPv6 only", "use IP"),
    "dhcp-server": Reason(DENIED, "endpoints do not act as DHCP servers", "sealane gives out the addresses"),
    "router-advert": Reason(DENIED, "endpoints do not act as routers", "sealane sets the routes"),
    "redirect": Reason(DENIED, "endpoints do not redirect others' traffic", "sealane sets the routes"),
    "spoofed-ip": Reason(
        SPOOFED,
        "the source is not the endpoint's own MAC and address",
        f"{_OWN_SOURCE}; on two networks the answer leaves by the default route (see gateway priority)",
    ),
    "spoofed-arp": Reason(SPOOFED, "ARP for an address that is not the endpoint's own", _OWN_SOURCE),
    "spoofed-nd": Reason(
        SPOOFED, "neighbour discovery for an address that is not the endpoint's own", _OWN_SOURCE
    ),
}

_UNNAMED = Reason(DENIED, "a rule drops it", "see the rule's origin")


def reason_of(rule: Rule) -> Reason:
    return REASONS.get(rule.comment) or REASONS.get(rule.comment.rpartition(":")[2]) or _UNNAMED
