"""What a CNI plugin fails with: a code that runtimes know, and texts for people (CNI SPEC 1.1.0, "Error")."""

from __future__ import annotations

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


def refused(body: dict[str, Any]) -> CniError:
    """The daemon's refusal, in CNI's terms."""
    said = str(body.get("code", ""))
    field = str(body.get("field", ""))
    code = _BY_DAEMONS.get(said, INTERNAL)
    if said in _OF_A_REQUEST:
        code = _BY_FIELD.get(field, code)
    message = str(body.get("message", "the daemon refused"))
    return CniError(code, f"{field}: {message}" if field else message, str(body.get("cure", "")))
