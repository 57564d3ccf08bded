"""`sealane capture`."""

import os
import selectors
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from sealane.cli.context import Context, UsageError
from sealane.cli.options import whole
from sealane.cli.output import counted
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.client import ApiError, path_of

if TYPE_CHECKING:
    from sealane.linux.tap import Tap

TAPS_MAX = 64
SNAPLEN_MAX = 262_144
"""Bytes kept of a frame; as tcpdump's."""
BATCH = 256
"""Frames read of one link before the next has its turn."""
LOOK_S = 0.5
"""Between looks at whether the links are still there."""


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Record the frames that pass endpoints, seen from inside their sandboxes, in pcapng: to a file, or to a pipe "
        "for tcpdump or Wireshark. Each endpoint is an interface of its own in the file, named SANDBOX/NETWORK, so a "
        "frame between two of them is there twice and shows where it was lost. Nothing is changed and nothing is held "
        "up. It ends with -c, with --for, when the last link is gone, or with Ctrl-C. Needs root: it enters the "
        "sandboxes itself.",
        [
            "sealane capture web | tcpdump -n -r - port 80",
            "sealane capture web db -w both-ends.pcapng     # both ends of a conversation",
            "sealane capture front --for 10 -w front.pcapng # a whole network, ten seconds",
        ],
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="+",
        help="a sandbox or container, else a network, else an endpoint (SANDBOX/NETWORK, a name or an id)",
    )
    parser.add_argument(
        "-w", "--write", metavar="FILE", default="-", help="where to (default: -, the standard output)"
    )
    parser.add_argument(
        "-c",
        "--count",
        type=whole,
        metavar="N",
        default=0,
        help="end after this many frames (default: 0, no such end)",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=whole,
        metavar="SECONDS",
        default=0,
        help="end after this long (default: 0, no such end)",
    )
    parser.add_argument(
        "-s",
        "--snaplen",
        type=whole,
        metavar="BYTES",
        default=SNAPLEN_MAX,
        help=f"keep this much of each frame (default: {SNAPLEN_MAX})",
    )


def run(context: Context, arguments: Namespace) -> int:
    to_stdout = arguments.write == "-"
    if to_stdout and context.output.is_tty:
        raise UsageError(
            "refusing to write pcapng to a terminal",
            field="--write",
            hint="name a file with -w, or pipe it: `sealane capture web | tcpdump -n -r -`",
        )
    if to_stdout and context.output.as_json:
        raise UsageError("--json requires -w FILE", field="--write", hint="name a file with -w")
    if not 1 <= arguments.snaplen <= SNAPLEN_MAX:
        raise UsageError(
            f"{arguments.snaplen} is not from 1 to {SNAPLEN_MAX} bytes",
            field="--snaplen",
            hint="leave it out for whole frames",
        )
    endpoints = _endpoints(context, arguments.target)
    # Not before it is known to be asked for: the adapters load a good deal.
    from sealane.engine.ports import NamespaceGoneError
    from sealane.linux.netns import NamespaceError

    with ExitStack() as opened:
        try:
            recorder = Recorder(endpoints, arguments.snaplen, opened)
        except PermissionError as error:
            return _failed(context, f"the sandboxes cannot be entered: {error}", "become root")
        except (NamespaceError, NamespaceGoneError, OSError) as error:
            return _failed(context, str(error), "see `sealane status`")
        with _file(arguments.write) as file:
            recorder.run(file, arguments.count, arguments.seconds)
    summary = {"frames": recorder.frames, "dropped": recorder.dropped, "interfaces": recorder.names}
    if context.output.as_json:
        context.output.document(summary)
    else:
        lost = f", {recorder.dropped} lost since the reader was too slow" if recorder.dropped else ""
        context.output.note(
            f"{counted(recorder.frames, 'frame')} from {counted(len(recorder.names), 'link')}{lost}"
        )
    return 0


