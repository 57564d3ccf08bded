"""What a command is given: the daemon, the output, and the process's surroundings."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sealane.cli.flags import OF_NAMES, Flags, in_flags
from sealane.cli.output import Output
from sealane.client import ApiError, Client, default_socket


class UsageError(Exception):
    """The command line or a file is wrong. Nothing was asked of the daemon; exit code 2."""

    usage = ""
    """Of the command, where that helps."""

    def __init__(
        self, message: str, *, field: str = "", hint: str = "", problems: Iterable[dict[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": "invalid", "message": message, "field": field, "hint": hint}
        if listed := list(problems):
            self.body["problems"] = listed


class CommandLineError(UsageError):
    """The words themselves are wrong. `usage` is that of the command."""

    def __init__(self, message: str, usage: str, *, field: str, hint: str) -> None:
        super().__init__(message, field=field, hint=hint)
        self.usage = usage


@contextmanager
def _unanswered(flags: Flags) -> Iterator[None]:
    try:
        with in_flags(flags):
            yield
    except ApiError as error:
        if error.code != "invalid":
            raise
        raise UsageError(error.message, field=error.field, hint=error.hint) from error


class Context:
    def __init__(self, output: Output, environ: Mapping[str, str], socket: str) -> None:
        self.output = output
        self.environ = environ
        self.socket = socket or default_socket(environ)
        self.client = Client(self.socket)
        # Before the answer, which may be of less than there is.
        self.client.on_notice = lambda text: output.note(f"warning: {text}; see `sealane status`")

    def question(self, path: str, request: object, flags: Flags, *, timeout_s: float | None = -1.0) -> Any:
        """The daemon's answer to a POST. One that it cannot answer is a UsageError, not to be taken for a no."""
        with _unanswered(flags):
            return self.client.request("POST", path, request, timeout_s=timeout_s)

    def questions(self, path: str, request: object, flags: Flags) -> Iterator[Any]:
        """As `question`, of one that is answered line by line."""
        with _unanswered(flags):
            yield from self.client.stream("POST", path, request)

    def another_client(self) -> Client:
        """For a stream beside the calls."""
        return Client(self.socket)

    def each(
        self, names: Iterable[str], act: Callable[[str], Any], told: Callable[[Any], str] | None = None
    ) -> int:
        """Act on all, also after one has failed; print the names of those that are done, or what is `told` of the answer.
        The exit code."""

        def noted(name: str) -> object:
            view = act(name)
            if not self.output.as_json:
                self.output.line(name if told is None else told(view))
                self.output.raw("")
            return view

        done, code = self._answers(names, noted)
        if self.output.as_json:
            self.output.document(done)
        return code

    def inspect(self, names: Iterable[str], ask: Callable[[str], object]) -> int:
        """Ask for all, also after one is not there; print the answers as one document. The exit code."""
        found, code = self._answers(names, ask)
        self.output.document(found)
        return code

    def _answers(self, names: Iterable[str], ask: Callable[[str], object]) -> tuple[list[object], int]:
        code = 0
        found = []
        for name in names:
            try:
                with in_flags(OF_NAMES):
                    found.append(ask(name))
            except ApiError as error:
                self.output.error(error.body)
                code = 1
        return found, code
