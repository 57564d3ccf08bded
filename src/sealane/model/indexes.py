"""Indexes of the intent: each follows the records of one kind as they come and go, in constant time."""

from collections.abc import Callable, Container, Hashable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from sealane.model.endpoint import PublishedPort
from sealane.model.ids import EndpointId

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=str)
R = TypeVar("R")

Claim = tuple[PublishedPort, EndpointId]


class Index(Protocol):
    def add(self, record: Any) -> None: ...

    def remove(self, record: Any) -> None: ...


class Unique(dict[K, V]):
    """Key → id of the one record that has it."""

    def __init__(self, keys: Callable[[Any], Iterable[Any]]) -> None:
        super().__init__()
        self._keys = keys

    def add(self, record: Any) -> None:
        for key in self._keys(record):
            self[key] = record.id

    def remove(self, record: Any) -> None:
        for key in self._keys(record):
            if self.get(key) == record.id:
                del self[key]


class Members(dict[K, dict[V, R]], Generic[K, V, R]):
    """Owner → its members. `owner_of` a record may be None; an owner among `owners` keeps its entry without members."""

    def __init__(self, owner_of: Callable[[Any], K | None], owners: Container[K] = ()) -> None:
        super().__init__()
        self._owner_of = owner_of
        self._owners = owners

    def add(self, record: Any) -> None:
        owner = self._owner_of(record)
        if owner is not None:
            self.setdefault(owner, {})[record.id] = record

    def remove(self, record: Any) -> None:
        owner = self._owner_of(record)
        if owner is None:
            return
        members = self[owner]
        del members[record.id]
        if not members and owner not in self._owners:
            del self[owner]

    def add_owner(self, owner: Any) -> None:
        self.setdefault(owner, {})

    def remove_owner(self, owner: Any) -> None:
        if not self[owner]:
            del self[owner]


_RANGES = ("", 0)


class PortClaims(dict[tuple[str, int], dict[PublishedPort, EndpointId]]):
    """(protocol, host port) → who publishes it; ranges of several ports, which are few, are under one key of their own."""

    def add(self, record: Any) -> None:
        for port in record.published:
            self.setdefault(_key(port), {})[port] = record.id

    def remove(self, record: Any) -> None:
        for port in record.published:
            claims = self[_key(port)]
            del claims[port]
            if not claims:
                del self[_key(port)]

    def holder(self, desired: PublishedPort) -> Claim | None:
        keys = [(desired.proto, number) for number in range(desired.host_first, desired.host_last + 1)]
        for key in [*keys, _RANGES]:
            for held, endpoint in self.get(key, {}).items():
                if held.conflicts(desired):
                    return held, endpoint
        return None


def _key(port: PublishedPort) -> tuple[str, int]:
    return (port.proto, port.host_first) if port.host_first == port.host_last else _RANGES
