"""Problems of the pure parts, as the verbs' errors with the field they belong to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sealane.engine.errors import ConflictError, ExhaustedError, InvalidError, SealaneError
from sealane.ipam.problems import AddressProblem
from sealane.model.net import ParseError

T = TypeVar("T")

_ERRORS: dict[str, type[InvalidError | ConflictError | ExhaustedError]] = {
    "invalid": InvalidError,
    "conflict": ConflictError,
    "full": ExhaustedError,
}


@contextmanager
def at_field(field: str) -> Iterator[None]:
    """Let what goes wrong inside name the request's field."""
    try:
        yield
    except ParseError as error:
        raise InvalidError(str(error), field=field) from error
    except AddressProblem as problem:
        kind = _ERRORS.get(problem.code, ConflictError)
        raise kind(problem.message, field=field, hint=problem.hint) from problem


@contextmanager
def at_place(place: str) -> Iterator[None]:
    """Let an error say in which of several objects its field is: `networks[1]`."""
    try:
        yield
    except SealaneError as error:
        error.field = f"{place}.{error.field}" if error.field else place
        raise


def parsed(parse: Callable[[str], T], text: str, field: str) -> T:
    with at_field(field):
        return parse(text)
