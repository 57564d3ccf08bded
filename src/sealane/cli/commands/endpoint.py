"""`sealane endpoint …`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from sealane.cli.context import Context
from sealane.cli.flags import Flags, in_flags
from sealane.cli.namespaces import with_namespaces
from sealane.cli.options import add_quiet
from sealane.cli.output import Cell
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

OF_LIST: Flags = {"network": (("--network",), ""), "sandbox": (("--sandbox",), "")}
STATE_STYLES = {"up": "green", "dormant": "dim", "pending": "yellow", "error": "red"}


def configure_ls(parser: ArgumentParser) -> None:
    parser.add_argument("--network", metavar="NETWORK", help="only those on this network")
    parser.add_argument("--sandbox", metavar="SANDBOX", help="only those of this sandbox")
    add_quiet(parser, "ids")


def ls(context: Context, arguments: Namespace) -> int:
    path = path_of("endpoints", network=arguments.network, sandbox=arguments.sandbox)
    with in_flags(OF_LIST):
        views = context.client.request("GET", path)
    if context.output.as_json:
        context.output.document(views)
    elif arguments.quiet:
        for view in views:
            context.output.line(view["id"])
    else:
        headers = ("ID", "NAME", "NETWORK", "SANDBOX", "LINK", "ADDRESSES", "MAC", "PORTS", "STATE")
        rows = [_row(view) for view in views]
        context.output.table(*with_namespaces(headers, rows, headers.index("NAME"), headers.index("SANDBOX")))
    return 0


def _row(view: dict[str, Any]) -> tuple[Cell, ...]:
    state = f"{view['state']}: {view['error']}" if view.get("error") else view["state"]
    return (
        view["id"][:12],
        view["name"],
        view["network"],
        view["sandbox"],
        view["ifname"],
        ", ".join(view["addresses"]),
        view["mac"],
        ", ".join(view["ports"]),
        (state, STATE_STYLES.get(view["state"], "")),
    )


def configure_inspect(parser: ArgumentParser) -> None:
    describe(parser, "", ["sealane endpoint inspect web/front"])
    parser.add_argument(
        "endpoint",
        metavar="ENDPOINT",
        nargs="+",
        help="SANDBOX/NETWORK, a name (of a pod NAMESPACE/POD, or POD while no other has it), an id, or its beginning",
    )


def inspect(context: Context, arguments: Namespace) -> int:
    return context.inspect(
        arguments.endpoint, lambda ref: context.client.request("GET", path_of("endpoints", ref))
    )


VERBS = {"ls": Verb(configure_ls, ls), "inspect": Verb(configure_inspect, inspect)}
