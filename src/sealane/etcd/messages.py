"""Records to etcd's messages and back, and the limits that etcd enforces, checked before anything is sent."""

from collections.abc import Iterable, Sequence

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd.errors import InvalidError
from sealane.etcd.records import (
    Compare,
    Delete,
    Event,
    Field,
    Listing,
    Put,
    Record,
    Refused,
    Relation,
    Status,
)

OPERATIONS_MAX = 128
"""Comparisons, and changes, of one transaction: etcd's --max-txn-ops."""

REQUEST_BYTES_MAX = 1536 * 1024 - 1024
"""Of one transaction: etcd's --max-request-bytes (1.5 MiB) is compared with the raft entry, which adds a header with
the user's name."""

_TARGETS = {
    Field.VERSION: pb.Compare.VERSION,
    Field.CREATE_REVISION: pb.Compare.CREATE,
    Field.MOD_REVISION: pb.Compare.MOD,
    Field.VALUE: pb.Compare.VALUE,
}
_RELATIONS = {
    Relation.EQUAL: pb.Compare.EQUAL,
    Relation.GREATER: pb.Compare.GREATER,
    Relation.LESS: pb.Compare.LESS,
    Relation.NOT_EQUAL: pb.Compare.NOT_EQUAL,
}


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`; b"\\0" means to the end, as etcd has it."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def range_request(prefix: bytes, start: bytes, limit: int, revision: int) -> pb.RangeRequest:
    """Keys of the prefix from `start` on. etcd orders by key by itself."""
    return pb.RangeRequest(
        key=start or prefix or b"\0", range_end=prefix_end(prefix), limit=limit, revision=revision
    )


def gets_request(keys: Sequence[bytes]) -> pb.TxnRequest:
    """InvalidError: too many keys, or none."""
    if not keys:
        raise InvalidError("get: no key given")
    request = pb.TxnRequest(success=[_get(key) for key in keys])
    _check_count("gets", len(keys))
    return request


def transaction_request(
    compares: Sequence[Compare], changes: Sequence[Put | Delete], otherwise: Sequence[bytes]
) -> pb.TxnRequest:
    """InvalidError, with the limit and the key: see the bounds above; etcd also refuses a key that is changed twice."""
    for name, count in (
        ("comparisons", len(compares)),
        ("changes", len(changes)),
        ("keys to read otherwise", len(otherwise)),
    ):
        _check_count(name, count)
    _check_distinct(changes)
    request = pb.TxnRequest(
        compare=[_compare(compare) for compare in compares],
        success=[_change(change) for change in changes],
        failure=[_get(key) for key in otherwise],
    )
    size_bytes = request.ByteSize()
    if size_bytes > REQUEST_BYTES_MAX:
        raise InvalidError(
            f"transaction of {size_bytes} bytes; etcd accepts {REQUEST_BYTES_MAX}: split it into several"
        )
    return request


def watch_request(prefix: bytes, revision: int) -> pb.WatchRequest:
    """`fragment`: without it 555 revisions of 100 keys arrived as one answer of 79.5 MB."""
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=prefix or b"\0", range_end=prefix_end(prefix), start_revision=revision, fragment=True
        )
    )


def records_of(pairs: Iterable[pb.KeyValue]) -> list[Record]:
    return [
        Record(
            key=pair.key,
            value=pair.value,
            create_revision=pair.create_revision,
            mod_revision=pair.mod_revision,
            version=pair.version,
            lease=pair.lease,
        )
        for pair in pairs
    ]


def listing_of(answer: pb.TxnResponse) -> Listing:
    return Listing(_got(answer), answer.header.revision)


def refused_of(answer: pb.TxnResponse) -> Refused:
    return Refused(answer.header.revision, _got(answer))


def events_of(answer: pb.WatchResponse) -> list[Event]:
    return [
        Event(
            key=event.kv.key,
            value=event.kv.value,
            revision=event.kv.mod_revision,
            is_delete=event.type == pb.Event.DELETE,
            create_revision=event.kv.create_revision,
            lease=event.kv.lease,
        )
        for event in answer.events
    ]


def status_of(answer: pb.StatusResponse) -> Status:
    return Status(
        version=answer.version,
        cluster_id=answer.header.cluster_id,
        member_id=answer.header.member_id,
        leader=answer.leader,
        revision=answer.header.revision,
        size_bytes=answer.db_size,
        size_in_use_bytes=answer.db_size_in_use,
        problems=tuple(answer.errors),
    )


def _got(answer: pb.TxnResponse) -> tuple[Record, ...]:
    return tuple(
        record for response in answer.responses for record in records_of(response.response_range.kvs)
    )


def _check_count(name: str, count: int) -> None:
    if count > OPERATIONS_MAX:
        raise InvalidError(
            f"transaction with {count} {name}; etcd accepts {OPERATIONS_MAX}: split it into several"
        )


def _check_distinct(changes: Sequence[Put | Delete]) -> None:
    """No key is put twice, or put and deleted. (Two deletions may overlap.)"""
    puts: set[bytes] = set()
    for change in changes:
        if isinstance(change, Put):
            if change.key in puts:
                raise InvalidError(f"transaction puts key {change.key!r} twice")
            puts.add(change.key)
    for change in changes:
        if not isinstance(change, Delete):
            continue
        hit = [key for key in puts if (key.startswith(change.key) if change.is_prefix else key == change.key)]
        if hit:
            raise InvalidError(f"transaction puts and deletes key {min(hit)!r}")


def _key(key: bytes) -> bytes:
    if not key:
        raise InvalidError("a key is empty; etcd has no empty keys")
    return key


def _get(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=_key(key)))


def _change(change: Put | Delete) -> pb.RequestOp:
    if isinstance(change, Put):
        return pb.RequestOp(
            request_put=pb.PutRequest(key=_key(change.key), value=change.value, lease=change.lease)
        )
    end = prefix_end(change.key) if change.is_prefix else b""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=_key(change.key), range_end=end))


def _compare(compare: Compare) -> pb.Compare:
    message = pb.Compare(
        key=_key(compare.key), target=_TARGETS[compare.field], result=_RELATIONS[compare.relation]
    )
    wanted = compare.wanted
    if isinstance(wanted, bytes):
        if compare.field is not Field.VALUE:
            raise InvalidError(f"comparison of {compare.field.name} of key {compare.key!r} with bytes")
        message.value = wanted
    elif compare.field is Field.VERSION:
        message.version = wanted
    elif compare.field is Field.CREATE_REVISION:
        message.create_revision = wanted
    elif compare.field is Field.MOD_REVISION:
        message.mod_revision = wanted
    else:
        raise InvalidError(f"comparison of the value of key {compare.key!r} with a number")
    return message
