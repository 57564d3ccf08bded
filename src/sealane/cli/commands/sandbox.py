"""`sealane sandbox …`."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.namespaces import with_namespaces
from sealane.cli.options import add_labels, add_quiet, pairs
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of


def configure_create(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Without --netns a network namespace is made and pinned; its path is printed.",
        [
            "sealane sandbox create lab && ip netns attach lab $(sealane sandbox inspect lab | jq -r .[0].netns)",
            "sealane sandbox create --netns /run/netns/vm7 vm7",
        ],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--netns",
        metavar="PATH|PID",
        default="",
        help="an existing namespace, by its path or by a process in it",
    )
    add_labels(parser)


def create(context: Context, arguments: Namespace) -> int:
    request = {
        "name": arguments.name,
        "netns": arguments.netns,
        "labels": pairs(arguments.label, "--label"),
    }
    from sealane.cli.flags import OF_SANDBOX, in_flags

    with in_flags(OF_SANDBOX):
        view = context.client.request("POST", "/v1/sandboxes", request)
    if context.output.as_json:
        context.output.document(view)
    else:
        context.output.line(view["netns"])
    return 0


def configure_ls(parser: ArgumentParser) -> None:
    add_quiet(parser)


def ls(context: Context, arguments: Namespace) -> int:
    views = context.client.request("GET", "/v1/sandboxes")
    if context.output.as_json:
        context.output.document(views)
    elif arguments.quiet:
        for view in views:
            context.output.line(view["name"])
    else:
        headers = ("NAME", "OWNER", "ENDPOINTS", "NETNS")
        rows = [(view["name"], view["owner"], str(len(view["endpoints"])), view["netns"]) for view in views]
        context.output.table(*with_namespaces(headers, rows, 0))
    return 0


def configure_inspect(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sandbox", metavar="SANDBOX", nargs="+", help="a name, an id, or the beginning of an id"
    )


def inspect(context: Context, arguments: Namespace) -> int:
    return context.inspect(
        arguments.sandbox, lambda ref: context.client.request("GET", path_of("sandboxes", ref))
    )


def configure_rm(parser: ArgumentParser) -> None:
    describe(parser, "A namespace that was there before stays; one that was made for the sandbox goes.")
    parser.add_argument(
        "sandbox", metavar="SANDBOX", nargs="+", help="a name, an id, or the beginning of an id"
    )
    parser.add_argument("-f", "--force", action="store_true", help="detach it from its networks first")


def rm(context: Context, arguments: Namespace) -> int:
    force = 1 if arguments.force else None
    return context.each(
        arguments.sandbox,
        lambda ref: context.client.request("DELETE", path_of("sandboxes", ref, force=force)),
    )


VERBS = {
    "create": Verb(configure_create, create),
    "ls": Verb(configure_ls, ls),
    "inspect": Verb(configure_inspect, inspect),
    "rm": Verb(configure_rm, rm),
}
