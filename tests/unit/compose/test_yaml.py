"""The YAML reader: what it makes, what it refuses, and how fast."""

import pytest
import yaml as pyyaml

from harness.effort import calls_of
from sealane.compose import yaml as reader
from sealane.compose.yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, Mapping, Node, Scalar, YamlError, read_yaml


def plain(node: Node | None) -> object:
    if isinstance(node, Scalar):
        return None if node.is_null else node.text
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.entries}
    return None if node is None else [plain(item) for item in node.items]


@pytest.fixture(params=["libyaml", "python"])
def _loader(request, monkeypatch):
    chosen = pyyaml.CSafeLoader if request.param == "libyaml" else pyyaml.SafeLoader
    monkeypatch.setattr(reader, "_LOADER", chosen)


both_parsers = pytest.mark.usefixtures("_loader")

TREES = [
    ("", None),
    ("# only a comment\n", None),
    ("a: 1", {"a": "1"}),
    ("\ufeffa: 1", {"a": "1"}),
    ("--- {a: [b, c: d]}\n...\n", {"a": ["b", {"c": "d"}]}),
    ("a:\nb: ~\nc: null\nd: ''\ne: 'null'", {"a": None, "b": None, "c": None, "d": "", "e": "null"}),
    (
        "a: 22:22\nb: 0o17\nc: 1_000\nd: on\ne: .inf\nf: 2020-01-01",
        dict(a="22:22", b="0o17", c="1_000", d="on", e=".inf", f="2020-01-01"),
    ),
    ("a: &x [1]\nb: *x", {"a": ["1"], "b": ["1"]}),
    ("a: &x 1\nb: &x 2\nc: *x", {"a": "1", "b": "2", "c": "2"}),
    ("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", {"a": {"k": "1", "l": "2"}, "b": {"k": "3", "l": "2"}}),
    ("b: {k: 3, <<: {k: 1}}", {"b": {"k": "3"}}),
    ("b: {<<: [{k: 1}, {k: 2, l: 2}]}", {"b": {"k": "1", "l": "2"}}),
    (
        "a: &a {k: 1}\nb: &b {<<: *a, l: 2}\nc: {<<: *b}",
        {"a": {"k": "1"}, "b": {"k": "1", "l": "2"}, "c": {"k": "1", "l": "2"}},
    ),
    ('"<<": 1', {"<<": "1"}),
    ("a: |\n  x\n  y\nb: >-\n  x\n  y", {"a": "x\ny\n", "b": "x y"}),
]


@both_parsers
@pytest.mark.parametrize(("text", "tree"), TREES, ids=[ascii(text[:25]) for text, _ in TREES])
def test_text_becomes_a_tree_of_texts(text, tree):
    assert plain(read_yaml(text)) == tree


