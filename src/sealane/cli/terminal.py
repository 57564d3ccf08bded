"""This command's terminal, or its streams, joined to a process that the daemon keeps: what `--interactive` and `--tty` are."""

import base64
import contextlib
import json
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from sealane.cli.context import Context, UsageError
from sealane.client import ApiError, UnreachableError
from sealane.containers import codes
from sealane.containers.frames import (
    BEGUN,
    ERRORS,
    EXIT,
    INPUT,
    OUTPUT,
    PROTOCOL,
    Peer,
    frame,
    signal_frame,
    size_frame,
)

READ_BYTES = 32 * 1024
STDIN, STDOUT, STDERR = 0, 1, 2
DEFAULT_SIZE = os.terminal_size((80, 24))
DETACH = b"\x10\x11"
"""^P ^Q, as Docker's."""
PASSED_ON = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
)
"""Signals to this command that are meant for the process."""

_NAMES = {OUTPUT: "stdout", ERRORS: "stderr"}


def check_terminal(*, interactive: bool) -> None:
    """As Docker's `-t`. Raises UsageError."""
    if interactive and not os.isatty(STDIN):
        raise UsageError(
            "the input device is not a TTY", field="--tty", hint="leave out -t, or run it in a terminal"
        )


class StreamClient:
    """With one process, from its request to its end."""

    def __init__(
        self,
        context: Context,
        path: str,
        body: Any,
        *,
        interactive: bool,
        terminal: bool,
        signals: "Signals | None" = None,
    ) -> None:
        """POST it. `signals`: what `heard` tells of those that come meanwhile. Raises ApiError if it is refused,
        UnreachableError."""
        self._context = context
        self._interactive, self._terminal = interactive, terminal
        self._signals = signals
        first = _size() if terminal else b""
        connection, early = context.client.upgrade(path, PROTOCOL, body, first)
        self._peer = Peer(connection, early)
        self._said = list(self._peer.received())
        """What has come and is not shown yet."""

    def identity(self) -> str:
        """Of the container that was made for it; its warnings are shown. Raises ApiError if it could not be started, UnreachableError."""
        while not self._said and self._peer.is_open:
            waiting: list[Any] = [self._peer, *([] if self._signals is None else [self._signals])]
            ready, _, _ = select.select(waiting, [], [])
            if self._signals in ready:
                self._tell_of_signals()
            if self._peer in ready:
                self._said += self._peer.receive()
        if not self._said:
            raise _lost()
        kind, payload = self._said[0]
        if kind == BEGUN:
            begun = json.loads(payload)
            for warning in begun.get("warnings", ()):
                self._context.output.note(f"warning: {warning}")
            return str(begun["id"])
        return ""

    def hold(self, *, may_detach: bool = False) -> int | None:
        """Until the process has ended; its exit code. `may_detach`: or until somebody types ^P ^Q, and it goes on (None).
        Raises ApiError if it never ran, UnreachableError if its end is not told."""
        has_keys = self._terminal and self._interactive
        with contextlib.closing(self._peer), _raw(has_keys):
            if not self._interactive:
                self._peer.send(frame(INPUT))
            end = self._relay(_Keys(DETACH if may_detach and has_keys else b""))
        if end is None:
            return None
        if refusal := end.get("refusal") or _refusal(end):
            raise ApiError(0, refusal)
        return self._told(end)

    def _tell_of_signals(self) -> None:
        assert self._signals is not None
        for number in self._signals.take():
            if number == signal.SIGWINCH:
                self._peer.send(_size())
            elif number in PASSED_ON:
                self._peer.send(signal_frame(number))

    def _relay(self, keys: "_Keys") -> dict[str, Any] | None:
        """What its last frame says; None: somebody left it."""
        reads, peer = self._interactive, self._peer
        while (end := self._shown()) is None and peer.is_open:
            poll = select.poll()
            poll.register(peer.fileno(), peer.events())
            if self._signals is not None:
                poll.register(self._signals.fileno(), select.POLLIN)
            if reads and not peer.is_full:
                poll.register(STDIN, select.POLLIN)
            for descriptor, _ in poll.poll():
                if self._signals is not None and descriptor == self._signals.fileno():
                    self._tell_of_signals()
                elif descriptor == STDIN:
                    data = _read()
                    reads = bool(data)
                    peer.send(frame(INPUT, keys.typed(data)))
                    if keys.has_left:
                        return None
                else:
                    peer.flush()
                    self._said += peer.receive()
        if end is None:
            raise _lost()
        return end

    def _shown(self) -> dict[str, Any] | None:
        """Show what has come; what the last frame says, once it has come, too."""
        value, self._said = self._said, []
        for kind, payload in value:
            if kind == EXIT:
                found: dict[str, Any] = json.loads(payload)
                return found
            if kind in _NAMES:
                self._show(kind, payload)
        return None

    def _show(self, kind: int, payload: bytes) -> None:
        if self._context.output.as_json:
            self._show_line(
                {"stream": _NAMES[kind], "data": base64.b64encode(payload).decode(), "exit_code": None}
            )
        else:
            self._write(sys.stdout if kind == OUTPUT else sys.stderr, payload)

    def _show_line(self, document: dict[str, Any]) -> None:
        self._write(sys.stdout, json.dumps(document).encode() + b"\n")

    def _write(self, stream: TextIO, data: bytes) -> None:
        """All of it, however little is taken at a time; signals go on to the process meanwhile."""
        stream.flush()
        try:
            descriptor = stream.fileno()
        except OSError:  # Somebody else's object in its place.
            stream.buffer.write(data)
            stream.flush()
            return
        rest = memoryview(data)
        while rest:
            with self._told_at_once():
                try:
                    rest = rest[os.write(descriptor, rest) :]
                except BlockingIOError:  # Others have made it so: what is open is shared.
                    select.select([], [descriptor], [])

    @contextlib.contextmanager
    def _told_at_once(self) -> Iterator[None]:
        """Inside, where this thread may wait long and uses the connection for nothing else."""
        if self._signals is None:
            yield
            return
        self._signals.meanwhile = self._tell_of_signals
        try:
            # Those that came before that.
            self._tell_of_signals()
            yield
        finally:
            self._signals.meanwhile = _nothing

    def _told(self, end: dict[str, Any]) -> int:
        code = int(str(end["exit_code"]))
        if self._context.output.as_json:
            self._show_line({"stream": "exit", "data": "", "exit_code": code})
        return code


