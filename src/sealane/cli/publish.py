"""Published ports: the command line's words to requests."""

from collections.abc import Iterable
from typing import Any

import msgspec

from sealane.cli.options import parsed
from sealane.compose.ports import parse_port_spec
from sealane.compose.publish import publish_request
from sealane.wire.requests import PublishRequest


def publish_requests(texts: Iterable[str]) -> list[PublishRequest]:
    """Raises UsageError."""
    return [publish_request(parsed(parse_port_spec, text, "--publish")) for text in texts]


def publish_documents(texts: Iterable[str]) -> list[Any]:
    return [msgspec.to_builtins(request) for request in publish_requests(texts)]
