"""`sealane ps`, `start`, `stop`, `wait`, `kill` and `rm`, with Docker's flags."""

import time
from argparse import ArgumentParser, Namespace
from typing import Any

from sealane.cli.context import Context
from sealane.cli.filters import LABEL, NAME, Filter, add_filter, chosen, of_field
from sealane.cli.flags import in_flags
from sealane.cli.options import add_quiet, seconds, signal_number, whole
from sealane.cli.output import Cell
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of
from sealane.containers import codes

STATUS_STYLES = {"running": "green", "restarting": "yellow", "exited": "dim", "dead": "red"}
FILTERS = {
    "name": NAME,
    "status": of_field("status", "created", "running", "restarting", "exited", "dead"),
    "health": of_field("health", "starting", "healthy", "unhealthy", "none", empty="none"),
    "network": Filter(lambda view, value: value in view["addresses"]),
    "label": LABEL,
}
STOP_MARGIN_S = 60
COMMAND_CHARS = 30
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def add_containers(parser: ArgumentParser) -> None:
    parser.add_argument(
        "container", metavar="CONTAINER", nargs="+", help="a name, an id, or the beginning of an id"
    )


def configure_ps(parser: ArgumentParser) -> None:
    describe(
        parser,
        "",
        [
            "sealane ps --filter network=front --filter label=tier=web",
            "sealane ps -aq --filter status=exited --filter status=dead",
            "sealane ps -l",
        ],
    )
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    add_filter(parser, FILTERS)
    last = parser.add_mutually_exclusive_group()
    last.add_argument(
        "-n",
        "--last",
        metavar="N",
        type=whole,
        default=0,
        help="only the N that were started last, in any state",
    )
    last.add_argument(
        "-l", "--latest", dest="last", action="store_const", const=1, help="the one that was started last"
    )
    add_quiet(parser)


def ps(context: Context, arguments: Namespace) -> int:
    # As with Docker, who asks for a state, or for the last, need not ask for all.
    wants_all = arguments.all or arguments.last or any(key == "status" for key, _ in arguments.filter)
    views = context.client.request("GET", path_of("containers", all=1 if wants_all else None))
    views = chosen(views, arguments.filter, FILTERS)
    if arguments.last:
        views = sorted(views, key=lambda view: view["started_at"], reverse=True)[: arguments.last]
    if context.output.as_json:
        context.output.document(views)
    elif arguments.quiet:
        for view in views:
            context.output.line(view["name"])
    else:
        container_table(context, views)
    return 0


def container_table(context: Context, views: list[dict[str, Any]]) -> None:
    headers = ("NAME", "STATUS", "ADDRESSES", "PORTS", "COMMAND")
    context.output.table(headers, [_row(view, time.time()) for view in views])


def _row(view: dict[str, Any], now: float) -> tuple[Cell, ...]:
    addresses = [f"{network} {', '.join(found)}" for network, found in view["addresses"].items()]
    command = " ".join(view["command"])
    return (
        view["name"],
        (status_text(view, now), STATUS_STYLES.get(view["status"], "")),
        "; ".join(addresses),
        ", ".join(view["ports"]),
        command if len(command) <= COMMAND_CHARS else f"{command[: COMMAND_CHARS - 1]}…",
    )


def status_text(view: dict[str, Any], now: float) -> str:
    """`running 3m (healthy)`, `exited 137 2h ago`."""
    if view["status"] == "exited":
        # When one that lost its supervisor ended, nobody saw.
        when = f" {_span(now - view['finished_at'])} ago" if view["finished_at"] else ""
        why = " (out of memory)" if view["oom_killed"] else ""
        return f"exited {view['exit_code']}{why}{when}"
    text = str(view["status"])
    if view["status"] == "running":
        text += f" {_span(now - view['started_at'])}"
    return f"{text} ({view['health']})" if view["health"] else text


def _span(seconds: float) -> str:
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return "0s"


def configure_start(parser: ArgumentParser) -> None:
    describe(parser, "They keep their networks and addresses. One that runs already is no error.")
    add_containers(parser)


def start(context: Context, arguments: Namespace) -> int:
    return context.each(arguments.container, lambda ref: _start(context, ref))


