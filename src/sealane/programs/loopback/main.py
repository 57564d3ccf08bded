"""The executable: sets the `lo` of a pod's namespace up and says what it has. It asks no daemon.

containerd calls it for each pod (go-cni, WithLoNetwork), at the same time as the network's plugin. DEL leaves `lo` up:
the link goes with its namespace, and while an endpoint of ours is there the daemon would put it up again.
"""

from __future__ import annotations

import posix

from sealane.programs import read_all, text, write_all
from sealane.programs.cni import CONFIG_BYTES_MAX, VERSIONS
from sealane.programs.cni.errors import CONFLICT, INTERNAL, NAMESPACE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sealane.programs.cni.spec import Request

ABOUT = f"CNI plugin loopback of sealane: the `lo` of a namespace\nCNI protocol versions supported: {', '.join(VERSIONS)}\n"
NO_MAC = "00:00:00:00:00:00"
LINK = "lo"
"""Whatever CNI_IFNAME says, as in the reference plugin: there is one loopback link in a namespace, under this name."""


def main() -> int:
    """The exit status."""
    verb = posix.environ.get(b"CNI_COMMAND", b"")
    if not verb:
        write_all(2, ABOUT.encode())
        return 0
    stdin = b""
    try:
        stdin = read_all(0, CONFIG_BYTES_MAX)
        answer = _do(stdin)
    except CniError as error:
        return _fail(error, stdin)
    except Exception as error:  # Whatever it is, a runtime reads JSON.
        return _fail(CniError(INTERNAL, f"{type(error).__name__}: {error}"), stdin)
    if answer is not None:
        _print(answer)
    return 0


def _do(stdin: bytes) -> dict[str, Any] | None:
    from sealane.programs.cni import spec

    environ = {_text(key): _text(value) for key, value in posix.environ.items()}
    request = spec.read_call(environ, stdin)
    match request.verb:
        case "ADD":
            return _add(request)
        case "CHECK":
            _check(request)
        case "VERSION":
            return {"cniVersion": spec.version_of(stdin), "supportedVersions": list(VERSIONS)}
    return None


def _add(request: Request) -> dict[str, Any]:
    """What came before in a chain; if nothing did, the link and its addresses."""
    from sealane.programs.cni import result
    from sealane.programs.loopback import link

    before = result.before(request.config)
    _enter(request)
    link.set_up()
    if before is not None:
        return result.to_version(before, request.version)
    own = {
        "interfaces": [{"name": LINK, "mac": NO_MAC, "sandbox": request.netns}],
        "ips": [{"address": address, "interface": 0} for address in link.addresses()],
    }
    return result.to_version(own, request.version)


def _check(request: Request) -> None:
    from sealane.programs.loopback import link

    _enter(request)
    if not link.is_up():
        raise CniError(CONFLICT, f"{LINK} in {request.netns} is down", f"`ip link set {LINK} up` in it")


def _enter(request: Request) -> None:
    """Raises CniError for what is no namespace of a pod's."""
    from sealane.programs.loopback import link

    try:
        link.enter(request.netns)
    except OSError as error:
        raise CniError(NAMESPACE, f"netns: {request.netns}: {error.strerror}") from None


def _fail(error: CniError, stdin: bytes) -> int:
    from sealane.programs.cni.spec import version_of

    _print(error.document(version_of(stdin)))
    return 1


def _print(document: dict[str, Any]) -> None:
    write_all(1, f"{text.dumps(document)}\n".encode())


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
