"""Questions that are read and not answered yet, each asker's in a queue of his own."""

from collections import deque
from typing import Any

from sealane.dns.fairness import Shares

Waiting = tuple[bytes, Any]
"""A question, and the address that it came from."""


class Backlog:
    """Askers have their turn one after the other, one question each: whoever asks much waits for himself alone.

    Bounded by `Shares`: the greediest is the first of whom nothing more is kept. For one thread.
    """

    def __init__(self, capacity: int, share: int = 1) -> None:
        self._queues: dict[str, deque[Waiting]] = {}
        """By asker; the first is the next to have his turn."""
        self._shares = Shares(capacity, share)

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __contains__(self, asker: str) -> bool:
        return asker in self._queues

    def put(self, asker: str, question: Waiting) -> bool:
        """Behind his others; False if his share is used up."""
        if not self._shares.take(asker):
            return False
        self._queues.setdefault(asker, deque()).append(question)
        return True

    def take(self) -> Waiting:
        """Of whose turn it is. Raises StopIteration if nothing waits."""
        asker = next(iter(self._queues))
        queue = self._queues.pop(asker)
        question = queue.popleft()
        if queue:
            self._queues[asker] = queue
        self._shares.give_back(asker)
        return question
