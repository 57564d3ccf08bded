"""Feeds the resolver: from changes of intent to whole zone networks.

A zone network lists all its members, so rebuilding one costs what the network has. Attaching must not: changes are
gathered for a moment, and for longer the more the last rebuild worked, so that names take at most a twentieth of
the loop's time. A lone change is in force after GATHER_MIN_S.
"""

import asyncio
import time

from sealane.compile.names import network_link
from sealane.dns.records import ZoneMember, ZoneNetwork
from sealane.dns.server import DnsServer
from sealane.engine.engine import Engine
from sealane.engine.feed import GapError
from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId, NetworkId, bare_name, namespace_of
from sealane.model.net import address_part
from sealane.model.network import Network

GATHER_MIN_S = 0.002
GATHER_MAX_S = 0.5
SHARE = 20
"""At most one part in so many of the time goes into rebuilding."""


def dns_name(name: str) -> str:
    """`web-0.shop` of `shop/web-0`."""
    namespace = namespace_of(name)
    return f"{bare_name(name)}.{namespace}" if namespace else name


class NameFeed:
    def __init__(self, engine: Engine, server: DnsServer, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._server = server
        self._loop = loop
        self._dirty: set[NetworkId] = set(engine.intent.networks)
        self._members: dict[EndpointId, tuple[Endpoint, ZoneMember]] = {}
        self._served: set[NetworkId] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._took = 0.0
        self._changes = engine.feed.reader("names", self._gather)

    def _gather(self) -> None:
        if self._timer is None:
            wait = min(GATHER_MAX_S, max(GATHER_MIN_S, self._took * SHARE))
            self._timer = self._loop.call_later(wait, self.flush)

    def close(self) -> None:
        self._changes.close()
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        try:
            changes = self._changes.changes()
        except GapError:
            self._dirty |= {*self._engine.intent.networks, *self._served}
            return
        for change in changes:
            if isinstance(change.record, Network):
                self._dirty.add(change.record.id)
            elif isinstance(change.record, Endpoint):
                self._dirty.add(change.record.network)

    def flush(self) -> None:
        """Update the resolver with all changes since the last call."""
        self._timer = None
        # Of the processor: where others keep it busy, an update is interrupted for longer than it works.
        started = time.thread_time()
        self._read()
        intent = self._engine.intent
        changed = [self._network(intent.networks[n]) for n in self._dirty if n in intent.networks]
        removed = [n for n in self._dirty if n not in intent.networks and n in self._served]
        self._dirty.clear()
        silent = [c.id for c in changed if not c.listen and c.id in self._served]
        self._server.update([c for c in changed if c.listen], [*removed, *silent])
        self._served |= {NetworkId(c.id) for c in changed if c.listen}
        self._served -= {*removed, *map(NetworkId, silent)}
        if len(self._members) > 2 * len(intent.endpoints):
            self._members = {k: v for k, v in self._members.items() if k in intent.endpoints}
        self._took = time.thread_time() - started

    def _network(self, network: Network) -> ZoneNetwork:
        endpoints = self._engine.intent.endpoints_by_network.get(network.id, {}).values()
        return ZoneNetwork(
            id=network.id,
            name=network.name,
            listen=network.resolvers,
            subnets=tuple(s.prefix for s in network.subnets),
            # A routed network's questions arrive on its endpoints' links, one each.
            device=network_link(network) if network.traits.has_bridge else None,
            internal=network.internal,
            upstreams=network.dns_servers,
            members=tuple(self._member(e) for e in endpoints if e.sandbox is not None and not e.dormant),
        )

    def _member(self, endpoint: Endpoint) -> ZoneMember:
        kept = self._members.get(endpoint.id)
        if kept is not None and kept[0] is endpoint:
            return kept[1]
        member = ZoneMember(
            endpoint=endpoint.id,
            sandbox=endpoint.sandbox or "",
            names=(dns_name(endpoint.name), *endpoint.aliases),
            addresses=tuple(address_part(a) for a in endpoint.addresses),
            upstreams=endpoint.dns_servers,
            short=bare_name(endpoint.name) if namespace_of(endpoint.name) else "",
        )
        self._members[endpoint.id] = (endpoint, member)
        return member
