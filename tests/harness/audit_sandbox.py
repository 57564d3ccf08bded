"""The auditor inside sandboxes."""

import os
from collections.abc import Iterator

from harness.host import Host
from harness.marks import FAMILIES, OWN_TABLES, PROTOCOL
from harness.netns import Netns
from harness.observed import Observed
from harness.stored import Record, Stored, address


def judge_sandboxes(host: Host, stored: Stored) -> Iterator[str]:
    """I3: inside of each sandbox."""
    for sandbox in stored.sandboxes.values():
        ref = sandbox.get("netns")
        if ref is None:
            continue
        path = host.path(ref["path"])
        try:
            inode = os.stat(path).st_ino
        except OSError:
            yield f"I1: sandbox {sandbox['name']} has lost its namespace {ref['path']}"
            continue
        if inode != ref["inode"]:
            yield f"I1: sandbox {sandbox['name']}: at {ref['path']} is another namespace"
            continue
        with Netns.enter(sandbox["name"], path) as inside:
            yield from _sandbox(sandbox, Observed(inside, inside=True), stored)


def _sandbox(sandbox: Record, inside: Observed, stored: Stored) -> Iterator[str]:
    mine = [(e, n) for e, n in stored.plugged() if e["sandbox"] == sandbox["id"]]
    known = {e["id"] for e, _ in mine}
    for link in inside.links.values():
        alias = link.get("ifalias", "")
        if alias.startswith("sealane/") and alias.rpartition("/")[2] not in known:
            yield f"I1: in {sandbox['name']}: link {link['ifname']} of {alias} has no owner"
    for endpoint, network in mine:
        where = f"in {sandbox['name']}: link {endpoint['ifname']}"
        link = inside.links.get(endpoint["ifname"])
        if link is None:
            yield f"I3: {where} is missing"
            continue
        if link["address"] != endpoint["mac"]:
            yield f"I4: {where} has the MAC {link['address']}, not {endpoint['mac']}"
        if "UP" not in link["flags"]:
            yield f"I3: {where} is down"
        have = {a.partition("/")[0] for a in inside.link_addresses(endpoint["ifname"])}
        for desired in endpoint["addresses"]:
            if desired.partition("/")[0] not in have:
                yield f"I3: {where} lacks {desired}"
    for family, _ in FAMILIES:
        yield from _ways_out(sandbox, mine, inside, family)


def _ways_out(
    sandbox: Record, mine: list[tuple[Record, Record]], inside: Observed, family: int
) -> Iterator[str]:
    """One endpoint gives the default route; the others each have a rule for their address, and a table with a default
    route of their own."""
    where = f"in {sandbox['name']}: IPv{family}"
    ways = {e["ifname"]: address(e, family) for e, n in mine if address(e, family) and not n.get("internal")}
    defaults = [
        r for r in inside.routes if r["dst"] == "default" and (":" in str(r.get("gateway"))) == (family == 6)
    ]
    main = {r["dev"] for r in defaults if "table" not in r}
    if ways and not main & set(ways):
        yield f"I3: {where}: no default route"
    if not ways and any(str(r.get("protocol")) == PROTOCOL for r in defaults):
        yield f"I1: {where}: a default route without a network"
    tables = {rule["src"]: rule["table"] for rule in inside.rules if _own_table(rule.get("table"))}
    tables = {source: table for source, table in tables.items() if (":" in source) == (family == 6)}
    for ifname, own in ways.items():
        if ifname not in main and not any(
            r["dev"] == ifname and r.get("table") == tables.get(own, "-") for r in defaults
        ):
            yield f"I3: {where}: what is answered from {own} does not leave by {ifname}"
    for source in tables.keys() - set(ways.values()):
        yield f"I1: {where}: a routing rule for {source}, which has no endpoint"


def _own_table(table: object) -> bool:
    return str(table).isdigit() and int(str(table)) >= OWN_TABLES
