"""`.env` and `env_file` texts."""

import pytest

from sealane.compose.envfile import MAX_LINES, EnvFileError, parse_env_file

ENVIRON = {"HOME": "/home/u", "WIN": "env"}

VALUES = [
    ("A=b", {"A": "b"}),
    ("\ufeffA=b\r\n", {"A": "b"}),
    ("# c\n\n  A = b  \n", {"A": "b"}),
    ("export A=b", {"A": "b"}),
    ("A=", {"A": ""}),
    ("A=b # c", {"A": "b"}),
    ("A=b#c", {"A": "b#c"}),
    ("A= # c", {"A": ""}),
    ("A='b # $HOME \\n'", {"A": "b # $HOME \\n"}),
    ('A="b # \\"q\\" \\$HOME\\n$HOME" # c', {"A": 'b # "q" $HOME\n/home/u'}),
    ('A="C:\\dir"', {"A": "C:\\dir"}),
    ("A=$HOME/x", {"A": "/home/u/x"}),
    ("A=1\nB=${A}2", {"A": "1", "B": "12"}),
    ("WIN=file\nB=$WIN", {"WIN": "file", "B": "env"}),
    ("A=1\nA=2", {"A": "2"}),
    ("HOME", {"HOME": "/home/u"}),
    ("NOT_SET", {}),
    ("A=${B:-x=y}", {"A": "x=y"}),
    ("A=a=b", {"A": "a=b"}),
]


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[ascii(text) for text, _ in VALUES])
def test_lines_become_values(text, expected):
    assert dict(parse_env_file(text, ENVIRON).values) == expected


def test_variables_without_a_value_are_named():
    assert parse_env_file("A=$X\nB=$A$X", {}).unset == ("X",)


REFUSED = [
    ("A=1\n=b", "line 2: '=b' is not NAME=value; write NAME=value, or # before a comment"),
    ("1A=b", "line 1: '1A=b' is not NAME=value; write NAME=value, or # before a comment"),
    ("A B=c", "line 1: 'A B=c' is not NAME=value; write NAME=value, or # before a comment"),
    ("A='b", 'line 1: the quote of "\'b" is not closed; close it on the same line; write \\n for a newline'),
    (
        'A="b\\"',
        "line 1: the quote of '\"b\\\\\"' is not closed; close it on the same line; write \\n for a newline",
    ),
    ("A='b'c", "line 1: 'c' follows the closing quote; put all of the value into the quotes"),
    ("A=${", "line 1: '$' without a variable's name in '${'; write $$ for a dollar sign"),
    ("A=b\0", "line 1: a NUL character; remove it"),
    ("\n" * MAX_LINES, "line 1: more than 10000 lines or 1048576 characters; shorten the file"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[ascii(text[:20]) for text, _ in REFUSED])
def test_a_bad_line_is_named(text, message):
    with pytest.raises(EnvFileError) as caught:
        parse_env_file(text, ENVIRON)
    assert str(caught.value) == message


def test_many_backslashes_cost_no_backtracking():
    with pytest.raises(EnvFileError):
        parse_env_file('A="' + "\\\\" * 200_000, {})
