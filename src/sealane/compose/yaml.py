"""YAML text to a tree of plain nodes with line numbers, within bounds.

The tree is built from the parser's event stream, with no constructor and no resolver behind it: a document can make
three kinds of node and nothing else, whatever its tags say. That also removes YAML 1.1's surprises at the root: a
scalar stays the text that was written (`22:22`, `on`, `0o17`) and its reader decides what it means.

Aliases share the node they name. Their *expanded* size is added up while events arrive, so that a bomb is refused at
the alias that goes over the bound and is never expanded.
"""

import re
from collections.abc import Iterator

import msgspec
import yaml

from sealane.compose.problems import shown

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
"""Keys, values and collections of one document, after aliases are expanded."""
MAX_DEPTH = 50
MAX_CHARS = 2 << 20
"""Characters in all scalars, after aliases are expanded and variables put in."""

# libyaml where the wheel has it: 1 MiB takes it well under a second, and the parser in Python ten.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# libyaml compares every %TAG directive with all before it; 80,000 of them fit into 1 MiB.
_DIRECTIVE = re.compile(r"(?:\A\ufeff?|[\r\n\x85\u2028\u2029])%")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Scalar(msgspec.Struct, frozen=True):
    text: str
    line: int
    plain: bool
    """Written without quotes and not touched by interpolation."""
    reported: bool = False
    """A problem with this text is on record already; its reader says nothing more."""

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


class Sequence(msgspec.Struct, frozen=True):
    items: tuple["Node", ...]
    line: int


class Mapping(msgspec.Struct, frozen=True):
    entries: tuple[tuple[Scalar, "Node"], ...]
    """Keys are unique; merge keys are already resolved."""
    line: int


Node = Scalar | Sequence | Mapping


class YamlError(Exception):
    """Text that is not one acceptable YAML document."""

    def __init__(self, message: str, hint: str, line: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.line = line


def read_yaml(text: str) -> Node | None:
    """The one document in `text`, or None if there is none. Raises YamlError."""
    _check_text(text)
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        # The end of the file counts as a line of its own even without a line break before it.
        last = text.count("\n") + 1
        line = min(error.problem_mark.line + 1, last) if error.problem_mark else None
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"not YAML: {what}", "correct the syntax on this line or just above", line) from error
    except yaml.YAMLError as error:
        # A reader error has no mark: characters that YAML does not allow at all.
        raise YamlError(f"not YAML: {shown(str(error))}", "save the file as UTF-8 text", None) from error
    return composer.root


def _check_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise YamlError("not Unicode text", "save the file as UTF-8", line) from error
    if size > MAX_BYTES:
        raise YamlError(f"{size} bytes long, more than {MAX_BYTES}", "split the project", None)
    if directive := _DIRECTIVE.search(text):
        line = text.count("\n", 0, directive.end()) + 1
        raise YamlError(
            "a line begins with %, which is a YAML directive", "remove it, or indent it if it is text", line
        )


class _Size(msgspec.Struct, frozen=True):
    nodes: int
    chars: int
    height: int


class _Open:
    """A collection whose end has not been seen."""

    def __init__(self, line: int, anchor: str | None, *, is_mapping: bool, nodes: int, chars: int) -> None:
        self.line = line
        self.anchor = anchor
        self.is_mapping = is_mapping
        self.nodes_before = nodes
        self.chars_before = chars
        self.height = 1
        self.items: list[Node] = []
        self.key: Scalar | None = None
        self.entries: dict[str, tuple[Scalar, Node]] = {}
        self.merge: Node | None = None


