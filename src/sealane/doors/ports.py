"""What doors say about ports in common."""

from typing import Literal, cast

from sealane.engine.errors import InvalidError

Proto = Literal["tcp", "udp", "sctp"]
PROTOCOLS = ("tcp", "udp", "sctp")


def parse_proto(text: str, field: str) -> Proto:
    """In any case of letters. Raises InvalidError."""
    if text.lower() not in PROTOCOLS:
        raise InvalidError(f"{text!r} is no protocol", field=field, cure="tcp, udp or sctp")
    return cast("Proto", text.lower())
