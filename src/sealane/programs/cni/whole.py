"""A call from its beginning to its end: the configuration is read, the daemon asked, the result put together here.

Where addresses come from an IPAM plugin of somebody else's, its lease and our attachment are two states that a crash
can part. Rules:

Rule 1: on ADD the lease comes first, on DEL it goes last, so an address in use is always leased.
Rule 2: a lease is given back on failure only if the daemon has refused; if it may have attached, DEL will do it.
Rule 3: an ADD that finds a lease of its own is a retry: the attachment that is there is the answer, and if there is
none the lease is a dead call's, given back and taken anew.
"""

from __future__ import annotations

import posix

from sealane.programs import api, daemon, text, write_all
from sealane.programs.cni import VERSIONS, delegate, result
from sealane.programs.cni.errors import (
    DEGRADED,
    INTERNAL,
    IO,
    NOT_AVAILABLE,
    CniError,
    LostError,
    from_daemon,
)
from sealane.programs.cni.result import from_version
from sealane.programs.cni.spec import CURRENT, read_request, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sealane.programs.cni.spec import Request


def run(stdin: bytes, socket: str, failure: Exception | None = None) -> int:
    """The exit status. `failure`: of the attempt to hand the call over. Where that may have done something nothing more
    is: the runtime repeats the call, or undoes it."""
    environ = {_text(key): _text(value) for key, value in posix.environ.items()}
    try:
        # Of a daemon that is not there each verb makes something else.
        if failure is not None and type(failure) is not daemon.UnreachableError:
            raise failure
        answer = _do(read_request(environ, stdin), stdin, socket)
    except daemon.LostError as error:
        return _fail(from_daemon(error), stdin)
    except CniError as error:
        return _fail(error, stdin)
    except Exception as error:  # Whatever it is, a runtime reads JSON.
        return _fail(CniError(INTERNAL, f"{type(error).__name__}: {error}"), stdin)
    if answer is not None:
        _print(answer)
    return 0


def _fail(error: CniError, stdin: bytes) -> int:
    _print(error.document(version_of(stdin)))
    return 1


def _do(request: Request, stdin: bytes, socket: str) -> dict[str, Any] | None:
    match request.verb:
        case "VERSION":
            return {"cniVersion": version_of(stdin), "supportedVersions": list(VERSIONS)}
        case "ADD":
            return _add(request, socket)
        case "DEL":
            _call(request, socket)
            if request.delegate:
                delegate.run(request, "DEL")
        case "CHECK":
            _call(
                request, socket, prev=from_version(request.config.get("prevResult", {"cniVersion": CURRENT}))
            )
            if request.delegate:
                delegate.run(request, "CHECK")
        case "GC":
            _all(lambda: _call(request, socket), lambda: delegate.forward(request))
        case _:
            _status(request, socket)
    return None


def _add(request: Request, socket: str) -> dict[str, Any]:
    before = result.before(request.config)
    own = _add_with_delegate(request, socket) if request.delegate else _attached(_call(request, socket))
    return result.answer(before, own, request.version)


def _add_with_delegate(request: Request, socket: str) -> dict[str, Any]:
    try:
        leased = delegate.add(request)
    except CniError as error:
        present = _call(request, socket, only_present=True)
        if present is not None:
            return present
        _give_back(request)
        leased = _leased_anew(request, error)
    try:
        return _attached(_call(request, socket, leased=leased))
    except LostError:
        raise
    except CniError:
        _give_back(request)
        raise


def _attached(answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        raise CniError(INTERNAL, "the sealane daemon has attached, and told nothing of it")
    return answer


def _leased_anew(request: Request, first: CniError) -> dict[str, Any]:
    try:
        return delegate.add(request)
    except CniError as again:
        _give_back(request)
        raise (again if again.code != IO else first) from None


def _give_back(request: Request) -> None:
    """The failure that led here is told; this one would hide it, and DEL follows."""
    try:
        delegate.run(request, "DEL")
    except CniError as error:
        posix.write(2, f"sealane: {error.message}\n".encode())


def _status(request: Request, socket: str) -> None:
    """Every failure means that ADD would fail: 50, unless a plugin behind us says more."""
    try:
        _call(request, socket)
        delegate.forward(request)
    except CniError as error:
        code = error.code if error.code in {NOT_AVAILABLE, DEGRADED} else NOT_AVAILABLE
        raise CniError(code, error.message, error.details) from None


def _all(*acts: Any) -> None:
    """All of them, whatever fails; then what has failed."""
    failures = []
    for act in acts:
        try:
            act()
        except CniError as error:
            failures.append(error)
    if failures:
        message = "; ".join(error.message for error in failures)
        raise CniError(failures[0].code, message, failures[0].details)


def _call(request: Request, socket: str, **more: Any) -> dict[str, Any] | None:
    """ADD's result, where there is one."""
    try:
        answer: dict[str, Any] = api.ask(socket, "/v1/cni", request.document(**more))
    except (daemon.UnreachableError, api.RefusedError) as error:
        raise from_daemon(error) from None
    result: dict[str, Any] | None = answer.get("result")
    return result


def _print(document: dict[str, Any]) -> None:
    write_all(1, f"{text.dumps(document)}\n".encode())


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
