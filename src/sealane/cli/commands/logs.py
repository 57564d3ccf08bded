"""`sealane logs`."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from sealane.cli.context import Context
from sealane.cli.flags import OF_NAMES, in_flags
from sealane.cli.follow import since_time, stamp
from sealane.cli.options import whole
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "What the container wrote to its stdout goes to stdout, and to stderr what it wrote there.",
        ["sealane logs web", "sealane logs -f --tail 20 -t web", "sealane logs --since 10m web"],
    )
    parser.add_argument("container", metavar="CONTAINER", help="a name, an id, or the beginning of an id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container has ended")
    parser.add_argument("-n", "--tail", metavar="N", type=_tail, help="only the last N lines (default: all)")
    parser.add_argument("-t", "--timestamps", action="store_true", help="with the time of each line")
    parser.add_argument(
        "--since", metavar="TIME", type=since_time, help="10m, a Unix time, or an ISO 8601 time"
    )


def _tail(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return whole(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{text!r} is neither a number nor all") from error


def logs(context: Context, arguments: Namespace) -> int:
    path = path_of(
        "containers",
        arguments.container,
        "logs",
        follow=1 if arguments.follow else None,
        tail=arguments.tail,
        since=arguments.since,
    )
    with in_flags(OF_NAMES):
        for line in context.client.stream("GET", path):
            _show(context, line, with_time=arguments.timestamps)
    return 0


def _show(context: Context, line: dict[str, Any], *, with_time: bool) -> None:
    if context.output.as_json:
        context.output.document_line(line)
        return
    stream = sys.stderr if line["stream"] == "stderr" else sys.stdout
    when = f"{stamp(line['time'])} " if with_time else ""
    stream.write(f"{when}{line['text']}\n")
    stream.flush()


VERBS = {"logs": Verb(configure, logs)}