class _Composer:
    """Builds the tree; see the module's docstring for what it refuses and when."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, _Size] | None] = {}
        self._nodes = 0
        self._chars = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.ScalarEvent):
            _refuse_tag(event.tag, line)
            self._scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "", line)
        elif isinstance(event, yaml.CollectionStartEvent):
            _refuse_tag(event.tag, line)
            self._begin(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise YamlError("a second YAML document", "keep one document in the file", line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        node = Scalar(event.value, line, not event.style)
        self._grow(1, len(node.text), line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, _Size(1, len(node.text), 0))
        self._place(node, 0, line)

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self._anchors:
            raise YamlError(f"alias *{shown(anchor)} has no anchor", "define it above its first use", line)
        found = self._anchors[anchor]
        if found is None:
            raise YamlError(f"alias *{shown(anchor)} contains itself", "write the inner part out", line)
        node, size = found
        self._grow(size.nodes, size.chars, line)
        self._place(node, size.height, line)

    def _begin(self, event: yaml.CollectionStartEvent, line: int) -> None:
        self._grow(1, 0, line)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        opened = _Open(line, event.anchor, is_mapping=is_mapping, nodes=self._nodes - 1, chars=self._chars)
        if self._open and self._open[-1].is_mapping and self._open[-1].key is None:
            raise YamlError("a key that is a list or a mapping", "use a plain text as key", line)
        if opened.anchor is not None:
            self._anchors[opened.anchor] = None
        self._open.append(opened)
        self._check_depth(len(self._open), line)

    def _end(self) -> None:
        closed = self._open.pop()
        node: Node
        if closed.is_mapping:
            node = Mapping(tuple(_merged(closed).values()), closed.line)
        else:
            node = Sequence(tuple(closed.items), closed.line)
        size = _Size(self._nodes - closed.nodes_before, self._chars - closed.chars_before, closed.height)
        if closed.anchor is not None:
            self._anchors[closed.anchor] = (node, size)
        self._place(node, size.height, closed.line)

    def _place(self, node: Node, height: int, line: int) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if height:
            parent.height = max(parent.height, height + 1)
            self._check_depth(len(self._open) + height, line)
        if not parent.is_mapping:
            parent.items.append(node)
        elif parent.key is None:
            parent.key = _new_key(parent, node, line)
        elif _is_merge(parent.key):
            parent.merge, parent.key = node, None
        else:
            parent.entries[parent.key.text] = (parent.key, node)
            parent.key = None

    def _grow(self, nodes: int, chars: int, line: int) -> None:
        self._nodes += nodes
        self._chars += chars
        if self._nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES} values with aliases expanded", "split the project", line)
        if self._chars > MAX_CHARS:
            raise YamlError(
                f"more than {MAX_CHARS} characters with aliases expanded", "split the project", line
            )

    def _check_depth(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} deep", "flatten the structure", line)


def _refuse_tag(tag: str | None, line: int) -> None:
    if tag is not None:
        raise YamlError(f"tag {shown(tag)}", "remove it; quote the value if it is a text", line)


def _is_merge(key: Scalar) -> bool:
    return key.plain and key.text == "<<"


def _new_key(parent: _Open, node: Node, line: int) -> Scalar:
    if not isinstance(node, Scalar):
        raise YamlError("a key that is a list or a mapping", "use a plain text as key", line)
    first = parent.entries.get(node.text)
    if first is not None:
        hint = f"remove this one or the one on line {first[0].line}"
        raise YamlError(f"duplicate key {shown(node.text)}", hint, line)
    if _is_merge(node) and parent.merge is not None:
        raise YamlError("duplicate key '<<'", "merge several with <<: [*one, *other]", line)
    return node


def _merged(mapping: _Open) -> dict[str, tuple[Scalar, Node]]:
    """Own keys win over merged ones, and an earlier merged mapping over a later (yaml.org/type/merge.html)."""
    if mapping.merge is None:
        return mapping.entries
    merged: dict[str, tuple[Scalar, Node]] = {}
    for source in reversed(list(_merge_sources(mapping.merge))):
        merged.update({key.text: (key, value) for key, value in source.entries})
    return merged | mapping.entries


def _merge_sources(node: Node) -> Iterator[Mapping]:
    for source in node.items if isinstance(node, Sequence) else (node,):
        if not isinstance(source, Mapping):
            raise YamlError(
                "<< merges something that is not a mapping", "name an anchor of a mapping", source.line
            )
        yield source
