"""What another engine attached through its integration, found again by its own words.

An attachment is an endpoint with labels: the container's id and whatever else its engine knows it by, on a network. By
these it is found again, whatever has become of the namespace, so a call may come twice, late, or after one that was
killed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from sealane.engine.engine import Engine
from sealane.engine.feed import GapError
from sealane.model.change import Put
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.ids import EndpointId
from sealane.model.network import Network
from sealane.wire.requests import DetachRequest
from sealane.wire.views import DetachView

Detach = Callable[[Sequence[DetachRequest]], Awaitable[DetachView]]


class Attachments:
    """`label` marks them; `detach` takes away what other callers want gone at the same moment, too."""

    def __init__(self, engine: Engine, detach: Detach, label: str) -> None:
        self._engine = engine
        self._detach = detach
        self._label = label
        self._by_container: dict[str, dict[EndpointId, None]] = {}
        self._changes = engine.feed.reader(label)
        self._list()
        self._going: dict[EndpointId, asyncio.Future[DetachView]] = {}
        """Asked to be taken away, and still there: a caller that was killed may have asked, and its successor is here."""

    def network(self, name: str) -> Network | None:
        """By its whole name: the beginning of an id, which other integrations take too, is none here."""
        identity = self._engine.intent.network_ids.get(name)
        return None if identity is None else self._engine.intent.networks[identity]

    def on(self, name: str) -> list[Endpoint]:
        """Those on a network."""
        network = self.network(name)
        there = self._engine.intent.endpoints_by_network.get(network.id, {}) if network is not None else {}
        return [endpoint for endpoint in there.values() if self._label in endpoint.labels]

    def of(self, container: str) -> list[Endpoint]:
        """Those of a container, on all networks, in the order in which they came."""
        self._read()
        there = self._engine.intent.endpoints
        return [there[identity] for identity in self._by_container.get(container, ()) if identity in there]

    def _list(self) -> None:
        self._by_container.clear()
        for endpoint in self._engine.intent.endpoints.values():
            self._note(endpoint)

    def _read(self) -> None:
        """Read when asked: an index that nobody asks for costs an attach nothing."""
        try:
            changes = self._changes.changes()
        except GapError:
            self._list()
            return
        for change in changes:
            if isinstance(change.record, Endpoint):
                if isinstance(change, Put):
                    self._note(change.record)
                else:
                    self._forget(change.record)

    def _note(self, endpoint: Endpoint) -> None:
        container = endpoint.labels.get(self._label)
        if container is not None:
            self._by_container.setdefault(container, {})[endpoint.id] = None

    def _forget(self, endpoint: Endpoint) -> None:
        container = endpoint.labels.get(self._label, "")
        mine = self._by_container.get(container, {})
        mine.pop(endpoint.id, None)
        if not mine:
            self._by_container.pop(container, None)

    def sandbox(self, endpoint: Endpoint) -> Sandbox | None:
        return self._engine.intent.sandboxes.get(endpoint.sandbox) if endpoint.sandbox else None

    def is_there(self, endpoint: Endpoint, netns: str) -> bool:
        """Whether it is in the namespace at a path. Raises InvalidError where there is none."""
        sandbox = self.sandbox(endpoint)
        if sandbox is None or sandbox.netns is None:
            return False
        return self._engine.builder.namespace(netns, "netns").identity == sandbox.netns.identity

    async def remove(self, endpoints: Sequence[Endpoint]) -> None:
        """Raises ReadOnlyError for none, too: an engine whose store cannot be read does not know what there is."""
        self._engine.check_may_change()
        if not endpoints:
            return
        requests = [DetachRequest(endpoint=endpoint.id) for endpoint in endpoints]
        going = asyncio.ensure_future(self._detach(requests))
        self._going |= {endpoint.id: going for endpoint in endpoints}
        try:
            await going
        finally:
            for endpoint in endpoints:
                self._going.pop(endpoint.id, None)

    async def settled(self, endpoints: Sequence[Endpoint]) -> None:
        """Returns once whoever is taking some of them away has ended: what is there then is to stay."""
        for going in {self._going[e.id] for e in endpoints if e.id in self._going}:
            with contextlib.suppress(Exception):  # Its own caller is told; what could not go is there.
                await asyncio.shield(going)
