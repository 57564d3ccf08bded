"""`sealane network …`, with Docker's flags."""

from argparse import ArgumentParser, Namespace
from typing import Any

from sealane.cli.context import Context, UsageError
from sealane.cli.filters import LABEL, NAME, add_filter, chosen, of_field
from sealane.cli.options import add_labels, add_quiet, pairs
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.cli.unsupported import add_ignored
from sealane.client import path_of
from sealane.model.traits import DRIVERS, TRAITS

FILTERS = {"name": NAME, "driver": of_field("driver", *DRIVERS), "label": LABEL}


def configure_create(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Without --subnet one is taken from the pools, clear of the host's own routes and resolvers.\n"
        "Asking again for the same network is no error.",
        [
            "sealane network create front",
            "sealane network create --ipv6 --subnet 10.1.0.0/24 --gateway 10.1.0.254 front",
            "sealane network create --internal -o com.docker.network.bridge.enable_icc=false vault",
            "sealane network create -d routed --subnet 10.2.0.0/16 many",
        ],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-d",
        "--driver",
        default="bridge",
        choices=DRIVERS,
        help="; ".join(f"{name}: {traits.summary}" for name, traits in TRAITS.items()) + " (default: bridge)",
    )
    for flag, help_text in (
        ("--subnet", "a prefix, of either family"),
        ("--gateway", "the gateway of the subnet it lies in (default: the first address)"),
        ("--ip-range", "addresses are allocated from this part of the subnet it lies in"),
    ):
        parser.add_argument(
            flag,
            metavar="PREFIX" if flag != "--gateway" else "ADDRESS",
            action="append",
            default=[],
            help=help_text,
        )
    parser.add_argument(
        "--aux-address", metavar="NAME=ADDRESS", action="append", default=[], help="an address to reserve"
    )
    parser.add_argument("--internal", action="store_true", help="no way in or out but between endpoints")
    parser.add_argument("--ipv6", action="store_true", help="with it (default: without)")
    parser.add_argument(
        "--ipv4", action="store_true", help="with it (the default); --ipv4=false: without", default=True
    )
    parser.add_argument(
        "-o",
        "--opt",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a driver option, in Docker's spelling or ours: bridge, mtu, icc, masquerade, link-prefix, "
        "source-address, source-address6, publish-address, inhibit-gateway, gateway-mode, fast-path, dns, dns-servers",
    )
    add_labels(parser)


def create(context: Context, arguments: Namespace) -> int:
    request = {
        "name": arguments.name,
        "driver": arguments.driver,
        "subnets": _subnets(arguments),
        "ipv4": arguments.ipv4,
        "ipv6": arguments.ipv6,
        "internal": arguments.internal,
        "options": pairs(arguments.opt, "--opt"),
        "labels": pairs(arguments.label, "--label"),
    }
    from sealane.cli.flags import OF_NETWORK, in_flags

    with in_flags(OF_NETWORK):
        view = context.client.request("POST", "/v1/networks", request)
    if context.output.as_json:
        context.output.document(view)
    else:
        context.output.line(view["name"], *(f"  {subnet['prefix']}" for subnet in view["subnets"]))
    return 0


def _subnets(arguments: Namespace) -> list[dict[str, Any]]:
    """Docker gives each part as a flag of its own and finds the subnet that it lies in."""
    if not arguments.subnet:
        for flag in ("gateway", "ip_range", "aux_address"):
            if getattr(arguments, flag):
                name = f"--{flag.replace('_', '-')}"
                raise UsageError(
                    f"{name} without --subnet", field=name, hint="give the --subnet that it lies in"
                )
        return []
    import ipaddress

    subnets: list[tuple[Any, dict[str, Any]]] = []
    for text in arguments.subnet:
        try:
            subnets.append((ipaddress.ip_network(text), {"prefix": text}))
        except ValueError as error:
            raise UsageError(str(error), field="--subnet", hint="write 10.1.0.0/24 or fd00:1::/64") from error
    for key, flag, text in _parts(arguments):
        within = _home(subnets, text.rpartition("=")[2], flag)
        if key == "reserved" and "=" not in text:
            raise UsageError(f"{text!r} has no name", field=flag, hint="write NAME=ADDRESS")
        if key == "reserved":
            within.setdefault(key, {}).update(pairs([text], flag))
        elif key in within:
            raise UsageError(f"{within[key]} and {text} for one subnet", field=flag, hint="keep one of them")
        else:
            within[key] = text
    return [subnet for _, subnet in subnets]


