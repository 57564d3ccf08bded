"""What is wrong with a compose file, said once and completely.

Rule 1: a reader never stops at the first mistake. It records a problem and goes on, so that one run names them all.
Rule 2: every problem says where (path and line), what, and what to write instead.
Rule 3: text from the file is shown in ASCII and cut short. A file must not be able to move somebody's cursor.
"""

import re

import msgspec

MAX_REPORTED = 100
"""Problems, and separately warnings, that one file can produce; the rest are counted."""

_SHOWN_CHARS = 60
_SHOWN_PATH_CHARS = 300
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")

Path = tuple[str | int, ...]


class BadValue(ValueError):  # noqa: N818 (reads as the value it describes: `except BadValue`)
    """A single text that does not follow its grammar. `hint` says what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    """Where in the document, as `services.web.ports[1]`; empty for the document itself."""
    line: int | None
    """Counted from 1; None if the problem is with no line of the file."""
    message: str
    hint: str

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line is not None else []
        where += [self.path] if self.path else []
        return ": ".join([*where, f"{self.message}; {self.hint}"])


class ComposeError(Exception):
    """A file that cannot be used. `problems` has all of them, in the order of their lines."""

    def __init__(self, problems: tuple[Problem, ...], *, source: str = "compose file") -> None:
        self.problems = problems
        self.source = source
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


class Report:
    """Collects problems and warnings while a file is read."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._unreported = 0

    @property
    def is_full(self) -> bool:
        return len(self._problems) >= MAX_REPORTED

    def problem(self, path: Path, line: int | None, message: str, hint: str) -> None:
        if self.is_full:
            self._unreported += 1
            return
        self._problems.append(Problem(path=render_path(path), line=line, message=message, hint=hint))

    def warn(self, path: Path, line: int, message: str) -> None:
        if len(self._warnings) < MAX_REPORTED:
            self._warnings.append(f"line {line}: {render_path(path)}: {message}")

    def problems(self) -> tuple[Problem, ...]:
        ordered = sorted(self._problems, key=lambda problem: problem.line or 0)
        if self._unreported:
            message = f"{self._unreported} more problems are not listed"
            ordered.append(Problem(path="", line=None, message=message, hint="mend the ones above first"))
        return tuple(ordered)

    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)


def shown(text: str, *, limit: int = _SHOWN_CHARS) -> str:
    """Foreign text for a message: quoted, ASCII, at most 60 characters of it."""
    return ascii(text if len(text) <= limit else text[: limit - 3] + "...")


def shown_path(text: str) -> str:
    """A path for a message; its end matters, so that more of it is kept."""
    return shown(text, limit=_SHOWN_PATH_CHARS)


def render_path(path: Path) -> str:
    rendered = ""
    for part in path:
        if isinstance(part, int):
            rendered += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part) and len(part) <= _SHOWN_CHARS:
            rendered += f".{part}" if rendered else part
        else:
            rendered += f"[{shown(part)}]"
    return rendered