def _refusal(end: dict[str, Any]) -> dict[str, str]:
    """What the OCI runtime said of what never ran, as the daemon's errors are."""
    if not end["error"]:
        return {}
    found = {codes.NOT_FOUND: "not_found", codes.NOT_EXECUTABLE: "invalid"}.get(end["exit_code"], "")
    return {"code": found or "kernel", "message": str(end["error"]), "field": "command" if found else ""}


class _Keys:
    """What is typed, but for the keys that leave."""

    def __init__(self, leaving: bytes) -> None:
        self._leaving = leaving
        self._held = b""
        self.has_left = False

    def typed(self, data: bytes) -> bytes:
        """To be sent on. The beginning of the keys that leave is held back until it is known what follows."""
        if not self._leaving:
            return data
        data = self._held + data
        before, found, _ = data.partition(self._leaving)
        if found:
            self.has_left = True
            return before
        self._held = self._leaving[:1] if data.endswith(self._leaving[:1]) else b""
        return data[: len(data) - len(self._held)]


def _lost() -> UnreachableError:
    return UnreachableError("the process was lost: whoever attended it hung up", is_sent=True)


def _read() -> bytes:
    """Of stdin; empty at its end, or if there is none."""
    try:
        return os.read(STDIN, READ_BYTES)
    except OSError:
        return b""


def _size() -> bytes:
    """Of whichever stream is a terminal."""
    for descriptor in (STDIN, STDOUT, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            return size_frame(rows, columns)
    return size_frame(DEFAULT_SIZE.lines, DEFAULT_SIZE.columns)


@contextlib.contextmanager
def _raw(desired: bool) -> Iterator[None]:
    """Keys go through as they are pressed, ^C too. As it was before, in any case but SIGKILL."""
    if not desired:
        yield
        return
    before = termios.tcgetattr(STDIN)
    handlers = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        # What was typed ahead is kept.
        tty.setraw(STDIN, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):  # It may be gone.
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _nothing() -> None: ...


class Signals:
    """Those that have come, to be polled for; or told at once by `meanwhile`, in the middle of whatever this thread does."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self.meanwhile: Callable[[], None] = _nothing

    def fileno(self) -> int:
        return self._reader

    def take(self) -> bytes:
        """Their numbers."""
        try:
            return os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return b""


@contextlib.contextmanager
def heard(desired: Iterable[int]) -> Iterator[Signals | None]:
    """Signals in the place of what they do; None for none. What is ignored stays so: `nohup`, a shell's background."""
    before = {
        number: handler for number in desired if (handler := signal.getsignal(number)) != signal.SIG_IGN
    }
    if not before:
        yield None
        return
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signals = Signals(reader)
    for number in before:
        signal.signal(number, lambda *_: signals.meanwhile())
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def signals_of(*, interactive: bool, terminal: bool, passes_on: bool) -> set[int]:
    """What is to be heard. At a terminal of its own ^C is a key as any other, and who hangs up leaves."""
    found: set[int] = {signal.SIGWINCH} if terminal else set()
    return found | PASSED_ON if passes_on and not (interactive and terminal) else found
