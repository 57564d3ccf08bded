"""`sealane check`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from sealane.cli.context import Context
from sealane.cli.flags import OF_CHECK
from sealane.cli.options import seconds, whole
from sealane.cli.output import Cell, counted
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

EXIT_AGREES, EXIT_DIFFERS, EXIT_UNKNOWN = 0, 1, 2

WIDE_CHARS = 80
"""Of column names together; above, columns are numbered."""

_STYLES = {"✓": "green", "!": "red", "?": "yellow"}


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Send real packets from inside the sandboxes, and hold what becomes of them against what `explain` says. Prints "
        "who reaches whom (from each row to each column): ✓ reached, · not reached, ! other than predicted, ? cannot be "
        "said; and a line for each that differs. Ends with 0 if all is as predicted, 1 if not, 2 if that cannot be said.",
        [
            "sealane check                     # everybody to everybody, and the host to what is published",
            "sealane check web db --port 5432",
            "sealane check web --proto icmp    # from web to everybody",
            "sealane check host                # what is published, from the host",
        ],
    )
    parser.add_argument(
        "source", metavar="A", nargs="?", default="", help="a sandbox, container or endpoint, or `host`"
    )
    parser.add_argument("target", metavar="B", nargs="?", default="", help="a sandbox, container or endpoint")
    parser.add_argument("--proto", choices=("tcp", "udp", "icmp"), default="tcp", help="(default: tcp)")
    parser.add_argument(
        "--port",
        type=whole,
        default=0,
        metavar="N",
        help="inside the target (default: one that it publishes, else 9; a refusal counts as reached)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=0.5,
        metavar="S",
        help="seconds to wait for an answer (default: 0.5)",
    )


def run(context: Context, arguments: Namespace) -> int:
    request = {
        "source": arguments.source,
        "target": arguments.target,
        "proto": arguments.proto,
        "port": arguments.port,
        "timeout": arguments.timeout,
    }
    # Thousands of silent probes take minutes if one asks for long timeouts; the daemon bounds them.
    view = context.question(path_of("check"), request, OF_CHECK, timeout_s=None)
    if context.output.as_json:
        context.output.document(view)
    else:
        _show(context, view)
    if view["disagree"]:
        return EXIT_DIFFERS
    return EXIT_UNKNOWN if view["unknown"] else EXIT_AGREES


def _show(context: Context, view: dict[str, Any]) -> None:
    output = context.output
    columns = view["columns"]
    if columns:
        is_wide = sum(len(name) + 3 for name in columns) > WIDE_CHARS
        headers = [str(number) for number in range(1, len(columns) + 1)] if is_wide else columns
        if is_wide:
            for number, name in zip(headers, columns, strict=True):
                output.line(f"{number} = {name}")
        output.table(["FROM", *headers], _rows(view["rows"], view["matrix"]))
    for finding in view["findings"]:
        output.line(*_told(finding))
    untold = view["disagree"] + view["unknown"] - len(view["findings"])
    if untold:
        output.line(f"… and {untold} more")
    told = f"{counted(view['pairs'], 'pair')}: {counted(view['agree'], 'probe')} as predicted, {view['disagree']} not"
    output.line(told + (f", {view['unknown']} cannot be said" if view["unknown"] else ""))


def _rows(names: Sequence[str], matrix: Sequence[str]) -> Iterator[list[Cell]]:
    for name, line in zip(names, matrix, strict=True):
        yield [name, *((mark, _STYLES.get(mark, "")) for mark in line)]


def _told(finding: dict[str, Any]) -> list[Cell]:
    mark = "?" if finding["agrees"] is None else "!"
    what = {True: "reached", False: "not reached", None: "unknown"}[finding["predicted"]]
    probe = f" {finding['source']} → {finding['target']} {finding['probe']}"
    why = f": predicted {what} ({finding['reason']}); observed: {finding['observation']}"
    return [(mark, _STYLES[mark]), probe + why]


VERBS = {"check": Verb(configure, run)}