def _parts(arguments: Namespace) -> list[tuple[str, str, str]]:
    """Key of the request, flag, text."""
    return [
        *(("gateway", "--gateway", text) for text in arguments.gateway),
        *(("ip_range", "--ip-range", text) for text in arguments.ip_range),
        *(("reserved", "--aux-address", text) for text in arguments.aux_address),
    ]


def _home(subnets: list[tuple[Any, dict[str, Any]]], text: str, flag: str) -> dict[str, Any]:
    import ipaddress

    try:
        desired = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(str(error), field=flag, hint="write an address or prefix of the subnet") from error
    for prefix, subnet in subnets:
        if desired.version == prefix.version and desired.subnet_of(prefix):
            return subnet
    listed = ", ".join(str(prefix) for prefix, _ in subnets)
    raise UsageError(f"{text} is in no subnet", field=flag, hint=f"subnets are {listed}")


def configure_ls(parser: ArgumentParser) -> None:
    describe(parser, "", ["sealane network ls --filter driver=routed --filter label=tier=web"])
    add_filter(parser, FILTERS)
    add_quiet(parser)


def ls(context: Context, arguments: Namespace) -> int:
    views = chosen(context.client.request("GET", "/v1/networks"), arguments.filter, FILTERS)
    output = context.output
    if output.as_json:
        output.document(views)
    elif arguments.quiet:
        for view in views:
            output.line(view["name"])
    else:
        output.table(
            ("NAME", "DRIVER", "SUBNETS", "LINK", "MTU", "ENDPOINTS", "FLAGS"),
            [
                (
                    view["name"],
                    view["driver"],
                    ", ".join(subnet["prefix"] for subnet in view["subnets"]),
                    view["link"],
                    str(view["mtu"]),
                    str(len(view["endpoints"])),
                    (_flags(view), "dim"),
                )
                for view in views
            ],
        )
    return 0


def _flags(view: dict[str, Any]) -> str:
    flags = {"internal": view["internal"], "no-icc": not view["icc"], "no-masquerade": not view["masquerade"]}
    return ", ".join(name for name, is_set in flags.items() if is_set)


def configure_inspect(parser: ArgumentParser) -> None:
    parser.add_argument(
        "network", metavar="NETWORK", nargs="+", help="a name, an id, or the beginning of an id"
    )


def inspect(context: Context, arguments: Namespace) -> int:
    return context.inspect(
        arguments.network, lambda ref: context.client.request("GET", path_of("networks", ref))
    )


def configure_rm(parser: ArgumentParser) -> None:
    describe(parser, "A network that endpoints are on is kept, unless --force detaches them.")
    parser.add_argument(
        "network", metavar="NETWORK", nargs="+", help="a name, an id, or the beginning of an id"
    )
    parser.add_argument("-f", "--force", action="store_true", help="detach what is on it first")


def rm(context: Context, arguments: Namespace) -> int:
    force = 1 if arguments.force else None
    return context.each(
        arguments.network, lambda ref: context.client.request("DELETE", path_of("networks", ref, force=force))
    )


def configure_prune(parser: ArgumentParser) -> None:
    describe(parser, "Prints the names of those that are gone.")
    add_ignored(parser, "-f/--force", "ignored: never prompts")


def prune(context: Context, arguments: Namespace) -> int:
    del arguments
    view = context.client.request("POST", "/v1/networks/prune")
    context.output.names(view, "removed")
    return 0


VERBS = {
    "create": Verb(configure_create, create),
    "ls": Verb(configure_ls, ls),
    "inspect": Verb(configure_inspect, inspect),
    "rm": Verb(configure_rm, rm),
    "prune": Verb(configure_prune, prune),
}
