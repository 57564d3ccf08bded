"""The text that ip(8), tc(8) and nft(8) are given. Pure.

Not by `linux.session`: its links carry sealane's marks, by which a daemon knows its own and removes those that its store does
not list. A host's uplink is the machine's, and no daemon's.
"""

from collections.abc import Iterable

from sealane.lab.plan import UNDERLAY, UPLINK, Link, Node, Plan
from sealane.lab.spec import LOSS_UNITS

TABLE = "lab"
_BEFORE_ALL, _AFTER_ALL = -300, 300
_BEFORE_BRIDGE_NETFILTER = -200
"""br_netfilter takes a frame at 0 (NF_BR_PRI_BRNF), and gives it back to hooks behind 0 alone (br_nf_hook_thresh)."""


def underlay_lines(plan: Plan, namespaces: dict[str, str]) -> list[str]:
    """`ip -batch` in the underlay's namespace. `namespaces`: a path to each node's, by its name."""
    lines = ["link set lo up"]
    if plan.underlay == "segment":
        # Without snooping: neighbour discovery is multicast, and a fresh port waits for a querier.
        lines += [
            f"link add name {UNDERLAY} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set dev {UNDERLAY} up",
            *(f"addr add {address} dev {UNDERLAY}" for address in _gateways(plan.nodes[:1])),
        ]
    for node in plan.nodes:
        mtu = node.uplink.mtu
        peer = f"peer name {UPLINK} address {node.mac} mtu {mtu} netns {namespaces[node.name]}"
        lines.append(f"link add name {node.name} mtu {mtu} type veth {peer}")
        if plan.underlay == "segment":
            lines.append(f"link set dev {node.name} master {UNDERLAY}")
        else:
            lines += [f"addr add {address} dev {node.name}" for address in _gateways((node,))]
        lines.append(f"link set dev {node.name} up")
    return lines


def _gateways(nodes: Iterable[Node]) -> list[str]:
    return [
        text
        for node in nodes
        for text in (
            f"{node.ipv4.gateway}/{node.ipv4.length}",
            f"{node.ipv6.gateway}/{node.ipv6.length} nodad",
        )
    ]


def node_lines(node: Node) -> list[str]:
    """`ip -batch` in the node's namespace."""
    return [
        "link set lo up",
        f"addr add {node.ipv4} dev {UPLINK}",
        f"addr add {node.ipv6} dev {UPLINK} nodad",
        f"link set {UPLINK} up",
        f"route add default via {node.ipv4.gateway}",
        f"route add default via {node.ipv6.gateway}",
    ]


def latency_commands(plan: Plan) -> list[list[str]]:
    """tc(8) in the underlay's namespace; none if no uplink has a latency."""
    return [
        ["tc", "qdisc", "add", "dev", node.name, "root", "netem", "delay", f"{node.uplink.latency_ms:g}ms"]
        for node in plan.nodes
        if node.uplink.latency_ms
    ]


def faults_ruleset(plan: Plan) -> str:
    """The underlay's one table: what is cut, and what is lost. `cut_elements` fills its sets."""
    family = _family(plan)
    lossy = [node for node in plan.nodes if node.uplink.loss]
    arriving = [f'iifname "{node.name}" {_drawn(node)} drop' for node in lossy]
    leaving = [f'oifname "{node.name}" {_drawn(node)} drop' for node in lossy]
    lines = [
        f"add table {family} {TABLE}",
        f"add set {family} {TABLE} uplinks {{ type ifname; }}",
        f"add set {family} {TABLE} pairs {{ type ifname . ifname; }}",
        *_chain(
            family, "arriving", f"prerouting priority {_BEFORE_ALL}", ["iifname @uplinks drop", *arriving]
        ),
        *_chain(
            family,
            "between",
            f"forward priority {_BEFORE_BRIDGE_NETFILTER}",
            ["iifname . oifname @pairs drop"],
        ),
        *_chain(family, "leaving", f"postrouting priority {_AFTER_ALL}", ["oifname @uplinks drop", *leaving]),
    ]
    return "\n".join(lines) + "\n"


def cut_elements(plan: Plan, cut: Iterable[Link]) -> str:
    """One transaction: exactly these links are cut."""
    family = _family(plan)
    links = sorted(cut)
    uplinks = [f'"{one}"' for one, other in links if one == other]
    pairs = [
        f'"{a}" . "{b}"' for one, other in links if one != other for a, b in ((one, other), (other, one))
    ]
    lines = [f"flush set {family} {TABLE} uplinks", f"flush set {family} {TABLE} pairs"]
    for name, elements in (("uplinks", uplinks), ("pairs", pairs)):
        if elements:
            lines.append(f"add element {family} {TABLE} {name} {{ {', '.join(elements)} }}")
    return "\n".join(lines) + "\n"


def hosts_file(plan: Plan) -> str:
    """/etc/hosts of every node."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for node in plan.nodes:
        lines += [f"{node.ipv4.address} {node.name}", f"{node.ipv6.address} {node.name}"]
    return "\n".join(lines) + "\n"


def _family(plan: Plan) -> str:
    return "bridge" if plan.underlay == "segment" else "inet"


def _drawn(node: Node) -> str:
    return f"numgen random mod {LOSS_UNITS} < {node.uplink.loss}"


def _chain(family: str, name: str, hook: str, rules: list[str]) -> list[str]:
    first = f"add chain {family} {TABLE} {name} {{ type filter hook {hook}; }}"
    return [first, *(f"add rule {family} {TABLE} {name} {rule}" for rule in rules)]
