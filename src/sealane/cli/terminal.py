"""This command's terminal, or its streams, joined to a process that the daemon keeps: what `--interactive` and `--tty` are."""

import base64
import contextlib
import json
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from sealane.cli.context import Context, UsageError
from sealane.client import ApiError, UnreachableError
from sealane.containers.frames import ERRORS, EXIT, INPUT, OUTPUT, Peer, frame, size_frame

READ_BYTES = 32 * 1024
STDIN, STDOUT, STDERR = 0, 1, 2
DEFAULT_SIZE = os.terminal_size((80, 24))
_NAMES = {OUTPUT: "stdout", ERRORS: "stderr"}


def check_terminal(*, interactive: bool) -> None:
    """As Docker's `-t`. Raises UsageError."""
    if interactive and not os.isatty(STDIN):
        raise UsageError(
            "the input device is not a TTY", field="--tty", cure="leave out -t, or run it in a terminal"
        )


def converse(
    context: Context, connection: socket.socket, early: bytes, *, interactive: bool, terminal: bool
) -> int:
    """Until the process has ended; its exit code. Raises ApiError if it never ran, UnreachableError if its end is not told."""
    with (
        contextlib.closing(Peer(connection, early)) as peer,
        _raw(terminal and interactive),
        _woken_by_resizing(terminal and interactive) as wake,
    ):
        if terminal:
            peer.send(_size())
        if not interactive:
            peer.send(frame(INPUT))
        return _relay(context, peer, wake, reads=interactive and peer.fileno() != STDIN)


def _relay(context: Context, peer: Peer, wake: int | None, *, reads: bool) -> int:
    if (code := _shown(context, peer.received())) is not None:
        return code
    while peer.is_open:
        poll = select.poll()
        poll.register(peer.fileno(), peer.events())
        if wake is not None:
            poll.register(wake, select.POLLIN)
        if reads and not peer.is_full:
            poll.register(STDIN, select.POLLIN)
        for descriptor, events in poll.poll():
            if wake is not None and descriptor == wake:
                os.read(wake, READ_BYTES)
                peer.send(_size())
            elif descriptor == STDIN:
                data = _read()
                reads = bool(data)
                peer.send(frame(INPUT, data))
            else:
                if events & select.POLLOUT:
                    peer.flush()
                if events & ~select.POLLOUT and (code := _shown(context, peer.receive())) is not None:
                    return code
    raise UnreachableError("the daemon was lost: it hung up", is_sent=True)


def _read() -> bytes:
    """Of stdin; empty at its end, or if there is none."""
    try:
        return os.read(STDIN, READ_BYTES)
    except OSError:
        return b""


def _shown(context: Context, frames: Iterator[tuple[int, bytes]]) -> int | None:
    """The exit code, once it has come."""
    for kind, payload in frames:
        if kind == EXIT:
            return _told_end(context, json.loads(payload))
        if kind not in _NAMES:
            continue
        if context.output.as_json:
            data = base64.b64encode(payload).decode()
            context.output.document_line({"stream": _NAMES[kind], "data": data, "exit_code": None})
        else:
            stream = sys.stdout if kind == OUTPUT else sys.stderr
            stream.flush()
            stream.buffer.write(payload)
            stream.flush()
    return None


def _told_end(context: Context, end: dict[str, Any]) -> int:
    if refusal := end.get("refusal"):
        raise ApiError(0, refusal)
    code = int(str(end["exit_code"]))
    if context.output.as_json:
        context.output.document_line({"stream": "exit", "data": "", "exit_code": code})
    if end["error"]:
        sys.stderr.write(f"{end['error']}\n")
    return code


def _size() -> bytes:
    """Of whichever stream is a terminal."""
    for descriptor in (STDIN, STDOUT, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            return size_frame(rows, columns)
    return size_frame(DEFAULT_SIZE.lines, DEFAULT_SIZE.columns)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Keys go through as they are pressed, ^C too. As it was before, in any case but SIGKILL."""
    if not wanted:
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
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _woken_by_resizing(wanted: bool) -> Iterator[int | None]:
    """A descriptor that can be read when the terminal's size is another."""
    if not wanted:
        yield None
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handler = signal.signal(signal.SIGWINCH, lambda *_: None)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGWINCH, handler)
        os.close(reader)
        os.close(writer)
