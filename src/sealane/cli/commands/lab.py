"""`sealane lab up|down|ls|status|cut|heal|kill|start|pause|resume`. All of the lab is imported when it is used."""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sealane.cli.context import Context, UsageError
from sealane.cli.output import Cell
from sealane.cli.parser import describe
from sealane.cli.registry import Verb

if TYPE_CHECKING:
    from sealane.lab.folder import Folder
    from sealane.lab.messages import NodeStatus, Reply, VerbName
    from sealane.lab.plan import Link, Node, Plan

FILE = "cluster.yaml"
WAIT_S = 60
STYLES = {"running": "green", "exited": "red", "paused": "yellow", "starting": "yellow", "dead": "red"}


def add_name(
    parser: ArgumentParser, what: str = "the lab (default: $SEALANE_LAB, else the only one)"
) -> None:
    parser.add_argument("--name", metavar="LAB", default="", help=what)


class LabFailedError(Exception):
    """Told already; the exit code is 1."""


@contextmanager
def told(context: Context) -> Iterator[None]:
    """A LabError or a PlanError inside is printed, and the command ends with 1."""
    from sealane.lab.folder import LabError
    from sealane.lab.plan import PlanError

    try:
        yield
    except (LabError, PlanError) as error:
        context.output.error({"code": "lab", "message": str(error), "hint": error.hint})
        raise LabFailedError from error


def failing(run: Callable[[Context, Namespace], int], code: int = 1) -> Callable[[Context, Namespace], int]:
    def wrapped(context: Context, arguments: Namespace) -> int:
        try:
            with told(context):
                return run(context, arguments)
        except LabFailedError:
            return code

    return wrapped


# --- up and down


def configure_up(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Makes a network, a mount and a UTS namespace per host, each with an empty /run, an uplink eth0 and a daemon;\n"
        "joins the uplinks by an underlay; and runs etcd members in namespaces beside them. The machine's own network\n"
        "is not touched. Returns when all daemons and members are ready. Needs root, or user namespaces.\n"
        "Run again, it starts what has ended; of a file that has changed it is refused until `lab down`.",
        [
            "sealane lab up                       # of cluster.yaml",
            "sealane lab up examples/lab.yaml --name demo",
        ],
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default=FILE, help=f"the lab file; - is stdin (default: {FILE})"
    )
    add_name(parser, "the lab's name (default: the file's name:, else lab)")
    parser.add_argument(
        "--wait-timeout", metavar="SECONDS", type=_seconds, default=WAIT_S,
        help=f"until everything is ready (default: {WAIT_S})",
    )  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(text)


def up(context: Context, arguments: Namespace) -> int:
    from sealane.lab import client
    from sealane.lab.folder import Folder, root_folder

    plan = read_plan(arguments.file, arguments.name)
    folder = Folder(root_folder(context.environ), plan.name)
    done: list[NodeStatus] = []

    def report(status: "NodeStatus") -> None:
        done.append(status)
        if not (arguments.quiet or context.output.as_json):
            _report(context, plan.node(status.name), status)

    client.up(folder, plan, report, wait_s=arguments.wait_timeout)
    if context.output.as_json:
        context.output.document(_view(folder, plan, client.call(folder, _status())))
    return 0


def _report(context: Context, node: "Node", status: "NodeStatus") -> None:
    sign = ("+", "green") if status.state == "running" else ("!", "red")
    state = status.state if status.code is None else f"{status.state} ({status.code})"
    context.output.line(
        (f" {sign[0]} ", sign[1]), f"{_kind(node)} {node.name}  ", (f"{state}  {node.ipv4.address}", "dim")
    )
    context.output.raw("")


def _kind(node: "Node") -> str:
    return "host" if node.kind == "host" else "etcd member"


def read_plan(path: str, name: str) -> "Plan":
    """Raises UsageError with all problems of the file."""
    from sealane.cli.load import compose_usage_error, read_named
    from sealane.compose.problems import BadValue, ComposeError
    from sealane.lab.client import DEFAULT_NAME
    from sealane.lab.plan import plan_lab
    from sealane.lab.read import parse_lab_name, read_lab

    try:
        spec = read_lab(read_named(path, field="FILE"), source=path)
    except ComposeError as error:
        raise compose_usage_error(error) from error
    try:
        return plan_lab(spec, parse_lab_name(name or spec.name or DEFAULT_NAME))
    except BadValue as error:
        raise UsageError(error.message, field="--name", hint=error.hint) from error


def configure_down(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Processes, namespaces, links, control groups and files of the lab are gone when it returns, also those of a lab\n"
        "whose processes were killed. A lab that is not up is no failure.",
        ["sealane lab down", "sealane lab down --name demo"],
    )
    add_name(parser)


