"""The independent auditor: it shares no code with the engine, and judges store and kernel against each other.

    I1  nothing is there without a live owner
    I2  nothing has two owners
    I3  every endpoint is whole (its links up, addressed, routed); that packets pass is for probes to show
    I4  store and kernel say the same
    I5  (the caller's retry succeeds: for the test that made the caller)
    foreign objects are as they were: `foreign` before, `changes` after

What it knows of the engine is its marks and names, as documented: links `sle…` and `slb…` with an alias
`sealane/INSTANCE/KIND/ID`, routes of protocol 94, nft tables `sealane`, chains `n_…` of a network.
"""

import contextlib
import ipaddress
import os
import re
import time
from collections import Counter
from collections.abc import Iterator

from harness.audit_fast import judge_fast
from harness.audit_host import judge_host, published, published_from
from harness.audit_sandbox import judge_sandboxes
from harness.host import Host
from harness.marks import FAMILIES, difference
from harness.observed import Observed, flows
from harness.patience import Watch
from harness.stored import Stored


def audit(host: Host) -> list[str]:
    """Every finding, a sentence each; none on a host that is as it should be."""
    stored = Stored(host.path(host.state_dir))
    findings = [f"the database is damaged: {problem}" for problem in stored.broken]
    observed = Observed(host.ns)
    findings += judge_host(stored, observed)
    findings += judge_fast(host, stored, observed)
    findings += judge_sandboxes(host, stored)
    findings += _owners(stored)
    for check in (_pins, _descriptors, _flows):
        findings += check(host, stored)
    return findings


def settle(host: Host, timeout_s: float) -> float:
    """Wait until the audit is clean; return the seconds it took. AssertionError with the findings that stay."""
    watch = Watch()
    while findings := audit(host):
        if watch.is_over(timeout_s):
            raise AssertionError(f"after {timeout_s} s: " + "\n".join(findings))
        time.sleep(0.02)
    return watch.wall_s()


def _owners(stored: Stored) -> Iterator[str]:
    """I2, within the store: nothing is given twice, and every lease has its endpoint."""
    claims: Counter[tuple[str, ...]] = Counter()
    for endpoint in stored.endpoints.values():
        if endpoint["network"] not in stored.networks:
            yield f"I1: endpoint {endpoint['id']} is of a network that is gone"
        if endpoint["sandbox"] is not None and endpoint["sandbox"] not in stored.sandboxes:
            yield f"I1: endpoint {endpoint['id']} is in a sandbox that is gone"
        claims[("MAC", endpoint["network"], endpoint["mac"])] += 1
        claims[("link", str(endpoint["sandbox"] or endpoint["id"]), endpoint["ifname"])] += 1
        claims.update(("address", endpoint["network"], a.partition("/")[0]) for a in endpoint["addresses"])
        for port in [] if endpoint.get("dormant") else endpoint.get("ports", []):
            for number in range(port["host_first"], port["host_last"] + 1):
                claims[("port", port.get("proto", "tcp"), str(port.get("host_address")), str(number))] += 1
    yield from (f"I2: {' '.join(claim)} has {count} owners" for claim, count in claims.items() if count > 1)
    desired = {
        (e["network"], a.partition("/")[0], e["id"])
        for e in stored.endpoints.values()
        for a in e["addresses"]
    }
    yield from difference("lease", desired, set(stored.leases))


def _pins(host: Host, stored: Stored) -> Iterator[str]:
    """I1: files that pin namespaces."""
    refs = [s.get("netns") or {} for s in stored.sandboxes.values()]
    own = [ref for ref in refs if ref.get("owner") == "sealane"]
    desired = {path for ref in own for path in (ref["path"], ref.get("userns")) if path}
    found = set()
    for folder in host.run_dirs():
        with contextlib.suppress(OSError):
            found |= {f"{folder}/netns/{name}" for name in os.listdir(host.path(f"{folder}/netns"))}
    yield from difference("namespace file", desired, found)


def _descriptors(host: Host, stored: Stored) -> Iterator[str]:
    """I1: a descriptor of the daemon keeps a dead namespace alive (moby #41136)."""
    if host.daemon is None or host.daemon.poll() is not None:
        return
    live = {(s.get("netns") or {}).get("inode") for s in stored.sandboxes.values()} | {host.ns.inode}
    folder = f"/proc/{host.pid}/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            target = re.fullmatch(r"net:\[(\d+)\]", os.readlink(f"{folder}/{name}"))
            if target and int(target[1]) not in live:
                yield f"I1: the daemon holds the namespace {target[1]}, which no sandbox has"


def _flows(host: Host, stored: Stored) -> Iterator[str]:
    """I1: a tracked UDP flow that is translated to an endpoint which does not publish it, or does not exist (B11)."""
    desired = {
        (own, proto, inner)
        for family, _ in FAMILIES
        for *_, proto, _, own, inner in (*published(stored, family), *published_from(stored, family))
    }
    prefixes = [
        ipaddress.ip_network(s["prefix"]) for n in stored.networks.values() for s in n.get("subnets", [])
    ]
    for flow in flows(host.ns):
        backend = flow["reply"]["src"]
        translated = flow["original"]["dst"] != backend
        if flow["proto"] != "udp" or not translated:
            continue
        inside = any(
            ipaddress.ip_address(backend) in p for p in prefixes if (":" in backend) == (p.version == 6)
        )
        if inside and (backend, "udp", flow["reply"]["sport"]) not in desired:
            yield f"I1: a UDP flow to {flow['original']['dst']} still leads to {backend}:{flow['reply']['sport']}"
