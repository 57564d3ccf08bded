"""`.env` and `env_file` texts: `NAME=value` lines, as Compose reads them.

| line | value |
|---|---|
| `A=b # c` | `b`: a comment needs a space before it |
| `A='b $c'` | `b $c`: nothing is replaced |
| `A="b\\n$C"` | a newline and the variable; `\\$`, `\\"` and `\\\\` are themselves |
| `export A=b` | `b` |
| `A` | what `environ` has; the line is skipped if it has nothing |

Values end on their line. A variable may use those of the lines above; `environ` wins over both.
"""

import re
from collections import ChainMap
from collections.abc import Mapping

import msgspec

from sealane.compose.interpolate import interpolate
from sealane.compose.problems import BadValue, shown

MAX_CHARS = 1 << 20
MAX_LINES = 10_000

_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]{0,255})[ \t]*(?:=(.*))?", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"(.*)', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'(.*)", re.DOTALL)
_COMMENT = re.compile(r"(?:^|[ \t])#.*", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$$"}


class EnvFile(msgspec.Struct, frozen=True):
    values: tuple[tuple[str, str], ...]
    unset: tuple[str, ...]
    """Variables used without a value."""


class EnvFileError(ValueError):
    def __init__(self, line: int, error: BadValue) -> None:
        super().__init__(f"line {line}: {error}")
        self.line = line
        self.message = error.message
        self.hint = error.hint


def parse_env_file(text: str, environ: Mapping[str, str]) -> EnvFile:
    """Raises EnvFileError at the first bad line; a later line for the same name wins."""
    lines = text.removeprefix("\ufeff").split("\n")
    if len(text) > MAX_CHARS or len(lines) > MAX_LINES:
        limit = BadValue(f"more than {MAX_LINES} lines or {MAX_CHARS} characters", "shorten the file")
        raise EnvFileError(1, limit)
    values: dict[str, str] = {}
    unset: dict[str, None] = {}
    known = ChainMap(dict(environ), values)
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            _take(stripped, known, values, unset)
        except BadValue as error:
            raise EnvFileError(number, error) from error
    return EnvFile(tuple(values.items()), tuple(unset))


def _take(line: str, known: Mapping[str, str], values: dict[str, str], unset: dict[str, None]) -> None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadValue(f"{shown(line)} is not NAME=value", "write NAME=value, or # before a comment")
    name, raw = match.groups()
    if "\0" in line:
        raise BadValue("a NUL character", "remove it")
    if raw is None:
        if name in known:
            values[name] = known[name]
        return
    template = _template(raw.strip(" \t"))
    result = interpolate(template, known)
    unset.update(dict.fromkeys(result.unset))
    values[name] = result.text


def _template(raw: str) -> str:
    """The value as a text for `interpolate`: quotes gone, literal dollars doubled."""
    if raw.startswith("'"):
        return _unquoted(_SINGLE.fullmatch(raw), raw).replace("$", "$$")
    if raw.startswith('"'):
        return _ESCAPE.sub(_unescape, _unquoted(_DOUBLE.fullmatch(raw), raw))
    return _COMMENT.sub("", raw, count=1).rstrip(" \t")


def _unquoted(match: re.Match[str] | None, raw: str) -> str:
    if match is None:
        raise BadValue(
            f"the quote of {shown(raw)} is not closed", "close it on the same line; write \\n for a newline"
        )
    inner, rest = match.groups()
    if rest and not _COMMENT.fullmatch(rest):
        raise BadValue(f"{shown(rest)} follows the closing quote", "put all of the value into the quotes")
    return inner


def _unescape(match: re.Match[str]) -> str:
    # An unknown escape stays as written, so that Windows paths and regular expressions survive.
    return _ESCAPES.get(match.group(1), match.group())
