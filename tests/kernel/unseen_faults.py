"""Faults that `explain` was not written for, as data: what was typed, who asks whom then, and whether the packet dies.

The town is that of `fault_corpus.py`. Nothing here says what `explain --observed` must print: the law is that it gives no
all-clear beside a packet that dies (`test_unseen_faults.py`). Faults that do no harm are here too, beside which an alarm
would be as wrong.
"""

import msgspec


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    make: tuple[tuple[str, str], ...]
    """(where, command line) in order: a workload, `host`, or `ext`."""
    undo: tuple[tuple[str, str], ...]
    ask: str
    """What is typed behind `sealane explain … --observed`."""
    probe: tuple[str, str, str, str]
    """(where, protocol, address, port) of the real packet."""
    dies: bool = True
    names: str = ""
    """Words that `explain` prints, where it names the cause itself."""


def one(where: str, *lines: str) -> tuple[tuple[str, str], ...]:
    return tuple((where, line) for line in lines)


def table(family: str, chain: str, rule: str, *more: str) -> tuple[str, ...]:
    """`chain`: the base chain's type, hook, priority; a policy."""
    return (
        f"nft add table {family} fw",
        *more,
        f"nft add chain {family} fw c '{{{{ {chain} }}}}'",
        *([f"nft add rule {family} fw c {rule}"] if rule else []),
    )


IN = ("web api:80", ("web", "tcp", "{api4}", "80"))
"""Within a bridge."""
IN6 = ("web api:80 -6", ("web", "tcp", "{api6}", "80"))
OUT = ("web {ext}:80", ("web", "tcp", "{ext}", "80"))
"""From a sandbox to the outside."""
OUT6 = ("web [{ext6}]:80", ("web", "tcp", "{ext6}", "80"))
PUBLISHED = ("--from {ext} {host4}:8080", ("ext", "tcp", "{host4}", "8080"))
LOCAL = ("--from host web:80", ("host", "tcp", "{web4}", "80"))
ROUTED = ("near far:80", ("near", "tcp", "{far4}", "80"))
DNS = ("web api:80 --proto udp", ("web", "udp", "{api4}", "80"))
LOOPBACK = ("--from host 127.0.0.1:8080", ("host", "tcp", "127.0.0.1", "8080"))


def fault(
    name: str,
    where: str,
    make: tuple[str, ...] | str,
    undo: tuple[str, ...] | str,
    case: tuple[str, tuple[str, str, str, str]],
    **fields: object,
) -> Unseen:
    lines = (make,) if isinstance(make, str) else make
    back = (undo,) if isinstance(undo, str) else undo
    return Unseen(
        name=name,
        make=one(where, *lines),
        undo=one(where, *back),
        ask=case[0],
        probe=case[1],
        **fields,  # type: ignore[arg-type]
    )


def ruled(
    name: str, where: str, family: str, chain: str, rule: str, case: tuple, *more: str, **fields: object
) -> Unseen:
    return fault(
        name, where, table(family, chain, rule, *more), f"nft delete table {family} fw", case, **fields
    )


def sysctl(
    name: str, where: str, path: str, value: str, before: str, case: tuple, **fields: object
) -> Unseen:
    return fault(name, where, f"sysctl -qw {path}={value}", f"sysctl -qw {path}={before}", case, **fields)


FORWARD = "type filter hook forward priority 10;"
IS_FLUSHED = "ip neigh flush dev eth0"

