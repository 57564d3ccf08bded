"""Causes in tables of the kernel's that fill up."""

from collections.abc import Iterator

from sealane.compile.names import network_link
from sealane.explain.doctor.case import HOST_SUBJECT, DiagnosisInput, Finding

NEARLY = 0.9
"""Of a table's room: time to speak of it."""


def neighbours_full(case: DiagnosisInput) -> Iterator[Finding]:
    """Permanent entries do not count towards the limit (neigh_alloc, net/core/neighbour.c)."""
    for table in case.host.neighbours:
        entries = max(0, table.entries - case.permanent[table.family])
        if entries < NEARLY * table.limit:
            continue
        name = f"net.ipv{table.family}.neigh.default.gc_thresh3"
        yield Finding(
            subject=HOST_SUBJECT,
            message=f"the machine's IPv{table.family} neighbour table, which all namespaces share, has {entries} entries "
            f"of {table.limit}"
            + (f" and was full {table.overflows} times" if table.overflows else "")
            + ": when it is full, no address is resolved any more",
            hint=f"sysctl -w {name}={4 * table.limit} (and gc_thresh2 to half of it) in the initial namespace",
            level="error" if entries >= table.limit else "warning",
        )


def flows_full(case: DiagnosisInput) -> Iterator[Finding]:
    seen = case.host.conntrack
    if seen is not None and seen.limit and seen.entries >= NEARLY * seen.limit:
        yield Finding(
            subject=HOST_SUBJECT,
            message=f"{seen.entries} of {seen.limit} connections are tracked: when the table is full, new ones are dropped",
            hint=f"sysctl -w net.netfilter.nf_conntrack_max={4 * seen.limit} in the initial namespace; see who makes "
            "them: conntrack -L",
            level="error" if seen.entries >= seen.limit else "warning",
        )


def bridge_full(case: DiagnosisInput) -> Iterator[Finding]:
    ports = {link.name: link.ports for link in case.host.links}
    for network in case.planes:
        count = ports.get(network_link(network), 0)
        most = network.traits.ports_max
        if most is not None and count >= NEARLY * most:
            yield Finding(
                subject=network.name,
                message=f"its bridge {network_link(network)} has {count} ports of the {most} that a Linux "
                "bridge takes",
                hint="put what comes next on another network, or on one with --driver routed, which has no such bound",
                level="error" if count >= most else "warning",
            )
