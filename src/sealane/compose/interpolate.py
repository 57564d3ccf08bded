"""Variables in compose files: `$NAME`, `${NAME}`, `${NAME:-default}` and their relatives, as compose-spec/12.

| form | the variable is unset | is empty | has a value |
|---|---|---|---|
| `${A}`, `$A` | empty, with a warning | empty | value |
| `${A:-word}` / `${A-word}` | word | word / empty | value |
| `${A:?word}` / `${A?word}` | error | error / empty | value |
| `${A:+word}` / `${A+word}` | empty | empty / word | word |

`$$` is a dollar sign. A word is a template itself and ends at the first `}` that closes no inner reference. It is
evaluated only if it is used, so an error in it counts only then; its syntax always counts.
"""

import re
from collections.abc import Mapping as Map

import msgspec

from sealane.compose.problems import BadValue, Path, Report, shown
from sealane.compose.yaml import MAX_CHARS, Mapping, Node, Scalar, Sequence, YamlError

MAX_NESTING = 20
MAX_RESULT_CHARS = 1 << 20
MAX_DOLLARS = 20_000
"""Dollar signs in one document; each can be a reference."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")


class Interpolated(msgspec.Struct, frozen=True):
    text: str
    unset: tuple[str, ...]
    """Variables that were used, are not set and have no default."""


class _Reference(msgspec.Struct, frozen=True):
    name: str
    operator: str
    word: tuple["str | _Reference", ...]


_Template = tuple[str | _Reference, ...]


def interpolate(text: str, environ: Map[str, str]) -> Interpolated:
    """Raises BadValue for bad syntax, a failing `:?`, and a result of more than 1 MiB."""
    if "$" not in text:
        return Interpolated(text, ())
    evaluation = _Evaluation(environ)
    evaluation.run(_Scanner(text).template(0))
    return Interpolated("".join(evaluation.pieces), tuple(dict.fromkeys(evaluation.unset)))


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def template(self, depth: int) -> _Template:
        """Reads to the end, or with `depth` to the closing brace, which is consumed."""
        parts: list[str | _Reference] = []
        while True:
            stop = self._next_special(depth)
            if stop > self._at:
                parts.append(self._text[self._at : stop])
            self._at = stop
            if stop == len(self._text):
                if depth:
                    raise BadValue(
                        f"'${{' without '}}' in {shown(self._text)}", "close it, or write $$ for a dollar"
                    )
                return tuple(parts)
            self._at += 1
            if self._text[stop] == "}":
                return tuple(parts)
            parts.append(self._dollar(depth))

    def _next_special(self, depth: int) -> int:
        ends = [self._text.find("$", self._at)]
        if depth:
            ends.append(self._text.find("}", self._at))
        return min((end for end in ends if end >= 0), default=len(self._text))

    def _dollar(self, depth: int) -> str | _Reference:
        if self._text.startswith("$", self._at):
            self._at += 1
            return "$"
        if self._text.startswith("{", self._at):
            self._at += 1
            return self._braced(depth + 1)
        return _Reference(self._name(), "", ())

    def _braced(self, depth: int) -> _Reference:
        if depth > MAX_NESTING:
            raise BadValue(
                f"variables nested more than {MAX_NESTING} deep", "set a variable for the inner ones"
            )
        name = self._name()
        if self._text.startswith("}", self._at):
            self._at += 1
            return _Reference(name, "", ())
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None:
            rest = self._text[self._at : self._at + 1]
            raise BadValue(
                f"'${{{name}' is followed by {shown(rest)}" if rest else f"'${{{name}' is not closed",
                "write ${NAME}, ${NAME:-default}, ${NAME:?error} or ${NAME:+word}; $$ for a dollar",
            )
        self._at = operator.end()
        return _Reference(name, operator.group(), self.template(depth))

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise BadValue(
                f"'$' without a variable's name in {shown(self._text)}", "write $$ for a dollar sign"
            )
        self._at = match.end()
        return match.group()


class _Evaluation:
    def __init__(self, environ: Map[str, str]) -> None:
        self._environ = environ
        self._chars = 0
        self.pieces: list[str] = []
        self.unset: list[str] = []

    def run(self, template: _Template) -> None:
        for part in template:
            if isinstance(part, str):
                self._put(part)
            else:
                self._reference(part)

    def _reference(self, reference: _Reference) -> None:
        value = self._environ.get(reference.name)
        # With a colon an empty variable counts as an unset one.
        given = bool(value) if reference.operator.startswith(":") else value is not None
        kind = reference.operator[-1:]
        if kind == "+":
            self.run(reference.word if given else ())
        elif given or not kind:
            if value is None:
                self.unset.append(reference.name)
            self._put(value or "")
        elif kind == "-":
            self.run(reference.word)
        else:
            self._fail(reference)

    def _fail(self, reference: _Reference) -> None:
        inner = _Evaluation(self._environ)
        inner.run(reference.word)
        reason = "".join(inner.pieces)
        state = "empty or not set" if reference.operator == ":?" else "not set"
        message = f"variable {reference.name} is {state}" + (f": {shown(reason)}" if reason else "")
        raise BadValue(message, f"set {reference.name} in the environment or in .env")

    def _put(self, text: str) -> None:
        self._chars += len(text)
        if self._chars > MAX_RESULT_CHARS:
            raise BadValue(
                f"more than {MAX_RESULT_CHARS} characters after substitution", "use shorter variables"
            )
        self.pieces.append(text)


def interpolate_tree(root: Node, environ: Map[str, str], report: Report) -> Node:
    """The tree with variables put in: values only, never keys, and nothing under `x-` keys but `x-sealane`.

    Bad syntax becomes a problem, an unset variable a warning. Nodes shared by aliases stay shared. Raises YamlError
    if the document has too many variables or the result is larger than a document may be.
    """
    substitution = _Substitution(environ, report)
    node, chars = substitution.node(root, ())
    if chars > MAX_CHARS:
        raise _too_long(None)
    return node


def _too_long(line: int | None) -> YamlError:
    return YamlError(f"more than {MAX_CHARS} characters after substitution", "use shorter variables", line)


class _Substitution:
    def __init__(self, environ: Map[str, str], report: Report) -> None:
        self._environ = environ
        self._report = report
        self._done: dict[int, tuple[Node, int]] = {}
        self._warned: set[str] = set()
        self._dollars = 0
        self._put_in = 0

    def node(self, node: Node, path: Path) -> tuple[Node, int]:
        """The new node and how many characters it has when aliases are expanded."""
        # The tree outlives this walk, so that an id names one node.
        known = self._done.get(id(node))
        if known is None:
            known = self._done[id(node)] = self._fresh(node, path)
        return known

    def _fresh(self, node: Node, path: Path) -> tuple[Node, int]:
        if isinstance(node, Scalar):
            scalar = self._scalar(node, path)
            return scalar, len(scalar.text)
        if isinstance(node, Sequence):
            items = [self.node(item, (*path, index)) for index, item in enumerate(node.items)]
            return Sequence(tuple(item for item, _ in items), node.line), sum(chars for _, chars in items)
        entries = []
        total = 0
        for key, value in node.entries:
            skipped = key.text.startswith("x-") and key.text != "x-sealane"
            new, chars = (value, 0) if skipped else self.node(value, (*path, key.text))
            entries.append((key, new))
            total += chars + len(key.text)
        return Mapping(tuple(entries), node.line), total

    def _scalar(self, scalar: Scalar, path: Path) -> Scalar:
        if "$" not in scalar.text:
            return scalar
        self._dollars += scalar.text.count("$")
        if self._dollars > MAX_DOLLARS:
            raise YamlError(f"more than {MAX_DOLLARS} dollar signs", "use fewer variables", scalar.line)
        try:
            result = interpolate(scalar.text, self._environ)
        except BadValue as error:
            self._report.problem(path, scalar.line, error.message, error.hint)
            return Scalar("", scalar.line, plain=False, reported=True)
        self._put_in += len(result.text)
        if self._put_in > MAX_CHARS:
            raise _too_long(scalar.line)
        for name in result.unset:
            if name not in self._warned:
                self._warned.add(name)
                self._report.warn(
                    path, scalar.line, f"variable {shown(name)} is not set; it is replaced by nothing"
                )
        return Scalar(result.text, scalar.line, plain=False)
