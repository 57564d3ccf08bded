"""What doors say about ports in common."""

from typing import cast, get_args

from sealane.engine.errors import InvalidError
from sealane.model.net import Proto


def parse_proto(text: str, field: str) -> Proto:
    """In any case of letters. Raises InvalidError."""
    if text.lower() not in get_args(Proto):
        raise InvalidError(f"{text!r} is no protocol", field=field, cure="tcp, udp or sctp")
    return cast("Proto", text.lower())
