"""`sealane explain`."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.options import add_packet, packet_flags, packet_of, whole
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

EXIT_CODES = {"passes": 0, "fails": 1, "unknown": 2}


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Walk a packet through what should be: every link, route, rule and translation that it meets, whose intent each "
        "is, and one verdict. No packet is sent. Ends with 0 if the packet and its answer pass, 1 if one of them does not, 2 if that "
        "cannot be said: foreign rules translate it, or --observed found something on its path that contradicts the verdict or was not read.",
        [
            "sealane explain web db:5432",
            "sealane explain --from 192.0.2.7 :8080     # from outside, to a published port",
            "sealane explain web 198.51.100.9:443 --reverse",
            "sealane explain web db:5432 --observed     # and is the kernel as it should be on the way?",
            "sealane explain --proto udp -6 web/front host:53 --detailed",
            "sealane explain web db:5432 --graph svg >why.svg",
        ],
    )
    add_packet(parser)
    parser.add_argument("--reverse", action="store_true", help="the answer's way back")
    parser.add_argument(
        "--size", type=whole, default=60, metavar="BYTES", help="of the IP packet (default: 60)"
    )
    parser.add_argument("--dont-fragment", action="store_true", help="with DF set")
    parser.add_argument(
        "--observed",
        action="store_true",
        help="compare with the kernel: everybody's rules, routes, links and settings on the path and on that of the answer",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--detailed", action="store_true", help="every rule and entry, with the intent behind it"
    )
    how.add_argument("--minimal", action="store_true", help="the verdict alone")
    how.add_argument("--graph", choices=("svg",), help="a picture of it, to be written to a file")


def run(context: Context, arguments: Namespace) -> int:
    request = {
        **packet_of(arguments),
        "reverse": arguments.reverse,
        "size": arguments.size,
        "dont_fragment": arguments.dont_fragment,
        "observed": arguments.observed,
        "graph": arguments.graph is not None,
    }
    view = context.question(path_of("explain"), request, packet_flags(arguments))
    if context.output.as_json:
        context.output.document(view)
    elif arguments.graph:
        context.output.raw(view["graph"])
    else:
        how = "detailed" if arguments.detailed else "minimal" if arguments.minimal else "summary"
        for line in view[how].rstrip("\n").split("\n"):
            context.output.line(line)
        for finding in view["drift"] or ():
            context.output.line(("! ", "red"), f"in the kernel now: {finding}")
        for text in view["unread"] or ():
            context.output.line(("? ", "yellow"), f"not read: {text}")
        if view["unread"]:
            context.output.line("→ use `sealane trace`: it follows the real packet")
        if view["drift"] == view["unread"] == []:
            context.output.line("No drift on this path, and nothing on it that sealane did not read.")
    return EXIT_CODES[view["outcome"]]


VERBS = {"explain": Verb(configure, run)}
