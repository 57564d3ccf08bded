"""`trace` as a verb: prepared on the loop, followed on a thread; few at once."""

import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from sealane.daemon.streams import Stream
from sealane.engine.engine import Engine
from sealane.engine.errors import ExhaustedError, KernelError
from sealane.engine.tracing import Tracing, views
from sealane.linux import probe
from sealane.linux.netns import own_inode
from sealane.linux.tracing.tracefs import sweep
from sealane.linux.tracing.tracer import SETTLE_NS, Symbols, Tracer, TracingUnavailableError
from sealane.wire.diagnosis import TraceRequest, TraceView

TRACES_MAX = 4
"""At once: each costs every packet of the machine a look."""

POLL_S = 0.1


class Traces:
    def __init__(
        self, engine: Engine, held: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """`held`: has packets take the long way, on which each step can be seen."""
        self._engine = engine
        self._held = held
        self._running = 0
        self._stop = threading.Event()
        self._symbols = Symbols()
        sweep()

    async def trace(self, request: TraceRequest) -> AsyncGenerator[TraceView, None]:
        """Raises InvalidError for what cannot be asked, KernelError where packets cannot be followed."""
        if self._running >= TRACES_MAX:
            raise ExhaustedError(f"{TRACES_MAX} traces are running", hint="wait until one has ended")
        prepared = Tracing(self._engine, request, own_inode())
        self._running += 1
        agreements: list[bool] = []
        try:
            async for view in Stream(lambda stop: self._follow(prepared, stop)):
                if view.kind == "path":
                    agreements.append(view.agrees is not False)
                    yield view
                elif agreements and all(agreements):
                    yield view
                else:
                    yield prepared.with_drift(self._engine, view)
        finally:
            self._running -= 1

    def close(self) -> None:
        self._stop.set()

    def _follow(self, prepared: Tracing, stop: threading.Event) -> Iterator[TraceView]:
        request = prepared.request
        try:
            tracer = Tracer(prepared.patterns, prepared.refs, prepared.signature)
        except TracingUnavailableError as error:
            raise KernelError(str(error), hint="see `sealane status` for what this kernel lacks") from error
        with self._held(), tracer:
            observed = None
            deadline = time.monotonic() + request.timeout
            if prepared.probe is not None:
                (observed,) = probe.send([prepared.probe], prepared.probe_refs, request.timeout, stop.is_set)
                deadline = time.monotonic() + 3 * SETTLE_NS / 1e9
            told = 0
            while told < request.count and time.monotonic() < deadline:
                if stop.is_set() or self._stop.is_set():
                    return
                tracer.wait(POLL_S)
                for view in views(prepared, tracer.observed_paths(time.monotonic_ns()), self._symbols):
                    if told < request.count:
                        told += 1
                        yield view
            yield prepared.end(told, tracer.lost, tracer.blind, observed)
