"""Counts the callers that use an object. Who waits for a container's end, or reads its output until then: one that is
not to be kept stays while they are there. Who starts something in a sandbox: it does not rest meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class UseCounts:
    def __init__(self) -> None:
        self._present = Counter[str]()

    def __contains__(self, identity: str) -> bool:
        return identity in self._present

    @contextmanager
    def of(self, identity: str) -> Iterator[None]:
        self._present[identity] += 1
        try:
            yield
        finally:
            self._present -= Counter({identity: 1})

    async def over(self, identity: str, quiet_s: float) -> None:
        """Until nobody has been there for `quiet_s`, twice that at most: between reading and waiting is a moment."""
        while True:
            was_there = identity in self
            await asyncio.sleep(quiet_s)
            if not was_there and identity not in self:
                return
