"""What integrations say about ports in common."""

from typing import cast, get_args

from sealane.engine.errors import InvalidError
from sealane.model.endpoint import PublishedPort
from sealane.model.net import Proto
from sealane.wire.requests import PublishRequest


def parse_proto(text: str, field: str) -> Proto:
    """In any case of letters. Raises InvalidError."""
    if text.lower() not in get_args(Proto):
        raise InvalidError(f"{text!r} is no protocol", field=field, hint="tcp, udp or sctp")
    return cast("Proto", text.lower())


def request_for(port: PublishedPort) -> PublishRequest:
    """What asks for a port just as it is."""
    return PublishRequest(
        proto=port.proto,
        host_address=port.host_address or "",
        host_first=port.host_first,
        host_last=port.host_last,
        port=port.port,
        count=port.host_last - port.host_first + 1,
    )
