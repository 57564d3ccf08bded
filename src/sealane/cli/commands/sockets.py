"""`sealane sockets`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from sealane.cli.context import Context
from sealane.cli.flags import OF_NAMES, in_flags
from sealane.cli.output import Cell
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

LISTENING = frozenset({"listen", "unconnected"})
STATE_STYLES = {"established": "green", "syn-sent": "yellow", "close-wait": "yellow"}
HEADERS = (
    "SANDBOX",
    "PROTO",
    "STATE",
    "LOCAL",
    "REMOTE",
    "RECV-Q",
    "SEND-Q",
    "RTT/VAR ms",
    "RETRANS",
    "CWND",
    "UNACKED",
    "PROCESS",
)


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "List the TCP and UDP sockets that listen and those that are connected, with what the kernel knows of each "
        "connection: round trip, segments sent again, congestion window, segments in flight. Nothing is sent.",
        [
            "sealane sockets                  # of every sandbox",
            "sealane sockets web --listening",
            "sealane sockets host --all",
        ],
    )
    parser.add_argument(
        "sandbox", metavar="SANDBOX", nargs="?", help="only those of this sandbox; `host`: the host's own"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--all", action="store_true", help="in every state: also those that are being opened or closed"
    )
    which.add_argument("--listening", action="store_true", help="only those that wait for a peer")


def run(context: Context, arguments: Namespace) -> int:
    path = path_of("sockets", sandbox=arguments.sandbox, all="1" if arguments.all else None)
    with in_flags(OF_NAMES):
        view = context.client.request("GET", path)
    if arguments.listening:
        view["sockets"] = [item for item in view["sockets"] if item["state"] in LISTENING]
    if context.output.as_json:
        context.output.document(view)
        return 0
    context.output.table(HEADERS, [_row(item) for item in view["sockets"]])
    for sandbox, why in view["unseen"].items():
        context.output.note(f"{sandbox}: not seen: {why}")
    return 0


def _row(item: dict[str, Any]) -> tuple[Cell, ...]:
    tcp = item.get("tcp")
    path: tuple[Cell, ...] = ("", "", "", "")
    if tcp:
        again = str(tcp["retransmits"])
        path = (
            f"{tcp['rtt_ms']:.3f}/{tcp['rttvar_ms']:.3f}",
            (again, "yellow" if tcp["retransmits"] else ""),
            str(tcp["cwnd"]),
            str(tcp["unacked"]),
        )
    return (
        item["sandbox"],
        item["proto"],
        (item["state"], STATE_STYLES.get(item["state"], "")),
        _place(item["address"], item["port"]),
        _place(item["remote_address"], item["remote_port"]) if item["remote_port"] else "",
        str(item["receive_queue"]),
        str(item["send_queue"]),
        *path,
        f"{item['process']} (pid {item['pid']})" if item["pid"] else f"uid {item['uid']}",
    )


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


VERBS = {"sockets": Verb(configure, run)}
