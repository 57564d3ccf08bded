"""What is printed: tables, lines, JSON, errors. Nothing from outside can move anybody's cursor (reliability.md F11)."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
GAP = "   "

Cell = str | tuple[str, str]
"""A text, or a text and its style."""


def safe(text: object) -> str:
    """Printable on one line: control characters, line separators and marks of direction are escaped."""
    string = str(text)
    if string.isprintable():
        return string
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in string
    )


def counted(number: int, what: str, plural: str = "s") -> str:
    """`1 pair`, `2 pairs`."""
    return f"{number} {what if number == 1 else what + plural}"


class Output:
    """`as_json`: answers are JSON and there are no other lines on stdout."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool, environ: Mapping[str, str]) -> None:
        self._out = out
        self._err = err
        self.as_json = as_json
        self.is_tty = out.isatty()
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self._colours_out = self.is_tty and not plain
        self._colours_err = err.isatty() and not plain

    # --- pieces

    def styled(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._colours_out and style else text

    # --- stdout

    def line(self, *parts: Cell) -> None:
        """One line; each part is made safe, then styled."""
        self._out.write("".join(self._cell(part) for part in parts) + "\n")

    def raw(self, text: str) -> None:
        """Text that is a program's own, or ours already made safe."""
        self._out.write(text)
        self._out.flush()

    def document(self, value: Any) -> None:
        json.dump(value, self._out, indent=2)
        self._out.write("\n")
        self._out.flush()

    def document_line(self, value: Any) -> None:
        """One of a stream of documents."""
        self._out.write(json.dumps(value) + "\n")
        self._out.flush()

    def names(self, view: Mapping[str, Any], field: str) -> None:
        """An answer; for people the list in one of its fields, a name a line."""
        if self.as_json:
            self.document(view)
            return
        for name in view[field]:
            self.line(name)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        lines: list[Sequence[Cell]] = [[(header, "bold") for header in headers], *rows]
        widths = [max(len(_text(line[column])) for line in lines) for column in range(len(headers))]
        for line in lines:
            cells = [
                self._cell(cell) + " " * (width - len(_text(cell)))
                for cell, width in zip(line, widths, strict=True)
            ]
            self._out.write(GAP.join(cells).rstrip() + "\n")

    # --- stderr

    def note(self, text: str) -> None:
        self._err.write(f"{safe(text)}\n")
        self._err.flush()

    def usage(self, text: str) -> None:
        """What argparse has written, over several lines; for people only."""
        if not self.as_json:
            self._err.write(text)

    def error(self, body: Mapping[str, Any]) -> None:
        """An ErrorBody: `error:`, `field:` and `hint:` lines, or the record itself."""
        if self.as_json:
            json.dump(body, self._err)
            self._err.write("\n")
            return
        self._labelled("error", body.get("message", ""), "31")
        self._labelled("field", body.get("field", ""), "2")
        self._labelled("hint", body.get("hint", ""), "36")
        for problem in body.get("problems") or ():
            where = f"{problem['field']}: " if problem.get("field") else ""
            hint = f" ({problem['hint']})" if problem.get("hint") else ""
            self._err.write(f"  {safe(where)}{safe(problem.get('message', ''))}{safe(hint)}\n")

    def _labelled(self, label: str, text: str, colour: str) -> None:
        if text:
            shown = f"\x1b[{colour}m{label}:\x1b[0m" if self._colours_err else f"{label}:"
            self._err.write(f"{shown} {safe(text)}\n")

    def _cell(self, cell: Cell) -> str:
        return self.styled(_text(cell), cell[1] if isinstance(cell, tuple) else "")


def _text(cell: Cell) -> str:
    return safe(cell[0] if isinstance(cell, tuple) else cell)


def prepare_streams() -> None:
    """Whatever was closed when this process was started is open, and empty: what is opened next would be taken for it. Text
    that the terminal's encoding does not have is escaped instead of being an error."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