RULES: tuple[Unseen, ...] = (
    ruled("forward drops by policy, and no rule accepts", "host", "inet", "type filter hook forward priority 10; policy drop;", "", OUT, names="the policy of inet table fw"),
    ruled("forward drops by a rule of ip", "host", "ip", FORWARD, "tcp dport 80 drop", OUT, names="table fw"),
    ruled("forward drops by a rule of ip6", "host", "ip6", FORWARD, "tcp dport 80 drop", OUT6, names="table fw"),
    ruled("forward rejects", "host", "ip", FORWARD, "tcp dport 80 reject with tcp reset", OUT, names="table fw"),
    ruled("forward drops after our guard, very late", "host", "ip", "type filter hook forward priority 1000;", "ip daddr {ext} drop", OUT, names="table fw"),
    ruled("prerouting drops before conntrack", "host", "ip", "type filter hook prerouting priority -400;", "tcp dport 80 drop", OUT, names="table fw"),
    ruled("postrouting drops", "host", "ip", "type filter hook postrouting priority 300;", "tcp dport 80 drop", OUT, names="table fw"),
    ruled("output drops what the host sends", "host", "inet", "type filter hook output priority 0;", "tcp dport 80 drop", LOCAL, names="table fw"),
    ruled("input drops answers to the host", "host", "inet", "type filter hook input priority 0;", "ct state established tcp sport 80 drop", LOCAL, names="its answer is lost"),
    ruled("established packets are dropped on forward", "host", "ip", FORWARD, "ct state established drop", OUT),
    ruled("answers alone are dropped on forward", "host", "ip", FORWARD, "ct direction reply drop", OUT),
    ruled("marked packets are dropped", "host", "ip", FORWARD, "meta mark 7 drop", OUT, "nft add chain ip fw m '{{ type filter hook prerouting priority -150; }}'", "nft add rule ip fw m tcp dport 80 meta mark set 7"),
    ruled("a named set drops", "host", "ip", FORWARD, "ip daddr @bad drop", OUT, "nft add set ip fw bad '{{ type ipv4_addr; flags interval; elements = {{ 192.0.2.128/25 }} }}'"),
    ruled("a verdict map drops", "host", "ip", FORWARD, "tcp dport vmap '{{ 22 : accept, 80 : drop }}'", OUT),
    ruled("a concatenated map drops", "host", "ip", FORWARD, "ip saddr . tcp dport vmap '{{ {web4} . 80 : drop }}'", OUT),
    ruled("a jumped-to chain drops", "host", "ip", FORWARD, "jump sub", OUT, "nft add chain ip fw sub", "nft add rule ip fw sub tcp dport 80-90 drop"),
    ruled("a limit of nothing drops what is over", "host", "ip", FORWARD, "tcp dport 80 limit rate over 1/day burst 1 packets drop", OUT),
    ruled("a quota that is used up", "host", "ip", FORWARD, "quota over 1 bytes drop", OUT),
    ruled("a dynamic set fills up and drops", "host", "ip", FORWARD, "add @seen '{{ ip saddr }}' drop", OUT, "nft add set ip fw seen '{{ type ipv4_addr; flags dynamic; size 4; }}'"),
    ruled("TTL is set to one", "host", "ip", "type filter hook prerouting priority -150;", "ip ttl set 1", OUT),
    ruled("packets with a usual TTL are dropped", "host", "ip", FORWARD, "ip ttl lt 100 drop", OUT),
    ruled("SYN packets are dropped by their flags", "host", "ip", FORWARD, "tcp flags syn drop", OUT),
    ruled("a device number drops", "host", "ip", FORWARD, "iif {bridge} oif eth0 drop", OUT),
    ruled("a MAC address is dropped on the way in", "host", "ip", "type filter hook prerouting priority -300;", "ether saddr {webmac} drop", OUT),
    ruled("connection tracking is switched off for it", "host", "ip", "type filter hook prerouting priority -300;", "tcp dport 8080 notrack", PUBLISHED),
    ruled("the uplink's ingress drops", "host", "netdev", "type filter hook ingress device eth0 priority 0;", "tcp dport 8080 drop", PUBLISHED, names="table fw"),
    ruled("the uplink's egress drops", "host", "netdev", "type filter hook egress device eth0 priority 0;", "tcp dport 80 drop", OUT, names="table fw"),
    ruled("the host's end drops at ingress", "host", "netdev", "type filter hook ingress device {weblink} priority 0;", "tcp dport 80 drop", IN, names="table fw"),
    ruled("inet's ingress drops", "host", "inet", "type filter hook ingress device {weblink} priority 0;", "tcp dport 80 drop", IN, names="table fw"),
    ruled("a bridge rule drops between ports", "host", "bridge", "type filter hook forward priority 0;", "tcp dport 80 drop", IN, names="table fw"),
    Unseen(name="a bridge rule drops ARP", make=(*one("host", *table("bridge", "type filter hook prerouting priority 0;", "ether type arp drop")), ("web", IS_FLUSHED)), undo=one("host", "nft delete table bridge fw"), ask=IN[0], probe=IN[1]),
    ruled("a bridge rule drops what goes out by a port", "host", "bridge", "type filter hook postrouting priority 0;", "ether saddr {webmac} drop", IN),
    ruled("arp is dropped in the sender", "web", "arp", "type filter hook output priority 0;", "arp operation request drop", IN, "ip neigh flush dev eth0"),
    ruled("arp is dropped in the receiver", "api", "arp", "type filter hook input priority 0;", "drop", IN, "ip neigh flush dev eth0"),
    ruled("the sender's own output drops", "web", "inet", "type filter hook output priority 0;", "tcp dport 80 drop", IN, names="table fw"),
    ruled("the receiver's own input drops", "api", "inet", "type filter hook input priority 0; policy drop;", "icmpv6 type nd-neighbor-solicit accept", IN, names="table fw"),
    ruled("the receiver drops its answers", "api", "inet", "type filter hook output priority 0;", "tcp sport 80 drop", IN, names="its answer is lost"),
    ruled("the receiver translates the port away", "api", "ip", "type nat hook prerouting priority -100;", "tcp dport 80 redirect to :9", IN),
    ruled("the sender translates the destination away", "web", "ip", "type nat hook output priority -100;", "tcp dport 80 dnat to 10.71.0.250", IN),
    ruled("the sender translates its source away", "web", "ip", "type nat hook postrouting priority 100;", "snat to 10.71.0.99", IN),
    ruled("a published port is redirected before us", "host", "ip", "type nat hook prerouting priority -110;", "tcp dport 8080 redirect to :9", PUBLISHED),
    ruled("what the host sends is translated away", "host", "ip", "type nat hook output priority -110;", "ip daddr {web4} dnat to 10.71.0.250", LOCAL),
    ruled("a socket takes what is forwarded (tproxy)", "host", "ip", "type filter hook prerouting priority -150;", "tcp dport 80 tproxy to :9 accept", OUT, dies=False),
    ruled("a conntrack zone of its own", "host", "ip", "type filter hook prerouting priority -300;", "iifname eth0 ct zone set 7", OUT),
    # Those that do no harm.
    ruled("a counter counts", "host", "inet", FORWARD, "counter", OUT, dies=False),
    ruled("a drop of another port", "host", "inet", FORWARD, "tcp dport 81 drop", OUT, dies=False),
    ruled("a firewall that accepts it and drops the rest", "host", "ip", "type filter hook forward priority 10; policy drop;", "ct state established,related accept", OUT, "nft add chain ip fw c '{{ type filter hook forward priority 10; policy drop; }}'", "nft add rule ip fw c ip saddr 10.71.0.0/24 tcp dport '{{ 80, 443 }}' accept", dies=False),
)  # fmt: skip

