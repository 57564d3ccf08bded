"""`sealane trace`."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.options import add_packet, packet_flags, packet_of, seconds, whole
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

EXIT_PASSES, EXIT_DIED, EXIT_UNSEEN = 0, 1, 2

LIVE_TIMEOUT_S = 600.0
PROBE_TIMEOUT_S = 1.0


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Follow real packets through the kernel: every device, rule and translation that they meet, where they end and "
        "why, beside what `explain` says should happen. Sends one packet and follows it; or with --live waits for "
        "those that others send, and with --dropped tells only those that die. It looks with eBPF programs on "
        "tracepoints and with nftables' own trace, both of which the kernel takes away with the daemon's descriptors. "
        "Ends with 0 if all that were seen arrived, 1 if one died, 2 if none was seen.",
        [
            "sealane trace web db:5432",
            "sealane trace web db:5432 --reverse              # and the answer's way back",
            "sealane trace web db:5432 --live --count 10",
            "sealane trace web db:5432 --dropped --timeout 600 # the first that dies within ten minutes",
            "sealane trace --from 192.0.2.7 :8080 --live       # from outside, to a published port",
        ],
    )
    add_packet(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--live", dest="mode", action="store_const", const="live", default="inject", help="send nothing: wait"
    )
    mode.add_argument(
        "--dropped",
        dest="mode",
        action="store_const",
        const="dropped",
        help="wait, and tell only what dies",
    )
    parser.add_argument("--reverse", action="store_true", help="follow the answers, too")
    parser.add_argument(
        "--count", type=whole, metavar="N", help="end after N packets (default: 1, with --reverse 2)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help=f"end after S seconds (default: {PROBE_TIMEOUT_S:g}, waiting {LIVE_TIMEOUT_S:g})",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--detailed", action="store_true", help="every step as predicted and as observed")
    how.add_argument("--minimal", action="store_true", help="one line a packet")


def run(context: Context, arguments: Namespace) -> int:
    request = {
        **packet_of(arguments),
        "mode": arguments.mode,
        "reverse": arguments.reverse,
        "count": _given(arguments.count, 2 if arguments.reverse else 1),
        "timeout": _given(
            arguments.timeout, PROBE_TIMEOUT_S if arguments.mode == "inject" else LIVE_TIMEOUT_S
        ),
    }
    how = "detailed" if arguments.detailed else "minimal" if arguments.minimal else "summary"
    seen: list[bool] = []
    for view in context.questions(path_of("trace"), request, packet_flags(arguments)):
        if context.output.as_json:
            context.output.document_line(view)
        elif view["kind"] == "end":
            for note in view["notes"]:
                context.output.line(note)
        else:
            for line in view[how].rstrip("\n").split("\n"):
                context.output.line(line)
        if view["kind"] == "path":
            seen.append(view["passes"])
    if not seen:
        return EXIT_UNSEEN
    return EXIT_PASSES if all(seen) else EXIT_DIED


def _given(value: float | None, default: float) -> float:
    """0 is given, and the daemon says what is wrong with it."""
    return default if value is None else value


VERBS = {"trace": Verb(configure, run)}
