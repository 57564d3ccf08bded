"""Variables in compose files."""

import pytest

from sealane.compose.interpolate import MAX_DOLLARS, MAX_RESULT_CHARS, interpolate, interpolate_tree
from sealane.compose.problems import BadValue, Report
from sealane.compose.yaml import MAX_CHARS, Mapping, Sequence, YamlError, read_yaml

ENVIRON = {"A": "a", "EMPTY": "", "N": "1", "_x9": "under"}

VALUES = [
    ("plain", "plain"),
    ("$A", "a"),
    ("${A}", "a"),
    ("$A$N-$A", "a1-a"),
    ("$_x9!", "under!"),
    ("$$A", "$A"),
    ("$$$A", "$a"),
    ("$${A}", "${A}"),
    ("${A:-d}", "a"),
    ("${EMPTY:-d}", "d"),
    ("${EMPTY-d}", ""),
    ("${NO:-d}", "d"),
    ("${NO-d}", "d"),
    ("${NO:-}", ""),
    ("${A:+w}", "w"),
    ("${EMPTY:+w}", ""),
    ("${EMPTY+w}", "w"),
    ("${NO+w}", ""),
    ("${A:?e}", "a"),
    ("${EMPTY?e}", ""),
    ("${NO:-${EMPTY:-${A}}}", "a"),
    ("${NO:-a$$b}", "a$b"),
    ("${NO:-x:-y?z+w}", "x:-y?z+w"),
    ('${NO:-{"k":1}}', '{"k":1}'),
    ("}", "}"),
    ("${A:-${NO:?never}}", "a"),
    ("${NO+${NO:?never}}", ""),
]


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[text for text, _ in VALUES])
def test_a_text_is_interpolated(text, expected):
    assert interpolate(text, ENVIRON).text == expected


def test_unset_variables_without_a_default_are_named_once():
    result = interpolate("$NO ${NO} ${B:-x} ${C} $EMPTY ${A:-$D} ${B:-$E}", ENVIRON)
    assert result.unset == ("NO", "C", "E")


REFUSED = [
    ("$", "'$' without a variable's name in '$'; write $$ for a dollar sign"),
    ("cost: 5$ or", "'$' without a variable's name in 'cost: 5$ or'; write $$ for a dollar sign"),
    ("$1", "'$' without a variable's name in '$1'; write $$ for a dollar sign"),
    ("$É", "'$' without a variable's name in '$\\xc9'; write $$ for a dollar sign"),
    ("${}", "'$' without a variable's name in '${}'; write $$ for a dollar sign"),
    (
        "${A",
        "'${A' is not closed; write ${NAME}, ${NAME:-default}, ${NAME:?error} or ${NAME:+word}; $$ for a dollar",
    ),
    (
        "${A!}",
        "'${A' is followed by '!'; write ${NAME}, ${NAME:-default}, ${NAME:?error} or ${NAME:+word}; $$ for a dollar",
    ),
    ("${A:-b", "'${' without '}' in '${A:-b'; close it, or write $$ for a dollar"),
    ("${A:-${B}", "'${' without '}' in '${A:-${B}'; close it, or write $$ for a dollar"),
    ("${NO:?set it}", "variable NO is empty or not set: 'set it'; set NO in the environment or in .env"),
    ("${EMPTY:?}", "variable EMPTY is empty or not set; set EMPTY in the environment or in .env"),
    ("${NO?see $A}", "variable NO is not set: 'see a'; set NO in the environment or in .env"),
    ("${A:-" * 21 + "}" * 21, "variables nested more than 20 deep; set a variable for the inner ones"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[ascii(text[:20]) for text, _ in REFUSED])
def test_a_bad_text_is_refused_with_what_to_write(text, message):
    with pytest.raises(BadValue) as caught:
        interpolate(text, ENVIRON)
    assert str(caught.value) == message


def test_twenty_levels_are_allowed():
    assert interpolate("${NO:-" * 20 + "x" + "}" * 20, {}).text == "x"


def test_the_result_is_bounded():
    half = {"A": "x" * (MAX_RESULT_CHARS // 2)}
    assert len(interpolate("$A$A", half).text) == MAX_RESULT_CHARS
    with pytest.raises(BadValue, match="more than 1048576 characters after substitution"):
        interpolate("$A$A.", half)


def substitute(text: str, environ: dict[str, str]):
    root = read_yaml(text)
    assert root is not None
    report = Report()
    return interpolate_tree(root, environ, report), report


def test_values_are_interpolated_and_keys_are_not():
    tree, report = substitute("$A: $A\nl: [$A, 'x$A']", {"A": "v"})
    assert isinstance(tree, Mapping)
    (first, second), (_, items) = tree.entries
    assert (first.text, second.text) == ("$A", "v")
    assert isinstance(items, Sequence)
    assert [item.text for item in items.items] == ["v", "xv"]
    assert report.problems() == ()


def test_extension_keys_are_left_alone_but_ours():
    tree, report = substitute("x-a: ${\nx-sealane: $A", {"A": "v"})
    assert isinstance(tree, Mapping)
    assert [value.text for _, value in tree.entries] == ["${", "v"]
    assert report.problems() == ()


def test_a_result_is_never_null():
    tree, _ = substitute("a: $A\nb: null", {"A": "null"})
    assert isinstance(tree, Mapping)
    assert [value.is_null for _, value in tree.entries] == [False, True]


def test_a_bad_variable_is_one_problem_and_an_unset_one_is_one_warning():
    _, report = substitute("a: ${\nb: $NO\nc: [$NO]", {})
    assert [str(problem) for problem in report.problems()] == [
        "line 1: a: '$' without a variable's name in '${'; write $$ for a dollar sign"
    ]
    assert report.warnings() == ("line 2: b: variable 'NO' is not set; it is replaced by nothing",)


def test_shared_nodes_stay_shared():
    tree, _ = substitute("a: &x [$A]\nb: *x", {"A": "v"})
    assert isinstance(tree, Mapping)
    assert tree.entries[0][1] is tree.entries[1][1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("l: [" + "$A$A," * 100 + "]", id="many"),
        pytest.param("a: &a '$A'\nl: [" + "*a," * 100 + "]", id="one, by aliases"),
    ],
)
def test_the_whole_result_is_bounded(text):
    with pytest.raises(YamlError, match=f"more than {MAX_CHARS} characters after substitution"):
        substitute(text, {"A": "x" * 50_000})


def test_the_number_of_variables_is_bounded():
    substitute("a: '" + "$$" * (MAX_DOLLARS // 2) + "'", {})
    with pytest.raises(YamlError, match=f"more than {MAX_DOLLARS} dollar signs"):
        substitute("a: '" + "$$" * (MAX_DOLLARS // 2) + "'\nb: $$", {})
