"""What is printed: aligned, safe, coloured only for people."""

import io
import json

import pytest

from sealane.cli.output import Output, counted, safe


class Terminal(io.StringIO):
    def isatty(self):
        return True


def output(stream=io.StringIO, as_json=False, environ=None):
    out, err = stream(), stream()
    return Output(out, err, as_json=as_json, environ=environ or {}), out, err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ünïcode 語", "ünïcode 語"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\r\nlines\u2028three", "two\\r\\nlines\\u2028three"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
        ("\udcff", "\\udcff"),
        ("\x9b", "\\x9b"),
        (5, "5"),
    ],
)
def test_nothing_from_outside_moves_the_cursor(text, shown):
    assert safe(text) == shown


def test_names_are_a_line_each_and_the_whole_answer_as_json():
    view = {"removed": ["front", "b\x1b"], "more": 1}
    printer, out, _ = output()
    printer.names(view, "removed")
    assert out.getvalue() == "front\nb\\x1b\n"
    printer, out, _ = output(as_json=True)
    printer.names(view, "removed")
    assert json.loads(out.getvalue()) == view


def test_a_table_is_aligned_and_has_no_trailing_spaces():
    printer, out, _ = output()
    printer.table(("NAME", "SIZE", "X"), [("a", "100000", ""), ("longer-name", ("1", "red"), "y")])
    assert out.getvalue() == (
        "NAME          SIZE     X\n"
        "a             100000\n"
        "longer-name   1        y\n"
    )  # fmt: skip


def test_a_table_escapes_before_it_measures():
    printer, out, _ = output()
    printer.table(("N", "X"), [("a\nb", "1")])
    assert out.getvalue() == "N      X\na\\nb   1\n"


def test_colours_are_for_terminals():
    printer, out, _ = output(Terminal)
    printer.line(("up", "green"), " now")
    assert out.getvalue() == "\x1b[32mup\x1b[0m now\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(environ):
    printer, out, err = output(Terminal, environ=environ)
    printer.line(("up", "green"))
    printer.error({"message": "no"})
    assert (out.getvalue(), err.getvalue()) == ("up\n", "error: no\n")


def test_an_empty_no_color_is_none():
    printer, out, _ = output(Terminal, environ={"NO_COLOR": ""})
    printer.line(("up", "green"))
    assert "\x1b[32m" in out.getvalue()


def test_a_colour_cannot_be_smuggled_in():
    printer, out, _ = output(Terminal)
    printer.line(("\x1b[0m\x1b[2J", "red"))
    assert out.getvalue() == "\x1b[31m\\x1b[0m\\x1b[2J\x1b[0m\n"


def test_an_error_has_its_field_its_hint_and_its_problems():
    printer, out, err = output()
    printer.error(
        {
            "message": "it is wrong\x1b",
            "field": "a.b",
            "hint": "mend it",
            "problems": [{"field": "line 3: x", "message": "no", "hint": "yes"}, {"message": "also"}],
        }
    )
    assert out.getvalue() == ""
    assert err.getvalue() == (
        "error: it is wrong\\x1b\nfield: a.b\nhint: mend it\n  line 3: x: no (yes)\n  also\n"
    )


def test_an_error_as_json_is_the_record():
    printer, _, err = output(as_json=True)
    printer.error({"code": "invalid", "message": "no"})
    assert err.getvalue() == '{"code": "invalid", "message": "no"}\n'


@pytest.mark.parametrize(("number", "text"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs")])
def test_of_one_there_is_no_plural(number, text):
    assert counted(number, "pair") == text


def test_some_plurals_are_others():
    assert [counted(n, "sandbox", "es") for n in (1, 2)] == ["1 sandbox", "2 sandboxes"]
