"""What a watch has told, gathered on the client's thread and read by the test's."""

from collections.abc import Sequence
from typing import Any

from sealane.etcd.records import Event
from sealane.etcd.watch import Listener


class Seen:
    def __init__(self) -> None:
        self.batches: list[Sequence[Event]] = []
        self.ends: list[Exception] = []
        self.broken: list[Exception] = []
        self.opens: list[int] = []

    def listener(self) -> Listener:
        return Listener(self.batches.append, self.ends.append, self.broken.append, self.opens.append)

    def events(self) -> list[Event]:
        return [event for batch in list(self.batches) for event in batch]

    def values(self) -> list[bytes]:
        return [event.value for event in self.events()]

    def has(self, value: bytes) -> Any:
        return any(event.value == value for batch in list(self.batches) for event in batch)
