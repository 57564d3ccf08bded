"""The cost of one change beside 10,000 endpoints: time inside the engine without kernel and store, and compile units.

A kernel in memory, so that only our own work is measured; each verb in turn in one run. The peer of a row is the same verb
beside 10 endpoints: what a change costs must not depend on what it does not change.
"""

import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from bench.report import Goal, Row, median
from sealane.compile.facts import Facts, Features
from sealane.compile.host import Compiled
from sealane.engine.engine import Engine
from sealane.engine.events import EventLog
from sealane.engine.reconciler import Reconciler
from sealane.linux.fake import FakeKernel
from sealane.model.change import Put
from sealane.model.endpoint import Endpoint, NetnsRef
from sealane.model.intent import Intent
from sealane.model.network import Network
from sealane.reconcile.plan import Outcome, Plan
from sealane.store.memory import MemoryStore
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest, PublishRequest, SubnetRequest

MANY, FEW = 10_000, 10
ROUNDS = 15
FACTS = Facts(instance="be7c40", uplink="up0", uplink_mtu=1500, features=Features(fast_path=True))


class AgreeingKernel(FakeKernel):
    """Does nothing, and says that it did: so only the engine's own work is measured."""

    def apply(self, plan: Plan, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
        return []


class Host:
    """An engine with one routed network and so many endpoints; counts what is recompiled."""

    def __init__(self, endpoints: int) -> None:
        kernel = AgreeingKernel(FACTS)
        reconciler = Reconciler(kernel, Intent(), FACTS)
        self.engine = Engine(MemoryStore(), kernel, reconciler, EventLog(time.time), 0)
        self.units = 0
        subnets = [SubnetRequest(prefix="10.66.0.0/16")]
        self.engine.create_network(NetworkRequest(name="bench", driver="routed", subnets=subnets))
        for number in range(endpoints):
            self.attach(number)
        self._count(reconciler.compiled)

    def _count(self, compiled: Compiled) -> None:
        refresh = compiled.refresh

        def counted(intent: Intent, changed: set) -> set:
            self.units += len(changed)
            return refresh(intent, changed)

        compiled.refresh = counted

    @property
    def network(self) -> Network:
        (network,) = self.engine.intent.networks.values()
        return network

    @property
    def first(self) -> Endpoint:
        return next(iter(self.engine.intent.endpoints.values()))

    def attach(self, number: int) -> None:
        self.engine.attach(AttachRequest(sandbox=f"/run/netns/box{number}", network="bench"))

    def detach(self, number: int) -> None:
        self.engine.detach([DetachRequest(sandbox=f"/run/netns/box{number}")])


def _attach(host: Host, turn: int) -> None:
    host.attach(MANY + turn)


def _detach(host: Host, turn: int) -> None:
    host.detach(MANY + turn)


def _publish(host: Host, turn: int) -> None:
    host.engine.publish(host.first, [PublishRequest(host_first=20_000 + turn, port=80)])


def _label(host: Host, turn: int) -> None:
    now = host.network
    host.engine.commit_then_apply([Put(msgspec.structs.replace(now, labels={"turn": str(turn)}), now)])


def _dns(host: Host, turn: int) -> None:
    host.engine.set_dns_servers(host.network, [f"192.0.2.{1 + turn}"])


VERBS: dict[str, Callable[[Host, int], None]] = {
    "attach": _attach,
    "detach": _detach,
    "publish a port": _publish,
    "label of the network": _label,
    "DNS server of the network": _dns,
}


def ten_thousand() -> list[Row]:
    few, many = Host(FEW), Host(MANY)
    return [row for name, verb in VERBS.items() for row in _rows(name, verb, few, many)]


def _rows(name: str, verb: Callable[[Host, int], None], few: Host, many: Host) -> Iterator[Row]:
    took: dict[Host, list[float]] = {few: [], many: []}
    units: dict[Host, int] = {}
    for turn in range(ROUNDS):
        for host in (few, many):
            before, started = host.units, time.perf_counter()
            verb(host, turn)
            took[host].append(time.perf_counter() - started)
            units[host] = host.units - before
    yield Row(
        benchmark="changes",
        what=f"{name}, beside {MANY:,} endpoints",
        ours=median(took[many]),
        unit="s",
        peer=f"beside {FEW}",
        theirs=median(took[few]),
        ratio=median(mine / theirs for mine, theirs in zip(took[many], took[few], strict=True)),
        goal=Goal("at most", 2.0),
        note=f"{units[many]} units recompiled (of {2 * MANY + 2:,})",
    )
