"""A port specification as the verbs ask for it."""

from typing import Any, cast

from sealane.compose.ports import PortSpec
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
