"""What a CNI plugin fails with: a code that runtimes know, and texts for people (CNI SPEC 1.1.0, "Error")."""

from __future__ import annotations

from sealane.programs import daemon
from sealane.programs.api import RefusedError
from sealane.programs.daemon import UnreachableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
"""The message holds key and value."""
ENVIRONMENT = 4
IO = 5
DECODE = 6
CONFIG = 7
NAMESPACE = 8
"""Of the reference library: the namespace is not there, none, or the host's own."""
TRY_LATER = 11
NOT_AVAILABLE = 50
DEGRADED = 51
"""Not available, and attachments that exist may not work."""
CONFLICT = 100
"""Ours, from here on: what is asked collides with what is."""
FULL = 101
KERNEL = 102
INTERNAL = 103

_BY_DAEMONS = {
    "invalid": CONFIG,
    "not_found": CONFIG,
    "exists": CONFIG,
    "conflict": CONFLICT,
    "in_use": CONFLICT,
    "full": FULL,
    "unavailable": TRY_LATER,
    "store": TRY_LATER,
    "kernel": KERNEL,
}
_BY_FIELD = {"sandbox": NAMESPACE, "netns": NAMESPACE, "ifname": ENVIRONMENT}
_OF_A_REQUEST = frozenset({"invalid", "not_found"})


class CniError(Exception):
    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def document(self, version: str) -> dict[str, Any]:
        found: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self.message}
        if self.details:
            found["details"] = self.details
        return found


class LostError(CniError):
    """The daemon was reached and gave no answer: it may have done what was asked."""


def from_daemon(error: UnreachableError | RefusedError) -> CniError:
    """In CNI's terms."""
    if isinstance(error, UnreachableError):
        kind = LostError if isinstance(error, daemon.LostError) else CniError
        return kind(TRY_LATER, str(error), f"{error.hint}; the runtime will try again")
    code = _BY_DAEMONS.get(error.code, INTERNAL)
    if error.code in _OF_A_REQUEST:
        code = _BY_FIELD.get(error.field, code)
    return CniError(code, error.message, error.hint)
