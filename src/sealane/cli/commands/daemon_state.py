"""`sealane status`, `events`, `gc`, `audit` and `version`."""

import time
from argparse import ArgumentParser, Namespace
from typing import Any

from sealane import __version__
from sealane.cli.context import Context
from sealane.cli.options import whole
from sealane.cli.output import Cell, counted
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import UnreachableError, path_of

STATE_STYLES = {"ready": "green", "degraded": "yellow", "hold": "red"}
KINDS = ("networks", "sandboxes", "endpoints", "containers")
WITHOUT_UPLINK = "none (MTU 1500 is used)"
"""`compile.network.MTU_WITHOUT_UPLINK`; the compiler is not loaded for it."""

LEVEL_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


def configure_status(parser: ArgumentParser) -> None:
    describe(
        parser,
        "ready: all is well. degraded: it works, and something needs attention. hold: the store cannot be used;\n"
        "traffic goes on and nothing is changed. What is missing or wrong is listed with its hint.",
    )


def status(context: Context, arguments: Namespace) -> int:
    del arguments
    view = context.client.request("GET", "/v1/status")
    output = context.output
    if output.as_json:
        output.document(view)
        return exit_code(view)
    output.line(
        ("sealane ", "bold"), view["version"], "  ", (view["state"], STATE_STYLES.get(view["state"], ""))
    )
    for label, text in _facts(view):
        output.line((f"  {label:<11}", "dim"), text)
    for condition in view["conditions"]:
        level = condition["level"]
        style = LEVEL_STYLES.get(level, "")
        output.line((f"  {level:<11}", style), f"{condition['subject']}: {condition['message']}")
        if condition.get("hint"):
            output.line((f"  {'':<11}hint: ", "dim"), condition["hint"])
    return exit_code(view)


def exit_code(view: dict[str, Any]) -> int:
    """1 if what the daemon knows is not what there is."""
    is_lost = any(condition["subject"] in {"store", "orphans"} for condition in view["conditions"])
    return 1 if is_lost else 0


def _facts(view: dict[str, Any]) -> list[tuple[str, str]]:
    # It holds since the store could not be read: what it counts is nothing, and not what there is.
    is_blind = view["state"] == "hold" and not any(view[kind] for kind in ("revision", *KINDS))
    uplink = f"{view['uplink']}, MTU {view['mtu']}" if view["uplink"] else WITHOUT_UPLINK
    repairs = f"{counted(view['repairs'], 'object')} put right"
    if view["repairs"]:
        repairs += f", the last time in {view['last_repair_ms']:.1f} ms"
    return [
        ("instance", "unknown" if is_blind else view["instance"]),
        ("objects", "unknown" if is_blind else ", ".join(_of_kind(view[kind], kind) for kind in KINDS)),
        ("uplink", "unknown" if is_blind else uplink),
        ("store", f"{view['store']}, revision {'unknown' if is_blind else view['revision']}"),
        ("loopback", view["loopback"]),
        ("repairs", repairs),
        ("writes", counted(view["writes"], "kernel object")),
        ("since", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(view["started_at"]))),
    ]


def _of_kind(number: int, kind: str) -> str:
    plural = "es" if kind == "sandboxes" else "s"
    return counted(number, kind.removesuffix(plural), plural)


def configure_events(parser: ArgumentParser) -> None:
    describe(
        parser,
        "The daemon keeps the last 1,024. Older ones are counted as `events.lost`.",
        ["sealane events", "sealane events --follow", "sealane events --since 120 --json"],
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with those to come, until interrupted"
    )
    parser.add_argument(
        "--since", metavar="N", type=whole, help="those after number N (default: all; with --follow none)"
    )


def events(context: Context, arguments: Namespace) -> int:
    follow = 1 if arguments.follow else None
    for event in context.client.stream("GET", path_of("events", follow=follow, since=arguments.since)):
        if context.output.as_json:
            context.output.document_line(event)
        else:
            context.output.line(*event_line(event))
            context.output.raw("")
    return 0


def event_line(event: dict[str, Any]) -> list[Cell]:
    when = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    milliseconds = int(event["time"] * 1000) % 1000
    detail = " ".join(f"{key}={value}" for key, value in event["detail"].items())
    return [
        (f"{event['number']:>6}  {when}.{milliseconds:03d}  ", "dim"),
        (f"{event['kind']:<18}", "bold"),
        f"  {event['subject']}  ",
        (detail, "dim"),
    ]


def configure_gc(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Reads everything back, puts right what differs, and releases what belonged to namespaces that are gone.\n"
        "What is alive and ours but in no record is listed and kept: it may be all that is left after a lost store.",
        ["sealane gc", "sealane gc --confirm"],
    )
    parser.add_argument("--confirm", action="store_true", help="also delete what is alive but in no record")


def gc(context: Context, arguments: Namespace) -> int:
    confirm = 1 if arguments.confirm else None
    view = context.client.request("POST", path_of("gc", confirm=confirm))
    output = context.output
    if output.as_json:
        output.document(view)
        return 0
    for text in view["removed"]:
        output.line(("- ", "red"), text)
    for text in view["kept"]:
        output.line(("! ", "yellow"), f"{text} kept: not in the store")
    if view["kept"]:
        output.note("hint: if the store was lost, restore it from a backup and restart the daemon")
    elif not view["removed"]:
        output.line("nothing to do")
    return 0


def configure_audit(parser: ArgumentParser) -> None:
    describe(parser, "The exit code is 1 if anything differs. `sealane gc` puts it right.")


def audit(context: Context, arguments: Namespace) -> int:
    del arguments
    view = context.client.request("GET", "/v1/audit")
    output = context.output
    if output.as_json:
        output.document(view)
    elif view["clean"]:
        match = "matches" if view["objects"] == 1 else "match"
        output.line(("clean", "green"), f": {counted(view['objects'], 'kernel object')} {match}")
    else:
        for finding in view["findings"]:
            output.line(("! ", "red"), finding)
        output.line(
            f"{counted(len(view['findings']), 'finding')} in {counted(view['objects'], 'kernel object')}"
        )
    return 0 if view["clean"] else 1


def configure_version(parser: ArgumentParser) -> None:
    describe(parser, "Of this program and of the daemon; if there is no daemon, the exit code is 3.")


def version(context: Context, arguments: Namespace) -> int:
    del arguments
    output = context.output
    try:
        daemon = context.client.request("GET", "/v1/version")
    except UnreachableError:
        if output.as_json:
            output.document({"client": __version__, "daemon": None})
        else:
            output.line(f"sealane {__version__}")
        raise
    if output.as_json:
        output.document({"client": __version__, "daemon": daemon})
    else:
        output.line(f"sealane {__version__}")
        output.line(
            f"daemon  {daemon['version']} (API {daemon['api']}, instance {daemon['instance']}, "
            f"Linux {daemon['kernel']}, Python {daemon['python']})"
        )
    return 0


VERBS = {
    "status": Verb(configure_status, status),
    "events": Verb(configure_events, events),
    "gc": Verb(configure_gc, gc),
    "audit": Verb(configure_audit, audit),
    "version": Verb(configure_version, version),
}
