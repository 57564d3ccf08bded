"""The entry point: errors become lines and exit codes here and nowhere else."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from sealane.cli.context import Context, UsageError
from sealane.cli.output import Output, prepare_streams
from sealane.cli.parser import build_parser
from sealane.client import ApiError, UnreachableError
from sealane.containers import codes

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
OTHERS_CODES = frozenset({"run", "exec"})
"""Verbs that end with the code of what they run, for which ours would be taken."""
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What write(2) fails with; an error of a file that was named has its name."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; see `sealane --help` for their meaning. `--help` and `--version` raise SystemExit(0)."""
    prepare_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    output = Output(sys.stdout, sys.stderr, as_json=_asks_for_json(words), environ=os.environ)
    try:
        try:
            return _perform(words, output)
        finally:
            # Here and not when Python ends, which would complain in its own way.
            _flush_stderr()
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has left (`| head`).
        _forget(sys.stdout)
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE or _verb(words) == "daemon":
            raise
        _forget(sys.stdout)
        message = f"the output cannot be written: {error.strerror}"
        output.error(
            {"code": "kernel", "message": message, "hint": "see where it leads, and make room there"}
        )
        return codes.FAILED if _verb(words) in OTHERS_CODES else FAILED
    return FAILED


def _perform(words: Sequence[str], output: Output) -> int:
    try:
        arguments = build_parser(words).parse_args(words)
    except UsageError as error:
        output.usage(error.usage)
        output.error(error.body)
        return codes.FAILED if _verb(words) in OTHERS_CODES else USAGE
    output.as_json = arguments.json
    context = Context(output, os.environ, arguments.socket)
    try:
        code: int = arguments.verb.run(context, arguments)
    except UsageError as error:
        output.error(error.body)
        return codes.FAILED if arguments.command in OTHERS_CODES else USAGE
    except ApiError as error:
        output.error(error.body)
        return FAILED
    except UnreachableError as error:
        output.error({"code": "unavailable", "message": str(error), "hint": _hint(error, context.socket)})
        return codes.FAILED if arguments.command in OTHERS_CODES else UNREACHABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        context.client.close()
    # The answer was not of what there is, or not of all of it.
    return FAILED if context.client.notice and not code and arguments.command not in OTHERS_CODES else code


def _verb(words: Sequence[str]) -> str:
    """The first word that is no flag, nor the value of one."""
    plain = (
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before != "--socket"
    )
    return next(plain, "")


def _flush_stderr() -> None:
    """Who cannot be told what is wrong is not told that either."""
    try:
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr)


def _forget(stream: TextIO) -> None:
    """What could not be written would be tried once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _asks_for_json(words: Sequence[str]) -> bool:
    """Before the words are understood, or when they cannot be: one of a container's own command may be taken for it."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _hint(error: UnreachableError, socket: str) -> str:
    if error.is_sent:
        return "see whether the daemon still runs: it may have done what was asked"
    if isinstance(error.__cause__, PermissionError):
        return "become root, or the user that the daemon runs as: nobody else is answered"
    if not os.path.isdir(os.path.dirname(socket) or "."):
        return "the socket's directory is missing: start `sealane daemon`, or name its socket with --socket"
    return "start it with `sealane daemon`, or name its socket with --socket or SEALANE_SOCKET"
