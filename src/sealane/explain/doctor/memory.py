"""Causes in what is remembered and no longer true: tracked flows, nameservers."""

from collections import Counter
from collections.abc import Iterator

from sealane.explain.doctor.case import HOST_SUBJECT, DiagnosisInput, Finding
from sealane.explain.doctor.evidence import Listener, SandboxEvidence
from sealane.model.endpoint import Sandbox
from sealane.model.ids import namespace_of
from sealane.model.net import contains
from sealane.model.network import RESOLVER_PORT, Network

_DOCKERS = "127.0.0.11"
"""Where Docker's own resolver answers inside its containers (moby libnetwork/sandbox_dns_unix.go)."""


def stale_flow(case: DiagnosisInput) -> Iterator[Finding]:
    """Flows of UDP only: a TCP client whose peer is gone gives up and connects anew, and is then translated anew."""
    dead = Counter(
        backend
        for backend in case.host.backends
        if backend not in case.leases and _network_of(case, backend) is not None
    )
    for backend, count in dead.items():
        network = _network_of(case, backend)
        yield Finding(
            subject=network.name if network else HOST_SUBJECT,
            message=f"{count} tracked UDP flow{'s' if count > 1 else ''} lead to {backend}, which nobody has any more: "
            "whoever goes on talking that way is not heard",
            hint=f"conntrack -D -p udp --reply-src {backend}",
            level="error",
        )


def _network_of(case: DiagnosisInput, address: str) -> Network | None:
    for network in case.planes:
        for subnet in network.subnets:
            if contains(subnet.prefix, address) and address != subnet.gateway:
                return network
    return None


# --- names ----------------------------------------------------------------------------------------------------------


def wrong_resolver(case: DiagnosisInput) -> Iterator[Finding]:
    served = {item.address for item in case.host.listeners if item.ours and item.port == RESOLVER_PORT}
    for sandbox, seen in case.seen():
        if namespace_of(sandbox.name):
            continue  # A kubelet writes a pod's resolv.conf, and names the cluster's server there.
        endpoints = case.endpoints_of(sandbox)
        networks = [case.networks[e.network] for e in endpoints]
        mine = [s.gateway for n in networks for s in n.subnets if s.gateway in served]
        if not mine or seen.nameservers is None or set(seen.nameservers) & set(mine):
            continue
        if not case.handed_over(sandbox):
            yield _astray(case, sandbox, seen, mine[0])
        elif all(_is_dead_loopback(server, seen) for server in seen.nameservers):
            yield Finding(
                subject=sandbox.name,
                message=f"its resolv.conf asks {', '.join(seen.nameservers)}, where dockerd does not answer: no name is "
                "resolved",
                hint="start dockerd, which resolves its containers' names",
                level="error",
            )


def _astray(case: DiagnosisInput, sandbox: Sandbox, seen: SandboxEvidence, desired: str) -> Finding:
    servers = seen.nameservers or ("127.0.0.1",)
    shown = ", ".join(servers)
    hint = f"`nameserver {desired}` in the /etc/resolv.conf that its processes see"
    if all(_is_dead_loopback(server, seen) for server in servers):
        return Finding(
            subject=sandbox.name,
            message=f"its resolv.conf asks {shown}, where nobody listens in the sandbox: no name is resolved",
            hint=hint,
            level="error",
        )
    others = [
        network.name
        for network in case.networks.values()
        if any(subnet.gateway in servers for subnet in network.subnets)
    ]
    if others:
        return Finding(
            subject=sandbox.name,
            message=f"its resolv.conf asks {shown}, the resolver of network {others[0]}, on which it is not (any more)",
            hint=hint,
            level="error",
        )
    return Finding(
        subject=sandbox.name,
        message=f"its resolv.conf asks {shown}: names of other sandboxes are not known there",
        hint=hint,
        level="note",
    )


def _is_dead_loopback(server: str, seen: SandboxEvidence) -> bool:
    if server != "::1" and not server.startswith("127."):
        return False
    # Docker's resolver has a port of its own at 127.0.0.11, to which rules inside lead; rules of the old iptables are
    # not seen here, so any port at exactly that address will do.
    return not any(
        item.proto == "udp"
        and (
            item.address == server
            if server == _DOCKERS
            else item.port == RESOLVER_PORT and _hears(item, server)
        )
        for item in seen.listeners
    )


def _hears(item: Listener, server: str) -> bool:
    return item.is_wild or item.address == server


def silent_upstream(case: DiagnosisInput) -> Iterator[Finding]:
    for upstream in case.host.upstreams:
        if upstream.problem:
            yield Finding(
                subject=HOST_SUBJECT,
                message=f"the nameserver {upstream.address} of the host's /etc/resolv.conf does not answer "
                f"({upstream.problem}): names of the outside are resolved late or not at all",
                hint="mend the host's /etc/resolv.conf: the resolver follows it",
                level="error" if all(other.problem for other in case.host.upstreams) else "warning",
            )
