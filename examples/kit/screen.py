"""What people see: headings, prompts, tables, marks. Colours and pauses only where somebody sits before a terminal."""

import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
INDENT = "  "
WIDTH_MAX = 100
"""Prose wider than this is hard to read."""

VERDICT_MAX = 160
UNLIMITED = 10_000
"""Columns of a file or a pipe."""

SIGNS = {"+": "green", "-": "red", "~": "yellow", "!": "red"}
HEADER = re.compile(r"[A-Z]+( {2,}[A-Z]+)+ *[A-Z]*")
"""Of a table of the command line."""

ASCII = str.maketrans({"✓": "y", "✗": "!", "·": ".", "→": ">", "←": "<", "↓": "|", "─": "-", "│": "|", "…": "~",
                       "├": "+", "└": "+", "—": "-", "▸": ">"})  # fmt: skip
"""For a terminal whose encoding has nothing better."""

Cell = str | tuple[str, str]
"""A text, or a text and its style. Lines of a cell are separated by newlines."""


class Screen:
    """`pauses`: short ones, so that a person can follow; never without a terminal."""

    def __init__(self, out: TextIO, environ: Mapping[str, str], *, pauses: bool = True) -> None:
        self._out = out
        self.is_tty = out.isatty()
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self.colours = self.is_tty and not plain
        self._pauses = pauses and self.is_tty
        self._unicode = (out.encoding or "ascii").lower().replace("-", "") == "utf8"
        self.width = shutil.get_terminal_size().columns if self.is_tty else UNLIMITED
        self._heading = 0

    # --- prose

    def title(self, text: str, below: str) -> None:
        self.line((text, "bold"))
        self.say(below)

    def heading(self, text: str) -> None:
        """Numbered, with a rule across the screen."""
        self._heading += 1
        rule = "─" * max(0, min(self.width, WIDTH_MAX) - len(text) - 6)
        self.pause(0.6)
        self.line()
        self.line((f"{self._heading:2}  {text} ", "bold"), (rule, "dim"))
        self.line()

    def say(self, text: str) -> None:
        for line in textwrap.wrap(text, min(self.width, WIDTH_MAX) - len(INDENT)):
            self.line(INDENT, (line, "dim"))

    def prompt(self, command: str, where: str = "") -> None:
        """A command as it would be typed."""
        self.line(INDENT, (f"{where}$ ", "cyan"), (command, "bold"))
        self.pause(0.3)

    def output(self, text: str) -> None:
        """What a command has printed, cut at the edge of the screen; its header and signs stand out."""
        for line in text.rstrip("\n").splitlines():
            shown = self.cut(printable(line))
            sign = re.match(r" [-+~!] ", shown)
            if sign:
                self.line(INDENT, (sign[0], SIGNS[sign[0][1]]), shown[3:])
            else:
                self.line(INDENT, (shown, "bold" if HEADER.fullmatch(shown.rstrip("…")) else ""))

    def verdict(self, text: str, *, good: bool = True) -> None:
        mark = ("✓ ", "green") if good else ("✗ ", "red")
        for line in text.splitlines():
            for piece in textwrap.wrap(line, min(self.width, VERDICT_MAX) - len(INDENT) - 2) or [""]:
                self.line(INDENT, mark, piece)
                mark = ("  ", "")

    def gap(self) -> None:
        self.line()

    # --- pieces

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        lines: list[list[Cell]] = [[(header, "dim") for header in headers]]
        for row in rows:
            lines += _lines_of(row)
        widths = [max(len(_text(line[column])) for line in lines) for column in range(len(headers))]
        for line in lines:
            parts: list[Cell] = [INDENT]
            for cell, width in zip(line, widths, strict=True):
                parts += [cell, " " * (width - len(_text(cell)) + 3)]
            self.line(*parts)

    def line(self, *parts: Cell) -> None:
        text = "".join(self._styled(part) for part in parts).rstrip(" ")
        self._out.write((text if self._unicode else text.translate(ASCII)) + "\n")
        self._out.flush()

    def cut(self, text: str) -> str:
        room = self.width - len(INDENT)
        return text if len(text) <= room else text[: room - 1] + "…"

    def pause(self, seconds: float) -> None:
        if self._pauses:
            time.sleep(seconds)

    def _styled(self, part: Cell) -> str:
        if isinstance(part, str):
            return part
        text, style = part
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.colours and style and text else text


def terminal(*, pauses: bool) -> Screen:
    """Standard output. A character that its encoding does not have becomes `?`."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Screen(sys.stdout, os.environ, pauses=pauses)


def printable(text: str) -> str:
    """Without what could move somebody's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text.expandtabs())


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def _lines_of(row: Sequence[Cell]) -> list[list[Cell]]:
    """A row as lines: cells with fewer lines than others are filled up."""
    height = max(_text(cell).count("\n") for cell in row) + 1
    found: list[list[Cell]] = []
    for number in range(height):
        line: list[Cell] = []
        for cell in row:
            words = _text(cell).split("\n")
            word = words[number] if number < len(words) else ""
            line.append(word if isinstance(cell, str) else (word, cell[1]))
        found.append(line)
    return found
