"""JSON on the C half of the standard library's own codec: `import json` takes 5 ms, for it loads `re`.

The scanner and the string encoder are those that `json` uses itself, so what is read and written is the same.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BLANK = " \t\n\r"


class _Options:
    """What `_json.make_scanner` reads its options from (Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own cache of keys.


_scan = _json.make_scanner(_Options())  # type: ignore[arg-type]


def loads(data: bytes) -> Any:
    """Raises ValueError, with what is wrong."""
    text = data.decode()
    start = len(text) - len(text.lstrip(BLANK))
    try:
        value, end = _scan(text, start)
    except StopIteration as error:
        raise ValueError(f"no JSON at character {error.value}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except SystemError:
        # The scanner takes its exception from `json.decoder`, and where that is not loaded it has none to raise
        # (Modules/_json.c, raise_errmsg).
        raise ValueError("no JSON: it ends early, or a part of it is none") from None
    if text[end:].strip(BLANK):
        raise ValueError(f"more after the end, at character {end}")
    return value


def dumps(value: Any) -> str:
    """Dictionaries have text for keys."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _json.encode_basestring_ascii(value)
        case dict():
            return "{" + ",".join(f"{dumps(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    return "[" + ",".join(dumps(item) for item in value) + "]"