def _start(context: Context, ref: str) -> object:
    # A network that is refused is one that the container was made for, and no word of this command's.
    with in_flags({"network": (("CONTAINER",), "")}):
        return context.client.request("POST", path_of("containers", ref, "start"))


def configure_stop(parser: ArgumentParser) -> None:
    describe(
        parser, "Sends the container's stop signal, waits, and then kills it. One that has ended is no error."
    )
    add_containers(parser)
    parser.add_argument(
        "-t",
        "--timeout",
        "--time",
        metavar="SECONDS",
        type=seconds,
        help="how long to wait (default: the container's own, 10 unless it says otherwise)",
    )


def stop(context: Context, arguments: Namespace) -> int:
    return context.each(arguments.container, lambda ref: _stop(context, ref, arguments.timeout))


def _stop(context: Context, ref: str, timeout_s: float | None) -> object:
    # The daemon answers when it is done, which is at the container's own time if none is given.
    patience = None if timeout_s is None else timeout_s + STOP_MARGIN_S
    path = path_of("containers", ref, "stop", timeout=timeout_s)  # type: ignore[arg-type]
    return context.client.request("POST", path, timeout_s=patience)


def configure_restart(parser: ArgumentParser) -> None:
    configure_stop(parser)
    describe(parser, "Stops each as `stop` does, and starts it again. One that has ended is started.")


def restart(context: Context, arguments: Namespace) -> int:
    def again(ref: str) -> object:
        _stop(context, ref, arguments.timeout)
        return _start(context, ref)

    return context.each(arguments.container, again)


def configure_inspect(parser: ArgumentParser) -> None:
    describe(
        parser, "Prints JSON: what `ps` knows, and under `request` what the container was asked for with."
    )
    add_containers(parser)


def inspect(context: Context, arguments: Namespace) -> int:
    def whole(ref: str) -> object:
        view = context.client.request("GET", path_of("containers", ref))
        return {
            **view,
            "request": context.client.request("GET", path_of("containers", view["id"], "request")),
        }

    return context.inspect(arguments.container, whole)


def configure_wait(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Waits until each has ended, and prints their exit codes, one a line. Of one that had ended before it is that of\n"
        f"then; {codes.FAILED} if nobody knows.",
    )
    add_containers(parser)


def wait(context: Context, arguments: Namespace) -> int:
    return context.each(
        arguments.container,
        lambda ref: context.client.request("POST", path_of("containers", ref, "wait"), timeout_s=None),
        lambda view: str(codes.FAILED if view["exit_code"] is None else view["exit_code"]),
    )


def configure_kill(parser: ArgumentParser) -> None:
    add_containers(parser)
    parser.add_argument(
        "-s", "--signal", type=signal_number, default="KILL", help="a name or a number (default: KILL)"
    )


def kill(context: Context, arguments: Namespace) -> int:
    return context.each(
        arguments.container,
        lambda ref: context.client.request(
            "POST", path_of("containers", ref, "kill", signal=arguments.signal)
        ),
    )


def configure_rm(parser: ArgumentParser) -> None:
    describe(parser, "Its addresses, ports and names are free when the command returns.")
    add_containers(parser)
    parser.add_argument("-f", "--force", action="store_true", help="kill it first if it runs")


def rm(context: Context, arguments: Namespace) -> int:
    force = 1 if arguments.force else None
    names = arguments.container
    if len(names) > 1:
        # Who lives in another's sandbox goes before it.
        views = context.client.request("GET", path_of("containers", all=1))
        guests = {ref for v in views if v["sandbox"] != v["name"] for ref in (v["name"], v["id"])}
        names = sorted(names, key=lambda name: name not in guests)
    return context.each(
        names,
        lambda ref: context.client.request("DELETE", path_of("containers", ref, force=force)),
    )


VERBS = {
    "ps": Verb(configure_ps, ps),
    "start": Verb(configure_start, start),
    "stop": Verb(configure_stop, stop),
    "restart": Verb(configure_restart, restart),
    "inspect": Verb(configure_inspect, inspect),
    "wait": Verb(configure_wait, wait),
    "kill": Verb(configure_kill, kill),
    "rm": Verb(configure_rm, rm),
}
