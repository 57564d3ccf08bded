"""Causes in rules that are not ours: who drops what we let pass, takes a port, or will wipe the slate.

An accept of nftables ends its own chain only, and a drop ends the packet, whatever other tables have said (nft(8),
"Verdict statements"). So a foreign chain that drops what it has not accepted is stronger than any rule of ours. Rules
are not interpreted here: a table whose accepting rules name our links counts as one that has been told of us.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from sealane.compile.names import BRIDGE_PREFIX, ENDPOINT_PREFIX, network_link
from sealane.explain.doctor.case import HOST_SUBJECT, DiagnosisInput, Finding, Level, Publish
from sealane.explain.doctor.evidence import BaseChain, ForeignTable, Listener, PortRule
from sealane.model.net import FAMILIES, WILDCARDS, Family, family_of, is_wildcard, overlaps, prefix_length
from sealane.model.network import RESOLVER_PORT, Network

NAMES_MAX = 3
"""Networks named in one finding."""

_ON_THE_WAY = ("prerouting", "forward", "postrouting")
_FIREWALLD = "firewalld"
_TELLING_TABLES = (_FIREWALLD,)
"""Managers that run are known by them."""
_PROBED_LINK = f"{ENDPOINT_PREFIX}000000000000"


def foreign_drop(case: DiagnosisInput) -> Iterator[Finding]:
    for table in case.host.tables:
        networks = _forwarded(case, table)
        left = [n for n in networks if not _is_let(table, n)]
        for chain in table.chains:
            if left and chain.hook in _ON_THE_WAY and chain.drops and table.family != "bridge":
                yield Finding(
                    subject=HOST_SUBJECT,
                    message=f"{_place(table, chain)} drops what it has not accepted{_counted(chain)}: packets of "
                    f"{_named(left)} are forwarded and meet it",
                    hint=_let_forward(table, chain, left),
                    level=_level(chain),
                )


def bridge_netfilter(case: DiagnosisInput) -> Iterator[Finding]:
    bridged = [n for n in case.planes if n.traits.has_bridge]
    for table in case.host.tables:
        left = [n for n in bridged if not _is_let(table, n) and _reaches_bridged(case, table, n)]
        for chain in table.chains:
            if left and chain.hook in _ON_THE_WAY and chain.drops:
                why = (
                    "frames inside a bridge meet it"
                    if table.family == "bridge"
                    else "as br_netfilter is on, it also meets frames that stay inside a bridge"
                )
                # kubeadm and kube-proxy expect it on a node.
                is_needed = table.family == "bridge" or case.is_node
                off = "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, or "
                yield Finding(
                    subject=HOST_SUBJECT,
                    message=f"{_place(table, chain)} drops what it has not accepted{_counted(chain)}: {why}, those of "
                    f"{_named(left)} too",
                    hint=("" if is_needed else off) + _let_forward(table, chain, left),
                    level=_level(chain),
                )


def foreign_input(case: DiagnosisInput) -> Iterator[Finding]:
    resolving = [n for n in case.planes if _resolver_listens(case, n)]
    for table in case.host.tables:
        left = [
            n
            for n in resolving
            if not _is_let(table, n) and any(table.covers(f) and n.subnet(f) is not None for f in FAMILIES)
        ]
        for chain in table.chains:
            if left and chain.hook == "input" and chain.drops and table.family != "bridge":
                yield Finding(
                    subject=HOST_SUBJECT,
                    message=f"{_place(table, chain)} drops what it has not accepted{_counted(chain)}: questions of "
                    f"{_named(left)} to the resolver on the host meet it",
                    hint=_let_input(table, chain, left),
                    level=_level(chain),
                )


def sandbox_firewall(case: DiagnosisInput) -> Iterator[Finding]:
    for sandbox, seen in case.seen():
        for table in seen.tables:
            for chain in table.chains:
                if chain.drops and table.family != "bridge":
                    yield Finding(
                        subject=sandbox.name,
                        message=f"inside it {_place(table, chain)} drops what it has not accepted{_counted(chain)}",
                        hint="take it away with whatever made it there, or have it accept what is to pass",
                        level="warning",
                    )


def legacy_iptables(case: DiagnosisInput) -> Iterator[Finding]:
    if case.host.legacy_tables:
        yield Finding(
            subject=HOST_SUBJECT,
            message=f"the old iptables is in use ({', '.join(case.host.legacy_tables)}): its rules cannot be looked at",
            hint="see `iptables-legacy -S FORWARD`; move its rules to nftables with iptables-legacy-save | "
            "iptables-nft-restore",
            level="note",
        )


def port_taken(case: DiagnosisInput) -> Iterator[Finding]:
    for publish in case.publishes():
        for listener in case.host.listeners:
            if not _is_harmless(listener, publish) and _holds(listener, publish):
                yield Finding(
                    subject=case.name_of(publish.endpoint),
                    message=f"{publish.port} is published, and {listener.process or 'a process'} of the host listens "
                    f"at {listener.address} port {listener.port} too: it is not reached any more",
                    hint="let that process listen elsewhere, or publish another port",
                    level="warning",
                )
        for table in case.host.tables:
            for rule in table.translates:
                if _takes(table, rule, publish):
                    yield Finding(
                        subject=case.name_of(publish.endpoint),
                        message=f"{publish.port} is published, and a rule of chain {rule.chain} in table "
                        f"{table.family} {table.name} sends that port elsewhere: only one of the two is asked",
                        hint=f"nft -a list chain {table.family} {table.name} {rule.chain}, and delete the rule; or "
                        "publish another port",
                        level="error",
                    )


def firewall_reload(case: DiagnosisInput) -> Iterator[Finding]:
    managers = case.host.managers
    for path in managers.flushes:
        yield Finding(
            subject=HOST_SUBJECT,
            message=f"{path} is loaded by a service and begins by deleting every table: until the daemon has repaired "
            "them (some ms), nothing is translated or guarded",
            hint=f"in {path} delete your own tables by name instead of `flush ruleset`",
            level="warning",
        )
    here = [name for name in _TELLING_TABLES if any(table.name == name for table in case.host.tables)]
    for name in (*here, *managers.firewalls):
        yield Finding(
            subject=HOST_SUBJECT,
            message=f"{name} looks after this host's firewall: a reload of it may wipe or overrule foreign rules",
            hint="nothing: sealane keeps its networks' links in firewalld's zone trusted, and puts them back after a reload"
            if name == _FIREWALLD
            else "nothing, as long as it does not drop what passes here: sealane's tables are its own, and are "
            "repaired when they are deleted",
            level="note",
        )


# --- who is met -----------------------------------------------------------------------------------------------------


def _forwarded(case: DiagnosisInput, table: ForeignTable) -> list[Network]:
    found = {n.id: n for family in FAMILIES if table.covers(family) for n in case.forwarded(family)}
    return list(found.values())


def _reaches_bridged(case: DiagnosisInput, table: ForeignTable, network: Network) -> bool:
    if table.family == "bridge":
        return True
    names: dict[Family, str] = {4: "iptables", 6: "ip6tables"}
    return any(
        table.covers(family)
        and network.subnet(family) is not None
        and case.host.sysctls.get(f"net/bridge/bridge-nf-call-{names[family]}") == "1"
        for family in FAMILIES
    )


def _resolver_listens(case: DiagnosisInput, network: Network) -> bool:
    gateways = {subnet.gateway for subnet in network.subnets}
    return any(
        item.ours and item.port == RESOLVER_PORT and item.address in gateways for item in case.host.listeners
    )


def _is_let(table: ForeignTable, network: Network) -> bool:
    """In a table of family bridge frames are known by ports too."""
    links = {network_link(network)} if network.traits.has_bridge else {_PROBED_LINK}
    links |= {_PROBED_LINK} if table.family == "bridge" else set()
    return any(
        _covers(pattern, network) if "/" in pattern else any(fnmatchcase(link, pattern) for link in links)
        for pattern in table.lets
    )


def _covers(prefix: str, network: Network) -> bool:
    """Whether a prefix has all of a subnet in it: an accept of one address says nothing of the others."""
    return any(
        overlaps(prefix, subnet.prefix) and prefix_length(prefix) <= prefix_length(subnet.prefix)
        for subnet in network.subnets
    )


def _level(chain: BaseChain) -> Level:
    """Without a rule nothing passes; with some it depends on them."""
    return "warning" if chain.rules - (chain.drops == "rule") else "error"


# --- words ----------------------------------------------------------------------------------------------------------


def _place(table: ForeignTable, chain: BaseChain) -> str:
    return f"chain {chain.name} of table {table.family} {table.name} (hook {chain.hook})"


def _counted(chain: BaseChain) -> str:
    return f" (packets so far: {chain.dropped})" if chain.dropped else ""


def _named(networks: Iterable[Network]) -> str:
    names = sorted(n.name for n in networks)
    rest = len(names) - NAMES_MAX
    shown = ", ".join(names[:NAMES_MAX]) + (f" and {rest} more" if rest > 0 else "")
    return f"network{'s' if len(names) > 1 else ''} {shown}"


def _pattern(networks: list[Network]) -> str:
    """Of their links: one rule for all of them, as long as none has a name of its own."""
    if not all(network.traits.has_bridge for network in networks):
        return f"{ENDPOINT_PREFIX}*"
    own = [network_link(network) for network in networks if network.link]
    return own[0] if own else f"{BRIDGE_PREFIX}*" if len(networks) > 1 else network_link(networks[0])


def _iptables(table: ForeignTable, chain: BaseChain) -> str:
    """The tool of a table that iptables-nft made: nft should keep its hands off it. Empty: another's."""
    if table.name != "filter" or chain.name not in {"FORWARD", "INPUT"}:
        return ""
    return {"ip": "iptables", "ip6": "ip6tables"}.get(table.family, "")


