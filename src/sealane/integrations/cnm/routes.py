"""Docker's plugin protocol: paths to the drivers' methods, bodies to records, errors to the answers dockerd expects.

Source: moby pkg/plugins (client.go, plugins.go) and docs/extend/plugin_api.md. Be aware:

- A network driver's failure is `{"Err": …}`, an IPAM driver's `{"Error": …}`, both with status 200: of another status
  dockerd reads the body as text.
- When a connection breaks after the request was read, dockerd sends the request again *without its body* (its buffer
  is drained), four times. Such a call cannot be known, so it is refused at once; what the first try did is found again
  by who repeats it, or dropped (`NetworkDriver.CreateEndpoint`, `Staged.drop_leases`).
- GetCapabilities and other calls without arguments have no body either.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError, NotFoundError
from sealane.engine.staged import Staged
from sealane.http.call import Call, MethodError, Query, Route, SyncVerb
from sealane.http.json import failure
from sealane.integrations.cnm import wire
from sealane.integrations.cnm.ipam import IpamDriver
from sealane.integrations.cnm.network import ADDRESS_SPACE, NetworkDriver
from sealane.wire.base import ErrorBody

log = logging.getLogger("sealane.cnm")

OWNER = "docker"
SHOWN_CHARS = 80
LOST_BODY = "the request has no body: a connection broke, and dockerd sent it again without; try again"

B = TypeVar("B")
Answer = Callable[[bytes], object]


class _Unread:
    """The body as it came: what is wrong with it is told in the driver's own way."""

    def decode(self, data: bytes) -> bytes:
        return data


_UNREAD = _Unread()


class PluginRoutes:
    """What `http.connection` asks for the answer to a request."""

    def __init__(self, engine: Engine) -> None:
        self.staged = Staged(engine, OWNER)
        self._table = {
            "/Plugin.Activate": self._activate,
            **_network_methods(NetworkDriver(self.staged, engine.intent)),
            **_ipam_methods(IpamDriver(self.staged)),
        }

    def notice(self, method: str, target: str) -> str:
        """Docker has no place for one."""
        del method, target
        return ""

    def find(self, method: str, target: str) -> tuple[Route, Call[bytes]]:
        """Raises NotFoundError, which dockerd takes for `not implemented`, and MethodError."""
        answer = self._table.get(target)
        if answer is None:
            raise NotFoundError(f"there is no {target[:SHOWN_CHARS]!r}")
        if method != "POST":
            raise MethodError("POST")
        return Route(verb=SyncVerb(lambda call: answer(call.body)), body=_UNREAD), Call("", Query({}), b"")

    def _activate(self, body: bytes) -> object:
        """Sent once by each dockerd: none of its requests is under way, and those of the last one are forgotten."""
        del body
        try:
            self.staged.drop_leases()
        except Exception as error:
            log.warning("what an earlier dockerd has asked for is kept: %s", failure(error)[1].message)
        return {"Implements": ["NetworkDriver", "IpamDriver"]}


def _network_methods(driver: NetworkDriver) -> dict[str, Answer]:
    def method(kind: type[B], verb: Callable[[B], object]) -> Answer:
        return _method(kind, verb, "Err")

    named = {
        "GetCapabilities": _constant({"Scope": "local", "ConnectivityScope": "global"}),
        "CreateNetwork": method(wire.CreateNetwork, driver.create_network),
        "DeleteNetwork": method(wire.DeleteNetwork, driver.delete_network),
        "CreateEndpoint": method(wire.CreateEndpoint, driver.create_endpoint),
        "DeleteEndpoint": method(wire.EndpointRef, driver.delete_endpoint),
        "EndpointOperInfo": method(wire.EndpointRef, driver.endpoint_info),
        "Join": method(wire.Join, driver.join),
        "Leave": method(wire.EndpointRef, driver.leave),
        "ProgramExternalConnectivity": method(wire.ProgramExternalConnectivity, driver.program),
        "RevokeExternalConnectivity": method(wire.EndpointRef, driver.revoke),
        # Other hosts of a swarm: sealane finds its own. An error would fail `docker swarm init`.
        "DiscoverNew": _constant({}),
        "DiscoverDelete": _constant({}),
    }
    return {f"/NetworkDriver.{name}": answer for name, answer in named.items()}


def _ipam_methods(driver: IpamDriver) -> dict[str, Answer]:
    def method(kind: type[B], verb: Callable[[B], object]) -> Answer:
        return _method(kind, verb, "Error")

    named = {
        # Nothing is replayed to us at dockerd's start: the store has it. A MAC of ours follows the address.
        "GetCapabilities": _constant({"RequiresMACAddress": False, "RequiresRequestReplay": False}),
        "GetDefaultAddressSpaces": _constant(
            {"LocalDefaultAddressSpace": ADDRESS_SPACE, "GlobalDefaultAddressSpace": ADDRESS_SPACE}
        ),
        "RequestPool": method(wire.RequestPool, driver.request_pool),
        "ReleasePool": method(wire.ReleasePool, driver.release_pool),
        "RequestAddress": method(wire.RequestAddress, driver.request_address),
        "ReleaseAddress": method(wire.ReleaseAddress, driver.release_address),
    }
    return {f"/IpamDriver.{name}": answer for name, answer in named.items()}


def _constant(answer: dict[str, Any]) -> Answer:
    return lambda _: answer


def _method(kind: type[B], verb: Callable[[B], object], error_key: str) -> Answer:
    decoder = msgspec.json.Decoder(kind)

    def answer(body: bytes) -> object:
        try:
            if not body:
                raise InvalidError(LOST_BODY)
            return verb(decoder.decode(body))
        except msgspec.DecodeError as error:
            return {error_key: f"sealane: the request is not understood: {error}"}
        except Exception as error:
            # What nobody foresaw is logged there.
            return {error_key: _text(failure(error)[1])}

    return answer


def _text(error: ErrorBody) -> str:
    where = f"{error.field}: " if error.field else ""
    hint = f" ({error.hint})" if error.hint else ""
    return f"sealane: {where}{error.message}{hint}"
