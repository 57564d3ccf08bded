"""`sealane plan`, `apply` and `delete`."""

from argparse import ArgumentParser, Namespace
from typing import Any, Literal

import msgspec

from sealane.cli.context import Context
from sealane.cli.options import OneFile
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import path_of

SIGN_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def add_file(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        action=OneFile,
        required=True,
        help="a compose file, the directory of one, or a manifest in YAML or JSON; - is stdin",
    )
    parser.add_argument(
        "-p", "--project-name", metavar="NAME", help="of a compose project (default: the directory's)"
    )


def configure_plan(parser: ArgumentParser) -> None:
    describe(
        parser,
        "A line for each kernel object: + it comes, - it goes, ~ it changes; with the object that asks for it.\n"
        "Changes nothing. What is wrong now and would be put right is shown too.",
        ["sealane plan -f compose.yaml", "sealane plan --delete -f lab.yaml --json"],
    )
    add_file(parser)
    parser.add_argument("--delete", action="store_true", help="what `delete` would change")


def plan(context: Context, arguments: Namespace) -> int:
    path = path_of("plan", delete=1 if arguments.delete else None)
    view = _asked(context, arguments, path, images="unneeded" if arguments.delete else "as they are")
    output = context.output
    if output.as_json:
        output.document(view)
        return 0
    where = None
    for line in view["lines"]:
        if line["where"] != where:
            where = line["where"]
            output.line((where, "bold"))
        origin = f"  # {line['origin']}" if line["origin"] else ""
        output.line((f"  {line['sign']} {line['text']}", SIGN_STYLES.get(line["sign"], "")), (origin, "dim"))
    output.line(_summary(view))
    return 0


def _summary(view: dict[str, Any]) -> str:
    counts = {sign: sum(line["sign"] == sign for line in view["lines"]) for sign in SIGN_STYLES}
    if not view["lines"] and not view["create"] and not view["remove"]:
        return "nothing to do"
    parts = [f"{counts['+']} to make, {counts['~']} to change, {counts['-']} to remove in the kernel"]
    if view["create"]:
        parts.append(f"new: {', '.join(view['create'])}")
    if view["remove"]:
        parts.append(f"gone: {', '.join(view['remove'])}")
    return "; ".join(parts)


def configure_apply(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Networks, then containers in the order of their depends_on, then attachments. What is there already and\n"
        "as asked for stays untouched; what the project had before and has no more goes.",
        ["sealane apply -f compose.yaml", "sealane apply -f lab.json"],
    )
    add_file(parser)


def apply(context: Context, arguments: Namespace) -> int:
    return _perform(context, arguments, "apply")


def configure_delete(parser: ArgumentParser) -> None:
    describe(parser, "Attachments and containers go first, then networks. What is not there is no error.")
    add_file(parser)


def delete(context: Context, arguments: Namespace) -> int:
    return _perform(context, arguments, "delete")


def _perform(context: Context, arguments: Namespace, verb: str) -> int:
    is_apply = verb == "apply"
    # Waiting for a container to become healthy has a bound of its own in the daemon.
    waits = {"timeout_s": None} if is_apply else {}
    view = _asked(context, arguments, path_of(verb), images="unpacked" if is_apply else "unneeded", **waits)
    if context.output.as_json:
        context.output.document(view)
        return 0
    signs = {"created": "+", "changed": "~", "removed": "-", "unchanged": "="}
    for kind, sign in signs.items():
        for name in view[kind]:
            context.output.line((f"{sign} {name}", SIGN_STYLES.get(sign, "dim")))
    if not any(view[kind] for kind in signs):
        context.output.line("nothing to do")
    return 0


def _asked(
    context: Context,
    arguments: Namespace,
    path: str,
    *,
    images: Literal["unpacked", "as they are", "unneeded"],
    **waits: float | None,
) -> dict[str, Any]:
    """The daemon's answer about a file."""
    from sealane.cli.composefields import in_the_files_words
    from sealane.cli.images import with_images
    from sealane.cli.load import load_manifest

    manifest, warnings = load_manifest(arguments.file, arguments.project_name)
    for warning in warnings:
        context.output.note(f"warning: {warning}")
    if images != "unneeded":
        manifest = with_images(context, manifest, unpack=images == "unpacked")
    with in_the_files_words(manifest, arguments.file):
        view: dict[str, Any] = context.client.request("POST", path, msgspec.json.encode(manifest), **waits)
    return view


VERBS = {
    "plan": Verb(configure_plan, plan),
    "apply": Verb(configure_apply, apply),
    "delete": Verb(configure_delete, delete),
}