class Recorder:
    """Writes what the taps show until an end is reached. `frames` and `dropped` are right afterwards."""

    def __init__(self, endpoints: list[dict[str, Any]], snaplen: int, opened: ExitStack) -> None:
        """Opens a tap for each endpoint; `opened` closes them. Raises as Tap."""
        from sealane.linux.tap import Tap

        self.names = [f"{view['sandbox']}/{view['network']}" for view in endpoints]
        self.frames = self.dropped = 0
        self._endpoints = endpoints
        self._snaplen = snaplen
        self._taps: list[Tap] = []
        for view in endpoints:
            tap = Tap(view["netns"], view["ifname"], snaplen)
            opened.callback(tap.close)
            self._taps.append(tap)

    def run(self, file: BinaryIO, count: int, seconds: float) -> None:
        """`count` or `seconds` 0: no such end. Ctrl-C is an end like the others."""
        from sealane.cli import pcapng

        file.write(pcapng.section("sealane"))
        file.writelines(
            pcapng.interface(name, f"{view['ifname']} in {view['sandbox']}", self._snaplen)
            for name, view in zip(self.names, self._endpoints, strict=True)
        )
        file.flush()
        try:
            for number, tap in self._ready(seconds):
                self._read(file, number, tap, count)
                if count and self.frames == count:
                    break
        except KeyboardInterrupt:
            pass
        now = time.time_ns()
        for number, tap in enumerate(self._taps):
            received, dropped = tap.counters()
            self.dropped += dropped
            file.write(pcapng.statistics(number, now, received, dropped))

    def _ready(self, seconds: float) -> "Iterator[tuple[int, Tap]]":
        """Taps that have something, until the time is over or all links are gone."""
        end = time.monotonic() + seconds if seconds else float("inf")
        with selectors.DefaultSelector() as selector:
            for number, tap in enumerate(self._taps):
                selector.register(tap, selectors.EVENT_READ, (number, tap))
            look = 0.0
            while (now := time.monotonic()) < end:
                if now >= look:
                    look = now + LOOK_S
                    if all(tap.is_gone() for tap in self._taps):
                        return
                for key, _ in selector.select(min(LOOK_S, end - now)):
                    yield key.data

    def _read(self, file: BinaryIO, number: int, tap: "Tap", count: int) -> None:
        from sealane.cli import pcapng

        left = min(BATCH, count - self.frames) if count else BATCH
        while left and (frame := tap.read()) is not None:
            direction = pcapng.OUTBOUND if frame.outgoing else pcapng.INBOUND
            file.write(pcapng.packet(number, frame.time_ns, frame.data, frame.length, direction))
            self.frames += 1
            left -= 1
        # Whoever reads the pipe sees it now.
        file.flush()


def _endpoints(context: Context, targets: list[str]) -> list[dict[str, Any]]:
    """The endpoints meant, each once and with its sandbox's `netns`."""
    found = {view["id"]: view for target in targets for view in _meant(context, target)}
    if len(found) > TAPS_MAX:
        raise UsageError(
            f"{len(found)} endpoints are too many: at most {TAPS_MAX}",
            field="TARGET",
            hint="name some of them",
        )
    paths: dict[str, str] = {}
    for view in found.values():
        sandbox = view["sandbox_id"]
        if sandbox not in paths:
            paths[sandbox] = context.client.request("GET", path_of("sandboxes", sandbox))["netns"]
        view["netns"] = paths[sandbox]
    return list(found.values())


def _meant(context: Context, target: str) -> list[dict[str, Any]]:
    if "/" not in target:
        for key in ("sandbox", "network"):
            try:
                views: list[dict[str, Any]] = context.client.request(
                    "GET", path_of("endpoints", **{key: target})
                )
            except ApiError as error:
                if error.code != "not_found":
                    raise
                continue
            if not views:
                raise UsageError(
                    f"the {key} {target} has no endpoints", field="TARGET", hint="attach it first"
                )
            return views
    try:
        return [context.client.request("GET", path_of("endpoints", target))]
    except ApiError as error:
        if error.code != "not_found":
            raise
        raise UsageError(
            f"there is no sandbox, network or endpoint {target!r}",
            field="TARGET",
            hint="see `sealane endpoint ls`",
        ) from error


@contextmanager
def _file(name: str) -> Iterator[BinaryIO]:
    """Readable by its owner alone: a capture holds other people's traffic."""
    if name == "-":
        yield sys.stdout.buffer
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"{name}: {error.strerror}",
            field="--write",
            hint="name a file that you may write, or - for stdout",
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _failed(context: Context, message: str, hint: str) -> int:
    context.output.error({"code": "unavailable", "message": message, "hint": hint})
    return 1


VERBS = {"capture": Verb(configure, run)}
