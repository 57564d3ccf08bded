"""Input and output of what a shim or an attendant supervises, over all its restarts: to the log if there is one, and to a
client if one came with it. Standard library only."""

from __future__ import annotations

import os
import select
import time

from sealane.containers.console import Console
from sealane.containers.frames import ERRORS, OUTPUT, Peer, Session, exit_frame, frame, hold_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sealane.containers.logwriter import LogWriter

READ_BYTES = 65536
DRAIN_READS = 64
"""Pieces of what is left at the end: of pipes it is at most a MiB each."""
DRAIN_PAUSE_MS = 50
_READY = select.POLLIN | select.POLLHUP | select.POLLERR


class Streams:
    def __init__(
        self,
        folder: str,
        *,
        terminal: bool,
        stdin: bool,
        client: Peer | None,
        log: LogWriter | None = None,
        signalled: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`folder`: where the OCI runtime hands over a terminal. `stdin`: there is input, though nobody may give any.
        `signalled`: told what signals the client passes on."""
        self._has_terminal, self._has_stdin = terminal, stdin
        self._folder = folder
        self._owner: list[int] | None = None
        self._log = log
        self._session = Session(client, signalled) if client is not None else None
        self._is_running = False
        self._console: Console | None = None
        self._stdin = self._terminal = self._held = self._theirs = -1
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._readers: dict[int, str] = {}
        self._writers: list[int] = []
        for stream in () if self._has_terminal else ("stdout", "stderr"):
            # The writing ends are kept: one pair of pipes serves all restarts and never reports an end.
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._readers[reader] = stream
            self._writers.append(writer)

    def belong_to(self, owner: list[int] | None) -> None:
        """Host ids of the user and the group whose the pipes are: whoever is to open /dev/stderr. None: who made them."""
        self._owner = owner
        for writer in self._writers:
            self._own(writer)

    def _own(self, pipe: int) -> None:
        if self._owner is not None:
            os.fchown(pipe, *self._owner)

    # --- a run

    def open(self) -> tuple[list[str], tuple[int, int, int]]:
        """Before each run: options for the OCI runtime, and what to start it with. Raises OSError."""
        self._close()
        if self._has_terminal:
            self._console = Console(self._folder)
            return ["--console-socket", self._console.path], (self._null, self._null, self._null)
        stdin = self._null
        if self._has_stdin:
            self._theirs, self._stdin = os.pipe()
            os.set_blocking(self._stdin, False)
            self._own(self._theirs)
            stdin = self._theirs
        return [], (stdin, self._writers[0], self._writers[1])

    def connect(self) -> None:
        """It runs."""
        if self._console is not None:
            self._terminal = self._console.take()
            self._console.close()
            self._console = None
            if self._terminal >= 0:
                self._readers = {self._terminal: "stdout"}
                self._held = hold_open(self._terminal)
        self._close_theirs()
        self._is_running = True
        if self._session is not None:
            self._session.connect(self._stdin, self._terminal)
            self._stdin = -1

    def drain(self) -> None:
        """It has ended: what it wrote is there, or (of a terminal) will be in a moment. What others write whom it left behind,
        nobody waits for."""
        self._let_go()
        for _ in range(DRAIN_READS):
            poll = select.poll()
            for reader in self._readers:
                poll.register(reader, select.POLLIN)
            ready = poll.poll(DRAIN_PAUSE_MS if self._has_terminal else 0) if self._readers else []
            copied = [self._copy(reader) for reader, _ in ready]
            if not any(copied):
                break
        if self._log is not None:
            self._log.flush(time.time_ns())
        self._close()

    def end(self, exit_code: int, error: str) -> None:
        """For good: tell the client. One that has not taken all yet may take his time, and is left to a process of its own:
        this one's end is waited for."""
        if self._session is None:
            return
        client = self._session.client
        client.send(exit_frame(exit_code, error))
        if client.pending and client.is_open and os.fork() == 0:
            self._say_farewell(client)

    @staticmethod
    def _say_farewell(client: Peer) -> None:
        """Holds nothing but the connection: neither the lock nor anybody's pipes."""
        try:
            os.setsid()
            os.closerange(0, client.fileno())
            os.closerange(client.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
            client.finish()
        finally:
            os._exit(0)

    def _close(self) -> None:
        """What belongs to one run."""
        self._is_running = False
        self._close_theirs()
        if self._session is not None:
            self._session.disconnect()
        if self._console is not None:
            self._console.close()
            self._console = None
        self._let_go()
        for descriptor in (self._stdin, self._terminal):
            if descriptor >= 0:
                os.close(descriptor)
        if self._has_terminal:
            self._readers = {}
        self._stdin = self._terminal = -1

    def _let_go(self) -> None:
        """Of the terminal's other end."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _close_theirs(self) -> None:
        """The container's end of its input."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1

    # --- while it runs

    def interests(self) -> dict[int, int]:
        """What to poll for, by descriptor. Who does not take output holds the container up; until it runs there may be some
        of the OCI runtime's, which is not for him."""
        session = self._session
        found = session.interests() if session is not None else {}
        if session is None or (self._is_running and not session.client.is_full):
            for reader in self._readers:
                found[reader] = found.get(reader, 0) | select.POLLIN
        return found

    def serve(self, descriptor: int, events: int) -> bool:
        """Whether that was one of the interests."""
        session, is_reader = self._session, descriptor in self._readers
        is_mine = is_reader or (session is not None and descriptor in session.interests())
        if is_reader and events & _READY:
            self._copy(descriptor)
        if is_mine and session is not None:
            session.serve(descriptor, events)
            if session.has_ended:
                self._hang_up()
        return is_mine

    def _copy(self, reader: int) -> bool:
        """Copy one piece of output; False if there is none now."""
        try:
            chunk = os.read(reader, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            del self._readers[reader]
            return False
        stream = self._readers[reader]
        if self._log is not None:
            self._log.feed(stream, chunk, time.time_ns())
        if self._session is not None and self._is_running:
            self._session.client.send(frame(OUTPUT if stream == "stdout" else ERRORS, chunk))
        return bool(chunk)

    @property
    def has_client(self) -> bool:
        return self._session is not None

    def _hang_up(self) -> None:
        """The client has gone. The input has an end, unless it is a terminal's: that may hang."""
        if self._session is not None:
            self._session.disconnect()
            self._session.client.close()
        self._session = None
