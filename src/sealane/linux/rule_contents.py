"""What the rules of each chain did when they were read last: not what it is, but whether it is the same.

A comment of ours tells what a rule was made to do, and stays when somebody makes it do something else. How the kernel gives
back what it was given is its own affair (defaults filled in, attributes in another order), so what a rule should read as is
learnt by reading it, at once after we wrote it.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from sealane.kernel.nft import NftFamily

ChainRef = tuple[NftFamily, str]

_KNOWN = msgspec.json.Decoder(dict[str, str])

_COUNTER = re.compile(rb"counter\0.{28}", re.DOTALL)
"""An expression's name, and behind it a header and two numbers of 64 bits with theirs."""


class RuleContents:
    """Kept in a file that goes with the machine, as the rules do: while the daemon is away somebody may change them. If it is
    lost, what is there is believed."""

    def __init__(self, path: str = "") -> None:
        """`path`: empty, nothing is kept."""
        self._path = path
        self._known = _read(path) if path else {}
        self._kept = dict(self._known)

    def are_known(self, chain: ChainRef, contents: Sequence[bytes]) -> bool:
        """Whether they are those of the last reading, or this is the first."""
        found = _digest(contents)
        return self._known.setdefault(_key(chain), found) == found

    def learn(self, chain: ChainRef, contents: Sequence[bytes]) -> None:
        """Of a chain that we made anew, just now; none, and it is forgotten."""
        self._known.pop(_key(chain), None)
        if contents:
            self._known[_key(chain)] = _digest(contents)

    def keep(self) -> None:
        """For the next start. A crash before this makes it write what it finds once more; so does nothing worse."""
        if self._path and self._known != self._kept:
            with suppress(OSError):
                _write(self._path, self._known)
                self._kept = dict(self._known)


def content(expressions: memoryview | bytes) -> bytes:
    """What a rule does, as the kernel gives it, without what it has counted."""
    return _COUNTER.sub(b"counter", bytes(expressions))


def _key(chain: ChainRef) -> str:
    return " ".join(chain)


def _digest(contents: Sequence[bytes]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for each in contents:
        found.update(len(each).to_bytes(4, "big"))
        found.update(each)
    return found.hexdigest()


def _read(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            return _KNOWN.decode(file.read())
    except (OSError, msgspec.DecodeError):
        return {}


def _write(path: str, known: Mapping[str, str]) -> None:
    """Whole or not at all."""
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(known))
    os.replace(temporary, path)
