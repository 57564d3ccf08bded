"""`sealane exec`."""

import argparse

from sealane.cli.context import Context, UsageError
from sealane.cli.flags import OF_NAMES, as_typed
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.cli.unsupported import Reasons, add_unsupported
from sealane.client import ApiError, path_of
from sealane.containers import codes

UNSUPPORTED: Reasons = {
    "-d/--detach": ("it is killed if this command is", "put `&` behind this command"),
    "--detach-keys": ("what is left is killed", "leave it out"),
    "--env-file": ("variables are read from no file", "use --env"),
    "--privileged": ("its rights are the container's", "give `sealane run` the --cap-add that it needs"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        "Its output comes as it is written, and its exit code is this command's. It is killed if this command is.",
        [
            "sealane exec -it web sh",
            "sealane exec web cat /etc/hosts",
            "sealane exec -i db psql -U shop < schema.sql",
        ],
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="give it this command's stdin")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument(
        "-e",
        "--env",
        metavar="KEY[=VALUE]",
        action="append",
        default=[],
        help="a variable; without a value, this command's own",
    )
    parser.add_argument("-u", "--user", default="", help="a name or number, with :GROUP if need be")
    parser.add_argument("-w", "--workdir", metavar="DIR", default="", help="(default: the container's)")
    add_unsupported(parser, UNSUPPORTED)
    parser.add_argument("container", metavar="CONTAINER", help="a name, an id, or the beginning of an id")
    parser.add_argument("command_line", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments")


def execute(context: Context, arguments: argparse.Namespace) -> int:
    from sealane.cli.terminal import StreamClient, check_terminal, heard, signals_of

    request = {
        "command": command_words(arguments.command_line),
        "env": environment(context, arguments.env),
        "user": arguments.user,
        "working_dir": arguments.workdir,
        "terminal": arguments.tty,
    }
    if arguments.tty:
        check_terminal(interactive=arguments.interactive)
    path = path_of("containers", arguments.container, "exec")
    try:
        keys, terminal = arguments.interactive, arguments.tty
        with heard(signals_of(interactive=keys, terminal=terminal, passes_on=False)) as signals:
            conversation = StreamClient(
                context, path, request, interactive=keys, terminal=terminal, signals=signals
            )
            code = conversation.hold()
    except ApiError as error:
        body = as_typed(error.body, arguments, OF_NAMES)
        if arguments.workdir and "chdir to" in error.message:
            # The runtime tells it from a program that is not there by these words alone.
            body |= {"field": "--workdir", "hint": "name a directory that the container has"}
        context.output.error(body)
        return failed_code(error)
    return codes.FAILED if code is None else code


def command_words(words: list[str], *, may_be_none: bool = False) -> list[str]:
    """What follows the flags; a `--` in front of it is argparse's."""
    command = words[1:] if words[:1] == ["--"] else words
    if not command and not may_be_none:
        raise UsageError("no command", field="COMMAND", hint="say what to run, as `sleep 60`")
    return command


def environment(context: Context, words: list[str]) -> dict[str, str]:
    """`KEY=VALUE`, or `KEY` for this process's own value, which may be missing. The last of a name wins."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key:
            raise UsageError(f"{word!r} has no name", field="--env", hint="write NAME=VALUE")
        if equals:
            found[key] = value
        elif key in context.environ:
            found[key] = context.environ[key]
    return found


def failed_code(error: ApiError) -> int:
    """Docker's codes for what the daemon answers."""
    if error.field.rpartition(".")[2] == "command":
        return codes.NOT_FOUND if error.code == "not_found" else codes.NOT_EXECUTABLE
    return codes.FAILED


VERBS = {"exec": Verb(configure, execute)}
