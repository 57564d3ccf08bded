"""`sealane doctor`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from sealane.cli.context import Context
from sealane.cli.flags import OF_DOCTOR
from sealane.cli.output import counted
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

EXIT_FINE, EXIT_FOUND, EXIT_UNSEEN = 0, 1, 2

_MARKS = {"error": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "dim")}


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Look for the known causes of trouble, on the host and inside sandboxes, and say how to hint each that is at "
        "work: ✗ something does not work now, ! it may not or soon will not, · worth knowing. Changes nothing; the host's "
        "nameservers are sent a question each. Ends with 0 if nothing but notes was found, 1 if something was, 2 if not "
        "all could be looked at.",
        [
            "sealane doctor                # everything",
            "sealane doctor web db         # their sandboxes and networks, and the host",
            "sealane doctor host --all     # the host alone, and what was found fine",
        ],
    )
    parser.add_argument(
        "subjects",
        metavar="SUBJECT",
        nargs="*",
        help="a sandbox, container, endpoint or network, or `host` (default: all)",
    )
    parser.add_argument("--all", action="store_true", help="list also the checks that found nothing")


def run(context: Context, arguments: Namespace) -> int:
    # Thousands of sandboxes take seconds; the daemon bounds them.
    request = {"subjects": arguments.subjects}
    view = context.question(path_of("doctor"), request, OF_DOCTOR, timeout_s=None)
    if context.output.as_json:
        context.output.document(view)
    else:
        _show(context, view, everything=arguments.all)
    if view["found"]:
        return EXIT_FOUND
    return EXIT_UNSEEN if view["unseen"] else EXIT_FINE


def _show(context: Context, view: dict[str, Any], *, everything: bool) -> None:
    output = context.output
    for finding in view["findings"]:
        mark, style = _MARKS[finding["level"]]
        output.line((mark, style), f" {finding['cause']}: {finding['subject']}: {finding['message']}")
        output.line(("  → ", "cyan"), finding["hint"])
    untold = sum(check["findings"] for check in view["checks"]) - len(view["findings"])
    if untold:
        output.line(f"… and {untold} more")
    for place, why in view["unseen"].items():
        output.line(("?", "yellow"), f" {place}: not checked: {why}")
    if everything:
        for check in view["checks"]:
            if check["unseen"]:
                output.line(("?", "yellow"), f" {check['cause']}: not all seen: {', '.join(check['unseen'])}")
            elif not check["findings"]:
                output.line(("✓", "green"), f" {check['cause']}: {check['looks_at']}")
    output.line(_summary(view))


def _summary(view: dict[str, Any]) -> str:
    fine = sum(not check["findings"] and not check["unseen"] for check in view["checks"])
    notes = sum(check["findings"] for check in view["checks"]) - view["found"]
    value = (
        f"{len(view['checks'])} checks run on the host and in {counted(view['sandboxes'], 'sandbox', 'es')}"
    )
    value += f": {fine} fine, {counted(view['found'], 'finding')}"
    return value + (f", {counted(notes, 'note')}" if notes else "")


VERBS = {"doctor": Verb(configure, run)}
