"""The kernel's reasons for a drop (enum skb_drop_reason, include/net/dropreason-core.h), and what to do about each.

Kernels differ in which they know; one that is not here is shown as the kernel calls it.
"""

LISTENERLESS = frozenset({"NO_SOCKET"})
"""Delivered, and nobody had a socket for it. (Also a ping to a kernel that answers by itself: ping_rcv.)"""

_ROUTE = "see `ip route get` in that namespace and `ip rule`"
_REASONS: dict[str, tuple[str, str]] = {
    "NETFILTER_DROP": ("a rule drops it", "nft list ruleset; iptables-legacy -L in that namespace"),
    "IP_INNOROUTES": ("there is no route to the destination", _ROUTE),
    "IP_OUTNOROUTES": ("there is no route to the destination", _ROUTE),
    "IP_INADDRERRORS": (
        "this namespace does not forward, or takes no such address",
        "sysctl net.ipv4.ip_forward=1, net.ipv6.conf.all.forwarding=1",
    ),
    "IP_RPFILTER": (
        "rp_filter: the way back to its source goes by another link",
        "sysctl net.ipv4.conf.all.rp_filter=2, or mend the route",
    ),
    "IP_INVALID_SOURCE": ("its source is no address that may send", "see who sends it"),
    "IP_LOCAL_SOURCE": ("its source is an address of this namespace itself", "see who sends it"),
    "IP_LOCALNET": ("loopback addresses are taken from `lo` only", "use another address of the host"),
    "IP_INHDR": (
        "its TTL is used up, or its header is wrong",
        "look for a route that leads back, and rules that set the TTL",
    ),
    "NEIGH_FAILED": (
        "nobody answers for the next hop's address (ARP, ND)",
        "see `ip neigh` in that namespace",
    ),
    "NEIGH_CREATEFAIL": (
        "the machine's neighbour table is full",
        "sysctl net.ipv4.neigh.default.gc_thresh3=8192, and net.ipv6's; it is shared by all namespaces",
    ),
    "NEIGH_QUEUEFULL": ("too many packets wait for a neighbour's answer", "see `ip neigh`"),
    "OTHERHOST": ("the frame is for another MAC", "a stale neighbour entry: `ip neigh flush`"),
    "NO_TX_TARGET": ("no port of the bridge leads there", "see `bridge fdb`, and whether the endpoint is up"),
    "PKT_TOO_BIG": ("it is too big for the link, and may not be fragmented", "let ICMP pass; lower the MTU"),
    "QDISC_DROP": ("a queue is full, or a rate limit was reached", "tc -s qdisc"),
    "FULL_RING": ("the receiver's queue is full", "it reads too slowly"),
    "SOCKET_RCVBUFF": ("the socket's buffer is full", "the application reads too slowly"),
    "SOCKET_BACKLOG": ("the socket's backlog is full", "the application accepts too slowly"),
    "SOCKET_FILTER": ("the socket's own filter drops it", "see the application"),
    "IPV6DISABLED": ("IPv6 is switched off there", "sysctl net.ipv6.conf.all.disable_ipv6=0"),
    "XDP": ("an XDP program drops it", "ip link show: see `prog/xdp`"),
    "TC_INGRESS": ("a filter at the link's ingress drops it", "tc filter show dev LINK ingress"),
    "TC_EGRESS": ("a filter at the link's egress drops it", "tc filter show dev LINK egress"),
    "BPF_CGROUP_EGRESS": ("a cgroup's program drops it", "bpftool cgroup tree"),
    "IP_CSUM": ("its checksum is wrong", "ethtool -K LINK tx off"),
    "TCP_CSUM": ("its checksum is wrong", "ethtool -K LINK tx off"),
    "UDP_CSUM": ("its checksum is wrong", "ethtool -K LINK tx off"),
    "DEV_READY": ("the link is down", "ip link set LINK up"),
}


def told(reason: str, symbol: str) -> tuple[str, str]:
    """What it means, and what to do about it. `symbol`: where in the kernel; may be empty."""
    where = f" in {symbol}" if symbol else ""
    if reason == "NOT_SPECIFIED":
        return _BY_SYMBOL.get(symbol, (f"the kernel drops it{where} and does not say why", ""))
    return _REASONS.get(reason, (f"the kernel drops it{where}", ""))


_BY_SYMBOL = {
    "br_dev_queue_push_xmit": (
        "it is too big for the bridge's port",
        "see the MTUs of the bridge and its ports",
    ),
    "ip6_mc_input": ("nobody there has joined that group", ""),
    "neigh_invalidate": _REASONS["NEIGH_FAILED"],
    "ip_error": (
        "a route or a routing rule refuses it (unreachable, prohibit, blackhole)",
        "see `ip rule`, and `ip route get` in that namespace",
    ),
}
"""Where the reason is none, the place says it."""
