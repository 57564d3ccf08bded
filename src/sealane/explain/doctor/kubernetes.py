"""A node of Kubernetes: what sealane does not do there, and what its other parts have lost."""

from collections.abc import Iterator

from sealane.explain.doctor.case import HOST_SUBJECT, DiagnosisInput, Finding

PROXY = "kube-proxy"
"""Its process, and its table in nftables mode (pkg/proxy/nftables/proxier.go)."""
IPTABLES_TABLES = frozenset({"nat", "filter", "mangle"})
"""Of its iptables mode, in which it notices by itself that they are gone (pkg/util/iptables/monitor.go)."""


def network_policies(case: DiagnosisInput) -> Iterator[Finding]:
    if case.is_node:
        yield Finding(
            subject=HOST_SUBJECT,
            message="this is a node of Kubernetes, and sealane does not enforce NetworkPolicies",
            hint="run a policy engine beside it, for instance kube-network-policies, if the cluster has any",
            level="note",
        )


def kube_proxy_rules(case: DiagnosisInput) -> Iterator[Finding]:
    if {"sockets", "nftables"} & case.evidence.unseen.keys() or case.host.legacy_tables:
        return
    process = next((p for item in case.host.listeners if (p := item.process).startswith(f"{PROXY} (")), "")
    tables = {table.name for table in case.host.tables}
    if process and not tables & {PROXY, *IPTABLES_TABLES}:
        yield Finding(
            subject=HOST_SUBJECT,
            message=f"{process} runs and its rules are gone, as after `nft flush ruleset`: no Service is answered on this "
            "node",
            hint="restart it: `kubectl -n kube-system rollout restart daemonset kube-proxy`, or its service",
            level="error",
        )
