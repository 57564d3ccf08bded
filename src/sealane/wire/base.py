"""What all records of the wire share, and the error."""

from typing import Literal

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class View(msgspec.Struct, frozen=True, kw_only=True):
    pass


Refusal = Literal["invalid", "not_found", "exists", "conflict", "in_use", "full"]
Failure = Literal["unavailable", "store", "kernel", "internal"]
Code = Literal[Refusal, Failure]


class ErrorBody(View, frozen=True, kw_only=True):
    code: Code
    message: str
    field: str = ""
    """Path of the offending field in the request, e.g. `subnets[0].gateway`."""
    hint: str = ""
    """What to do about it."""
    problems: list["ErrorBody"] = []
    """All problems, when there are several."""
