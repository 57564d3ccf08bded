"""Records to messages, and etcd's limits before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd.errors import InvalidError
from sealane.etcd.messages import (
    OPERATIONS_MAX,
    REQUEST_BYTES_MAX,
    events_of,
    gets_request,
    listing_of,
    prefix_end,
    range_request,
    refused_of,
    status_of,
    transaction_request,
    watch_request,
)
from sealane.etcd.records import (
    Compare,
    Delete,
    Event,
    Field,
    Put,
    Record,
    Relation,
    is_absent,
    is_unchanged,
)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/a/", b"/a0"), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff", b"\0"), (b"\xff\xff", b"\0"), (b"", b"\0")],
)
def test_the_end_of_a_prefix_is_the_first_key_after_it(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=5))
def test_a_key_lies_in_the_range_exactly_if_it_has_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    is_in_range = key >= prefix and (end == b"\0" or key < end)
    assert is_in_range == key.startswith(prefix)


def test_an_empty_prefix_is_every_key() -> None:
    request = range_request(b"", b"", 10, 0)
    assert (request.key, request.range_end) == (b"\0", b"\0")


def test_a_page_goes_on_at_its_start_and_revision() -> None:
    request = range_request(b"/a/", b"/a/7\0", 10, 42)
    assert (request.key, request.range_end, request.limit, request.revision) == (b"/a/7\0", b"/a0", 10, 42)


def test_a_watch_asks_for_fragments() -> None:
    created = watch_request(b"/a/", 7).create_request
    assert created.fragment
    assert (created.key, created.range_end, created.start_revision) == (b"/a/", b"/a0", 7)


RECORD = Record(b"k", b"v", create_revision=3, mod_revision=5, version=2)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (is_absent(b"k"), pb.Compare(key=b"k", target=pb.Compare.CREATE, create_revision=0)),
        (is_unchanged(RECORD), pb.Compare(key=b"k", target=pb.Compare.MOD, mod_revision=5)),
        (
            Compare(b"k", Field.VALUE, b"v", Relation.NOT_EQUAL),
            pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"v", result=pb.Compare.NOT_EQUAL),
        ),
        (
            Compare(b"k", Field.VERSION, 2, Relation.GREATER),
            pb.Compare(key=b"k", target=pb.Compare.VERSION, version=2, result=pb.Compare.GREATER),
        ),
        (
            Compare(b"k", Field.MOD_REVISION, 9, Relation.LESS),
            pb.Compare(key=b"k", target=pb.Compare.MOD, mod_revision=9, result=pb.Compare.LESS),
        ),
    ],
)
def test_a_comparison_becomes_etcds(compare: Compare, message: pb.Compare) -> None:
    [made] = transaction_request([compare], [], []).compare
    assert made == message
    assert made.WhichOneof("target_union") is not None  # Also a 0 is sent.


@pytest.mark.parametrize("compare", [Compare(b"k", Field.VALUE, 1), Compare(b"k", Field.VERSION, b"1")])
def test_a_comparison_with_the_wrong_type_is_refused(compare: Compare) -> None:
    with pytest.raises(InvalidError, match="comparison of"):
        transaction_request([compare], [], [])


def test_changes_and_gets_become_etcds() -> None:
    request = transaction_request([], [Put(b"a", b"1", lease=7), Delete(b"b"), Delete(b"c/", True)], [b"x"])
    put, delete, delete_all = request.success
    assert put.request_put == pb.PutRequest(key=b"a", value=b"1", lease=7)
    assert delete.request_delete_range == pb.DeleteRangeRequest(key=b"b")
    assert delete_all.request_delete_range == pb.DeleteRangeRequest(key=b"c/", range_end=b"c0")
    assert [get.request_range for get in request.failure] == [pb.RangeRequest(key=b"x")]


def keys(count: int) -> list[bytes]:
    return [f"key{number}".encode() for number in range(count)]


def test_as_many_operations_as_etcd_takes_are_accepted() -> None:
    many = keys(OPERATIONS_MAX)
    request = transaction_request([is_absent(key) for key in many], [Put(key, b"") for key in many], many)
    assert len(request.compare) == len(request.success) == len(request.failure) == OPERATIONS_MAX
    assert len(gets_request(many).success) == OPERATIONS_MAX


def test_one_operation_too_many_is_refused() -> None:
    many = keys(OPERATIONS_MAX + 1)
    with pytest.raises(InvalidError, match="129 comparisons; etcd accepts 128"):
        transaction_request([is_absent(key) for key in many], [], [])
    with pytest.raises(InvalidError, match="129 changes"):
        transaction_request([], [Put(key, b"") for key in many], [])
    with pytest.raises(InvalidError, match="129 keys to read otherwise"):
        transaction_request([], [], many)
    with pytest.raises(InvalidError, match="129 gets"):
        gets_request(many)


def test_a_transaction_of_just_the_size_is_accepted_and_one_byte_more_is_not() -> None:
    empty = transaction_request([], [Put(b"key", b"x" * 1_000_000)], []).ByteSize() - 1_000_000
    value = b"x" * (REQUEST_BYTES_MAX - empty)
    assert transaction_request([], [Put(b"key", value)], []).ByteSize() == REQUEST_BYTES_MAX
    with pytest.raises(InvalidError, match=f"of {REQUEST_BYTES_MAX + 1} bytes.*split"):
        transaction_request([], [Put(b"key", value + b"x")], [])


def test_a_key_that_is_put_twice_is_refused_by_name() -> None:
    with pytest.raises(InvalidError, match="puts key b'a' twice"):
        transaction_request([], [Put(b"a", b"1"), Put(b"b", b""), Put(b"a", b"2")], [])


@pytest.mark.parametrize("delete", [Delete(b"a/1"), Delete(b"a/", is_prefix=True)])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_key_that_is_put_and_deleted_is_refused_by_name(delete: Delete, is_first: bool) -> None:
    changes = [delete, Put(b"a/1", b"")] if is_first else [Put(b"a/1", b""), delete]
    with pytest.raises(InvalidError, match="puts and deletes key b'a/1'"):
        transaction_request([], changes, [])
    transaction_request([], [delete, Put(b"b/1", b"")], [])  # Another key may.


def test_an_empty_key_is_refused_everywhere() -> None:
    """Above all a deletion of the empty prefix, which would be every key."""
    for compares, changes, otherwise in (
        ([is_absent(b"")], [], []),
        ([], [Put(b"", b"")], []),
        ([], [Delete(b"")], []),
        ([], [Delete(b"", is_prefix=True)], []),
        ([], [], [b""]),
    ):
        with pytest.raises(InvalidError, match="a key is empty"):
            transaction_request(compares, changes, otherwise)
    with pytest.raises(InvalidError, match="no key given"):
        gets_request([])


PAIR = pb.KeyValue(key=b"k", value=b"v", create_revision=3, mod_revision=5, version=2, lease=9)


def test_answers_become_records() -> None:
    answer = pb.TxnResponse(
        header=pb.ResponseHeader(revision=8),
        responses=[
            pb.ResponseOp(response_range=pb.RangeResponse(kvs=[PAIR])),
            pb.ResponseOp(response_range=pb.RangeResponse()),
        ],
    )
    record = Record(b"k", b"v", create_revision=3, mod_revision=5, version=2, lease=9)
    assert listing_of(answer).records == refused_of(answer).records == (record,)
    assert listing_of(answer).revision == refused_of(answer).revision == 8


def test_events_have_the_revision_of_the_change() -> None:
    gone = pb.KeyValue(key=b"k", mod_revision=6)
    answer = pb.WatchResponse(
        header=pb.ResponseHeader(revision=99),
        events=[pb.Event(kv=PAIR), pb.Event(type=pb.Event.DELETE, kv=gone)],
    )
    assert events_of(answer) == [
        Event(b"k", b"v", revision=5, create_revision=3, lease=9),
        Event(b"k", b"", revision=6, is_delete=True),
    ]


def test_a_status_tells_alarms() -> None:
    status = status_of(pb.StatusResponse(version="3.4.23", leader=7, db_size=10, errors=["alarm:NOSPACE "]))
    assert (status.version, status.leader, status.size_bytes) == ("3.4.23", 7, 10)
    assert status.problems == ("alarm:NOSPACE ",)
