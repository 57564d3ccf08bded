"""A question to the daemon's API. `sealane.client` is a client for all of it and takes twice the time to import."""

from __future__ import annotations

from sealane.programs import text
from sealane.programs.daemon import LostError, exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HTTP_ERROR = 400


class RefusedError(Exception):
    """The daemon's answer is an error, and nothing was done. `code`, `field` and `hint` as in `sealane.wire.base`."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.code = str(body.get("code", ""))
        self.field = str(body.get("field", ""))
        self.hint = str(body.get("hint", ""))
        said = str(body.get("message", "the daemon refused"))
        self.message = f"{self.field}: {said}" if self.field else said
        super().__init__(self.message)


def ask(path: str, target: str, body: Any) -> Any:
    """The daemon's answer to POST `target`. Raises UnreachableError, LostError, RefusedError."""
    status, answer = exchange(path, target, text.dumps(body).encode())
    try:
        document = text.loads(answer)
    except ValueError:
        raise LostError("the sealane daemon's answer is no JSON") from None
    if status >= HTTP_ERROR:
        raise RefusedError(document.get("error", {}))
    return document
