"""Engines on a kernel in memory: for laws and for the verbs' behaviour, without root."""

from collections.abc import Sequence

from sealane.compile.facts import Facts, Features, ForeignRoute
from sealane.engine.engine import Engine
from sealane.engine.events import EventLog
from sealane.engine.ports import Reserver
from sealane.engine.reconciler import Reconciler
from sealane.engine.resyncer import Resyncer
from sealane.linux.fake import FakeKernel
from sealane.model.intent import Intent
from sealane.store.base import Store
from sealane.store.memory import MemoryStore
from sealane.wire.requests import AttachRequest, NetworkRequest, PublishRequest, SubnetRequest
from sealane.wire.views import EndpointView, NetworkView

FACTS = Facts(
    instance="abcdef",
    uplink="uplink0",
    uplink_mtu=1400,
    foreign_routes=(ForeignRoute("192.0.2.0/24", "route via uplink0"),),  # type: ignore[arg-type]
    features=Features(fast_path=True),
)


class Bench:
    """One host: an engine, its kernel and its store; `restart` makes a new engine over the same kernel and store."""

    def __init__(self, kernel: FakeKernel | None = None, store: Store | None = None) -> None:
        self.kernel = kernel or FakeKernel(FACTS)
        self.store = store or MemoryStore()
        self.restart()

    def restart(self) -> "Bench":
        snapshot = self.store.snapshot()
        facts = self.kernel.facts()
        reconciler = Reconciler(self.kernel, Intent(snapshot.records), facts, paranoid=True)
        self.engine = Engine(self.store, self.kernel, reconciler, EventLog(lambda: 0.0), snapshot.revision)
        self.resyncer = Resyncer(self.engine)
        self.resyncer.start()
        while self.resyncer.verify_some(100):
            pass
        return self

    def network(self, name: str = "front", **options: object) -> NetworkView:
        return self.engine.create_network(NetworkRequest(name=name, **options))  # type: ignore[arg-type]

    def attach(
        self, sandbox: str, network: str = "front", reserver: Reserver | None = None, **options: object
    ) -> EndpointView:
        request = AttachRequest(sandbox=sandbox, network=network, **options)  # type: ignore[arg-type]
        return self.engine.attach(request, reserver)

    def kinds(self) -> list[str]:
        """Kinds and verbs performed since the last call."""
        done = [f"{o.verb} {o.object.key[0]}" for o in self.kernel.performed]
        self.kernel.performed.clear()
        return done

    def is_clean(self) -> bool:
        return self.resyncer.audit().clean


def publish(host: int, inside: int, proto: str = "tcp", address: str = "", count: int = 1) -> PublishRequest:
    return PublishRequest(proto=proto, host_address=address, host_first=host, port=inside, count=count)  # type: ignore[arg-type]


def subnets(*prefixes: str) -> Sequence[SubnetRequest]:
    return [SubnetRequest(prefix=prefix) for prefix in prefixes]
