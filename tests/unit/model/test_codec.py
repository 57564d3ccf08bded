"""Records as JSON."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from property.strategies_records import records
from sealane.model.change import Record
from sealane.model.codec import VERSION, CodecError, decode, encode
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.kinds import kind_of
from sealane.model.network import Network

POINT = Endpoint(
    id="e1",
    name="web",
    network="n1",
    sandbox=None,
    ifname="eth0",
    mac="02:42:0a:01:00:02",
    addresses=("10.0.0.2/24",),
    ports=(PublishedPort(host_first=80, host_last=80, port=8080),),
    labels={"b": "1", "a": "2"},
)


def edited(record: Record, **fields: object) -> bytes:
    envelope = json.loads(encode(record))
    envelope["record"].update(fields)
    return json.dumps(envelope).encode()


@given(records)
def test_what_is_encoded_is_decoded(record):
    assert decode(encode(record)) == record


@given(records, records)
def test_equal_records_are_equal_bytes_and_others_are_not(one, other):
    assert (encode(one) == encode(other)) == (one == other and kind_of(one).name == kind_of(other).name)


def test_the_spelling_is_this():
    assert json.loads(encode(Network(id="n1", name="front"))) == {
        "v": 2,
        "kind": "network",
        "record": json.loads(msgspec.json.encode(Network(id="n1", name="front"))),
    }


def test_labels_are_sorted():
    other = msgspec.structs.replace(POINT, labels={"a": "2", "b": "1"})
    assert encode(POINT) == encode(other)


def test_a_field_that_is_left_out_has_its_default():
    envelope = json.loads(encode(POINT))
    del envelope["record"]["gateway_priority"]
    assert decode(json.dumps(envelope).encode()) == POINT


def test_a_spec_is_kept_byte_for_byte():
    spec = b'{"b" : 1.0,\n"a":"\\u00e9"}'
    box = Container(id="c1", name="web", sandbox="s1", spec=msgspec.Raw(spec))
    found = decode(encode(box))
    assert isinstance(found, Container)
    assert bytes(found.spec) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (edited(POINT, mac=5), r"endpoint e1: Expected `str`, got `int` - at `\$.mac`"),
        (edited(POINT, addresses=["10.0.0.2/24", None]), r"endpoint e1: .* at `\$.addresses\[1\]`"),
        (edited(POINT, ports=[{"host_first": 1}]), r"endpoint e1: .*host_last.* at `\$.ports\[0\]`"),
        (edited(POINT, id=7), "endpoint without an id"),
        (
            encode(POINT).replace(b'"kind":"endpoint"', b'"kind":"service"'),
            "service e1: there is no kind 'service'",
        ),
        (
            encode(POINT).replace(b'"v":2', b'"v":3'),
            f"endpoint e1 is of version 3, this release reads up to {VERSION}",
        ),
        (encode(POINT).replace(b'"v":2', b'"v":0'), "of version 0"),
        (encode(POINT).replace(b'"v":2', b'"v":"1"'), r"a record: .* at `\$.v`"),
        (b"{}", "a record: Object missing required field"),
        (b"", "a record: "),
        (b"\xff", "a record: "),
        (b"[" * 100_000, "a record: "),
    ],
)
def test_what_is_no_record_is_refused_by_name_and_path(data, message):
    with pytest.raises(CodecError, match=message):
        decode(data)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_decode_or_raise(data):
    with pytest.raises(CodecError):
        decode(data)


@given(records, st.data())
def test_a_cut_encoding_never_decodes(record, data):
    encoded = encode(record)
    with pytest.raises(CodecError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize("spec", [b"", b"{", b"{} {}", b"nul", b"\xff"])
def test_a_spec_that_is_no_json_is_not_encoded(spec):
    with pytest.raises(CodecError, match="container 'c1'"):
        encode(Container(id="c1", name="web", sandbox="s1", spec=msgspec.Raw(spec)))


def test_text_that_is_no_unicode_is_not_encoded():
    with pytest.raises(CodecError, match="endpoint 'e1'"):
        encode(msgspec.structs.replace(POINT, labels={"a": "\ud800"}))
