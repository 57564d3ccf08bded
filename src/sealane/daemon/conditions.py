"""What `sealane status` has to say, each with what to do about it."""

from collections.abc import Iterable, Iterator, Mapping

from sealane.compile.facts import Features
from sealane.compile.reads import Unit
from sealane.kernel.state import HOST
from sealane.model.endpoint import Sandbox
from sealane.wire.views import Condition


def holding(why: str) -> Condition:
    return Condition(
        level="error",
        subject="store",
        message=why,
        hint="the kernel's state is kept; changes are refused until the store is mended",
    )


def forwarder(reason: str) -> Condition:
    return Condition(
        level="note", subject="loopback", message=f"127.0.0.1 publishes go through a forwarder: {reason}"
    )


def kubernetes_node() -> Iterator[Condition]:
    """What a node should not be thought to have from us."""
    yield Condition(
        level="note",
        subject="kubernetes",
        message="NetworkPolicies are not enforced by sealane",
        hint="run a policy engine beside it, if the cluster has any",
    )
    yield Condition(
        level="note",
        subject="kubernetes",
        message="after `nft flush ruleset` sealane restores its own rules; those of kube-proxy in mode nftables are gone "
        "until it restarts",
        hint="flush single tables; `sealane doctor` tells when kube-proxy has lost its own",
    )


def of_features(features: Features, *, is_node: bool = False) -> Iterator[Condition]:
    """`is_node`: pods of Kubernetes run on this host."""
    for name, works in (("nftables", features.nft), ("nftables bridge family", features.nft_bridge)):
        if not works:
            yield Condition(
                level="error",
                subject="kernel",
                message=f"this kernel has no {name}",
                hint="a kernel with CONFIG_NF_TABLES and its families",
            )
    if not features.ipv6:
        yield Condition(
            level="note", subject="ipv6", message="this host has no IPv6: networks with it have none of it"
        )
    if not features.conntrack:
        yield Condition(
            level="note",
            subject="flows",
            message="this kernel does not tell of tracked connections: UDP flows to an endpoint that has gone stay until "
            "they run out",
            hint="a kernel with CONFIG_NF_CT_NETLINK",
        )
    yield from _of_fast_path(features)
    if features.bridge_netfilter:
        yield Condition(
            level="note",
            subject="bridge netfilter",
            message="frames between containers of one bridge pass the IP hooks as well: slower, and foreign "
            "rules of FORWARD meet them",
            hint="leave it: kubeadm and kube-proxy expect it on a node"
            if is_node
            else "sysctl net.bridge.bridge-nf-call-iptables=0, unless another engine of this host needs it",
        )


def _of_fast_path(features: Features) -> Iterator[Condition]:
    if features.fast_path_reason:
        yield Condition(
            level="note",
            subject="fast path",
            message=f"fast path unavailable: {features.fast_path_reason}",
        )
    elif features.firewalls:
        yield Condition(
            level="note",
            subject="fast path",
            message=f"somebody else's rules ({', '.join(features.firewalls)}) are on the way within networks: packets go "
            "that way and meet them",
        )


def no_runtime(reason: str) -> Condition:
    return Condition(
        level="note", subject="containers", message=reason, hint="install runc or crun for `sealane run`"
    )


def no_limits(reason: str) -> Condition:
    return Condition(
        level="note",
        subject="limits",
        message=f"containers run without limits and without CAP_MKNOD: {reason}",
    )


def no_userns(reason: str) -> Condition:
    return Condition(
        level="note",
        subject="user namespace",
        message="containers have none: their root is the host's where they can reach what is the host's, and NET_ADMIN in any "
        f"sandbox reaches the host's links: {reason}",
        hint="run the daemon on a host that allows user namespaces; until then give no container NET_ADMIN",
    )


def of_owners(sandboxes: Iterable[Sandbox]) -> Iterator[Condition]:
    """Those whose network no user namespace of ours owns. (Whether another engine's does is not asked at each.)"""
    count = sum(1 for sandbox in sandboxes if sandbox.netns is not None and not sandbox.netns.userns)
    if count:
        yield Condition(
            level="note",
            subject="NET_ADMIN",
            message=f"{count} sandbox{'es have' if count > 1 else ' has'} no user namespace of sealane's: NET_ADMIN in one "
            "reaches the host's links",
            hint="give it to none that is not trusted as root is, or have the engine that made it use user namespaces",
        )


def orphans(count: int) -> Condition:
    return Condition(
        level="error",
        subject="orphans",
        message=f"{count} live endpoints are in no record; nothing is deleted while they are there",
        hint="restore the store from a backup, then restart the daemon; until then they keep running",
    )


def of_units(failures: Mapping[Unit, str]) -> Iterator[Condition]:
    for (kind, identity), message in failures.items():
        yield Condition(level="warning", subject=f"{kind} {identity[:12]}", message=message)


def of_names(problems: Iterable[str]) -> Iterator[Condition]:
    for problem in problems:
        yield Condition(level="warning", subject="dns", message=problem)


def of_zones(problem: str, elsewhere: Mapping[str, str]) -> Iterator[Condition]:
    """Of firewalld: what it refuses, and what its administrator has decided otherwise."""
    if problem:
        yield Condition(
            level="warning",
            subject="firewalld",
            message=f"firewalld runs, and cannot be told to trust the networks' links: {problem}",
            hint="firewall-cmd --permanent --zone=trusted --add-interface=LINK for each LINK of `sealane network ls`, "
            "and firewall-cmd --reload",
        )
    for link, zone in elsewhere.items():
        yield Condition(
            level="note",
            subject="firewalld",
            message=f"link {link} is in zone {zone}, where somebody has put it: its network has what that zone allows",
        )


def of_relays(problems: Mapping[str, str]) -> Iterator[Condition]:
    for port, message in problems.items():
        yield Condition(
            level="note", subject="relay", message=f"{port} is published, and not answered there: {message}"
        )


def of_unreadable(unreadable: Mapping[str, str]) -> Iterator[Condition]:
    for netns, message in unreadable.items():
        yield Condition(
            level="warning", subject="host" if netns == HOST else f"sandbox {netns[:12]}", message=message
        )
