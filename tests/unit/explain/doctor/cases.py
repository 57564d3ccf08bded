"""Cases for the causes' tests: the town of `unit.explain.worlds`, looked at and found healthy.

front  web (published 8080 → 80/tcp, served over both families), api;   back  api, db
"""

from typing import Any

import msgspec

from harness.engines import FACTS
from sealane.compile.facts import Facts
from sealane.compile.names import network_link
from sealane.explain.doctor.case import DiagnosisInput, Finding
from sealane.explain.doctor.causes import diagnose
from sealane.explain.doctor.evidence import (
    BaseChain,
    Evidence,
    ForeignTable,
    HostEvidence,
    HostLink,
    HostRoute,
    Listener,
    SandboxEvidence,
    SandboxLink,
)
from sealane.kernel.objects import Route
from sealane.kernel.state import HOST
from unit.explain.worlds import Town

WEB, API, DB = "sandbox-web", "sandbox-api", "sandbox-db"
HEALTHY_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
SERVED = (
    Listener(proto="tcp", address="0.0.0.0", port=80, process="nginx (pid 7)"),
    Listener(proto="tcp", address="::", port=80, v6_only=True, process="nginx (pid 7)"),
)


def resolvers(town: Town) -> tuple[Listener, ...]:
    return tuple(
        Listener(proto="udp", address=subnet.gateway, port=53, ours=True)
        for network in (town.front, town.back)
        for subnet in network.subnets
    )


def defaults(town: Town, sandbox: str) -> tuple[HostRoute, ...]:
    return tuple(
        HostRoute(dst=item.dst, link=item.link, gateway=item.gateway)
        for item in town.compiled.desired[sandbox].values()
        if isinstance(item, Route) and item.dst in {"0.0.0.0/0", "::/0"} and item.table == 254
    )


def healthy(town: Town) -> Evidence:
    mtu = 1400
    return Evidence(
        host=HostEvidence(
            links=(
                HostLink(name="uplink0", mtu=mtu),
                *(HostLink(name=network_link(n), mtu=mtu, ours=True, ports=2) for n in (town.front, town.back)),
            ),
            routes=(
                HostRoute(dst="0.0.0.0/0", link="uplink0", gateway="192.0.2.1"),
                HostRoute(dst="::/0", link="uplink0", gateway="2001:db8::1"),
                HostRoute(dst="192.0.2.0/24", link="uplink0"),
            ),
            sysctls=dict(HEALTHY_SYSCTLS),
            listeners=resolvers(town),
        ),
        sandboxes={
            key: SandboxEvidence(
                links=(SandboxLink(name="lo", mtu=65536), SandboxLink(name="eth0", mtu=mtu), SandboxLink(name="eth1", mtu=mtu)),
                defaults=defaults(town, key),
                listeners=SERVED if key == WEB else (),
                nameservers=(town.front.subnets[0].gateway, town.back.subnets[0].gateway),
            )
            for key in (WEB, API, DB)
        },
    )  # fmt: skip


class Patient:
    """A town with its evidence; `host` and `inside` change what is seen."""

    def __init__(self, *, facts: Facts = FACTS, **options: Any) -> None:
        self.town = Town(facts=facts, **options)
        self.evidence = healthy(self.town)
        self.handed: frozenset[str] = frozenset()

    def handed_over(self, *sandboxes: str) -> "Patient":
        """Docker has set these up inside."""
        self.handed = frozenset(sandboxes)
        return self

    def host(self, **fields: Any) -> "Patient":
        changed = msgspec.structs.replace(self.evidence.host, **fields)
        self.evidence = msgspec.structs.replace(self.evidence, host=changed)
        return self

    def inside(self, sandbox: str, **fields: Any) -> "Patient":
        seen = msgspec.structs.replace(self.evidence.sandboxes[sandbox], **fields)
        self.evidence = msgspec.structs.replace(
            self.evidence, sandboxes={**self.evidence.sandboxes, sandbox: seen}
        )
        return self

    def unseen(self, **pieces: str) -> "Patient":
        self.evidence = msgspec.structs.replace(self.evidence, unseen=pieces)
        return self

    @property
    def case(self) -> DiagnosisInput:
        intent = self.town.intent
        return DiagnosisInput(
            networks=dict(intent.networks),
            sandboxes=tuple(intent.sandboxes.values()),
            endpoints={
                key: tuple(msgspec.structs.replace(e, handover=key in self.handed) for e in there.values())
                for key, there in intent.endpoints_by_sandbox.items()
            },
            in_scope=frozenset(intent.networks),
            leases=frozenset(address for _, address in intent.leases),
            desired={netns: dict(self.town.compiled.desired[netns]) for netns in (HOST, WEB, API, DB)},
            permanent={4: 30, 6: 20},
            facts=self.town.compiled.facts,
            evidence=self.evidence,
        )

    def findings(self, cause: str = "") -> list[Finding]:
        return [f for f in diagnose(self.case) if not cause or f.cause == cause]

    def told(self, cause: str) -> list[tuple[str, str]]:
        """Subject and level."""
        return [(f.subject, f.level) for f in self.findings(cause)]


def gate(hook: str = "forward", drops: str = "policy", rules: int = 0, **fields: Any) -> BaseChain:
    return BaseChain(name="gate", hook=hook, drops=drops, rules=rules, **fields)  # type: ignore[arg-type]


def table(*chains: BaseChain, family: str = "inet", **fields: Any) -> ForeignTable:
    return ForeignTable(family=family, name="stranger", chains=chains, **fields)  # type: ignore[arg-type]
