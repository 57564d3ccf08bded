"""JSON without `json`: what it reads and writes is what `json` does."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sealane
from sealane.programs import text

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(documents)
def test_what_is_written_is_read_by_json_and_by_us(document):
    assert json.loads(text.dumps(document)) == document
    assert text.loads(text.dumps(document).encode()) == document
    assert (
        text.loads(json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        == document
    )


@pytest.mark.parametrize(
    "data", [b"", b" ", b"{", b"{}x", b"[1,]", b"nul", b"\xff", b'"\x01"', b"[" * 100_000]
)
def test_what_is_no_json_is_a_value_error(data):
    with pytest.raises(ValueError):
        text.loads(data)


@pytest.mark.parametrize("data", [b"{", b"[1,", b"[1,]", b'{"a"', b'"\\x"', b'"'])
def test_it_is_one_too_where_json_was_never_imported(data):
    """The scanner takes its exception from `json.decoder`, and raises nothing at all where that is not loaded."""
    code = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from sealane.programs import text
assert "json.decoder" not in sys.modules
try:
    text.loads({data!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip(), done.stderr


def test_blanks_around_a_document_are_none_of_it():
    assert text.loads(b'\n\t {"a": 1} \r\n') == {"a": 1}