IPTABLES: tuple[Unseen, ...] = (
    fault("iptables drops on FORWARD", "host", "iptables-nft -I FORWARD -p tcp --dport 80 -j DROP", "iptables-nft -D FORWARD -p tcp --dport 80 -j DROP", OUT, names="table filter"),
    fault("iptables drops by a match that netlink cannot explain", "host", "iptables-nft -I FORWARD -p tcp -m string --algo bm --string x --from 0 --to 1 -j ACCEPT; iptables-nft -A FORWARD -m length --length 0:65535 -j DROP", "iptables-nft -F FORWARD", OUT),
    fault("iptables sets the TTL", "host", "iptables-nft -t mangle -I PREROUTING -j TTL --ttl-set 1", "iptables-nft -t mangle -F PREROUTING", OUT),
    fault("iptables-legacy drops", "host", "iptables-legacy -I FORWARD -p tcp --dport 80 -j DROP", "iptables-legacy -F FORWARD", OUT, names="iptables-legacy"),
    fault("iptables-legacy has the policy DROP and no rule", "host", "iptables-legacy -P FORWARD DROP", "iptables-legacy -P FORWARD ACCEPT", OUT, names="iptables-legacy"),
    fault("iptables-legacy translates", "host", "iptables-legacy -t nat -I OUTPUT -d {web4} -j DNAT --to-destination 10.71.0.250", "iptables-legacy -t nat -F OUTPUT", LOCAL),
    fault("iptables-legacy drops in the receiver", "api", "iptables-legacy -I INPUT -p tcp --dport 80 -j DROP", "iptables-legacy -F INPUT", IN, names="iptables-legacy"),
    fault("ebtables drops", "host", "ebtables-nft -I FORWARD -p IPv4 --ip-proto tcp --ip-dport 80 -j DROP", "ebtables-nft -F FORWARD", IN),
    fault("arptables drops in the receiver", "api", ("ip neigh flush dev eth0", "arptables-nft -I INPUT -j DROP"), "arptables-nft -F INPUT", IN),
    fault("iptables has tables and no rule", "host", "iptables-nft -L; iptables-nft -t nat -L; iptables-nft -t mangle -L", "true", OUT, dies=False),
    fault("iptables-legacy has tables and no rule", "host", "iptables-legacy -L; iptables-legacy -t nat -L", "true", OUT, dies=False),
)  # fmt: skip

