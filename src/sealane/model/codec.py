"""Records as JSON and back: the only module that knows how they are spelt, and in which version.

    {"v": 2, "kind": "endpoint", "record": {"id": ..., "network": ...}}

`v` is raised when an old reader would misread the record (a field changes its meaning or goes); a field that is
added with a default does not raise it. A version above ours is refused: it was written by a later release, and what
we do not know of it would be lost with the next write.
"""

from typing import Final

import msgspec

from sealane.model.change import Record
from sealane.model.container import Container
from sealane.model.kinds import KIND_BY_NAME, KINDS, Kind, kind_of

VERSION: Final = 2

_DECODERS: Final[dict[str, msgspec.json.Decoder[Record]]] = {
    kind.name: msgspec.json.Decoder(kind.type) for kind in KINDS
}


class _Envelope(msgspec.Struct, frozen=True):
    v: int
    kind: str
    record: msgspec.Raw


class _Identity(msgspec.Struct, frozen=True):
    id: str


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_IDENTITY: Final = msgspec.json.Decoder(_Identity)
# Sorted labels: equal records are equal bytes.
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class CodecError(ValueError):
    """Bytes that are not a record. The message names the record and the path in it."""


def encode(record: Record) -> bytes:
    """Raises CodecError for what could not be read back: a lone surrogate, or a container's `spec` that is no JSON."""
    try:
        if isinstance(record, Container):
            # The encoder copies a Raw unread, and one bad spec would make the whole store unreadable.
            msgspec.json.decode(record.spec)
        return _ENCODER.encode({"v": VERSION, "kind": kind_of(record).name, "record": record})
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise CodecError(f"{kind_of(record).name} {record.id!a}: {error}") from error


def decode(data: bytes) -> Record:
    """Raises CodecError."""
    try:
        envelope = _ENVELOPE.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"a record: {error}") from error
    name = _name(envelope)
    if not 1 <= envelope.v <= VERSION:
        raise CodecError(f"{name} is of version {envelope.v}, this release reads up to {VERSION}")
    kind = KIND_BY_NAME.get(envelope.kind)
    if kind is None:
        raise CodecError(f"{name}: there is no kind {envelope.kind!r}")
    try:
        record = _DECODERS[kind.name].decode(_migrated(kind, envelope))
    except msgspec.MsgspecError as error:
        raise CodecError(f"{name}: {error}") from error
    if isinstance(record, Container):
        # A decoded Raw is a view that keeps the whole encoding alive.
        return msgspec.structs.replace(record, spec=record.spec.copy())
    return record


def _migrated(kind: Kind, envelope: _Envelope) -> bytes | msgspec.Raw:
    """The record as this release spells it."""
    steps = [kind.migrations[v] for v in range(envelope.v, VERSION) if v in kind.migrations]
    if not steps:
        return envelope.record
    fields = msgspec.json.decode(envelope.record)
    if not isinstance(fields, dict):
        return envelope.record
    for step in steps:
        fields = step(fields)
    return msgspec.json.encode(fields)


def _name(envelope: _Envelope) -> str:
    """`endpoint e1`, as far as it can be read."""
    try:
        return f"{envelope.kind} {_IDENTITY.decode(envelope.record).id}"
    except msgspec.MsgspecError:
        return f"{envelope.kind} without an id"
