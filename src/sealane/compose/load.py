"""The one module of this package that reads files: a compose file, `.env` beside it, and what `env_file` names."""

import errno
import os
import re
import stat
from collections.abc import Mapping

import msgspec

from sealane.compose.envfile import EnvFile, EnvFileError, parse_env_file
from sealane.compose.parse import parse_project
from sealane.compose.problems import BadValue, ComposeError, Problem, shown
from sealane.compose.schema import Project
from sealane.compose.values import parse_project_name
from sealane.compose.yaml import MAX_BYTES

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""Looked for in a directory, in this order."""


def load(path: str, *, environ: Mapping[str, str] | None = None, name: str | None = None) -> Project:
    """The project of a compose file, or of the directory that holds one. Raises ComposeError.

    The project's name is `name`, or COMPOSE_PROJECT_NAME, or `name:` in the file, or derived from the directory's.
    `environ` (the process's by default) wins over `.env`.
    """
    given = os.environ if environ is None else environ
    file = find_file(os.path.abspath(path))
    directory = os.path.dirname(file)
    text = _read_or_fail(file)
    dotenv = _read_dotenv(directory, given)
    values = {**dict(dotenv.values), **given}
    fixed_name = name or values.get("COMPOSE_PROJECT_NAME")
    if fixed_name is not None:
        _check_name(fixed_name, file)
    project = parse_project(
        text,
        name=fixed_name or _derived_name(directory),
        environ=values,
        directory=directory,
        read_file=read_text,
        source=file,
    )
    if fixed_name is not None:
        project = msgspec.structs.replace(project, name=fixed_name)
    unset = tuple(
        f".env: variable {shown(name)} is not set; it is replaced by nothing" for name in dotenv.unset
    )
    return msgspec.structs.replace(project, warnings=(*_unread_override(file), *unset, *project.warnings))


def read_text(path: str) -> str:
    """A regular file of at most 1 MiB as UTF-8. Raises OSError, or ValueError for what is no such text."""
    # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    return content.decode()


def find_file(path: str) -> str:
    """The file itself, or the one that a directory holds. Raises ComposeError."""
    if not os.path.isdir(path):
        return path
    for file_name in FILE_NAMES:
        candidate = os.path.join(path, file_name)
        if os.path.lexists(candidate):
            return candidate
    raise _error(path, "no compose file in this directory", f"create one of {', '.join(FILE_NAMES)}")


def _read_or_fail(file: str) -> str:
    try:
        return read_text(file)
    except OSError as error:
        raise _error(file, f"cannot be read: {error.strerror}", "name a readable compose file") from error
    except ValueError as error:
        raise _error(file, f"is no text: {error}", "save it as UTF-8 text of at most 1 MiB") from error


def _read_dotenv(directory: str, environ: Mapping[str, str]) -> EnvFile:
    file = os.path.join(directory, ".env")
    if not os.path.lexists(file):
        return EnvFile((), ())
    text = _read_or_fail(file)
    try:
        return parse_env_file(text, environ)
    except EnvFileError as error:
        raise _error(file, error.message, error.hint, line=error.line) from error


def _check_name(name: str, file: str) -> None:
    try:
        parse_project_name(name)
    except BadValue as error:
        raise _error(file, error.message, error.hint) from error


def _derived_name(directory: str) -> str:
    allowed = re.sub(r"[^a-z0-9_-]", "", os.path.basename(directory).lower()).lstrip("_-")
    return allowed[:63] or "default"


def _unread_override(file: str) -> tuple[str, ...]:
    stem, extension = os.path.splitext(file)
    override = f"{stem}.override{extension}"
    if not os.path.lexists(override):
        return ()
    return (f"{shown(os.path.basename(override))} is not read: one file is the whole project",)


def _error(source: str, message: str, hint: str, *, line: int | None = None) -> ComposeError:
    return ComposeError((Problem(path="", line=line, message=message, hint=hint),), source=source)
