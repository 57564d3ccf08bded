"""Flags and values that several commands share."""

import argparse
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sealane.cli.context import UsageError
from sealane.cli.flags import OF_PACKET, Flags

T = TypeVar("T")

SECONDS_MAX = 1e9
"""A socket's timeout overflows above some 9e9."""
_RATE = re.compile(
    r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)(?:(?P<prefix>[kmgt])?(?P<binary>(?<=[kmgt])i)?bit)?",
    re.ASCII | re.IGNORECASE,
)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
ONE_FILE = "one file is the whole project: put the others' services into it"


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-l",
        "--label",
        metavar="KEY[=VALUE]",
        action="append",
        default=[],
        help="a label; may be given several times",
    )


def add_publish(parser: argparse.ArgumentParser, help_text: str = "publish a port") -> None:
    parser.add_argument(
        "-p",
        "--publish",
        metavar="SPEC",
        action="append",
        default=[],
        help=f"{help_text}: [HOST_IP:][HOST_PORT[-END]:]PORT[-END][/tcp|udp|sctp]; may be given several times",
    )


def add_quiet(parser: argparse.ArgumentParser, what: str = "names") -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help=f"print {what} only")


def add_sysctls(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument(
        "--sysctl",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"{help_text}; may be given several times",
    )


class OneFile(argparse.Action):
    """Of two files the first would be left out without a word; as Docker's Compose has it, they would be merged."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse's signature)
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        before = getattr(namespace, self.dest)
        if before is not None:
            raise UsageError(f"{before} and {values} are two files", field="--file", hint=ONE_FILE)
        setattr(namespace, self.dest, values)


def compose_file(file: str | None, environ: Mapping[str, str]) -> str:
    """What --file says, or COMPOSE_FILE, or the current directory. Raises UsageError."""
    if file is not None:
        return file
    named = environ.get("COMPOSE_FILE", "")
    if (environ.get("COMPOSE_PATH_SEPARATOR") or ":") in named:
        raise UsageError(f"{named} are several files", field="COMPOSE_FILE", hint=ONE_FILE)
    return named or "."


def pairs(words: list[str], flag: str) -> dict[str, str]:
    """`KEY=VALUE` words; a key without a value has an empty one, and a key given twice is refused."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key:
            raise UsageError(f"{word!r} has no key", field=flag, hint="write KEY=VALUE")
        if key in found:
            raise UsageError(f"{key!r} is given twice", field=flag, hint="keep one of them")
        found[key] = value
    return found


def stated(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: None, False, empty. A number says something, 0 too."""
    return {
        key: value
        for key, value in fields.items()
        if value or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def parsed(parse: Callable[[str], T], text: str, flag: str) -> T:
    """With a parser of `sealane.compose`, whose errors have their hint with them."""
    from sealane.compose.problems import BadValue

    try:
        return parse(text)
    except BadValue as error:
        raise UsageError(error.message, field=flag, hint=error.hint) from error


def whole(text: str) -> int:
    """argparse type: a whole number from 0, in ASCII digits."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def integer(text: str) -> int:
    """argparse type: a whole number, which may be negative, in ASCII digits."""
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def bit_rate(text: str) -> int:
    """argparse type: bits per second as tc(8) takes them. Its bytes, `mbps`, are refused: most people read bits."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rate: write 10mbit, 1.5gbit, 500kbit or bits per second"
        )
    from decimal import Decimal

    thousand = 1024 if match["binary"] else 1000
    return int(Decimal(match["number"]) * thousand ** _POWERS[(match["prefix"] or "").lower()])


def seconds(text: str) -> float:
    """argparse type: a number of seconds; not `nan` or `inf`, which JSON has no word for, nor what no timeout can be."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def signal_number(text: str) -> int:
    """argparse type: `9`, `KILL` or `SIGKILL`."""
    from sealane.model import signals

    number = signals.signal_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"there is no signal {text!r}")
    return number


def add_packet(parser: argparse.ArgumentParser) -> None:
    """Which packet: FROM, TO, protocol and family."""
    parser.add_argument(
        "ends",
        metavar="FROM",
        nargs=1,
        help="a sandbox, container or endpoint (NAME or NAME/NETWORK; a pod's NAME is NAMESPACE/POD), `host`, or an address",
    )
    parser.add_argument(
        "more",
        metavar="TO",
        nargs="?",
        help="the same with a port, `db:5432`; `:8080` is a port of the host's",
    )
    parser.add_argument("--from", dest="source", metavar="FROM", help="the same as FROM, before a TO alone")
    parser.add_argument(
        "--proto", choices=("tcp", "udp", "sctp", "icmp"), default="tcp", help="(default: tcp)"
    )
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=0, help="over IPv4")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="over IPv6")


def packet_of(arguments: argparse.Namespace) -> dict[str, object]:
    """That of a request. Raises UsageError."""
    source, target = ends_of(arguments)
    return {"source": source, "target": target, "proto": arguments.proto, "family": arguments.family}


def packet_flags(arguments: argparse.Namespace) -> Flags:
    """What the fields of that request were typed as."""
    _, hint = OF_PACKET["source"]
    return OF_PACKET if arguments.source is None else {**OF_PACKET, "source": (("--from",), hint)}


def ends_of(arguments: argparse.Namespace) -> tuple[str, str]:
    """Source and target. Raises UsageError."""
    (first,) = arguments.ends
    if arguments.source is not None and arguments.more is not None:
        raise UsageError("FROM is given twice", field="--from", hint="leave one out")
    if arguments.source is None and arguments.more is None:
        raise UsageError("TO is missing", field="TO", hint="name who is asked for, as in `db:5432`")
    return (arguments.source, first) if arguments.more is None else (first, arguments.more)
