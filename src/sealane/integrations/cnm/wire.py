"""What Docker sends its network and IPAM drivers, and what it takes for an answer.

Source: moby daemon/libnetwork/drivers/remote/api/api.go and ipams/remote/api/api.go; where these say less than dockerd
20.10.24 does, what that was seen to send. Fields that a later Docker adds are ignored, absent and null ones are empty.
A request without arguments has no body at all.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Raw, field

from sealane.engine.errors import InvalidError
from sealane.model.net import Proto
from sealane.wire.requests import PublishRequest

LABELS = "com.docker.network.generic"
"""The network's `-o` options."""
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
INTERNAL = "com.docker.network.internal"
PORTMAP = "com.docker.network.portmap"
MAC = "com.docker.network.endpoint.macaddress"
ENDPOINT_NAME = "com.docker.network.endpoint.name"
"""In an address request, since Docker 23 or so: the container's name, which is sent nowhere else."""
ADDRESS_TYPE = "RequestAddressType"
GATEWAY_TYPE = "com.docker.network.gateway"

PROTOS: dict[int, Proto] = {6: "tcp", 17: "udp", 132: "sctp"}

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Options(msgspec.Struct, frozen=True):
    """Docker's untyped map: each value is decoded as what its key says it is."""

    values: dict[str, Raw] = {}

    def get(self, key: str, kind: type[T], default: T) -> T:
        """Raises InvalidError for a value of another type."""
        raw = self.values.get(key)
        if raw is None or bytes(raw) == b"null":
            return default
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError as error:
            raise InvalidError(f"{error}", field=f"Options.{key}") from error

    def text(self, key: str) -> str:
        return self.get(key, str, "")


class PoolData(Record, frozen=True, kw_only=True):
    """One family's addresses of a network."""

    address_space: str = field(name="AddressSpace", default="")
    pool: str = field(name="Pool", default="")
    gateway: str = field(name="Gateway", default="")
    """With the pool's prefix length; empty if Docker knows none."""
    aux_addresses: dict[str, str] | None = field(name="AuxAddresses", default=None)


class CreateNetwork(Record, frozen=True, kw_only=True):
    network: str = field(name="NetworkID")
    options: dict[str, Raw] | None = field(name="Options", default=None)
    ipv4: list[PoolData] | None = field(name="IPv4Data", default=None)
    ipv6: list[PoolData] | None = field(name="IPv6Data", default=None)


class DeleteNetwork(Record, frozen=True, kw_only=True):
    network: str = field(name="NetworkID")


class Interface(Record, frozen=True, kw_only=True):
    """Of an answer: only what was empty in the question may be filled in, or dockerd refuses it, even if it is equal
    (`driver modified interface address`)."""

    address: str = field(name="Address", default="")
    address6: str = field(name="AddressIPv6", default="")
    mac: str = field(name="MacAddress", default="")


class CreateEndpoint(Record, frozen=True, kw_only=True):
    network: str = field(name="NetworkID")
    endpoint: str = field(name="EndpointID")
    interface: Interface | None = field(name="Interface", default=None)
    options: dict[str, Raw] | None = field(name="Options", default=None)


class CreatedEndpoint(Record, frozen=True, kw_only=True):
    interface: Interface = field(name="Interface")


class EndpointRef(Record, frozen=True, kw_only=True):
    """DeleteEndpoint, EndpointOperInfo, Leave, RevokeExternalConnectivity."""

    network: str = field(name="NetworkID")
    endpoint: str = field(name="EndpointID")


class Join(Record, frozen=True, kw_only=True):
    network: str = field(name="NetworkID")
    endpoint: str = field(name="EndpointID")
    sandbox: str = field(name="SandboxKey")
    """Path of the namespace. Docker 20.10 makes it only after this call, except for a container that runs already."""
    options: dict[str, Raw] | None = field(name="Options", default=None)


class InterfaceName(Record, frozen=True, kw_only=True):
    source: str = field(name="SrcName")
    """A link of the host's namespace, which dockerd moves into the sandbox."""
    prefix: str = field(name="DstPrefix")


