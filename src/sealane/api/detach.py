"""Detach requests that arrive together become one call.

A container engine that stops many containers at once detaches each by a request of its own. Deleting links in one
kernel request is forty times cheaper than one by one (each deletion waits for an RCU grace period), so what arrives
in one turn of the event loop is taken together. Each caller gets its own answer.
"""

import asyncio
from collections.abc import Sequence

from sealane.engine.engine import Engine
from sealane.wire.requests import DetachRequest
from sealane.wire.views import DetachView

Answer = asyncio.Future[DetachView]


class Detacher:
    """One for all connections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[tuple[Sequence[DetachRequest], Answer]] = []

    def submit(self, requests: Sequence[DetachRequest]) -> Answer:
        """The answer comes on the next turn of the loop."""
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((requests, answer))
        return answer

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        views: list[tuple[Answer, DetachView]] = []
        for requests, answer in waiting:
            try:
                endpoints, _ = self._engine.builder.detach(requests)
            except Exception as error:  # One caller's mistake is that caller's alone.
                _refuse(answer, error)
            else:
                views.append((answer, DetachView(detached=[endpoint.id for endpoint in endpoints])))
        identities = dict.fromkeys(identity for _, view in views for identity in view.detached)
        try:
            self._engine.detach([DetachRequest(endpoint=identity) for identity in identities])
        except Exception as error:
            for answer, _ in views:
                _refuse(answer, error)
            return
        for answer, view in views:
            if not answer.done():
                answer.set_result(view)


def _refuse(answer: Answer, error: Exception) -> None:
    """A caller that has left has cancelled its answer."""
    if not answer.done():
        answer.set_exception(error)