ROUTES: tuple[Unseen, ...] = (
    *(
        fault(f"a {kind} route on the host", "host", f"ip route add {kind} {{ext}}/32", f"ip route del {kind} {{ext}}/32", OUT, names="the route to 192.0.2.200")
        for kind in ("blackhole", "unreachable", "prohibit", "throw")
        if kind != "throw"
    ),
    fault("a blackhole route of IPv6 on the host", "host", "ip -6 route add blackhole {ext6}/128", "ip -6 route del blackhole {ext6}/128", OUT6, names="the route to"),
    fault("a blackhole route in another table, by a rule", "host", ("ip route add blackhole default table 77", "ip rule add from 10.71.0.0/24 table 77 priority 100"), ("ip rule del priority 100", "ip route flush table 77"), OUT, names="the route to"),
    fault("a prohibit rule by destination", "host", "ip rule add to {ext} prohibit priority 100", "ip rule del priority 100", OUT, names="the route to"),
    fault("a rule of IPv6 that makes unreachable", "host", "ip -6 rule add to {ext6} unreachable priority 100", "ip -6 rule del priority 100", OUT6, names="the route to"),
    fault("a rule by the port that is asked", "host", "ip rule add ipproto tcp dport 80 blackhole priority 100", "ip rule del priority 100", OUT, names="the route to"),
    fault("a rule by the link that it comes in by", "host", "ip rule add iif {bridge} blackhole priority 100", "ip rule del priority 100", OUT, names="the route to"),
    fault("a rule by user", "host", "ip rule add uidrange 0-4000 blackhole priority 100", "ip rule del priority 100", LOCAL, names=""),
    fault("a rule by mark, and who sets it", "host", ("ip rule add fwmark 9 blackhole priority 100", *table("ip", "type filter hook prerouting priority -150;", "tcp dport 80 meta mark set 9")), ("ip rule del priority 100", "nft delete table ip fw"), OUT, names=""),
    fault("answers are led elsewhere on the host", "host", "ip rule add iif eth0 to 10.71.0.0/24 blackhole priority 100", "ip rule del priority 100", OUT, names="the route to"),
    fault("a more special route by another link", "host", "ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up; ip route add {ext}/32 dev d0", "ip link del d0", OUT, names=""),
    fault("the sandbox's subnet leads elsewhere", "host", "ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up; ip route add {web4}/32 dev d0", "ip link del d0", PUBLISHED, names=""),
    fault("a blackhole nexthop", "host", ("ip nexthop add id 9 blackhole", "ip route add {ext}/32 nhid 9"), ("ip route del {ext}/32", "ip nexthop del id 9"), OUT, names="the route to"),
    fault("a blackhole in the sender", "web", "ip route add blackhole {api4}/32", "ip route del blackhole {api4}/32", IN, names="the route to"),
    fault("a blackhole in the receiver, for answers", "api", "ip route add blackhole {web4}/32", "ip route del blackhole {web4}/32", IN, names="the route to"),
    fault("a prohibit rule in the sender", "web", "ip rule add to {api4} prohibit priority 100", "ip rule del priority 100", IN, names="the route to"),
    fault("an unreachable route of IPv6 in the sender", "web", "ip -6 route add unreachable {api6}/128", "ip -6 route del unreachable {api6}/128", IN6, names="the route to"),
    fault("the local route of the receiver's address is gone", "api", "ip route del local {api4} dev eth0 table local", "ip route add local {api4} dev eth0 table local src {api4}", IN, names="the route to"),
    fault("a route that encapsulates", "host", ("ip link add vx0 type vxlan external dstport 4789", "ip link set vx0 up", "ip -6 route add {ext6}/128 encap ip6 id 5 dst fd00:dead::1 dev vx0"), "ip link del vx0", OUT6),
    fault("a route with a tiny MTU of its own", "web", "ip route add {api4}/32 dev eth0 mtu lock 68", "ip route del {api4}/32", IN, dies=False, names="carries 68 bytes at most"),
    fault("the receiver's default route leads back wrongly", "web", "ip route add {ext}/32 via 10.71.0.77 onlink dev eth0", "ip route del {ext}/32", PUBLISHED, names="the route to"),
    fault("strict rp_filter, and the way back goes elsewhere", "host", ("ip link add d0 type veth peer name d1", "ip link set d1 up", "ip link set d0 up", "ip route add {ext}/32 dev d0", "sysctl -qw net.ipv4.conf.all.rp_filter=1"), ("sysctl -qw net.ipv4.conf.all.rp_filter=0", "ip link del d0"), PUBLISHED),
    fault("a rule that changes nothing", "host", "ip rule add to 198.51.100.0/24 blackhole priority 100", "ip rule del priority 100", OUT, dies=False),
    fault("a blackhole of somebody else's prefix", "host", "ip route add blackhole 198.51.100.0/24", "ip route del blackhole 198.51.100.0/24", OUT, dies=False),
)  # fmt: skip

