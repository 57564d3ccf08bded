"""Files that `install` verbs put where other engines look: written whole or not at all, and nobody else's."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import sealane
from sealane.cli.context import Context, UsageError

SYSTEM_PYTHON = "/usr/bin/python3"
IS_ENOUGH = "import sys, _json, _socket; sys.exit(sys.version_info < (3, 11))"
SHEBANG_MAX = 126
"""The kernel reads 127 bytes of the first line before Linux 5.1, and 255 since (BINPRM_BUF_SIZE)."""


def program(name: str, mark: str, socket: str | None) -> str:
    """The executable for `sealane.programs.NAME.main`, asking the daemon at `socket`; None: it asks none. `mark`: its
    second line.

    Isolated and without `site`: half of Python's start, and nothing of the caller's environment decides what runs. Nor
    is there a farewell: programs write to descriptors, and taking the interpreter down is a sixth of a call.
    Raises UsageError.
    """
    python = _interpreter()
    if len(python) > SHEBANG_MAX - len("#! -IS") or any(sign.isspace() for sign in python):
        raise UsageError(
            f"{python} cannot be the first line of a script", hint="install Python under a short path"
        )
    arguments = "" if socket is None else repr(os.path.abspath(socket))
    place = os.path.dirname(os.path.dirname(os.path.abspath(sealane.__file__)))
    return (
        f"#!{python} -IS\n{mark}\n"
        f"import posix, sys\nsys.path.insert(0, {place!r})\n"
        f"from sealane.programs.{name}.main import main\nposix._exit(main({arguments}))\n"
    )


def _interpreter() -> str:
    """The system's, which starts faster than most that are built at home and is not taken away with anybody's home;
    where it is too old, the one that this virtual environment was made of, which need not look for it."""
    if os.access(SYSTEM_PYTHON, os.X_OK):
        request = subprocess.run([SYSTEM_PYTHON, "-IS", "-c", IS_ENOUGH], capture_output=True, check=False)
        if request.returncode == 0:
            return SYSTEM_PYTHON
    return getattr(sys, "_base_executable", sys.executable)


def read(path: str) -> str | None:
    """None if there is none. Raises UsageError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def check_ours(path: str, mark: str, field: str) -> None:
    """Raises UsageError for a file that has not the mark. `field`: the flag that the path is of."""
    text = read(path)
    if text is not None and mark not in text:
        raise UsageError(f"{path} is somebody else's", field=field, hint="choose another place")


def write(context: Context, path: str, text: str, mode: int) -> None:
    """Unless it is so already; tells which. Raises UsageError."""
    before = read(path)
    say(context, path, "unchanged" if before == text else "written")
    if before != text:
        replace(path, text, mode)


def write_unless_foreign(context: Context, path: str, text: str, mark: str) -> None:
    """An executable that any other of its name does as well for: one without the mark is kept; tells which. Raises
    UsageError."""
    before = read(path)
    if before is not None and mark not in before:
        say(context, path, "kept: somebody else's, which does as well")
    else:
        write(context, path, text, 0o755)


def remove(context: Context, path: str, is_ours: Callable[[str], bool], group: str) -> None:
    """Unless somebody has changed it; tells which. `group`: whose `install` wrote it. Raises UsageError."""
    text = read(path)
    if text is None:
        say(context, path, "not there")
    elif not is_ours(text):
        say(context, path, f"kept: it is not as `sealane {group} install` wrote it")
    else:
        try:
            os.unlink(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be removed: {error.strerror}", hint="become root") from error
        say(context, path, "removed")


def say(context: Context, path: str, what: str) -> None:
    if context.output.as_json:
        context.output.document({"path": path, "state": what})
    else:
        context.output.line(f"{path}: {what}")


def replace(path: str, text: str, mode: int) -> None:
    """In one step: who reads it meanwhile has the old file or the new one. Raises UsageError."""
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        # Hidden, and of no ending that anybody reads a configuration by.
        descriptor, temporary = tempfile.mkstemp(prefix=".sealane-", dir=directory)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
                os.fchmod(descriptor, mode)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="become root") from error
