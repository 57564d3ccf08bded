"""An integration over an engine in memory: its verbs are called, and the daemon under it is restarted."""

import asyncio
from collections.abc import Callable
from typing import Any

from harness.engines import Bench
from sealane.engine.engine import Engine


class Door:
    """`make`: the integration, of a bench and the detach that is given to it."""

    def __init__(self, make: Callable[[Bench, Any], Any], bench: Bench | None = None) -> None:
        self.bench = bench or Bench()
        self._make = make
        self.open()

    def open(self) -> None:
        async def detach(requests: Any) -> Any:
            # As the API's, which gathers what comes in one turn of the loop.
            await asyncio.sleep(0)
            return self.bench.engine.detach(requests)

        self.verbs = self._make(self.bench, detach)

    def restart(self) -> None:
        self.bench.restart()
        self.open()

    @property
    def engine(self) -> Engine:
        return self.bench.engine
