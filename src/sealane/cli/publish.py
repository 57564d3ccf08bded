"""Published ports: the command line's and compose's grammar to requests."""

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from sealane.cli.options import parsed
from sealane.compose.ports import PortSpec, parse_port_spec
from sealane.wire.requests import PublishRequest


def publish_request(spec: PortSpec) -> PublishRequest:
    return PublishRequest(
        proto=cast("Any", spec.proto),
        host_address=spec.host_ip or "",
        host_first=spec.host_first or 0,
        host_last=spec.host_last or 0,
        port=spec.container_first,
        count=spec.container_last - spec.container_first + 1,
        one_of=spec.picks_one,
    )


def publish_requests(texts: Iterable[str]) -> list[PublishRequest]:
    """Raises UsageError."""
    return [publish_request(parsed(parse_port_spec, text, "--publish")) for text in texts]


def publish_documents(texts: Iterable[str]) -> list[Any]:
    return [msgspec.to_builtins(request) for request in publish_requests(texts)]