def down(context: Context, arguments: Namespace) -> int:
    from sealane.lab import client
    from sealane.lab.folder import labs, root_folder

    root = root_folder(context.environ)
    name = arguments.name or context.environ.get("SEALANE_LAB", "")
    if (name or not labs(root)) and name not in labs(root):
        context.output.note(f"lab {name} is not up" if name else "no lab is up")
        return 0
    folder = client.find_lab(context.environ, name)
    client.down(folder)
    if not context.output.as_json:
        context.output.line((" - ", "red"), f"lab {folder.name}  ", ("removed", "dim"))
    else:
        context.output.document({"lab": folder.name, "removed": True})
    return 0


# --- what there is


def configure_ls(parser: ArgumentParser) -> None:
    describe(
        parser,
        "A dead lab is one whose processes were killed, or whose machine was: `lab down` clears it up.",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")


def ls(context: Context, arguments: Namespace) -> int:
    from sealane.lab.client import is_alive
    from sealane.lab.folder import Folder, labs, root_folder

    root = root_folder(context.environ)
    views: list[dict[str, Any]] = []
    for name in labs(root):
        folder = Folder(root, name)
        views.append(
            {"name": name, "state": "running" if is_alive(folder) else "dead", "folder": folder.path}
        )
    if context.output.as_json:
        context.output.document(views)
    elif arguments.quiet:
        for view in views:
            context.output.line(view["name"])
    else:
        rows = [(v["name"], (v["state"], STYLES[v["state"]]), v["folder"]) for v in views]
        context.output.table(("LAB", "STATE", "DIRECTORY"), rows)
    return 0


def configure_status(parser: ArgumentParser) -> None:
    describe(parser, "State is that of the host's daemon or of the etcd member; loss is in each direction.")
    add_name(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print names of hosts and members only")


def _status() -> Any:
    from sealane.lab.messages import Request

    return Request(verb="status")


def status(context: Context, arguments: Namespace) -> int:
    from sealane.lab import client

    folder = client.find_lab(context.environ, arguments.name)
    view = _view(folder, folder.read_plan(), client.call(folder, _status()))
    if context.output.as_json:
        context.output.document(view)
        return 0
    if arguments.quiet:
        for node in view["nodes"]:
            context.output.line(node["name"])
        return 0
    headers = ("NODE", "KIND", "STATE", "IPV4", "IPV6", "MTU", "LOSS", "LATENCY", "CUT FROM")
    context.output.table(headers, [_row(node) for node in view["nodes"]])
    return 0


def _row(node: dict[str, Any]) -> tuple[Cell, ...]:
    state = node["state"] if node["exit_code"] is None else f"{node['state']} ({node['exit_code']})"
    return (
        node["name"],
        node["kind"],
        (state, STYLES.get(node["state"], "")),
        node["ipv4"],
        node["ipv6"],
        str(node["mtu"]),
        f"{node['loss_percent']:g}%",
        f"{node['latency_ms']:g}ms",
        (", ".join(node["cut_from"]), "red"),
    )


def _view(folder: "Folder", plan: "Plan", reply: "Reply") -> dict[str, Any]:
    states = {node.name: node for node in reply.nodes}
    nodes = []
    for node in plan.nodes:
        found = states[node.name]
        cut_from = ["all"] if (node.name, node.name) in reply.cut else []
        cut_from += [other for pair in reply.cut if node.name in pair for other in pair if other != node.name]
        nodes.append(
            {
                "name": node.name,
                "kind": node.kind,
                "state": found.state,
                "exit_code": found.code,
                "pid": found.pid,
                "ipv4": node.ipv4.address,
                "ipv6": node.ipv6.address,
                "mtu": node.uplink.mtu,
                "loss_percent": node.uplink.loss / 1000,
                "latency_ms": node.uplink.latency_ms,
                "cut_from": cut_from,
                "log": found.log,
                "socket": folder.socket(node.name) if node.kind == "host" else "",
            }
        )
    return {"lab": plan.name, "underlay": plan.underlay, "folder": folder.path, "nodes": nodes}


# --- faults


def configure_cut(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Its packets are dropped in the underlay, without a word to either side; links keep their carrier.\n"
        "LINK is a host or etcd member, or two with a colon between; `etcd` and `hosts` stand for all of a kind.",
        [
            "sealane lab cut h1                # from everything",
            "sealane lab cut h1:h2             # from each other",
            "sealane lab cut h1:etcd           # from etcd alone",
        ],
    )
    parser.add_argument("links", metavar="NODE", nargs="+", help="as h1, h1:h2, h1:etcd, h1:hosts")
    add_name(parser)


def configure_heal(parser: ArgumentParser) -> None:
    describe(
        parser,
        "What `lab cut` has cut under the same words, or with --all everything. A link that was not cut is no failure.",
        ["sealane lab heal h1:etcd", "sealane lab heal --all"],
    )
    parser.add_argument("links", metavar="NODE", nargs="*", help="as h1, h1:h2, h1:etcd, h1:hosts")
    parser.add_argument("--all", action="store_true", help="everything that is cut")
    add_name(parser)


def change_cuts(verb: "VerbName") -> Callable[[Context, Namespace], int]:
    def run(context: Context, arguments: Namespace) -> int:
        from sealane.lab import client
        from sealane.lab.messages import Request
        from sealane.lab.plan import parse_link, show_link

        if verb == "heal" and bool(arguments.links) == arguments.all:
            raise UsageError("name links, or --all", field="NODE", hint="as `sealane lab heal --all`")
        folder = client.find_lab(context.environ, arguments.name)
        plan = folder.read_plan()
        links: list[Link] = [link for text in arguments.links for link in parse_link(plan, text)]
        reply = client.call(folder, Request(verb=verb, links=tuple(links)))
        if context.output.as_json:
            context.output.document({"cut": [show_link(link) for link in reply.cut]})
            return 0
        for text in arguments.links:
            context.output.line(text)
        if arguments.links == []:
            context.output.note("nothing is cut")
        return 0

    return run


def configure_kill(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Containers, links and rules of the host stay as they are; `lab start` starts the daemon again.",
        ["sealane lab kill h1", "sealane lab kill --signal TERM h1 etcd2"],
    )
    parser.add_argument(
        "-s", "--signal", metavar="SIGNAL", default="KILL", help="a name or number (default: KILL)"
    )
    add_nodes(parser)


def configure_start(parser: ArgumentParser) -> None:
    describe(
        parser, "Returns when they are ready. One that runs is no failure.", ["sealane lab start h1 etcd2"]
    )
    add_nodes(parser)


def configure_pause(parser: ArgumentParser) -> None:
    describe(
        parser,
        "They are stopped and keep their connections: the kernel goes on acknowledging for them.",
        ["sealane lab pause etcd1", "sealane lab resume etcd1"],
    )
    add_nodes(parser)


def add_nodes(parser: ArgumentParser) -> None:
    parser.add_argument("nodes", metavar="NODE", nargs="+", help="a host or etcd member")
    add_name(parser)


def act(verb: "VerbName", wanted: frozenset[str]) -> Callable[[Context, Namespace], int]:
    """`wanted`: states that end the wait."""

    def run(context: Context, arguments: Namespace) -> int:
        from sealane.lab import client
        from sealane.lab.messages import Request

        number = _signal(arguments.signal) if verb == "kill" else 0
        folder = client.find_lab(context.environ, arguments.name)
        plan = folder.read_plan()
        names = [plan.node(name).name for name in arguments.nodes]
        states: list[NodeStatus] = []
        for name in names:
            client.call(folder, Request(verb=verb, node=name, signal=number))
        if verb == "kill" and number not in _ENDING:
            return 0
        client.await_states(folder, names, wanted, states.append, wait_s=WAIT_S)
        if context.output.as_json:
            context.output.document([{"name": state.name, "state": state.state} for state in states])
            return 0
        for name in names:
            context.output.line(name)
        return 0

    return run


_ENDING = frozenset({2, 3, 9, 15})
"""Signals after which a daemon and etcd end, for which `kill` waits."""


def _signal(text: str) -> int:
    from sealane.model.signals import signal_number

    number = signal_number(text)
    if number is None:
        raise UsageError(
            f"signal {text!r} not found", field="--signal", hint="use a name or number, as KILL or 9"
        )
    return number


VERBS = {
    "up": Verb(configure_up, failing(up)),
    "down": Verb(configure_down, failing(down)),
    "ls": Verb(configure_ls, failing(ls)),
    "status": Verb(configure_status, failing(status)),
    "cut": Verb(configure_cut, failing(change_cuts("cut"))),
    "heal": Verb(configure_heal, failing(change_cuts("heal"))),
    "kill": Verb(configure_kill, failing(act("kill", frozenset({"exited", "stopped"})))),
    "start": Verb(configure_start, failing(act("start", frozenset({"running", "exited"})))),
    "pause": Verb(configure_pause, failing(act("pause", frozenset({"paused"})))),
    "resume": Verb(configure_pause, failing(act("resume", frozenset({"running", "exited", "starting"})))),
}