def _trust(networks: list[Network]) -> str:
    """firewalld deletes what others put into its table whenever it is reloaded: it has to be told itself. `change` takes a
    link out of the zone that it is in."""
    links = dict.fromkeys(
        f"{ENDPOINT_PREFIX}+" if network.driver == "routed" else network_link(network) for network in networks
    )
    told = "; ".join(f"firewall-cmd --permanent --zone=trusted --change-interface={link}" for link in links)
    return f"{told}; firewall-cmd --reload"


def _let_forward(table: ForeignTable, chain: BaseChain, networks: list[Network]) -> str:
    if table.name == _FIREWALLD:
        return _trust(networks)
    # By ports, since not every kernel knows of ibrname (CONFIG_NFT_BRIDGE_META).
    link = f"{ENDPOINT_PREFIX}*" if table.family == "bridge" else _pattern(networks)
    tool = _iptables(table, chain)
    if tool:
        link = link.replace("*", "+")
        return f"{tool} -I FORWARD -i {link} -j ACCEPT; {tool} -I FORWARD -o {link} -j ACCEPT"
    where = f"nft insert rule {table.family} {table.name} {chain.name}"
    return "; ".join(f"{where} '{key} \"{link}\" accept'" for key in ("iifname", "oifname"))


def _let_input(table: ForeignTable, chain: BaseChain, networks: list[Network]) -> str:
    if table.name == _FIREWALLD:
        return _trust(networks)
    link, tool = _pattern(networks), _iptables(table, chain)
    if tool:
        link = link.replace("*", "+")
        rules = [f"{tool} -I INPUT -i {link} -p {proto} --dport 53 -j ACCEPT" for proto in ("udp", "tcp")]
        return "; ".join(rules)
    where = f"nft insert rule {table.family} {table.name} {chain.name}"
    return f"{where} 'iifname \"{link}\" meta l4proto {{ tcp, udp }} th dport 53 accept'"


# --- ports ----------------------------------------------------------------------------------------------------------


def _is_harmless(listener: Listener, publish: Publish) -> bool:
    return listener.ours or (publish.port.is_reserved and publish.endpoint.sandbox in listener.reserves_for)


def _holds(listener: Listener, publish: Publish) -> bool:
    port = publish.port
    if listener.proto != port.proto or not port.host_first <= listener.port <= port.host_last:
        return False
    if port.host_address is not None and is_wildcard(port.host_address):
        return family_of(port.host_address) in listener.families
    if port.host_address is not None:
        return listener.address == port.host_address or (
            listener.is_wild and family_of(port.host_address) in listener.families
        )
    return any(publish.endpoint.address(family) is not None for family in listener.families)


def _takes(table: ForeignTable, rule: PortRule, publish: Publish) -> bool:
    port = publish.port
    return (
        rule.proto in {"", port.proto}
        and rule.first <= port.host_last
        and port.host_first <= rule.last
        and any(table.covers(f) and publish.endpoint.address(f) is not None for f in FAMILIES)
        and (
            not rule.address or port.host_address in {None, rule.address, WILDCARDS[family_of(rule.address)]}
        )
    )
