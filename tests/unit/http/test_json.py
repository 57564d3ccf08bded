"""Bodies are decoded strictly and errors say where; what nobody foresaw stays with us."""

import logging

import pytest

from sealane.engine import errors
from sealane.http.json import Body, error_document, failure
from sealane.model.net import ParseError
from sealane.store.base import StoreError
from sealane.wire.base import ErrorBody
from sealane.wire.requests import DetachRequest, Manifest, NetworkRequest


def refusal(kind, text):
    with pytest.raises(errors.InvalidError) as caught:
        Body(kind).decode(text if isinstance(text, bytes) else text.encode())
    return caught.value


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"name": 5}', "name"),
        ("{}", "name"),
        ('{"name": "a", "subnets": [{"prefix": "", "gateway": 1}]}', "subnets[0].gateway"),
        ('{"name": "a", "subnets": [{}, {"gatway": "x"}]}', "subnets[1].gatway"),
        ('{"name": "a", "nmae": 1}', "nmae"),
        ('{"name": "a", "labels": {"x": 1}}', "labels[...]"),
        ("[]", ""),
    ],
)
def test_the_path_of_the_wrong_field_is_named(text, field):
    assert refusal(NetworkRequest, text).field == field


def test_an_unknown_field_comes_with_the_nearest_or_with_the_known_ones():
    error = refusal(NetworkRequest, '{"name": "a", "driverr": "x"}')
    assert error.message == "there is no field 'driverr'"
    assert error.hint == "write driver if that is meant"
    assert "driver, internal" in refusal(NetworkRequest, '{"name": "a", "zzz": "x"}').hint


def test_a_field_inside_a_list_of_records_is_named():
    assert refusal(list[DetachRequest], '[{"endpoint": ""}, {"sandbx": ""}]').field == "[1].sandbx"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"name": "\xff"}', b'"\\ud800"', b"[" * 100_000, b'{"name":' * 50_000, b"nul", b"{} {}"],
)
def test_what_is_no_json_is_refused(data):
    assert refusal(NetworkRequest, data).code == "invalid"


def test_depth_inside_a_spec_is_refused_too():
    deep = b'{"containers": [{"name": "a", "spec": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"
    assert refusal(Manifest, deep).code == "invalid"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.InvalidError, 400),
        (errors.NotFoundError, 404),
        (errors.ExistsError, 409),
        (errors.ConflictError, 409),
        (errors.InUseError, 409),
        (errors.ExhaustedError, 507),
        (errors.ReadOnlyError, 503),
        (errors.StoreFailedError, 503),
        (errors.KernelError, 500),
    ],
)
def test_the_status_follows_the_code(kind, status):
    error = kind("why", field="f", hint="c")
    assert failure(error) == (status, ErrorBody(code=kind.code, message="why", field="f", hint="c"))


def test_a_full_disk_has_a_status_of_its_own():
    error = errors.StoreFailedError("full")
    error.__cause__ = StoreError("full", "disk")
    assert failure(error)[0] == 507
    error.__cause__ = StoreError("locked", "disk")
    assert failure(error)[0] == 503


def test_a_text_that_was_not_parsed_is_the_callers_mistake():
    assert failure(ParseError("no address"))[1].code == "invalid"


def test_the_unforeseen_is_logged_and_not_told(caplog):
    with caplog.at_level(logging.ERROR, "sealane.api"):
        status, body = failure(KeyError("secret"))
    assert (status, body.code) == (500, "internal")
    assert "secret" not in str(body)
    assert "secret" in caplog.text


def test_a_message_without_utf8_is_shown_escaped():
    assert b"\\\\udcff" in error_document(ErrorBody(code="invalid", message="file \udcff"))
