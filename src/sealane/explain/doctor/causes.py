"""The table of causes: each one's name, what it looks at, its hint, its function."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from sealane.explain.doctor import capacity, firewall, kubernetes, links, memory, routing, services
from sealane.explain.doctor.case import Check, DiagnosisInput, Finding

SANDBOXES = "sandboxes"


class Cause(NamedTuple):
    name: str
    check: Check
    needs: tuple[str, ...]
    """Pieces of evidence: `evidence.PIECES`, or SANDBOXES."""
    looks_at: str
    hint: str
    """In short; a finding's own is about its very case."""


CAUSES = (
    Cause(
        "foreign-drop", firewall.foreign_drop, ("nftables",),
        "chains of other tables on the forwarded path that drop what they have not accepted, by policy or by a last "
        "rule (Docker's FORWARD, ufw, firewalld); a table whose accepting rules name our links or subnets is passed over, "
        "and firewalld's if they are in a zone that accepts",
        "accept rules for our links in that chain, or firewalld's zone trusted",
    ),
    Cause(
        "bridge-netfilter", firewall.bridge_netfilter, ("nftables", "sysctls"),
        "the same for frames that stay inside a bridge: net.bridge.bridge-nf-call-*, tables of family bridge",
        "switch it off, or accept rules",
    ),
    Cause(
        "foreign-input", firewall.foreign_input, ("nftables", "sockets"),
        "such chains at hook input, where questions to the resolver arrive",
        "accept port 53 from our links",
    ),
    Cause(
        "legacy-iptables", firewall.legacy_iptables, ("nftables",),
        "tables of the old iptables, whose rules netlink does not show",
        "move the rules to nftables",
    ),
    Cause(
        "sandbox-firewall", firewall.sandbox_firewall, (SANDBOXES,),
        "such chains inside sandboxes",
        "take them away, or have them accept",
    ),
    Cause(
        "port-taken", firewall.port_taken, ("sockets", "nftables"),
        "host processes at a published port, and other tables' dnat or redirect rules for it",
        "move the one or the other",
    ),
    Cause(
        "firewall-reload", firewall.firewall_reload, ("files",),
        "firewalld, ufw, and services that load a file with `flush ruleset` at boot and reload",
        "delete tables by name",
    ),
    Cause(
        "forwarding-off", routing.forwarding_off, ("sysctls", "links"),
        "ip_forward and IPv6 forwarding where networks need them; conf.LINK.forwarding of each link",
        "switch it on",
    ),
    Cause(
        "no-default-route", routing.no_default_route, ("routes",),
        "whether the host has a way out at all",
        "a default route, or internal networks",
    ),
    Cause(
        "wrong-default-route", routing.wrong_default_route, (SANDBOXES,),
        "default routes inside sandboxes against those that should be there: matters most with two networks; Docker chooses "
        "its containers' own, of which one must be there",
        "the route, or `sealane attach --gw-priority`",
    ),
    Cause(
        "mtu-black-hole", routing.mtu_black_hole, ("routes", "links", "nftables", SANDBOXES),
        "MTUs of endpoints' links, networks, and the host's ways out; chains that would drop packet-too-big",
        "a network made with -o mtu=N, and ICMP let through",
    ),
    Cause(
        "subnet-overlap", routing.subnet_overlap, ("routes",),
        "the host's routes of all tables (LAN, VPN) against the networks' subnets",
        "another subnet",
    ),
    Cause(
        "rp-filter", routing.rp_filter, ("routes", "sysctls", SANDBOXES),
        "strict rp_filter on a second way out (another default route), or in a sandbox that it has dropped packets of",
        "rp_filter 2 (loose)",
    ),
    Cause(
        "bound-to-loopback", services.bound_to_loopback, (SANDBOXES,),
        "sockets at published ports that listen at 127.0.0.1 or ::1 alone",
        "listen at every address",
    ),
    Cause(
        "nobody-listens", services.nobody_listens, (SANDBOXES,),
        "published ports at which no socket of the sandbox listens, or only one at an address of somebody else's",
        "start it, or publish the right port",
    ),
    Cause(
        "wrong-family", services.wrong_family, (SANDBOXES,),
        "TCP services of one family in sandboxes whose name has addresses of both; a note if it is not published",
        "listen over both",
    ),
    Cause(
        "backlog-full", services.backlog_full, (SANDBOXES,),
        "listening sockets that have no room for another connection",
        "see why the process does not accept",
    ),
    Cause(
        "stale-flow", memory.stale_flow, ("flows",),
        "tracked UDP flows that were translated to an address of a network which nobody has any more",
        "conntrack -D",
    ),
    Cause(
        "wrong-resolver", memory.wrong_resolver, ("sockets", SANDBOXES),
        "the resolv.conf that a process of the sandbox sees; a note if another resolver answers there; in Docker's containers "
        "whether Docker's resolver, 127.0.0.11, is there",
        "nameserver GATEWAY",
    ),
    Cause(
        "silent-upstream", memory.silent_upstream, ("nameservers",),
        "whether the host's nameservers answer (one question each is sent), as long as a network needs them",
        "mend /etc/resolv.conf",
    ),
    Cause(
        "neighbours-full", capacity.neighbours_full, ("neighbours",),
        "entries of the neighbour tables (ARP, ND), which all namespaces of the machine share, against gc_thresh3",
        "a higher gc_thresh3",
    ),
    Cause(
        "flows-full", capacity.flows_full, ("conntrack",),
        "tracked connections against nf_conntrack_max",
        "a higher nf_conntrack_max",
    ),
    Cause(
        "bridge-full", capacity.bridge_full, ("links",),
        "ports of bridges: a Linux bridge takes 1023",
        "another network, or driver routed",
    ),
    Cause(
        "bridge-deaf", links.bridge_deaf, ("links",),
        "whether the FDB of each network's bridge has the bridge's own MAC: without it no frame goes up to the host",
        "bridge fdb add MAC dev BRIDGE self permanent",
    ),
    Cause(
        "link-grabbed", links.link_grabbed, ("files",),
        "systemd-networkd's .network files that match our links, NetworkManager's unmanaged-devices; a running one only",
        "have them leave our links alone",
    ),
    Cause(
        "kube-proxy-rules", kubernetes.kube_proxy_rules, ("sockets", "nftables"),
        "on a node of Kubernetes: a kube-proxy that runs, and whose rules are gone (`nft flush ruleset`)",
        "restart it",
    ),
    Cause(
        "network-policies", kubernetes.network_policies, (),
        "whether pods run here: sealane does not enforce NetworkPolicies; always a note",
        "a policy engine beside sealane",
    ),
)  # fmt: skip
"""In the order in which they are told."""


def diagnose(case: DiagnosisInput) -> Iterator[Finding]:
    """What every cause finds, in the order of the table."""
    for cause in CAUSES:
        for finding in cause.check(case):
            yield msgspec.structs.replace(finding, cause=cause.name)
