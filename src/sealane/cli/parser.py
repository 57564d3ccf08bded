"""The command line's grammar, as much of it as the line needs: the command that is called, with its arguments; where they
are to be listed the others' names, too."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from sealane import __version__
from sealane.cli.context import CommandLineError
from sealane.cli.registry import COMMANDS, GROUPS, Command

EXIT_CODES = """exit codes:
  0    done
  1    the daemon refused or failed, or its store is lost; `audit`: something differs
  2    invalid command line or file; no request was sent
  3    the daemon cannot be reached
  130  interrupted
  `run` and `exec` end with the command's own code; 125, 126 and 127 as in Docker:
  the daemon failed, the command cannot be executed, the command was not found
"""

ENVIRONMENT = """environment:
  SEALANE_SOCKET  the daemon's socket, unless --socket is given
  COMPOSE_FILE    the file of `up` and `down`, unless --file is given
  NO_COLOR        no colours
"""

DESCRIPTION = "Container networks on the real Linux kernel."

SPELLINGS = {
    True: ("1", "t", "T", "true", "True", "TRUE"),
    False: ("0", "f", "F", "false", "False", "FALSE"),
}
HELP = frozenset({"-h", "--help"})

_OF_ONE = re.compile(r"argument (?P<field>[^:]+): (?P<what>.*)", re.DOTALL)
_VALUE = "ignored explicit argument "
_OF_SEVERAL = re.compile(
    r"(the following arguments are required|unrecognized arguments): (?P<field>.*)", re.DOTALL
)


_ELSEWHERE = {
    "'connect'": "`sealane attach CONTAINER NETWORK`",
    "'disconnect'": "`sealane detach CONTAINER NETWORK`",
    "'images'": "`sealane image ls`",
    "'pull'": "`sealane image load oci-archive:FILE`, of an image that is here",
    "'build'": "build images with another tool, and `sealane image load` them",
    "'compose'": "`sealane up` and `sealane down` take compose files",
    "'container'": "the verbs on containers stand alone: `sealane ps`, `sealane rm`",
    "'create'": "`sealane run --detach`, or `sealane network create`",
    "'info'": "`sealane status`",
    "'system'": "`sealane gc`, `sealane network prune`, `sealane image prune`",
}
"""Docker's words that are others here → where to go."""


def _known_elsewhere(message: str) -> str:
    begins = message.partition(" (choose from")[0]
    return next((hint for words, hint in _ELSEWHERE.items() if f"{words} " in f"{begins} "), "")


class Parser(argparse.ArgumentParser):
    """Its errors are raised, with the usage of the command that they are about."""

    def error(self, message: str) -> NoReturn:
        one, several = _OF_ONE.fullmatch(message), _OF_SEVERAL.fullmatch(message)
        field = ""
        if one:
            message = one["what"]
            names = one["field"].split("/")
            # Of `-v/--volume` the long one, as in all other errors.
            field = next((name for name in names if name.startswith("--")), one["field"])
            if message.startswith(_VALUE):
                message = f"{message.removeprefix(_VALUE)} is neither true nor false"
        elif several:
            field = several["field"]
        hint = _known_elsewhere(message) or f"see `{self.prog} --help`"
        raise CommandLineError(message, self.format_usage(), field=field, hint=hint)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """argparse has the root refuse what a command does not know; the root's usage is of no use then."""
        found, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def build_parser(words: Sequence[str] | None = None) -> Parser:
    """`words` are those of the command line; None gives every command its arguments (for help and completion)."""
    root = Parser(
        prog="sealane",
        description=DESCRIPTION,
        epilog=f"{EXIT_CODES}\n{ENVIRONMENT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Abbreviations would make each new flag a change of what old scripts mean.
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"sealane {__version__}")
    root.set_defaults(json=False, socket="")
    add_common(root)
    below = root.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    groups: dict[str, argparse._SubParsersAction[Parser]] = {}
    listed = _listed(words)
    for name, summary in GROUPS.items():
        if all(command.path[0] != name for command in listed):
            continue
        group = add_parser(below, name, summary)
        if words is None or name in words:
            groups[name] = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in listed:
        parent = groups.get(command.path[0]) if len(command.path) > 1 else below
        if parent is not None:
            _add_command(parent, command, words)
    return root


def _listed(words: Sequence[str] | None) -> Sequence[Command]:
    """The command that the line begins with; all where help or an error is going to list them. A parser for each takes
    as long as Python's own start."""
    if words is None or not HELP.isdisjoint(words):
        return COMMANDS
    leading = tuple(word for word in words if not word.startswith("-"))
    return [command for command in COMMANDS if leading[: len(command.path)] == command.path] or COMMANDS


def _add_command(
    parent: "argparse._SubParsersAction[Parser]",
    command: Command,
    words: Sequence[str] | None,
) -> None:
    parser = add_parser(parent, command.path[-1], command.summary)
    if words is None or command.path[-1] in words:
        verb = command.load()
        add_common(parser)
        verb.configure(parser)
        _take_values(parser)
        parser.set_defaults(verb=verb)


def _take_values(parser: Parser) -> None:
    """`--tty`: also `--tty=true` and `--tty=false`, in every spelling that Docker takes. They are flags of their own: one with
    a value that may be missing would take the next word for it."""
    for action in parser._actions[:]:
        if isinstance(action, argparse._StoreTrueAction):
            for value, spellings in SPELLINGS.items():
                parser.add_argument(
                    *(f"{name}={spelling}" for name in action.option_strings for spelling in spellings),
                    dest=action.dest,
                    action="store_const",
                    const=value,
                    default=action.default,
                    help=argparse.SUPPRESS,
                )


def add_parser(below: "argparse._SubParsersAction[Parser]", name: str, summary: str) -> Parser:
    return below.add_parser(
        name,
        help=summary,
        description=f"{summary}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Flags that are taken before and after the command alike."""
    group = parser.add_argument_group("common")
    group.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, errors too"
    )
    group.add_argument(
        "--socket",
        metavar="PATH",
        default=argparse.SUPPRESS,
        help="the daemon's socket (default: $SEALANE_SOCKET, else /run/sealane/sealane.sock)",
    )


def describe(parser: argparse.ArgumentParser, text: str, examples: Sequence[str] = ()) -> None:
    """A command's long description, below its summary, and its examples."""
    parser.description = f"{parser.description}\n\n{text.strip()}"
    if examples:
        parser.epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)