LINKS: tuple[Unseen, ...] = (
    fault("tc at the host's end sends frames to nowhere", "host", ("tc filter add dev {weblink} ingress pref 1 u32 match u32 0 0 action mirred egress redirect dev lo",), "tc filter del dev {weblink} ingress pref 1", IN, names="tc filter u32 at ingress"),
    fault("tc at the bridge, on the way out", "host", ("tc qdisc add dev {bridge} clsact", "tc filter add dev {bridge} egress pref 1 u32 match u32 0 0 action mirred egress redirect dev lo"), "tc qdisc del dev {bridge} clsact", LOCAL, names="tc filter u32 at egress"),
    fault("tc on the uplink", "host", ("tc qdisc add dev eth0 clsact", "tc filter add dev eth0 ingress u32 match u32 0 0 action mirred egress redirect dev lo"), "tc qdisc del dev eth0 clsact", PUBLISHED, names="tc filter u32 at ingress"),
    fault("tc in the sender", "web", ("tc qdisc add dev eth0 clsact", "tc filter add dev eth0 egress u32 match u32 0 0 action mirred egress redirect dev lo"), "tc qdisc del dev eth0 clsact", IN, names="tc filter u32 at egress"),
    fault("tc in the receiver", "api", ("tc qdisc add dev eth0 clsact", "tc filter add dev eth0 ingress u32 match u32 0 0 action mirred egress redirect dev lo"), "tc qdisc del dev eth0 clsact", IN, names="tc filter u32 at ingress"),
    fault("a queue without room in the sender", "web", "tc qdisc add dev eth0 root pfifo limit 0", "tc qdisc del dev eth0 root", IN, names="qdisc pfifo"),
    fault("a queue without room on the uplink", "host", "tc qdisc add dev eth0 root pfifo limit 0", "tc qdisc del dev eth0 root", OUT, names="qdisc pfifo"),
    fault("a queue without room on the bridge", "host", "tc qdisc add dev {bridge} root pfifo limit 0", "tc qdisc del dev {bridge} root", LOCAL, names="qdisc pfifo"),
    fault("a rate of nothing in the receiver", "api", "tc qdisc add dev eth0 root tbf rate 8bit burst 10 limit 10", "tc qdisc del dev eth0 root", IN, names="qdisc tbf"),
    fault("classes that starve it", "web", ("tc qdisc add dev eth0 root handle 1: htb default 1", "tc class add dev eth0 parent 1: classid 1:1 htb rate 8bit burst 1 cburst 1"), "tc qdisc del dev eth0 root", IN, names="qdisc htb"),
    fault("an XDP program at the uplink", "host", "{attach} xdp eth0", "{detach}", PUBLISHED, names="XDP program on eth0"),
    fault("an XDP program in the receiver", "web", "{attach} xdp eth0", "{detach}", LOCAL, names="XDP program on eth0"),
    fault("a tcx program at the host's end", "host", "{attach} tcx-in {weblink}", "{detach}", IN, names="tcx program at ingress"),
    fault("a tcx program in the sender", "web", "{attach} tcx-out eth0", "{detach}", IN, names="tcx program at egress"),
    fault("an eBPF program at a hook of netfilter", "host", "{attach} netfilter forward", "{detach}", OUT, names="eBPF program"),
    fault("the sender's link is down", "web", "ip link set eth0 down", ("ip link set eth0 up", "reattach"), IN),
    fault("the receiver's link is dormant", "api", "ip link set eth0 mode dormant; ip link set eth0 state dormant", "ip link set eth0 mode default; ip link set eth0 state up", IN, dies=False),
    fault("the receiver answers no ARP", "api", "ip link set eth0 arp off", "ip link set eth0 arp on", IN),
    fault("the receiver takes no multicast", "api", "ip link set eth0 multicast off", "ip link set eth0 multicast on", IN6, dies=False),
    fault("the receiver has a tiny MTU", "api", "ip link set eth0 mtu 100", ("ip link set eth0 mtu 1500", "reattach"), IN, dies=False),
    fault("the receiver's link is a port of a bridge of its own", "api", ("ip link add b0 type bridge", "ip link set b0 up", "ip link set eth0 master b0"), ("ip link del b0", "reattach"), IN, dies=False),
    fault("a macvlan takes all frames of the receiver's link", "api", ("ip link add m0 link eth0 type macvlan mode passthru", "ip link set m0 up"), "ip link del m0", IN, dies=False),
    fault("the bridge port is locked", "host", "ip link set dev {weblink} type bridge_slave locked on", "ip link set dev {weblink} type bridge_slave locked off", IN, dies=False),
    fault("the bridge has a port of somebody else's", "host", ("ip link add x0 type veth peer name x1", "ip link set x0 master {bridge} up"), "ip link del x0", IN, dies=False),
    fault("bridged frames pass iptables of this bridge alone", "host", ("ip link set {bridge} type bridge nf_call_iptables 1", *table("ip", FORWARD, "tcp dport 80 drop")), ("ip link set {bridge} type bridge nf_call_iptables 0", "nft delete table ip fw"), IN),
    fault("IPsec blocks it in the sender", "web", "ip xfrm policy add dst {api4}/32 dir out action block", "ip xfrm policy flush", IN, names="IPsec"),
    fault("IPsec blocks what is forwarded", "host", "ip xfrm policy add dst {ext}/32 dir fwd action block", "ip xfrm policy flush", OUT, names="IPsec"),
    fault("IPsec blocks by default", "api", "ip xfrm policy setdefault in block", "ip xfrm policy setdefault in accept", IN, names="IPsec"),
)  # fmt: skip

