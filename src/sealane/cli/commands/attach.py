"""`sealane attach` and `sealane detach`."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context, UsageError
from sealane.cli.options import add_labels, add_publish, add_sysctls, bit_rate, integer, pairs
from sealane.cli.parser import describe
from sealane.cli.registry import Verb

ABOUT_ATTACH = (
    "The endpoint is up, reachable and in DNS when the command returns. Asking again for the same is no error.\n"
    "Unless a user namespace owns the sandbox, a process with NET_ADMIN in it reaches the host's links."
)


def configure_attach(parser: ArgumentParser) -> None:
    describe(
        parser,
        ABOUT_ATTACH,
        [
            "sealane attach web front",
            "sealane attach /run/netns/lab front --ip 10.1.0.7 --alias db -p 127.0.0.1:5432:5432",
            "sealane attach lab front --ingress 10mbit --egress 2mbit",
            "sealane attach 4711 back --ifname back0 --gw-priority 10",
        ],
    )
    parser.add_argument(
        "sandbox", metavar="SANDBOX", help="a sandbox's name or id, a namespace's path, or a process's id"
    )
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("--name", default="", help="the endpoint's name in DNS (default: the sandbox's)")
    parser.add_argument(
        "--ip",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="a static address; once a family (default: one is allocated)",
    )
    parser.add_argument("--mac", default="", help="a static MAC address (default: made from the address)")
    parser.add_argument(
        "--ifname", default="", help="the link's name inside (default: the next of eth0, eth1, …)"
    )
    parser.add_argument(
        "--alias",
        metavar="NAME",
        action="append",
        default=[],
        help="another name; may be given several times",
    )
    add_publish(parser)
    parser.add_argument(
        "--gw-priority",
        metavar="N",
        type=integer,
        default=0,
        help="the network with the highest number has the default route (default: 0)",
    )
    for way, direction in (("ingress", "towards"), ("egress", "from")):
        parser.add_argument(
            f"--{way}",
            metavar="RATE",
            type=bit_rate,
            help=f"at most this {direction} the sandbox: 10mbit, 1.5gbit, 500kbit, or bits per second (default: no limit)",
        )
    add_sysctls(parser, "set in the sandbox; IFNAME in the key stands for the link's name")
    add_labels(parser)


def attach(context: Context, arguments: Namespace) -> int:
    request = {
        "sandbox": arguments.sandbox,
        "network": arguments.network,
        "name": arguments.name,
        "addresses": arguments.ip,
        "mac": arguments.mac,
        "ifname": arguments.ifname,
        "aliases": arguments.alias,
        "gateway_priority": arguments.gw_priority,
        "sysctls": pairs(arguments.sysctl, "--sysctl"),
        "labels": pairs(arguments.label, "--label"),
    }
    for way in ("ingress", "egress"):
        if (rate := getattr(arguments, way)) is not None:
            request[way] = {"rate": rate}
    if arguments.publish:
        from sealane.cli.publish import publish_documents

        request["publish"] = publish_documents(arguments.publish)
    from sealane.cli.flags import OF_ATTACH, in_flags

    with in_flags(OF_ATTACH):
        view = context.client.request("POST", "/v1/attach", request)
    if context.output.as_json:
        context.output.document(view)
    else:
        context.output.line("  ".join([view["ifname"], *view["addresses"], *view["ports"]]))
    return 0


def configure_detach(parser: ArgumentParser) -> None:
    describe(
        parser,
        "What is not attached is no error, but noted. Prints the ids of the endpoints that are gone.",
        [
            "sealane detach web front",
            "sealane detach web --all",
            "sealane detach --endpoint 3fa9c1",
        ],
    )
    parser.add_argument("sandbox", metavar="SANDBOX", nargs="?", help="as for attach")
    parser.add_argument("network", metavar="NETWORK", nargs="*", help="the networks to leave")
    parser.add_argument("--all", action="store_true", help="leave all networks")
    parser.add_argument(
        "--endpoint",
        metavar="ENDPOINT",
        action="append",
        default=[],
        help="an endpoint; may be given several times",
    )


def detach(context: Context, arguments: Namespace) -> int:
    requests = [{"endpoint": ref} for ref in arguments.endpoint]
    if arguments.sandbox and arguments.all != bool(arguments.network):
        networks = arguments.network or [""]
        requests += [{"sandbox": arguments.sandbox, "network": network} for network in networks]
    elif arguments.sandbox or not requests or arguments.all:
        raise UsageError(
            "it is not said what to detach",
            hint="give SANDBOX and NETWORKs, SANDBOX and --all, or --endpoint",
        )
    view = context.client.request("POST", "/v1/detach", requests)
    context.output.names(view, "detached")
    if note := _of_the_absent(arguments, len(view["detached"])):
        context.output.note(note)
    return 0


def _of_the_absent(arguments: Namespace, gone: int) -> str:
    """No error, but a wrong name would look like success. Which of several it was the daemon does not say."""
    asked = [*arguments.endpoint, *(f"{arguments.sandbox}/{network}" for network in arguments.network)]
    if arguments.all and not gone:
        asked.append(arguments.sandbox)
    if gone >= len(asked):
        return ""
    was = "was" if len(asked) == 1 else "were"
    if not gone:
        return f"{', '.join(asked)} {was} not attached: nothing has changed"
    return f"of {', '.join(asked)} only {gone} {'was' if gone == 1 else 'were'} attached"


VERBS = {"attach": Verb(configure_attach, attach), "detach": Verb(configure_detach, detach)}
