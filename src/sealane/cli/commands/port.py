"""`sealane port`."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from typing import Any, NamedTuple

from sealane.cli.context import Context
from sealane.cli.flags import OF_NAMES, in_flags
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

FAILED = 1
_ASKED = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_PUBLISHED = re.compile(
    r"(?P<host>\*|\[[^\]]+\]|[0-9.]+):(?P<first>[0-9]+)(?:-(?P<last>[0-9]+))?->(?P<port>[0-9]+)(?:-[0-9]+)?/(?P<proto>[a-z]+)"
)
"""As views show it: `*:8080->80/tcp`, `[::1]:9000-9001->90-91/udp`."""


class Way(NamedTuple):
    """One of the host's ports, and where it leads."""

    port: int
    proto: str
    host_address: str
    """In brackets if it is an IPv6 one."""
    host_port: int


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "A line for each published port and each family; with PORT, only where that one is published. Ends with 1 if it\n"
        "is not. A container that has ended publishes nothing.",
        ["sealane port web", "sealane port web 80", "sealane port dns 53/udp"],
    )
    parser.add_argument("container", metavar="CONTAINER", help="a name, an id, or the beginning of an id")
    parser.add_argument(
        "port",
        metavar="PORT[/PROTO]",
        nargs="?",
        type=_asked,
        help="the container's; tcp, unless it says udp or sctp",
    )


def _asked(text: str) -> tuple[int, str]:
    match = _ASKED.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no port: write 80 or 53/udp")
    return int(match[1]), match[2] or "tcp"


def port(context: Context, arguments: Namespace) -> int:
    with in_flags(OF_NAMES):
        view = context.client.request("GET", path_of("containers", arguments.container))
    all_ways = list(_ways(context, view))
    desired = arguments.port
    found = [way for way in all_ways if desired in (None, (way.port, way.proto))]
    if desired and not found:
        others = ", ".join(dict.fromkeys(f"{way.port}/{way.proto}" for way in all_ways))
        context.output.error(
            {
                "code": "not_found",
                "message": f"container {view['name']} does not publish {desired[0]}/{desired[1]}",
                "field": "PORT",
                "hint": f"it publishes {others or 'nothing; see `--publish` of `sealane run`'}",
            }
        )
        return FAILED
    if context.output.as_json:
        context.output.document([way._asdict() for way in found])
        return 0
    for way in found:
        inner = "" if desired else f"{way.port}/{way.proto} -> "
        context.output.line(f"{inner}{way.host_address}:{way.host_port}")
    return 0


def _ways(context: Context, container: dict[str, Any]) -> Iterator[Way]:
    if not container["ports"]:
        return
    for endpoint in context.client.request("GET", path_of("endpoints", sandbox=container["sandbox"])):
        is_six = [":" in address for address in endpoint["addresses"]]
        every = [*(["0.0.0.0"] if False in is_six else []), *(["[::]"] if True in is_six else [])]
        for text in endpoint["ports"]:
            # An integration's own ports, as podman's, may be told otherwise.
            if match := _PUBLISHED.fullmatch(text):
                yield from _ways_of(match, every)


def _ways_of(match: re.Match[str], every: list[str]) -> Iterator[Way]:
    """`every`: what stands for all addresses of the host, in each family that the endpoint has."""
    first = int(match["first"])
    for offset in range(int(match["last"] or first) - first + 1):
        for address in every if match["host"] == "*" else [match["host"]]:
            yield Way(int(match["port"]) + offset, match["proto"], address, first + offset)


VERBS = {"port": Verb(configure, port)}
