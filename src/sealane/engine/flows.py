"""Forgets tracked UDP flows whose translation or peer has changed.

UDP only: a TCP connection to a dead endpoint ends by itself, a UDP flow is refreshed for ever. Where the kernel does not
allow it the flows stay, which is an event and no reason to undo a verb.
"""

from collections.abc import Iterable, Iterator

from sealane.engine.events import EventLog
from sealane.engine.ports import Flow, Kernel
from sealane.engine.reconciler import Reconciler
from sealane.model.endpoint import Endpoint
from sealane.model.intent import Intent
from sealane.model.net import Address, address_part, family_of


class Flows:
    def __init__(self, kernel: Kernel, reconciler: Reconciler, events: EventLog) -> None:
        self._kernel = kernel
        self._reconciler = reconciler
        self._events = events
        self._departed = set[Address]()
        """Addresses of removed endpoints, whose flows are tracked still."""

    def forget(self, endpoints: Iterable[Endpoint]) -> None:
        """Flows that led to endpoints that came, went or publish otherwise."""
        intent = self._reconciler.intent
        self._forget([flow for endpoint in endpoints for flow in stale_flows(endpoint, intent)])

    def departed(self, endpoint: Endpoint) -> None:
        """Note a removed endpoint: see `forget_departed`."""
        self._departed |= {address_part(a) for a in endpoint.addresses}

    def before(self, addresses: Iterable[Address]) -> None:
        """To be called before these are given to endpoints."""
        if self._departed and not self._departed.isdisjoint(addresses):
            self.forget_departed()

    def forget_departed(self) -> None:
        """The flows that removed endpoints began: as long as the other side answers, the answers would reach the next
        owner of the address. A look through all that is tracked takes milliseconds, so it is taken for many at once, at
        the latest when one of their addresses is given again."""
        flows = [Flow("udp", 0, 0, source=address) for address in self._departed]
        self._departed.clear()
        self._forget(flows)

    def _forget(self, flows: list[Flow]) -> None:
        if flows and self._reconciler.compiled.facts.features.conntrack:
            try:
                self._kernel.forget_flows(flows)
            except OSError as error:
                self._events.emit("flows.delete_failed", error.strerror or str(error))


def stale_flows(endpoint: Endpoint, intent: Intent) -> Iterator[Flow]:
    """Flows whose translation is another since an endpoint came, went or publishes otherwise. `intent` is as it is now."""
    udp = [port for port in endpoint.ports if port.proto == "udp"]
    yield from (Flow("udp", p.host_first, p.host_last, p.only_at or "") for p in udp)
    if udp:
        yield from (Flow("udp", 0, 0, backend=address_part(a)) for a in endpoint.addresses)
    yield from _asked_from(endpoint, intent)


def _asked_from(endpoint: Endpoint, intent: Intent) -> Iterator[Flow]:
    """Ports that its sandbox publishes on other networks lead elsewhere now when asked from its own network
    (`compile.publish`)."""
    network = intent.networks.get(endpoint.network)
    if network is None or endpoint.sandbox is None:
        return
    for other in intent.endpoints_by_sandbox.get(endpoint.sandbox, {}).values():
        if other.id == endpoint.id:
            continue
        for port in other.ports:
            for subnet in network.subnets:
                address = port.only_at or ""
                if port.proto == "udp" and (not address or family_of(address) == family_of(subnet.gateway)):
                    yield Flow("udp", port.host_first, port.host_last, address, prefix=subnet.prefix)
