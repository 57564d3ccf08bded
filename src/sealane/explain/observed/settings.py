"""Sysctls that a path rests on, with the values under which packets do what the walk says (Documentation/networking/
ip-sysctl.rst). `LINK` stands for each link that the packet comes in or goes out by; what sealane itself sets is audited."""

from collections.abc import Callable, Iterator, Mapping

from sealane.model.net import Family

HOPS_MAX = 16
"""More than any path within a host has."""


def _is(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


def _at_least(least: int) -> Callable[[str], bool]:
    return lambda value: value.lstrip("-").isdigit() and int(value) >= least


_LINK: Mapping[Family, Mapping[str, Callable[[str], bool]]] = {
    4: {
        "net/ipv4/conf/LINK/arp_ignore": _is("0"),
        "net/ipv4/conf/LINK/arp_filter": _is("0"),
        "net/ipv4/neigh/LINK/mcast_solicit": _at_least(1),
        "net/ipv4/neigh/LINK/unres_qlen_bytes": _at_least(1),
    },
    6: {
        "net/ipv6/conf/LINK/disable_ipv6": _is("0"),
        "net/ipv6/conf/LINK/seg6_enabled": _is("0"),
        "net/ipv6/conf/LINK/hop_limit": _at_least(HOPS_MAX),
        "net/ipv6/conf/LINK/mtu": _at_least(1280),
        "net/ipv6/neigh/LINK/mcast_solicit": _at_least(1),
        "net/ipv6/neigh/LINK/unres_qlen_bytes": _at_least(1),
    },
}
_ALL: Mapping[Family, Mapping[str, Callable[[str], bool]]] = {
    4: {
        "net/ipv4/conf/all/arp_ignore": _is("0"),
        "net/ipv4/ip_default_ttl": _at_least(HOPS_MAX),
    },
    6: {
        "net/ipv6/conf/all/disable_ipv6": _is("0"),
        "net/ipv6/conf/all/seg6_enabled": _is("0"),
    },
}
_ECHO: Mapping[Family, Mapping[str, Callable[[str], bool]]] = {
    4: {"net/ipv4/icmp_echo_ignore_all": _is("0")},
    6: {"net/ipv6/icmp/echo_ignore_all": _is("0")},
}
_BEFORE_ANSWERS = 2
"""Seconds that a flow must be remembered for its answer to be known."""
_TRACKED: Mapping[str, Callable[[str], bool]] = {
    f"net/netfilter/nf_conntrack_{name}": _at_least(_BEFORE_ANSWERS)
    for name in (
        "tcp_timeout_syn_sent",
        "tcp_timeout_syn_recv",
        "tcp_timeout_established",
        "udp_timeout",
        "icmp_timeout",
        "icmpv6_timeout",
    )
}
TRACKED_COUNT, TRACKED_MAX = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


def expected(
    family: Family, links: frozenset[str], proto: str
) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """(path, whether a value is one that the walk knows)."""
    yield from _ALL[family].items()
    for pattern, holds in _LINK[family].items():
        yield from ((pattern.replace("LINK", name.replace("/", ".")), holds) for name in sorted(links))
    if proto == "icmp":
        yield from _ECHO[family].items()
    yield from _TRACKED.items()


def paths(links: frozenset[str]) -> Iterator[str]:
    """All that is to be read."""
    for family in _LINK:
        yield from (path for path, _ in expected(family, links, "icmp"))
    yield from (TRACKED_COUNT, TRACKED_MAX)
