"""A line for each object of a project as it comes or goes, told by the daemon's events while a verb is at work.

Events only make waiting pleasant: what the verb answers is the truth, and what no event has told is printed from it.
"""

import threading
from collections.abc import Collection
from typing import Any, Self

from sealane.cli.context import Context
from sealane.cli.output import Output
from sealane.client import ClientError, path_of

JOIN_S = 2.0
_TOLD = {
    "network.created": ("+", "network", "created"),
    "network.removed": ("-", "network", "removed"),
    "container.started": ("+", "container", "started"),
    "container.healthy": ("+", "container", "healthy"),
    "container.stopped": ("~", "container", "stopped"),
    "container.failed": ("!", "container", "failed"),
    "container.removed": ("-", "container", "removed"),
}
_STYLES = {"+": "green", "-": "red", "~": "yellow", "!": "red", "=": "dim"}
_ANSWERED = {"created": "+", "changed": "~", "removed": "-", "unchanged": "="}


class Progress:
    """Use as a context around the verb; then `finish` with its answer."""

    def __init__(self, context: Context, names: Collection[str]) -> None:
        self._output: Output = context.output
        self._names = frozenset(names)
        self._told: set[tuple[str, str]] = set()
        self._client = context.another_client()
        # Connected before the verb begins, so that its first event is not missed.
        self._since = self._newest()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        if not self._output.as_json:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.shutdown()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._client.close()

    def finish(self, view: dict[str, Any]) -> None:
        for kind, sign in _ANSWERED.items():
            for name in view[kind]:
                # What changed was told as it went and came; what came or went only by an event that says so.
                signs = "+-~" if kind in ("changed", "unchanged") else sign
                if not any((told, name) in self._told for told in signs):
                    self._line(sign, name, kind)

    def _newest(self) -> int:
        if self._output.as_json:
            return 0
        return max((event["number"] for event in self._client.stream("GET", path_of("events"))), default=0)

    def _read(self) -> None:
        try:
            for event in self._client.stream("GET", path_of("events", follow=1, since=self._since)):
                self._tell(event)
        except (ClientError, OSError):
            # The verb is over and its answer says the rest.
            return

    def _tell(self, event: dict[str, Any]) -> None:
        if event["kind"] in _TOLD and event["subject"] in self._names:
            sign, what, text = _TOLD[event["kind"]]
            why = f": {event['detail']['error']}" if "error" in event["detail"] else ""
            self._told.add((sign, f"{what} {event['subject']}"))
            self._line(sign, f"{what} {event['subject']}", f"{text}{why}")

    def _line(self, sign: str, name: str, text: str) -> None:
        self._output.line((f" {sign} ", _STYLES[sign]), f"{name}  ", (text, "dim"))
        self._output.raw("")
