"""Broken set-ups: what a person could have typed, what they ask then, and the words in which the true cause is named.

The town: networks `front` (dual-stack bridge), `back`, `vault` (internal), `lone` (icc off), `side` (routed). On front
are `web` (publishes 8080, and 8081 on 127.0.0.1 only) and `api`; on back `db`; on vault `safe`; on lone `one` and
`two`; on side `near` and `far`; `hub` is on front and back. Where nothing else is said everybody listens on tcp and udp
80, both families, and a stranger is on the LAN at {ext}.
"""

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """What is broken, in a few words."""
    make: tuple[tuple[str, str], ...] = ()
    """(where, command line) in order: a workload, `host`, or `ext`."""
    undo: tuple[tuple[str, str], ...] = ()
    ask: str
    """What is typed behind `sealane`."""
    answer: str
    """In what it prints, if the fault is there, and not else."""
    background: tuple[str, str] | None = None
    """(where, command line) of what goes on meanwhile."""
    is_design: bool = False
    """No command is needed: it is how the network was asked for. The words are there all the time."""


def inside(where: str, *commands: str) -> tuple[tuple[str, str], ...]:
    return tuple((where, command) for command in commands)


FOREIGN = "nft add table inet fw; nft add chain inet fw f '{{{{ type filter hook forward priority 10; {policy} }}}}'"
DROP_FOREIGN = "nft delete table inet fw"

