"""Everything in a namespace that is not sealane's: the same before a test and after it."""

from harness.marks import PROTOCOL, is_ours
from harness.netns import Netns
from harness.observed import Observed


def foreign(ns: Netns) -> dict[str, set[str]]:
    """Everything in a namespace that is not sealane's, as comparable text."""
    observed = Observed(ns)
    links = [link for link in observed.links.values() if not is_ours(link)]
    names = {link["ifname"] for link in links}
    nft = observed.nft
    return {
        "link": {
            f"{link['ifname']} {link['address']} {link['mtu']} {'UP' in link['flags']} {link.get('master')} "
            f"{link.get('ifalias')} {link.get('group')}"
            for link in links
        },
        "address": {
            f"{link} {local}/{length}" for link, local, length in observed.addresses if link in names
        },
        "route": {
            f"{r['dst']} {r.get('dev')} {r.get('gateway')} {r.get('protocol')} {r.get('table')} {r.get('metric')}"
            for r in observed.routes
            # Anycast routes come and go with IPv6 forwarding.
            if str(r.get("protocol")) != PROTOCOL and r.get("dev") in names and r.get("type") != "anycast"
        },
        "rule": {f"{r['priority']} {r.get('src')} {r.get('table')}" for r in observed.rules},
        "neighbour": {
            f"{n['dev']} {n['dst']} {n.get('lladdr')}"
            for n in observed.neighbours
            if n["dev"] in names and "PERMANENT" in n["state"]
        },
        "FDB entry": {
            f"{e['ifname']} {e['mac']} {e.get('state')}"
            for e in observed.fdb
            if e["ifname"] in names and e.get("state") == "static"
        },
        "nft object": {f"{t}" for t in nft.tables | nft.chains if t[1] != "sealane"}
        | {
            f"{where} {e}"
            for where, elements in nft.elements.items()
            if where[1] != "sealane"
            for e in elements
        }
        | {f"{r}" for r in nft.rules if r["table"] != "sealane"},
    }


def changes(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """What happened to foreign objects meanwhile."""
    found = []
    for kind, was in before.items():
        found += [f"foreign {kind} is gone: {item}" for item in sorted(was - after[kind])]
        found += [f"foreign {kind} has appeared: {item}" for item in sorted(after[kind] - was)]
    return found
