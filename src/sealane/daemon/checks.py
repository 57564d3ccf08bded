"""`check` and `doctor` as verbs: prepared on the loop, tried in threads, one of each at a time."""

import asyncio
import threading

from sealane.engine.checking import Check
from sealane.engine.diagnosing import Diagnosis
from sealane.engine.engine import Engine
from sealane.engine.errors import ReadOnlyError
from sealane.explain.checking import Observation, Prediction
from sealane.linux import probe
from sealane.wire.diagnosis import CheckRequest, CheckView, DoctorRequest, DoctorView


class Checks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one_at_a_time = asyncio.Lock()
        self._one_doctor = asyncio.Lock()
        self._stop = threading.Event()

    async def check(self, request: CheckRequest) -> CheckView:
        """Raises InvalidError for what cannot be asked, ReadOnlyError when the daemon ends meanwhile."""
        async with self._one_at_a_time:
            prepared = Check(self._engine, request)
            try:
                # Side by side: most of the time of many probes is spent waiting for what does not come.
                observations, predictions = await asyncio.gather(
                    asyncio.to_thread(self._send, prepared), asyncio.to_thread(self._predict, prepared)
                )
            except probe.StoppedError:
                raise ReadOnlyError("the daemon is ending") from None
            return await asyncio.to_thread(prepared.view, predictions, observations)

    async def doctor(self, request: DoctorRequest) -> DoctorView:
        """Raises InvalidError for what there is not."""
        async with self._one_doctor:
            return await asyncio.to_thread(Diagnosis(self._engine, request).look, self._stop.is_set)

    def close(self) -> None:
        self._stop.set()

    def _send(self, prepared: Check) -> list[Observation]:
        return probe.send(prepared.schedule.probes, prepared.refs, prepared.timeout_s, self._stop.is_set)

    def _predict(self, prepared: Check) -> list[Prediction]:
        predictions = []
        for predicted in prepared.predictions():
            if self._stop.is_set():
                raise probe.StoppedError
            predictions.append(predicted)
        return predictions
