"""One request, parsed: what a verb is given, and how a route declares it."""

import math
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from sealane.engine.errors import InvalidError

B = TypeVar("B")

MAX_DIGITS = 18
_FLAGS = {"1": True, "true": True, "": True, "0": False, "false": False}


class Query:
    """The part after `?`. A value that is not what its name asks for is an InvalidError."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        """`?name`, `?name=1` and `?name=true` are True; absent is False."""
        text = self._values.get(name, "0")
        if text not in _FLAGS:
            raise InvalidError(f"{text!r} is neither 1 nor 0", field=name)
        return _FLAGS[text]

    def whole(self, name: str) -> int | None:
        text = self._values.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise InvalidError(f"{text!r} is not a whole number", field=name)
        return int(text)

    def seconds(self, name: str) -> float | None:
        text = self._values.get(name)
        if text is None:
            return None
        try:
            value = float(text) if text.isascii() else math.nan
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise InvalidError(f"{text!r} is not a number of seconds", field=name)
        return value


class Call(Generic[B]):
    """`ref` is what stands for REF in the path, empty if the path has none; `caller` the pid of the process that connected,
    0 if it is not known."""

    __slots__ = ("body", "caller", "query", "ref")

    def __init__(self, ref: str, query: Query, body: B, caller: int = 0) -> None:
        self.ref = ref
        self.query = query
        self.body = body
        self.caller = caller


class SyncVerb(msgspec.Struct, frozen=True):
    """Answered at once; runs on the event loop and does not wait."""

    answer: Callable[[Call[Any]], object]


class AsyncVerb(msgspec.Struct, frozen=True):
    """Answered when it is done. It goes on when its client leaves, unless it only waits for something."""

    answer: Callable[[Call[Any]], Awaitable[object]]
    only_waits: bool = False


class Lines(msgspec.Struct, frozen=True):
    """Answered by one JSON document a line, for as long as the client stays."""

    answer: Callable[[Call[Any]], AsyncGenerator[Any, None]]


Hijacker = Callable[[socket.socket, bytes], Awaitable[None]]
"""Takes over a connection, and what has been read of it already. The socket is its own, and stays open as long as it likes."""


class Upgraded(msgspec.Struct, frozen=True):
    """Answered by another protocol, in which both sides speak for as long as they like, if the client asks for it
    (`Upgrade`, RFC 9110 §7.8). What is refused is refused before that."""

    protocol: str
    answer: Callable[[Call[Any]], Awaitable[Hijacker]]


class Decoder(Protocol):
    """Of one kind of request."""

    def decode(self, data: bytes) -> Any:
        """Raises InvalidError."""
        ...


class Route(msgspec.Struct, frozen=True, kw_only=True):
    verb: SyncVerb | AsyncVerb | Lines
    upgraded: Upgraded | None = None
    """In the verb's place, for who asks."""
    query: frozenset[str] = frozenset()
    body: Decoder | None = None
    """None: the request has none."""


class MethodError(Exception):
    """The path exists, the method does not. `allowed` is the Allow header (RFC 9110 §15.5.6)."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path takes {allowed}")
        self.allowed = allowed