NEIGHBOURS: tuple[Unseen, ...] = (
    fault("the sender knows a wrong MAC for good", "web", "ip neigh replace {api4} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip neigh del {api4} dev eth0", IN, names="is taken to be at 02:00:00:00:00:99"),
    fault("the receiver knows a wrong MAC for good", "api", "ip neigh replace {web4} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip neigh del {web4} dev eth0", IN, names="is taken to be at 02:00:00:00:00:99"),
    fault("the sender knows a wrong MAC of IPv6", "web", "ip neigh replace {api6} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip neigh del {api6} dev eth0", IN6, names="is taken to be at 02:00:00:00:00:99"),
    fault("the sender knows a wrong MAC of its gateway", "web", "ip neigh replace {gateway} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip neigh del {gateway} dev eth0", OUT, names="is taken to be at 02:00:00:00:00:99"),
    fault("the host knows a wrong MAC on the LAN", "host", "ip neigh replace {ext} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip neigh del {ext} dev eth0", OUT, names="is fixed at 02:00:00:00:00:99"),
    fault("the host knows one for answers to the LAN", "host", "ip neigh replace {ext} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip neigh del {ext} dev eth0", PUBLISHED, names="is fixed at 02:00:00:00:00:99"),
    fault("the sender's entry is stale and wrong", "web", "ip neigh replace {api4} lladdr 02:00:00:00:00:99 dev eth0 nud noarp", "ip neigh del {api4} dev eth0", IN, names="is taken to be at"),
)  # fmt: skip

