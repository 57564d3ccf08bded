"""The IPAM plugin that a configuration names: its addresses, and its failures in our words."""

from __future__ import annotations

from sealane.programs import text
from sealane.programs.cni import plugin, result
from sealane.programs.cni.errors import CONFIG, DECODE, ENVIRONMENT, IO, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sealane.programs.cni.spec import Request


def add(request: Request) -> dict[str, Any]:
    """Addresses for the attachment, as a result of 1.1.0. Raises CniError."""
    return read_lease(request, run(request, "ADD"))


def read_lease(request: Request, output: bytes) -> dict[str, Any]:
    """What the plugin has answered to ADD, as a result of 1.1.0. Raises CniError."""
    try:
        return result.from_version(text.loads(output))
    except ValueError as error:
        raise CniError(DECODE, f"IPAM plugin {request.delegate}: its result is not JSON: {error}") from None


def run(request: Request, verb: str) -> bytes:
    """Its output. Raises CniError with its code and message."""
    name = request.delegate
    try:
        path = plugin.find(name.encode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        where = ":".join(request.path)
        raise CniError(CONFIG, f"ipam.type: there is no plugin {name} in CNI_PATH {where}") from None
    try:
        status, output = plugin.run(path, verb.encode(), request.stdin)
    except OSError as error:
        raise CniError(IO, f"{path.decode(errors='replace')} cannot be started: {error.strerror}") from None
    if status != 0:
        raise _refusal(name, status, output)
    return output


def forward(request: Request) -> None:
    """A verb that a plugin may be too old for: one that says so has nothing to do with it."""
    if not request.delegate:
        return
    try:
        run(request, request.verb)
    except CniError as error:
        # host-local and static of plugins 1.1.1 know neither STATUS nor GC.
        if error.code != ENVIRONMENT or "unknown CNI_COMMAND" not in error.message:
            raise


def _refusal(name: str, status: int, output: bytes) -> CniError:
    try:
        value = text.loads(output)
        message, code, details = str(value["msg"]), int(value["code"]), str(value.get("details", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = output.decode(errors="replace").strip() or f"exit status {status}, and no output"
        return CniError(IO, f"IPAM plugin {name} failed: {shown}")
    return CniError(code or IO, f"IPAM plugin {name}: {message}", details)