REFUSED = [
    ("a: 1\nb: 2\na: 3", 3, "duplicate key 'a'", "remove this one or the one on line 1"),
    ("{1: a, '1': b}", 1, "duplicate key '1'", "remove this one or the one on line 1"),
    ("<<: {a: 1}\n<<: {b: 1}", 2, "duplicate key '<<'", "merge several with <<: [*one, *other]"),
    (
        "a: 1\nb: !!python/object:os.system x",
        2,
        "tag 'tag:yaml.org,2002:python/object:os.system'",
        "remove it; quote the value if it is a text",
    ),
    ("a: !!str 1", 1, "tag 'tag:yaml.org,2002:str'", "remove it; quote the value if it is a text"),
    ("a: !reset []", 1, "tag '!reset'", "remove it; quote the value if it is a text"),
    ("a: !x {}", 1, "tag '!x'", "remove it; quote the value if it is a text"),
    ("a: ! x", 1, "tag '!'", "remove it; quote the value if it is a text"),
    ("a: 1\n---\nb: 1", 2, "a second YAML document", "keep one document in the file"),
    ("? [a]\n: b", 1, "a key that is a list or a mapping", "use a plain text as key"),
    ("? {a: b}\n: b", 1, "a key that is a list or a mapping", "use a plain text as key"),
    ("a: &x [1]\n*x : 1", 2, "a key that is a list or a mapping", "use a plain text as key"),
    ("a: *x", 1, "alias *'x' has no anchor", "define it above its first use"),
    ("a: &x\n  b: *x", 2, "alias *'x' contains itself", "write the inner part out"),
    ("a: {<<: 1}", 1, "<< merges something that is not a mapping", "name an anchor of a mapping"),
    ("a: {<<: [[]]}", 1, "<< merges something that is not a mapping", "name an anchor of a mapping"),
    (
        "%YAML 1.2\n---\na: 1",
        1,
        "a line begins with %, which is a YAML directive",
        "remove it, or indent it if it is text",
    ),
    (
        "a: 1\n...\n%TAG ! x\n---\n",
        3,
        "a line begins with %, which is a YAML directive",
        "remove it, or indent it if it is text",
    ),
    ("#" * (MAX_BYTES + 1), None, "1048577 bytes long, more than 1048576", "split the project"),
    ("a: é" + "é" * (MAX_BYTES // 2), None, "1048581 bytes long, more than 1048576", "split the project"),
    ("a: 1\nb: \ud800", 2, "not Unicode text", "save the file as UTF-8"),
]


@both_parsers
@pytest.mark.parametrize(
    ("text", "line", "message", "hint"), REFUSED, ids=[ascii(row[0][:20]) for row in REFUSED]
)
def test_a_document_is_refused_with_its_line(text, line, message, hint):
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert (caught.value.line, caught.value.message, caught.value.hint) == (line, message, hint)


@both_parsers
@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1\nb: 2", 2), ("a: 'x", 1), ("a: b: c", 1), ("a:\n\tb: 1", 2), ("- a\nb: 1", 2), ("a: @x", 1)],
)
def test_a_syntax_error_names_its_line(text, line):
    with pytest.raises(YamlError, match="^not YAML: ") as caught:
        read_yaml(text)
    assert caught.value.line == line


@both_parsers
def test_characters_that_yaml_does_not_allow_are_refused_and_shown_in_ascii():
    with pytest.raises(YamlError, match="^not YAML: ") as caught:
        read_yaml("a: \x1b[31m")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@both_parsers
def test_lines_are_those_of_the_definition():
    root = read_yaml("a: &x\n  k: 1\nb:\n  <<: *x\n  l: 2\n")
    assert isinstance(root, Mapping)
    b = root.entries[1][1]
    assert isinstance(b, Mapping)
    assert [(key.text, key.line, value.line) for key, value in b.entries] == [("k", 2, 2), ("l", 5, 5)]


@both_parsers
def test_depth_is_bounded_with_aliases_counted():
    read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(YamlError, match="nested more than 50 deep"):
        read_yaml("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    with pytest.raises(YamlError, match="nested more than 50 deep"):
        read_yaml("[" * (MAX_DEPTH + 1))
    inner = "a: &x " + "[" * 30 + "]" * 30
    read_yaml(inner + "\nb: " + "[" * 19 + "*x" + "]" * 19)
    with pytest.raises(YamlError, match="nested more than 50 deep"):
        read_yaml(inner + "\nb: " + "[" * 20 + "*x" + "]" * 20)


def test_nodes_are_bounded_with_aliases_counted():
    read_yaml("[" + "x," * (MAX_NODES - 1) + "]")
    with pytest.raises(YamlError, match="more than 50000 values"):
        read_yaml("[" + "x," * MAX_NODES + "]")
    # The list, its first item of 100, and 499 aliases of 100 each; one value more is too much.
    almost = "[&a [" + "x," * 99 + "], " + "*a," * 498
    read_yaml(almost + "]")
    with pytest.raises(YamlError, match="more than 50000 values"):
        read_yaml(almost + "*a]")


LAUGHS = "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
MERGES = (
    "x0: &x0 {"
    + ",".join(f"k{i}: v" for i in range(1000))
    + "}\n"
    + "".join(f"x{i}: &x{i} {{<<: [{','.join([f'*x{i - 1}'] * 9)}]}}\n" for i in range(1, 20))
)
CALLS_MAX = 1_000_000
"""A tenth of a second or so: two or so for each of the tokens that a megabyte holds."""
BOMBS = {
    "billion laughs": LAUGHS,
    "merges of merges": MERGES,
    "a long text aliased": "a: &a '" + "q" * 900_000 + "'\nb: [" + "*a," * 20_000 + "]",
    "itself": "a: &a [*a]",
    "flow lists": "[" * 500_000,
    "flow mappings": "{a: " * 200_000,
    "block lists": "- " * 500_000,
    "complex keys": "? " * 500_000,
    "directives": "%TAG !a! tag:x\n" * 60_000 + "--- a",
    "late directives": "a: 1\n...\n" + "%TAG !a! tag:x\n" * 60_000,
    "too long": "#" * (MAX_BYTES + 1),
    "wide list": "[" + "x," * 500_000 + "]",
    "wide mapping": "".join(f"k{i}: v\n" for i in range(90_000)),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_at_once(text):
    def refuse():
        with pytest.raises(YamlError):
            read_yaml(text)

    assert calls_of(refuse) < CALLS_MAX
