"""Endpoints that a door is taking away. A caller that was killed may have asked for it, and its successor is here while
the endpoints still are: it has to wait until they are gone, or it would find them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId
from sealane.wire.requests import DetachRequest
from sealane.wire.views import DetachView

Detach = Callable[[Sequence[DetachRequest]], Awaitable[DetachView]]


class Departures:
    """`detach`: takes away what other callers want gone at the same moment, too."""

    def __init__(self, detach: Detach) -> None:
        self._detach = detach
        self._going: dict[EndpointId, asyncio.Future[DetachView]] = {}

    async def remove(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            return
        going = asyncio.ensure_future(
            self._detach([DetachRequest(endpoint=endpoint.id) for endpoint in endpoints])
        )
        self._going |= {endpoint.id: going for endpoint in endpoints}
        try:
            await going
        finally:
            for endpoint in endpoints:
                self._going.pop(endpoint.id, None)

    async def settle(self, endpoints: Sequence[Endpoint]) -> None:
        """Wait for whoever is taking these away; what could not go is still there after that."""
        for going in {self._going[e.id] for e in endpoints if e.id in self._going}:
            with contextlib.suppress(Exception):  # Its own caller is told.
                await asyncio.shield(going)
