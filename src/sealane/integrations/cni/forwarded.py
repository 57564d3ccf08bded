"""A call of the CNI executable's as the runtime made it: what is otherwise done in a process of its own, done here.

It answers what goes well. For the rest the executable begins anew by itself, and says in CNI's terms what is wrong.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sealane.engine.errors import InvalidError
from sealane.integrations.cni.verbs import Cni
from sealane.programs.cni import delegate, result
from sealane.programs.cni.errors import CniError
from sealane.programs.cni.spec import Request, is_id, read_request
from sealane.wire.cni import CniRequest


class ForwardedCall(msgspec.Struct, frozen=True):
    environ: dict[str, str]
    stdin: bytes
    leased: bytes | None
    """What the IPAM plugin has answered, if it has been asked."""


class ForwardedBody:
    """The environment's entries, each ended by a zero byte, another one, the input, and after one more what the IPAM
    plugin has answered: JSON holds no zero byte."""

    def decode(self, data: bytes) -> ForwardedCall:
        """Raises InvalidError."""
        head, ended, rest = data.partition(b"\0\0")
        if not ended:
            raise InvalidError("the environment has no end")
        pairs = (entry.decode("utf-8", "surrogateescape").partition("=") for entry in head.split(b"\0"))
        stdin, request, leased = rest.partition(b"\0")
        return ForwardedCall({name: value for name, _, value in pairs}, stdin, leased if request else None)


async def answer(cni: Cni, call: ForwardedCall, caller: int = 0) -> object:
    """What ADD prints; the name of the IPAM plugin whose turn it is; None: it is done. `caller`: the executable's pid.
    Raises the engine's errors."""
    try:
        request = read_request(call.environ, call.stdin)
        if request.verb not in _ANSWERS:
            raise InvalidError(f"{request.verb} is not handed over", field="CNI_COMMAND")
        if request.delegate and not is_id(request.delegate):
            raise InvalidError("this name of a plugin would have to be quoted", field="ipam.type")
        return await _ANSWERS[request.verb](cni, request, call.leased, caller)
    except CniError as error:
        raise InvalidError(error.message) from error
    except msgspec.ValidationError as error:
        raise InvalidError(str(error)) from error


async def _add(cni: Cni, request: Request, output: bytes | None, caller: int) -> object:
    if request.delegate and output is None:
        return request.delegate
    leased = None if output is None else delegate.read_lease(request, output)
    before = result.before(request.config)
    view = await cni.call(asked(request, leased=leased), caller)
    return result.answer(before, msgspec.to_builtins(view.result), request.version)


async def _delete(cni: Cni, request: Request, _: bytes | None, caller: int) -> object:
    await cni.call(asked(request), caller)
    return request.delegate or None


_ANSWERS = {"ADD": _add, "DEL": _delete}


def asked(request: Request, **more: Any) -> CniRequest:
    """Raises msgspec.ValidationError."""
    return msgspec.convert(request.document(**more), CniRequest)
