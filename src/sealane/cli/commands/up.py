"""`sealane up` and `sealane down`: compose projects, as `docker compose` does them."""

import contextlib
import os
import sys
import threading
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

import msgspec

from sealane.cli.commands.containers import container_table
from sealane.cli.context import Context, UsageError
from sealane.cli.options import OneFile, compose_file
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.cli.unsupported import Reasons, add_ignored, add_unsupported
from sealane.client import ClientError, path_of

if TYPE_CHECKING:
    from sealane.wire.requests import Manifest

_ALL_SERVICES = ("all services of a file are started", "keep optional services in a file of their own")
_IMAGES = ("images are made by other tools", "write image: oci:PATH[:TAG] for one that is here")
_ANEW = ("what has changed is made anew, and nothing else", "`sealane down` first makes all of it anew")
UP_UNSUPPORTED: Reasons = {
    "SERVICE": _ALL_SERVICES,
    "--profile": _ALL_SERVICES,
    "--no-deps": _ALL_SERVICES,
    "--scale": ("the file says how many there are", "write scale: N at the service"),
    "--build": _IMAGES,
    "--pull": _IMAGES,
    "--force-recreate": _ANEW,
    "--no-recreate": _ANEW,
    "--wait": (
        "only what a depends_on waits for is waited for",
        "write condition: service_healthy there, or look at `sealane ps --filter health=starting`",
    ),
    "--abort-on-container-exit": ("the others go on", "`sealane wait CONTAINER && sealane down`"),
    "--exit-code-from": ("the others go on", "`sealane up --detach`, then `sealane wait CONTAINER`"),
}
DOWN_UNSUPPORTED: Reasons = {
    "SERVICE": ("a project goes as a whole", "`sealane rm --force CONTAINER`"),
    "--rmi": ("images may be others' too", "`sealane image prune` when it is down"),
    "-t/--timeout": ("each service has its own time", "write stop_grace_period: 5s at the service"),
}
INTERRUPTED = 130
STOPPED_AT_ONCE = 32


def _add_project(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        action=OneFile,
        help="the compose file, or the directory of one; - is stdin (default: $COMPOSE_FILE, else here)",
    )
    parser.add_argument(
        "-p",
        "--project-name",
        metavar="NAME",
        help="(default: $COMPOSE_PROJECT_NAME, else the file's name:, else the directory's)",
    )


def configure_up(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Makes the networks, starts the services in the order of their depends_on, waits until each condition is\n"
        "met, and removes what the file no longer has. Without --detach the output of all services follows, until\n"
        "all have ended or Ctrl-C stops them.",
        ["sealane up -d", "sealane up -f examples/shop/compose.yaml -p shop"],
    )
    _add_project(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="return when everything is started")
    add_ignored(parser, "--remove-orphans", "ignored: orphans are always removed")
    add_unsupported(parser, UP_UNSUPPORTED)


def up(context: Context, arguments: Namespace) -> int:
    from sealane.cli.composefields import in_the_files_words
    from sealane.cli.images import with_images
    from sealane.cli.load import load_project, project_manifest
    from sealane.cli.manifest import missing_sources

    file = compose_file(arguments.file, context.environ)
    project = load_project(file, arguments.project_name)
    manifest = project_manifest(project)
    for warning in project.warnings:
        context.output.note(f"warning: {warning}")
    for source in missing_sources(project):
        _make_source(source)
    manifest = with_images(context, manifest)
    with in_the_files_words(manifest, file):
        view = _perform(context, "apply", _names(manifest), msgspec.json.encode(manifest))
    containers = _of_project(context, manifest.project)
    if context.output.as_json:
        context.output.document({"apply": view, "containers": containers})
        return 0
    container_table(context, containers)
    return 0 if arguments.detach or not containers else _attend(context, manifest.project, containers)


def _make_source(source: str) -> None:
    try:
        if not os.path.lexists(source):
            os.makedirs(source, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{source} cannot be made: {error.strerror}",
            field="volumes",
            hint="make it, or bind another place",
        ) from error


