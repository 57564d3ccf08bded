"""The engine in this process, without daemon and API: what an attach takes inside, call to answer."""

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Iterable

from bench.floor import Replay, Tape, object_count
from bench.host import make_sandboxes
from sealane.daemon.main import GC_THRESHOLD
from sealane.engine.engine import Engine
from sealane.engine.events import EventLog
from sealane.engine.reconciler import Reconciler
from sealane.engine.resyncer import Resyncer
from sealane.kernel.state import HOST, NamespaceState
from sealane.linux.bpf import fast_path, loopback
from sealane.linux.kernel import LinuxKernel
from sealane.model.endpoint import NetnsRef
from sealane.model.intent import Intent
from sealane.store.sqlite import SqliteStore
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest, PublishRequest, SubnetRequest

PORT_FIRST = 10000
PORTS = 50000
IN_A_ROW = 10
RUN_DIR = "/run/sealane"


class EngineHost:
    """An engine on the real kernel and an SQLite store on disk, with one network and so many endpoints on it."""

    def __init__(self, driver: str, endpoints: int) -> None:
        os.makedirs(RUN_DIR)
        self._state_dir = tempfile.mkdtemp(prefix="sealane-bench-", dir="/var/tmp")
        try:
            self._start(driver, endpoints)
        except BaseException:
            shutil.rmtree(self._state_dir)
            raise

    def _start(self, driver: str, endpoints: int) -> None:
        self._loopback = self._open_loopback()
        self._store = SqliteStore(self._state_dir)
        self._fast_path = self._open_fast_path()
        self._kernel = LinuxKernel("be7c40", RUN_DIR, loopback=self._loopback, fast_path=self._fast_path)
        reconciler = Reconciler(self._kernel, Intent(), self._kernel.facts())
        self.engine = Engine(self._store, self._kernel, reconciler, EventLog(time.time), 0)
        Resyncer(self.engine).start()
        self.engine.create_network(
            NetworkRequest(name="bench", driver=driver, subnets=[SubnetRequest(prefix="10.66.0.0/16")])
        )
        paths = make_sandboxes(endpoints + IN_A_ROW)
        others, self._probes = paths[:endpoints], paths[endpoints:]
        self._attached = 0
        for path in others:
            self.attach(path)
        # As the daemon does once it is ready.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)

    @staticmethod
    def _open_loopback() -> loopback.LoopbackPublisher | None:
        if loopback.probe() is not None:
            return None
        publisher = loopback.LoopbackPublisher(f"{RUN_DIR}/bpf")
        publisher.open()
        return publisher

    @staticmethod
    def _open_fast_path() -> fast_path.FastPath | None:
        if fast_path.probe():
            return None
        opened = fast_path.FastPath(f"{RUN_DIR}/bpf")
        opened.open()
        opened.release()
        return opened

    def close(self) -> None:
        self._kernel.close()
        self._store.close()
        if self._fast_path is not None:
            self._fast_path.close()
        if self._loopback is not None:
            self._loopback.detach()
        shutil.rmtree(self._state_dir)

    def attach(self, path: str) -> float:
        publish = PublishRequest(host_first=PORT_FIRST + self._attached % PORTS, port=80)
        request = AttachRequest(sandbox=path, network="bench", publish=[publish])
        self._attached += 1
        started = time.perf_counter()
        self.engine.attach(request)
        return time.perf_counter() - started

    def detach(self, path: str) -> float:
        started = time.perf_counter()
        self.engine.detach([DetachRequest(sandbox=path)])
        return time.perf_counter() - started

    def round(self) -> dict[str, list[float]]:
        """More endpoints attached by the engine, one after the other, and, once they have been detached, the same by a
        replay of what it sends to the kernel: seconds of each. They are detached all at once, since that waits for an
        RCU grace period, after which nothing is as warm as before. What is timed has no tape running."""
        found: dict[str, list[float]] = {"ours": [self.attach(path) for path in self._probes]}
        self._detach_all()
        tapes = []
        for path in self._probes:
            with Tape(self._kernel) as tape:
                self.attach(path)
            tapes.append(tape)
        with Tape(self._kernel) as back:
            self._detach_all()
        found |= {"floor": [], "entering": []}
        for tape, path in zip(tapes, self._probes, strict=True):
            with Replay(tape, path) as replay:
                found["floor"].append(replay.run(self._kernel))
                found["entering"].append(replay.time_entering())
        with Replay(back, self._probes[0]) as undo:
            undo.run(self._kernel)
        return {**found, "objects": [float(object_count(tapes[0]))], "calls": [float(len(tapes[0].calls))]}

    def _detach_all(self) -> None:
        self.engine.detach([DetachRequest(sandbox=path) for path in self._probes])

    def is_same_state(self, leaving_out: str = "") -> bool:
        """Whether a replay leaves in the kernel what the engine's own attach did, outside and inside: the floor's bite
        control. `leaving_out`: calls of this sort are not said again."""
        probe = self._probes[0]
        with Tape(self._kernel) as tape:
            self.attach(probe)
        intent, desired = self.engine.intent, self.engine.reconciler.compiled.desired
        sandbox = next(s for s in intent.sandboxes.values() if s.netns and s.netns.path == probe)
        places = [(HOST, None, dict(desired[HOST])), (sandbox.id, sandbox.netns, dict(desired[sandbox.id]))]
        by_engine = self._observed(places)
        with Tape(self._kernel) as back:
            self.detach(probe)
        without = self._observed(places)
        tape.calls = [call for call in tape.calls if call.where != leaving_out]
        with Replay(tape, probe) as replay, Replay(back, probe) as undo:
            replay.run(self._kernel)
            by_replay = self._observed(places)
            undo.run(self._kernel)
        return by_engine == by_replay and all(w != r for w, r in zip(without, by_replay, strict=True))

    def _observed(self, places: Iterable[tuple[str, NetnsRef | None, NamespaceState]]) -> list[object]:
        return [dict(self._kernel.observe(*place)) for place in places]
