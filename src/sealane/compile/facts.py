"""Facts: what is true of this host, as an argument of the compiler."""

from typing import Literal

import msgspec

from sealane.kernel.nft import NftFamily
from sealane.kernel.objects import PassageFamily
from sealane.model.net import Family, Prefix


class ForeignRoute(msgspec.Struct, frozen=True):
    """A prefix in use around us, and whose it is, for automatic pools to avoid and errors to name."""

    prefix: Prefix
    owner: str
    """`route via eth0`, `address of lo`, `nameserver 192.0.2.53`."""


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What this kernel can do. `sealane status` names what it cannot, and what is lost."""

    nft: bool = True
    nft_bridge: bool = True
    ipv6: bool = True
    conntrack: bool = True
    loopback_reason: str = ""
    """Why the host's own 127.0.0.1 is served by a forwarder; empty: it is not."""
    fast_path: bool = False
    """Programs at links may deliver packets within a network (`compile.fast_path`)."""
    fast_path_reason: str = ""
    """Why not."""
    firewalls: tuple[NftFamily, ...] = ()
    """Families in which somebody else's rules may judge what passes between links."""
    translators: tuple[NftFamily, ...] = ()
    """Families in which somebody else's rules may translate where packets go, as kube-proxy's do."""
    forward_drops: tuple[PassageFamily, ...] = ()
    """Families in which iptables' FORWARD chain has the policy DROP."""
    bridge_netfilter: bool = False
    """net.bridge.bridge-nf-call-iptables is 1: frames between ports of one bridge pass the IP hooks as well."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    instance: str
    """Six hex digits that tell this installation's objects from another's."""
    uplink: str = ""
    uplink_mtu: int = 0
    """Bytes; 0: no uplink, 1500 is used."""
    foreign_routes: tuple[ForeignRoute, ...] = ()
    ra_links: tuple[str, ...] = ()
    """Links of others by which the host has learnt an IPv6 default route from router advertisements."""
    forwards: tuple[Family, ...] = ()
    """Families that the host forwards without us: it did before we came."""
    lent: tuple[Family, ...] = ()
    """Families whose forwarding we have switched on."""
    newcomers: tuple[tuple[Family, str], ...] = ()
    """Bridges of other engines that have come since we switched a family on: they live by it, too."""
    bridges: tuple[str, ...] = ()
    """Of others. Empty where frames between their ports pass no IP hooks."""
    features: Features = Features()


Reach = Literal["nothing", "host", "everything"]


def reach(before: Facts, after: Facts) -> Reach:
    """What of the desired state may be another for facts that have changed: that of the unit `host` alone follows the rules
    of others, the links that the host learns its routes by, and what it forwards. Law: tests/property/test_compile.py."""
    if _for_everything(before) != _for_everything(after):
        return "everything"
    return "nothing" if _for_host(before) == _for_host(after) else "host"


def _for_host(facts: Facts) -> tuple[object, ...]:
    return facts.features, facts.ra_links, facts.forwards, facts.lent, facts.newcomers, facts.bridges


def _for_everything(facts: Facts) -> tuple[str, int, Features]:
    return facts.instance, facts.uplink_mtu, msgspec.structs.replace(facts.features, firewalls=())
