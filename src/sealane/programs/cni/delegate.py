"""The IPAM plugin that a configuration names, run as the specification says: the same environment, the whole
configuration on its input, its complaints passed through, its result or error on its output."""

from __future__ import annotations

import posix

from sealane.programs import text
from sealane.programs.cni import result
from sealane.programs.cni.errors import CONFIG, DECODE, ENVIRONMENT, IO, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sealane.programs.cni.spec import Request

OUTPUT_BYTES_MAX = 1 << 20
READ_BYTES = 64 * 1024


def add(request: Request) -> dict[str, Any]:
    """Addresses for the attachment, as a result of 1.1.0. Raises CniError."""
    output = run(request, "ADD")
    try:
        return result.from_version(text.loads(output))
    except ValueError as error:
        raise CniError(DECODE, f"IPAM plugin {request.delegate}: its result is not JSON: {error}") from None


def run(request: Request, verb: str) -> bytes:
    """Its output. Raises CniError with its code and message."""
    status, output = _execute(_find(request), verb, request.stdin)
    if status != 0:
        raise _refusal(request.delegate, status, output)
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


def _find(request: Request) -> str:
    for directory in request.path:
        path = f"{directory}/{request.delegate}"
        if posix.access(path, posix.X_OK):
            return path
    where = ":".join(request.path)
    raise CniError(CONFIG, f"ipam.type: there is no plugin {request.delegate} in CNI_PATH {where}")


def _execute(path: str, verb: str, stdin: bytes) -> tuple[int, bytes]:
    """Exit status and output. The input is a memory file: a pipe that both sides wait at cannot hang."""
    config = posix.memfd_create("cni")
    written = 0
    while written < len(stdin):
        written += posix.write(config, stdin[written:])
    posix.lseek(config, 0, 0)
    out, into = posix.pipe()
    environ = {**posix.environ, b"CNI_COMMAND": verb.encode()}
    moves = [(posix.POSIX_SPAWN_DUP2, config, 0), (posix.POSIX_SPAWN_DUP2, into, 1)]
    try:
        pid = posix.posix_spawn(path, [path], environ, file_actions=moves)
    except OSError as error:
        raise CniError(IO, f"{path} cannot be started: {error.strerror}") from None
    finally:
        posix.close(into)
        posix.close(config)
    output = b""
    while (part := posix.read(out, READ_BYTES)) and len(output) <= OUTPUT_BYTES_MAX:
        output += part
    posix.close(out)
    _, status = posix.waitpid(pid, 0)
    return posix.waitstatus_to_exitcode(status), output


def _refusal(name: str, status: int, output: bytes) -> CniError:
    try:
        said = text.loads(output)
        message, code, details = str(said["msg"]), int(said["code"]), str(said.get("details", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = output.decode(errors="replace").strip() or f"exit status {status}, and no output"
        return CniError(IO, f"IPAM plugin {name} failed: {shown}")
    return CniError(code or IO, f"IPAM plugin {name}: {message}", details)
