"""`sealane run`, with Docker's flags."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from sealane.cli.commands.exec import command_words, failed_code
from sealane.cli.containerspec import DEFAULT_NETWORK, HOST_ROOT, add_container_flags, container_request
from sealane.cli.context import Context, UsageError
from sealane.cli.dockerflags import RUN
from sealane.cli.flags import as_typed
from sealane.cli.images import fetch, image_ref
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.cli.terminal import StreamClient, check_terminal, heard, signals_of
from sealane.cli.unsupported import add_unsupported
from sealane.client import ApiError, Client, ClientError, UnreachableError, path_of
from sealane.containers import codes
from sealane.model.image import ImageRef, digest_of_root, is_image_ref
from sealane.wire.requests import ContainerRequest

NAME_CHARS = 20
NO_REGISTRY = (
    "there are no registries here: an image is oci:PATH[:TAG] or oci-archive:FILE[:TAG] (see `sealane image load --help`), "
    "and without one COMMAND is a program of the host"
)


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        "In the foreground its output is shown as it is written, signals are passed on to it, and its exit code is\n"
        "this command's, also if the daemon is restarted meanwhile. With --detach the command returns when it has\n"
        "started. At a terminal ^P ^Q leaves it running.",
        [
            "sealane run -it --rm sh",
            "sealane run --rm wget -qO- http://web",
            "sealane run -d --name web --network front -p 8080:80 nginx -g 'daemon off;'",
            "sealane run -p 8080:80 oci:./build:latest",
            "sealane run -d --network name=front,alias=db,ip=10.1.0.7 --network back --memory 256m \\",
            "    -v ./data:/data --health-cmd 'pg_isready' postgres -D /data",
        ],
    )
    parser.add_argument("--name", default="", help="(default: made from the command's)")
    parser.add_argument(
        "-d", "--detach", action="store_true", help="return when it has started; print its name"
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="give it this command's stdin")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("--rm", action="store_true", help="remove it when it has ended")
    add_container_flags(parser)
    add_unsupported(parser, RUN)
    parser.add_argument(
        "command_line",
        metavar="[IMAGE] COMMAND",
        nargs=argparse.REMAINDER,
        help="an image as --rootfs takes it; what to run, and its arguments",
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    if arguments.rm and arguments.restart not in (None, "", "no"):
        raise UsageError("--rm conflicts with --restart", field="--restart", hint="leave out one of them")
    if arguments.tty and not arguments.detach:
        check_terminal(interactive=arguments.interactive)
    _take_image(arguments)
    reference = image_ref(arguments.rootfs, "--rootfs") if is_image_ref(arguments.rootfs) else None
    is_image = reference is not None or digest_of_root(arguments.rootfs) is not None
    given = arguments.entrypoint is not None
    # An image, and an entrypoint, have a command of their own.
    command = command_words(arguments.command_line, may_be_none=is_image or given)
    name = arguments.name or _made_name(_program(command, arguments, reference))
    request = container_request(context, arguments, name, command)
    try:
        if reference is not None:
            arguments.rootfs = fetch(context, reference)["rootfs"]
            request = container_request(context, arguments, name, command)
        with _default_network(context.client, desired=not arguments.network):
            if arguments.detach:
                _print(context, _created(context.client, request))
                return 0
            return _converse(context, request, arguments)
    except ApiError as error:
        code = failed_code(error)
        hint = _image_hint(arguments, command) if code == codes.NOT_FOUND else ""
        context.output.error(as_typed({**error.body, "hint": hint or error.hint}, arguments))
        return code


def _image_hint(arguments: argparse.Namespace, command: list[str]) -> str:
    """For whom an image was meant, whose name was taken for that of a program: `run alpine echo hi`."""
    if arguments.rootfs == HOST_ROOT:
        return NO_REGISTRY
    if command and is_image_ref(command[0]):
        return f"an image is a root as --rootfs names one: leave out --rootfs, or {command[0]}"
    return ""


def _take_image(arguments: argparse.Namespace) -> None:
    """As Docker's users type it: the image stands before the command."""
    words = arguments.command_line
    if words and is_image_ref(words[0]) and arguments.rootfs == HOST_ROOT:
        arguments.rootfs = words[0]
        arguments.command_line = words[1:]


def _program(command: list[str], arguments: argparse.Namespace, reference: ImageRef | None) -> str:
    """What a name is made of."""
    if reference is not None:
        return os.path.basename(reference.path.rstrip("/")).partition(".")[0]
    return arguments.entrypoint or (command[0] if command else "")


def _made_name(program: str) -> str:
    base = "".join(char for char in os.path.basename(program).lower() if char.isascii() and char.isalnum())
    return f"{base[:NAME_CHARS] or 'container'}-{os.urandom(3).hex()}"


def _created(client: Client, request: ContainerRequest) -> dict[str, Any]:
    """The container's view."""
    view: dict[str, Any] = client.request("POST", path_of("containers", new=1), msgspec.json.encode(request))
    return view


@contextlib.contextmanager
def _default_network(client: Client, *, desired: bool) -> Iterator[None]:
    """There is one inside; one that was made for nothing goes again."""
    made = desired and _make_default_network(client)
    try:
        yield
    except ApiError:
        if made:
            with contextlib.suppress(ClientError):
                client.request("DELETE", path_of("networks", DEFAULT_NETWORK))
        raise


def _make_default_network(client: Client) -> bool:
    """Whether it was not there."""
    try:
        client.request("GET", path_of("networks", DEFAULT_NETWORK))
    except ApiError as error:
        if error.code != "not_found":
            raise
        client.request("POST", "/v1/networks", {"name": DEFAULT_NETWORK})
        return True
    return False


def _converse(context: Context, request: ContainerRequest, arguments: argparse.Namespace) -> int:
    """Be at its input and output until it has ended; its exit code."""
    keys, terminal = arguments.interactive, arguments.tty
    body = msgspec.json.encode(request)
    code: int | None
    # From before it is asked for: a ^C that came in between would leave a container that nobody is at.
    with heard(signals_of(interactive=keys, terminal=terminal, passes_on=True)) as signals:
        conversation = StreamClient(
            context, path_of("containers"), body, interactive=keys, terminal=terminal, signals=signals
        )
        identity = conversation.identity()
        try:
            code, is_lost = conversation.hold(may_detach=True), False
        except UnreachableError:
            code, is_lost = None, True
    if is_lost:
        # Its supervisor is gone, and with it, soon, the container.
        code = _exit_code(context, identity)
    if code is None:
        return 0
    if arguments.rm:
        # The daemon would do it in a few seconds, as if this command is ended before.
        with contextlib.suppress(ClientError):
            context.client.request("DELETE", path_of("containers", identity, force=1))
    return code


def _print(context: Context, view: dict[str, Any]) -> None:
    for warning in view["warnings"]:
        context.output.note(f"warning: {warning}")
    if context.output.as_json:
        context.output.document(view)
    else:
        context.output.line(view["name"])


def _exit_code(context: Context, identity: str) -> int:
    """Once it has one. Raises ClientError."""
    try:
        code = context.client.request("POST", path_of("containers", identity, "wait"), timeout_s=None)[
            "exit_code"
        ]
    except ApiError as error:
        if error.code == "not_found":
            # Somebody else removed it while it ran: Docker's code.
            return codes.KILLED
        raise
    return codes.FAILED if code is None else int(code)


VERBS = {"run": Verb(configure, run)}
