"""`sealane explain`."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context, UsageError
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import ApiError, path_of

EXIT_PASSES, EXIT_DENIED = 0, 1


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Walk a packet through what should be: every link, route, rule and translation that it meets, whose intent each "
        "is, and one verdict. The kernel is not asked and no packet is sent. Ends with 0 if the packet passes, 1 if it "
        "does not, 2 if that cannot be said.",
        [
            "sealane explain web db:5432",
            "sealane explain 192.0.2.7 :8080            # from outside, to a published port",
            "sealane explain web 198.51.100.9:443 --reverse",
            "sealane explain --proto udp -6 web/front host:53 --detailed",
        ],
    )
    parser.add_argument(
        "source",
        metavar="FROM",
        help="a sandbox, container or endpoint (NAME or NAME/NETWORK), `host`, or an address",
    )
    parser.add_argument(
        "target", metavar="TO", help="the same with a port, `db:5432`; `:8080` is a port of the host's"
    )
    parser.add_argument(
        "--proto", choices=("tcp", "udp", "sctp", "icmp"), default="tcp", help="(default: tcp)"
    )
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=0, help="over IPv4")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="over IPv6")
    parser.add_argument("--reverse", action="store_true", help="the answer's way back")
    parser.add_argument(
        "--size", type=int, default=60, metavar="BYTES", help="of the IP packet (default: 60)"
    )
    parser.add_argument("--dont-fragment", action="store_true", help="with DF set")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--detailed", action="store_true", help="every rule and entry, with the intent behind it"
    )
    how.add_argument("--minimal", action="store_true", help="the verdict alone")


def run(context: Context, arguments: Namespace) -> int:
    request = {
        "source": arguments.source,
        "target": arguments.target,
        "proto": arguments.proto,
        "family": arguments.family,
        "reverse": arguments.reverse,
        "size": arguments.size,
        "dont_fragment": arguments.dont_fragment,
    }
    try:
        view = context.client.request("POST", path_of("explain"), request)
    except ApiError as error:
        if error.code != "invalid":
            raise
        # Neither yes nor no: not to be taken for a denial.
        raise UsageError(error.message, field=error.field, cure=error.cure) from error
    if context.output.as_json:
        context.output.document(view)
    else:
        how = "detailed" if arguments.detailed else "minimal" if arguments.minimal else "summary"
        for line in view[how].rstrip("\n").split("\n"):
            context.output.line(line)
    return EXIT_PASSES if view["passes"] else EXIT_DENIED


VERBS = {"explain": Verb(configure, run)}