def _names(manifest: "Manifest") -> set[str]:
    return {network.name for network in manifest.networks} | {each.name for each in manifest.containers}


def _perform(context: Context, verb: str, names: set[str], manifest: bytes) -> dict[str, Any]:
    from sealane.cli.progress import Progress

    with Progress(context, names) as progress:
        view: dict[str, Any] = context.client.request("POST", path_of(verb), manifest, timeout_s=None)
    if not context.output.as_json:
        progress.finish(view)
    return view


def _of_project(context: Context, project: str) -> list[dict[str, Any]]:
    views: list[dict[str, Any]] = context.client.request("GET", path_of("containers", all=1))
    return [view for view in views if view["labels"].get("sealane.project") == project]


def _attend(context: Context, project: str, containers: list[dict[str, Any]]) -> int:
    """Follow all output; Ctrl-C stops all."""
    from sealane.cli.follow import FOLLOWED_MAX, Interleaved, prefixes

    names = [view["name"] for view in containers]
    if len(names) > FOLLOWED_MAX:
        context.output.note(f"the first {FOLLOWED_MAX} of {len(names)} containers are followed")
    labels = prefixes(context.output, [name.removeprefix(f"{project}-") for name in names])
    followed = Interleaved(context, names)
    try:
        for index, line in followed.lines():
            if line is None:
                _note_end(context, names[index])
                continue
            sys.stdout.write(f"{labels[index]}{line['text']}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        followed.stop()
        context.output.note("stopping; Ctrl-C again leaves them running")
        _stop_all(context, names)
        return INTERRUPTED
    return 0


def _note_end(context: Context, name: str) -> None:
    """Of one that somebody has removed there is nothing to say."""
    with contextlib.suppress(ClientError):
        view = context.client.request("GET", path_of("containers", name))
        if view["status"] == "exited":
            context.output.note(f"{name} exited with code {view['exit_code']}")


def _stop_all(context: Context, names: list[str]) -> None:
    """At once: each may take its whole grace period."""
    threads = [
        threading.Thread(target=_stop, args=(context, name), daemon=True) for name in names[:STOPPED_AT_ONCE]
    ]
    for thread in threads:
        thread.start()
    for name in names[STOPPED_AT_ONCE:]:
        _stop(context, name)
    for thread in threads:
        thread.join()


def _stop(context: Context, name: str) -> None:
    with contextlib.suppress(ClientError), context.another_client() as client:
        client.request("POST", path_of("containers", name, "stop"), timeout_s=None)


def configure_down(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Stops and removes the containers, then the networks. External networks stay. With -p alone no file is\n"
        "needed: what belongs to the project is found by its label.",
        ["sealane down", "sealane down -f examples/shop/compose.yaml", "sealane down -p shop"],
    )
    _add_project(parser)
    add_ignored(parser, "--remove-orphans", "ignored: the whole project is removed")
    add_ignored(parser, "-v/--volumes", "there are no volumes to remove; directories that are bound stay")
    add_unsupported(parser, DOWN_UNSUPPORTED)


def down(context: Context, arguments: Namespace) -> int:
    from sealane.cli.load import load_project, project_manifest
    from sealane.wire.requests import Manifest

    if arguments.file is None and arguments.project_name is not None:
        manifest = Manifest(project=arguments.project_name)
    else:
        file = compose_file(arguments.file, context.environ)
        manifest = project_manifest(load_project(file, arguments.project_name))
    left = {view["name"] for view in _of_project(context, manifest.project)}
    view = _perform(context, "delete", left | _names(manifest), msgspec.json.encode(manifest))
    if context.output.as_json:
        context.output.document(view)
    elif not view["removed"]:
        context.output.line("nothing to remove")
    return 0


VERBS = {"up": Verb(configure_up, up), "down": Verb(configure_down, down)}