FAULTS: tuple[Fault, ...] = (
    # --- how networks were asked for
    Fault(
        name="the two are on different networks",
        ask="explain web db:80",
        answer="network back takes nothing from outside",
        is_design=True,
    ),
    Fault(
        name="the network is internal",
        ask="explain safe {ext}:80",
        answer="attach it to a network that has this family and is not internal",
        is_design=True,
    ),
    Fault(
        name="the network keeps its endpoints apart",
        ask="explain one two:80",
        answer="icc=false",
        is_design=True,
    ),
    Fault(
        name="a port is asked for on the host that nobody published",
        ask="trace --from host :9099",
        answer="nobody listens on 9099/tcp",
        is_design=True,
    ),
    Fault(
        name="a port is published on 127.0.0.1 only",
        ask="explain --from {ext} :8081",
        answer="8081/tcp is published on the loopback only",
        is_design=True,
    ),
    Fault(
        name="a container is asked from outside by its own address",
        ask="explain --from {ext} {web4}:80",
        answer="addresses of a masqueraded network are not reached from outside",
        is_design=True,
    ),
    Fault(
        name="the target has no address of the family",
        ask="explain web db:80 -6",
        answer="has no address of the family asked for",
        is_design=True,
    ),
    Fault(
        name="the packet is too big for the uplink, and must not be fragmented",
        ask="explain web {ext}:80 --size 1600 --dont-fragment",
        answer="do not fit eth0 (MTU 1500)",
        is_design=True,
    ),
    # --- the application
    Fault(
        name="nobody listens on the port",
        ask="trace web api:81",
        answer="nobody listens on 81/tcp",
        is_design=True,
    ),
    Fault(
        name="the service listens on 127.0.0.1 only",
        background=("api", "listen tcp 127.0.0.1 82"),
        ask="trace web api:82",
        answer="nobody listens on 82/tcp",
        is_design=True,
    ),
    Fault(
        name="the service listens on IPv4 only",
        background=("api", "listen tcp 0.0.0.0 83"),
        ask="trace web api:83 -6",
        answer="nobody listens on 83/tcp",
        is_design=True,
    ),
    Fault(
        name="the service listens on tcp, and is asked over udp",
        background=("api", "listen tcp :: 84"),
        ask="trace web api:84 --proto udp",
        answer="nobody listens on 84/udp",
        is_design=True,
    ),
    # --- inside a sandbox
    Fault(
        name="the sender's own firewall drops it",
        make=inside(
            "web",
            "nft add table ip t; nft add chain ip t o '{{ type filter hook output priority 0; }}'; nft add rule ip t o tcp dport 80 drop",
        ),
        undo=inside("web", "nft delete table ip t"),
        ask="trace web api:80",
        answer="table t, chain o, which is not sealane's",
    ),
    Fault(
        name="the receiver's own firewall drops it",
        make=inside(
            "api",
            "nft add table ip t; nft add chain ip t i '{{ type filter hook input priority 0; policy drop; }}'",
        ),
        undo=inside("api", "nft delete table ip t"),
        ask="trace web api:80",
        answer="the policy of ip table t, chain i",
    ),
    Fault(
        name="iptables in the receiver drops it",
        make=inside("api", "iptables-nft -A INPUT -p tcp --dport 80 -j DROP"),
        undo=inside("api", "iptables-nft -F INPUT"),
        ask="trace web api:80",
        answer="ip table filter, chain INPUT",
    ),
    Fault(
        name="the receiver refuses it",
        make=inside("api", "iptables-nft -A INPUT -p tcp --dport 80 -j REJECT"),
        undo=inside("api", "iptables-nft -F INPUT"),
        ask="trace web api:80",
        answer="ip table filter, chain INPUT",
    ),
    Fault(
        name="the sender's default route is gone",
        make=inside("web", "ip route del default"),
        undo=inside("web", "ip route add default via 10.71.0.1 proto 94"),
        ask="explain web {ext}:80 --observed",
        answer="missing: route 254 0.0.0.0/0 0 eth0",
    ),
    Fault(
        name="the sender's default route leads elsewhere",
        make=inside("web", "ip route replace default via {api4}"),
        undo=inside("web", "ip route del default; ip route add default via 10.71.0.1 proto 94"),
        ask="trace web {ext}:80",
        answer="missing: route 254 0.0.0.0/0 0 eth0",
    ),
    Fault(
        name="the sender has a blackhole route for it",
        make=inside("web", "ip route add blackhole {api4}/32"),
        undo=inside("web", "ip route del blackhole {api4}/32"),
        ask="check web api --port 80",
        answer="so a blackhole route answers",
    ),
    Fault(
        name="the sender's address is gone",
        make=inside("web", "ip addr flush dev eth0 scope global"),
        undo=inside("web", "reattach"),
        ask="explain web api:80 --observed",
        answer="missing: address eth0 {web4}/24",
    ),
    Fault(
        name="the sender knows a wrong MAC for its neighbour",
        make=inside("web", "ip neigh replace {api4} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"),
        undo=inside("web", "ip neigh del {api4} dev eth0"),
        ask="trace web api:80",
        answer="no port of the bridge leads there",
    ),
    Fault(
        name="the sender uses an address that is not its own",
        make=inside(
            "web", "ip addr add 10.71.0.77/32 dev eth0; ip route add {api4}/32 dev eth0 src 10.71.0.77"
        ),
        undo=inside("web", "ip addr del 10.71.0.77/32 dev eth0; ip route del {api4}/32 2>/dev/null; true"),
        ask="trace --from 10.71.0.77 {api4}:80 --live --timeout 4",
        background=("web", "connect {api4} 80"),
        answer="the source is not the endpoint's own MAC and address",
    ),
    Fault(
        name="the sender has changed its MAC",
        make=inside("web", "ip link set eth0 address 02:00:00:00:00:77"),
        undo=inside("web", "ip link set eth0 address {webmac}"),
        ask="trace web {gateway}:80",
        answer="differs: link eth0",
    ),
    Fault(
        name="IPv6 is switched off in the receiver",
        make=inside("api", "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1"),
        undo=inside("api", "reattach"),
        ask="trace web api:80 -6",
        answer="missing: address eth0 {api6}/64",
    ),
    Fault(
        name="the sender's link is down",
        make=inside("web", "ip link set eth0 down"),
        undo=inside("web", "reattach"),
        ask="check web api --port 80",
        answer="it has no route, or its link is down",
    ),
    Fault(
        name="a rate limit in the sender drops it",
        make=inside("web", "tc qdisc add dev eth0 root tbf rate 8bit burst 10 limit 10"),
        undo=inside("web", "tc qdisc del dev eth0 root"),
        ask="trace web api:80",
        answer="a queue is full, or a rate limit was reached",
    ),
    # --- the host
    Fault(
        name="a foreign policy of DROP on forward",
        make=inside("host", FOREIGN.format(policy="policy drop;")),
        undo=inside("host", DROP_FOREIGN),
        ask="trace hub {ext}:80",
        answer="the policy of inet table fw, chain f",
    ),
    Fault(
        name="a foreign rule on forward drops it",
        make=inside(
            "host", FOREIGN.format(policy=""), "nft add rule inet fw f tcp dport 80 drop comment '\"no web\"'"
        ),
        undo=inside("host", DROP_FOREIGN),
        ask="trace web {ext}:80",
        answer="(no web) of inet table fw, chain f",
    ),
    Fault(
        name="a rule of iptables drops what is forwarded",
        make=inside("host", "iptables-nft -I FORWARD -d {ext} -j DROP"),
        undo=inside("host", "iptables-nft -F FORWARD"),
        ask="trace web {ext}:80",
        answer="ip table filter, chain FORWARD",
    ),
    Fault(
        name="a foreign rule drops what is published",
        make=inside(
            "host",
            "nft add table ip fw; nft add chain ip fw p '{{ type filter hook prerouting priority -310; }}'; nft add rule ip fw p tcp dport 8080 drop",
        ),
        undo=inside("host", "nft delete table ip fw"),
        ask="trace --from {ext} {host4}:8080 --live --timeout 4",
        background=("ext", "connect {host4} 8080"),
        answer="ip table fw, chain p, which is not sealane's",
    ),
    Fault(
        name="a foreign rule translates a published port elsewhere",
        make=inside(
            "host",
            "nft add table ip fw; nft add chain ip fw p '{{ type nat hook prerouting priority -110; }}'; nft add rule ip fw p tcp dport 8080 redirect to :9",
        ),
        undo=inside("host", "nft delete table ip fw"),
        ask="trace --from {ext} {host4}:8080 --live --timeout 4",
        background=("ext", "connect {host4} 8080"),
        answer="→ {host4}:9 tcp",
    ),
    Fault(
        name="a foreign rule of the bridge family drops it",
        make=inside(
            "host",
            "nft add table bridge fw; nft add chain bridge fw f '{{ type filter hook forward priority 0; }}'; nft add rule bridge fw f tcp dport 80 drop",
        ),
        undo=inside("host", "nft delete table bridge fw"),
        ask="trace web api:80",
        answer="bridge table fw, chain f",
    ),
    Fault(
        name="a more special route leads elsewhere",
        make=inside("host", "ip route add {api4}/32 dev eth0"),
        undo=inside("host", "ip route del {api4}/32 dev eth0"),
        ask="explain --from host api:80",
        answer="leaves by eth0",
    ),
    Fault(
        name="a route rule of the host's forbids it",
        make=inside("host", "ip rule add from 10.71.0.0/24 to {ext} prohibit"),
        undo=inside("host", "ip rule del from 10.71.0.0/24 to {ext} prohibit"),
        ask="trace web {ext}:80",
        answer="a route or a routing rule refuses it",
    ),
    Fault(
        name="the host has no default route",
        make=inside("host", "ip route del default"),
        undo=inside("host", "ip route add default via 192.0.2.1"),
        ask="explain web 198.51.100.9:80",
        answer="host has no route to 198.51.100.9",
    ),
    Fault(
        name="the uplink is down",
        make=inside("host", "ip link set eth0 down"),
        undo=inside(
            "host",
            "ip link set eth0 up; ip route replace default via 192.0.2.1; ip -6 addr replace {host6}/64 dev eth0 nodad; ip -6 route replace default via 2001:db8::1",
        ),
        ask="explain web {ext}:80",
        answer="has no route",
    ),
    Fault(
        name="the host's address on the LAN is gone",
        make=inside("host", "ip addr del {host4}/24 dev eth0"),
        undo=inside("host", "ip addr add {host4}/24 dev eth0; ip route replace default via 192.0.2.1"),
        ask="explain --from {ext} {host4}:8080",
        answer="host has no route to {host4}",
    ),
    Fault(
        name="the LAN uses the network's subnet",
        make=inside("host", "ip addr add 10.71.0.126/25 dev eth0"),
        undo=inside("host", "ip addr del 10.71.0.126/25 dev eth0"),
        ask="explain --from host api:80",
        answer="leaves by eth0",
    ),
    Fault(
        name="rp_filter is strict, and the way back goes by another link",
        make=inside("host", "sysctl -qw net.ipv4.conf.eth0.rp_filter=1; ip route add {ext}/32 dev {bridge}"),
        undo=inside("host", "sysctl -qw net.ipv4.conf.eth0.rp_filter=0; ip route del {ext}/32"),
        ask="trace --from {ext} {host4}:8080 --live --timeout 4",
        background=("ext", "connect {host4} 8080"),
        answer="rp_filter",
    ),
    Fault(
        name="the stranger does not answer ARP",
        make=(("ext", "ip link set eth0 arp off"), ("host", "ip neigh flush dev eth0")),
        undo=inside("ext", "ip link set eth0 arp on"),
        ask="trace web {ext}:80 --timeout 5",
        answer="nobody answers",
    ),
    Fault(
        name="nobody has the address",
        ask="explain web 10.71.0.200:80",
        answer="neighbour unreachable",
        is_design=True,
    ),
    Fault(
        name="the network has no IPv6", ask="explain db [{ext6}]:80", answer="has no route", is_design=True
    ),
)
"""Each once."""
