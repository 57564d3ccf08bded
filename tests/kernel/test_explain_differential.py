"""Law 9 (style.md §5.7): what `explain` says is what packets do.

A random town is built by the real engine on a real kernel: networks of every kind and mix of options, workloads on one
or two of them, published ports of every form. Then everybody talks to everything: from each workload, the host and a
neighbour on the LAN (which has routes to all private prefixes by the host), to every address and port that means
something, TCP and UDP. The explanation must name the namespace that answers and the source address that it sees, or
silence. A disagreement becomes a unit test of the kernel's behaviour that it taught (a seed alone makes the town again,
but not its ids, by which objects are drawn). SEALANE_DIFFERENTIAL_SEEDS=N adds N towns of each kind.
"""

import os
import random  # noqa: TID251 - a seed makes a town again.
from typing import Any, NamedTuple

import msgspec
import pytest

from harness.audit import audit
from harness.explained import Explained
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.netns import Netns, Server, eventually
from harness.scene import ANY
from sealane.compile.relay import Relays
from sealane.explain import render
from sealane.explain.packet import Packet
from sealane.kernel import text_nft
from sealane.kernel.links import Veth
from sealane.kernel.nft import Element, NftFamily
from sealane.kernel.objects import FdbEntry, Link, Neighbour, Route, Sysctl
from sealane.kernel.state import HOST
from sealane.model.intent import Intent

pytestmark = pytest.mark.kernel

SEEDS = [1, 2, 3, 4]
DRIFT_SEEDS = [11, 12, 13, 14]
DRIFTS = 4
"""Objects taken away at once."""

OBSERVED = 60
"""Answered cases of a town that are held against the kernel as well."""

REPAIR_S = 10.0
MORE_SEEDS = int(os.environ.get("SEALANE_DIFFERENTIAL_SEEDS", "0"))
INNER, OTHER, RANGED = 80, 7000, 9001
HEARD = (INNER, OTHER, RANGED)
"""Ports that everybody listens at."""