SYSCTLS: tuple[Unseen, ...] = (
    Unseen(name="the receiver ignores ARP", make=(("api", "sysctl -qw net.ipv4.conf.all.arp_ignore=8"), ("web", IS_FLUSHED)), undo=one("api", "sysctl -qw net.ipv4.conf.all.arp_ignore=0"), ask=IN[0], probe=IN[1], names="arp_ignore = 8"),
    fault("the receiver has IPv6 switched off everywhere", "api", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1", ("sysctl -qw net.ipv6.conf.all.disable_ipv6=0", "reattach"), IN6),
    sysctl("the uplink does not forward", "host", "net.ipv4.conf.eth0.forwarding", "0", "1", OUT, names="the route to"),
    sysctl("the sender asks no neighbour", "web", "net.ipv4.neigh.eth0.mcast_solicit", "0", "3", IN, names="mcast_solicit = 0", dies=False),
    sysctl("the sender sends with a TTL of one", "web", "net.ipv4.ip_default_ttl", "1", "64", OUT, names="ip_default_ttl = 1"),
    sysctl("the sender sends with a hop limit of one", "web", "net.ipv6.conf.eth0.hop_limit", "1", "64", OUT6, names="hop_limit = 1"),
    sysctl("bridged frames pass iptables", "host", "net.bridge.bridge-nf-call-iptables", "1", "0", IN, dies=False),
    sysctl("strict rp_filter that does no harm", "host", "net.ipv4.conf.all.rp_filter", "1", "0", PUBLISHED, dies=False),
    sysctl("route_localnet in a sandbox", "web", "net.ipv4.conf.all.route_localnet", "1", "0", IN, dies=False),
    fault("bridged frames pass iptables, which drops them", "host", ("sysctl -qw net.bridge.bridge-nf-call-iptables=1", *table("ip", FORWARD, "tcp dport 80 drop")), ("nft delete table ip fw", "sysctl -qw net.bridge.bridge-nf-call-iptables=0"), IN),
    fault("flows are forgotten at once", "host", "sysctl -qw net.netfilter.nf_conntrack_udp_timeout=0", "sysctl -qw net.netfilter.nf_conntrack_udp_timeout=30", ("--from {ext} {host4}:8080", ("ext", "tcp", "{host4}", "8080")), names="nf_conntrack_udp_timeout = 0", dies=False),
    fault("pings are ignored by the receiver", "api", "sysctl -qw net.ipv4.icmp_echo_ignore_all=1", "sysctl -qw net.ipv4.icmp_echo_ignore_all=0", ("web api --proto icmp", ("web", "icmp", "{api4}", "0")), names="icmp_echo_ignore_all = 1"),
)  # fmt: skip

ADDRESSES: tuple[Unseen, ...] = (
    fault("the receiver's lo has the sender's address", "api", "ip addr add {web4}/32 dev lo", "ip addr del {web4}/32 dev lo", IN),
    fault("the host has the receiver's address", "host", "ip addr add {web4}/32 dev lo", "ip addr del {web4}/32 dev lo", PUBLISHED),
    fault("the host has the stranger's address", "host", "ip addr add {ext}/32 dev lo", "ip addr del {ext}/32 dev lo", OUT),
    fault("the host has lost its address on the LAN", "host", "ip addr del {host4}/24 dev eth0", ("ip addr add {host4}/24 dev eth0", "ip route replace default via 192.0.2.1"), OUT),
)  # fmt: skip

UNSEEN = (*RULES, *IPTABLES, *ROUTES, *LINKS, *NEIGHBOURS, *SYSCTLS, *ADDRESSES)

ITSELF = ("web web:80", ("web", "tcp", "{web4}", "80"))

HEALTHY = (IN, IN6, OUT, OUT6, PUBLISHED, LOCAL, ROUTED, DNS, LOOPBACK, ITSELF)