class Joined(Record, frozen=True, kw_only=True):
    interface: InterfaceName = field(name="InterfaceName")
    gateway: str = field(name="Gateway", default="")
    """Without any gateway, and unless the network is internal, dockerd adds a second link, on docker_gwbridge, and
    publishes the ports there."""
    gateway6: str = field(name="GatewayIPv6", default="")


class ProgramExternalConnectivity(Record, frozen=True, kw_only=True):
    network: str = field(name="NetworkID")
    endpoint: str = field(name="EndpointID")
    options: dict[str, Raw] | None = field(name="Options", default=None)


class RequestPool(Record, frozen=True, kw_only=True):
    address_space: str = field(name="AddressSpace", default="")
    pool: str = field(name="Pool", default="")
    sub_pool: str = field(name="SubPool", default="")
    is_v6: bool = field(name="V6", default=False)


class GivenPool(Record, frozen=True, kw_only=True):
    id: str = field(name="PoolID")
    pool: str = field(name="Pool")


class ReleasePool(Record, frozen=True, kw_only=True):
    pool: str = field(name="PoolID")


class RequestAddress(Record, frozen=True, kw_only=True):
    pool: str = field(name="PoolID")
    address: str = field(name="Address", default="")
    options: dict[str, Raw] | None = field(name="Options", default=None)


class GivenAddress(Record, frozen=True, kw_only=True):
    address: str = field(name="Address")
    """With the pool's prefix length, without which dockerd takes it for none."""


class ReleaseAddress(Record, frozen=True, kw_only=True):
    pool: str = field(name="PoolID")
    address: str = field(name="Address")


class PortBinding(Record, frozen=True, kw_only=True):
    proto: int = field(name="Proto")
    port: int = field(name="Port")
    host_address: str = field(name="HostIP", default="")
    host_first: int = field(name="HostPort", default=0)
    """0: the driver chooses."""
    host_last: int = field(name="HostPortEnd", default=0)
    """Above `host_first`: one free port of the range."""


def options_of(values: dict[str, Raw] | None) -> Options:
    return Options(values or {})


def mac_of(options: Options) -> str:
    """The MAC that the user asked for: base64 of six bytes, as Go writes a []byte. Raises InvalidError."""
    text = options.text(MAC)
    if not text or ":" in text:
        return text
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidError(f"{text!r} is not base64", field=f"Options.{MAC}") from error
    return raw.hex(":")


def ports_of(options: Options) -> list[PublishRequest]:
    """Published ports, runs of them as ranges: the CLI sends `-p 8000-8999:8000-8999` as a thousand bindings.

    Raises InvalidError."""
    bindings = options.get(PORTMAP, list[PortBinding], [])
    return list(_runs(sorted(bindings, key=lambda b: (b.proto, b.host_address, b.port, b.host_first))))


def _runs(bindings: list[PortBinding]) -> Iterator[PublishRequest]:
    run: list[PortBinding] = []
    for binding in bindings:
        if run and not _continues(run[-1], binding):
            yield _publish(run)
            run = []
        run.append(binding)
    if run:
        yield _publish(run)


def _continues(last: PortBinding, binding: PortBinding) -> bool:
    return (
        (last.proto, last.host_address) == (binding.proto, binding.host_address)
        and binding.port == last.port + 1
        and last.host_first != 0
        and binding.host_first == last.host_first + 1
        and last.host_last in (0, last.host_first)
        and binding.host_last in (0, binding.host_first)
    )


def _publish(run: list[PortBinding]) -> PublishRequest:
    first = run[0]
    proto = PROTOS.get(first.proto)
    if proto is None:
        raise InvalidError(f"protocol {first.proto} is none of TCP, UDP and SCTP", field=f"Options.{PORTMAP}")
    is_choice = first.host_first != 0 and first.host_last > first.host_first
    return PublishRequest(
        proto=proto,
        host_address=first.host_address,
        host_first=first.host_first,
        host_last=first.host_last if is_choice else 0,
        port=first.port,
        count=len(run),
        one_of=is_choice,
    )