EXT = {4: EXT4, 6: EXT6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
HOST_NUMBER = 9
SILENCE_S = 0.3


TRANSLATORS: tuple[NftFamily, ...] = ("ip", "ip6")
SERVICES = """
table {family} services {{
    chain prerouting {{ type nat hook prerouting priority dstnat; {family} daddr {service} dnat to {backend}; }}
}}
"""
"""Of somebody else, and of no concern to what is asked here."""


class Case(NamedTuple):
    origin: str
    proto: str
    address: str
    port: int


class Town:
    def __init__(self, lan: Lan, seed: int) -> None:
        """Every second host has br_netfilter on, and every second somebody who translates."""
        self.chance = random.Random(seed)
        bridge_netfilter, translated = bool(seed % 2), seed % 4 in {1, 2}
        self.machine = Host(lan, number=HOST_NUMBER)
        self.translators = TRANSLATORS if translated else ()
        for family, service, backend in zip(
            self.translators, ("10.96.0.1", "fd96::1"), ("10.97.0.1", "fd97::1"), strict=False
        ):
            text = SERVICES.format(family=family, service=service, backend=backend)
            self.machine.ns.sh("nft", "-f", "-", text=text)
        for name in ("iptables", "ip6tables"):
            self.machine.ns.sysctl(f"net/bridge/bridge-nf-call-{name}", str(int(bridge_netfilter)))
        self.machine.start()
        self.lan = lan
        self.networks: list[str] = []
        self.routes: list[str] = []
        self.workloads: dict[str, Workload] = {}
        self.published: list[tuple[str, int]] = []
        self.tokens: dict[str, str] = {}
        self.relayed: set[tuple[int, str, int]] = set()
        """Where the daemon listens, so that nobody else of the host does."""
        self.outside: list[Server] = []

    def build(self) -> None:
        for index in range(self.chance.randint(3, 5)):
            self._network(index)
        for index in range(self.chance.randint(4, 6)):
            self._workload(index)
        for name, ns in self.places().items():
            for proto in ("tcp", "udp"):
                for family in (4, 6):
                    for port in HEARD:
                        if name == "host" and self._is_relayed(family, proto, port):
                            self.relayed.add((family, proto, port))
                            continue
                        server = ns.listen(proto, ANY[family], port)
                        self.tokens[server.token] = name
                        if name == "ext":
                            self.outside.append(server)

    def _is_relayed(self, family: int, proto: str, port: int) -> bool:
        """Whether the daemon listens there already."""
        return self.oracle().world.relays.find(family, proto, port) is not None  # type: ignore[arg-type]

    def _network(self, index: int) -> None:
        chance = self.chance
        driver = chance.choice(["bridge", "bridge", "routed"])
        options = {"masquerade": chance.choice(["true", "true", "false"])}
        options["icc"] = chance.choice(["true", "true", "false"])
        if driver == "bridge" and chance.random() < 0.1:
            options["inhibit-gateway"] = "true"
        prefixes = chance.choice(
            [[f"10.7{index}.0.0/24"], [f"fd7{index}::/64"], [f"10.7{index}.0.0/24", f"fd7{index}::/64"]]
        )
        name = f"net{index}"
        internal = chance.random() < 0.2
        self.machine.api.network(name, *prefixes, driver=driver, internal=internal, options=options)
        self.networks.append(name)
        self.routes += prefixes
        for prefix in prefixes:
            via = self.machine.address(6 if ":" in prefix else 4)
            self.lan.ext.ip("route", "add", prefix, "via", via)

    def _workload(self, index: int) -> None:
        name = f"box{index}"
        workload = Workload(self.machine, name)
        self.workloads[name] = workload
        for place, network in enumerate(self.chance.sample(self.networks, self.chance.choice([1, 1, 2]))):
            view = self.machine.api.get(f"/networks/{network}")
            families = {6 if ":" in s["prefix"] else 4 for s in view["subnets"]}
            desired = [] if view["internal"] else self._publishes(10 * index + place, families)
            workload.attach(network, name=f"{name}-{place}", publish=desired)

    def _publishes(self, number: int, families: set[int]) -> list[dict[str, Any]]:
        chance = self.chance
        if chance.random() < 0.3:
            return []
        first = 8000 + 10 * number
        addresses = [""]
        if 4 in families:
            addresses += ["127.0.0.1", self.machine.address(4)]
        if 6 in families:
            addresses += ["::1", self.machine.address(6)]
        proto = chance.choice(["tcp", "udp"])
        desired = [
            {"proto": proto, "host_first": first, "port": INNER, "host_address": chance.choice(addresses)},
            {"proto": proto, "host_first": first + 1, "port": OTHER - 1, "count": 2},
        ]
        self.published += [(proto, first), (proto, first + 2)]
        if chance.random() < 0.3:
            # A range that is not shifted is one element of `publish_ranges`.
            if (proto, RANGED) not in self.published:
                desired.append({"proto": proto, "host_first": RANGED - 1, "port": RANGED - 1, "count": 2})
                self.published.append((proto, RANGED))
        return desired

    def oracle(self) -> Explained:
        return Explained(self.machine, self.translators)

    def places(self) -> dict[str, Netns]:
        found = {name: workload.ns for name, workload in self.workloads.items()}
        return {**found, "host": self.machine.ns, "ext": self.lan.ext}

    def cases(self) -> list[Case]:
        addresses = {EXT4, EXT6, self.machine.address(4), self.machine.address(6)}
        for workload in self.workloads.values():
            for endpoint in workload.endpoints.values():
                addresses |= {a.partition("/")[0] for a in endpoint["addresses"]}
                addresses |= set(endpoint["gateways"])
        direct = [(p, a, port) for p in ("tcp", "udp") for a in sorted(addresses) for port in (INNER, OTHER)]
        hosts = [self.machine.address(4), self.machine.address(6)]
        published = [(p, a, port) for p, port in self.published for a in hosts]
        local = [(p, a, port) for p, port in self.published for a in LOOPBACK.values()]
        result = []
        for origin in self.places():
            desired = direct + published + (local if origin == "host" else [])
            result += [Case(origin, *where) for where in dict.fromkeys(desired)]
        return result

    def close(self) -> None:
        for server in self.outside:
            server.close()
        for prefix in self.routes:
            self.lan.ext.ip("route", "del", prefix)
        for workload in self.workloads.values():
            workload.close()
        for network in self.networks:
            self.machine.api.remove_network(network)
        findings = audit(self.machine)
        self.machine.close()
        assert findings == []


def observed(town: Town, cases: list[Case]) -> dict[Case, str]:
    """`NAME saw SOURCE`, or `silence`."""
    result = {}
    for origin, ns in town.places().items():
        mine = [case for case in cases if case.origin == origin]
        desired = [
            {"proto": c.proto, "address": c.address, "port": c.port, "timeout": SILENCE_S} for c in mine
        ]
        for case, answer in zip(mine, ns("probes", desired=desired), strict=True):
            words = str(answer.get("answer", "")).split()
            owner = town.tokens.get(words[0]) if words else None
            result[case] = f"{owner} saw {words[1]}" if owner else "silence"
    return result


def explained(town: Town, oracle: Explained, cases: list[Case]) -> dict[Case, str]:
    names = {oracle.sandbox(w.ns.inode): name for name, w in town.workloads.items()}
    names |= {HOST: "host", "ext": "ext"}
    ids = {name: netns for netns, name in names.items()}
    result = {}
    for case in cases:
        family = 6 if ":" in case.address else 4
        packet = Packet(
            proto=case.proto,  # type: ignore[arg-type]
            source=EXT[family] if case.origin == "ext" else "",
            source_port=40000,
            destination=case.address,
            destination_port=case.port,
        )
        if case.origin == "ext" and case.address == EXT[family]:
            result[case] = f"ext saw {case.address}"
            continue
        found = oracle.reached(ids[case.origin], packet)
        is_heard = found is not None and found[1].destination_port in HEARD
        if found is not None and found[0] == HOST:
            is_heard = is_heard and (family, case.proto, found[1].destination_port) not in town.relayed
        result[case] = f"{names[found[0]]} saw {found[1].source}" if found and is_heard else "silence"
    return result


def why(town: Town, oracle: Explained, case: Case) -> str:
    """The explanation of a case that disagreed, for the failure's text."""
    family = 6 if ":" in case.address else 4
    origin = (
        case.origin
        if case.origin in ("host", "ext")
        else oracle.sandbox(town.workloads[case.origin].ns.inode)
    )
    packet = Packet(
        proto=case.proto,  # type: ignore[arg-type]
        source=EXT[family] if case.origin == "ext" else "",
        source_port=40000,
        destination=case.address,
        destination_port=case.port,
    )
    there, back = oracle.talk(origin, packet)
    return render.summary(there) + (render.summary(back) if back else "")


def compare(town: Town, oracle: Explained, seed: int) -> None:
    cases = town.cases()
    said, seen = explained(town, oracle, cases), observed(town, cases)
    wrong = {case: (said[case], seen[case]) for case in cases if said[case] != seen[case]}
    print(f"seed {seed}: {len(cases)} cases, {sum(v != 'silence' for v in seen.values())} answered")
    shown = [f"{c}: explained {e}, seen {s}\n{why(town, oracle, c)}" for c, (e, s) in list(wrong.items())[:6]]
    assert not wrong, f"{len(wrong)} of {len(cases)} cases disagree:\n" + "\n".join(shown)


def no_false_alarm(town: Town, chance: random.Random) -> None:
    """Of what is answered, and nobody has touched, `explain --observed` says that it passes, and nothing else."""
    cases = town.cases()
    answered = [case for case, seen in observed(town, cases).items() if seen != "silence"]
    for case in chance.sample(answered, min(OBSERVED, len(answered))):
        family = 6 if ":" in case.address else 4
        if case.origin == "ext" and case.address == EXT[family]:
            continue
        source = {"host": "host", "ext": EXT[family]}.get(case.origin, f"{case.origin}-0")
        target = f"[{case.address}]:{case.port}" if family == 6 else f"{case.address}:{case.port}"
        question = {"source": source, "target": target, "proto": case.proto, "observed": True}
        view = town.machine.api.post("/explain", question)
        told = (view["outcome"], view["drift"], view["unread"])
        assert told == ("passes", [], []), f"{case}: {view['summary']}"


@pytest.mark.parametrize("seed", SEEDS + list(range(1000, 1000 + MORE_SEEDS)))
def test_explain_says_what_packets_do(lan: Lan, seed: int) -> None:
    town = Town(lan, seed)
    try:
        town.build()
        compare(town, town.oracle(), seed)
        no_false_alarm(town, random.Random(seed))
    finally:
        town.close()


@pytest.mark.parametrize("seed", DRIFT_SEEDS + list(range(2000, 2000 + MORE_SEEDS)))
def test_explain_says_what_packets_do_where_objects_are_missing(lan: Lan, seed: int) -> None:
    """With the daemon stopped, objects of the host are taken away, as a stranger's command would: what is explained of
    the state without them is what happens."""
    town = Town(lan, seed)
    try:
        town.build()
        oracle = town.oracle()
        town.machine.stop()
        # With the daemon its relays end.
        oracle.world.relays = Relays(Intent())
        print(f"seed {seed}: without {drift(town, oracle, town.chance)}")
        try:
            compare(town, oracle, seed)
        finally:
            town.machine.start()
            eventually(lambda: not town.machine.api.audit(), REPAIR_S, "the daemon has put everything right")
    finally:
        town.close()


def drift(town: Town, oracle: Explained, chance: random.Random) -> list[object]:
    """Take some objects away, from the kernel and from what is explained."""
    state = oracle.compiled.desired[HOST]
    candidates = [item for item in state.values() if removal(item, state)]
    gone = []
    for item in chance.sample(candidates, min(DRIFTS, len(candidates))):
        done = town.machine.ns.run(*removal(item, state))
        if done.returncode == 0:
            gone.append(item.key)
            if isinstance(item, Link):
                state[item.key] = msgspec.structs.replace(item, up=False)
            elif isinstance(item, Sysctl):
                state[item.key] = msgspec.structs.replace(item, value="0")
                if item.path == "net/ipv4/ip_forward":
                    stop_each_link(state)
            else:
                del state[item.key]
    return gone


def stop_each_link(state: dict) -> None:
    """The kernel does with one IPv4 switch (inet_forward_change)."""
    for key, item in state.items():
        if (
            isinstance(item, Sysctl)
            and item.path.startswith("net/ipv4/conf/")
            and key[1].endswith("/forwarding")
        ):
            state[key] = msgspec.structs.replace(item, value="0")


def removal(item: object, state: dict) -> tuple[str, ...]:
    """The command that takes an object away; empty for kinds that are left alone."""
    match item:
        case FdbEntry(link=link, mac=mac, is_own=is_own):
            return ("bridge", "fdb", "del", mac, "dev", link, "self" if is_own else "master")
        case Neighbour(link=link, address=address, mac=mac) if mac:
            return ("ip", "neigh", "del", address, "dev", link)
        case Route(type="unicast", dst=dst, link=link):
            return ("ip", "-6" if ":" in dst else "-4", "route", "del", dst, "dev", link)
        case Element(set="nd_targets"):
            # Without it a port cannot advertise its address, but the kernel learns it from a solicitation as well (RFC 4861
            # §7.2.3), which `explain` does not model.
            return ()
        case Element(family=family, set=name):
            text = text_nft.element(item, state["nft-set", family, name])
            return ("nft", "delete", "element", family, "sealane", name, "{", text, "}")
        case Link(name=name, kind=Veth(), master=master) if master:
            return ("ip", "link", "set", name, "down")
        case Sysctl(path="net/ipv4/ip_forward" | "net/ipv6/conf/all/forwarding" as path):
            return ("sysctl", "-q", f"{path.replace('/', '.')}=0")
    return ()
