"""What is wrong with an address or a prefix that was asked for, or why none can be given."""

from typing import Literal

Code = Literal["invalid", "conflict", "full"]


class AddressProblem(Exception):  # noqa: N818 (a user's mistake, as `compose.problems` has it; integrations turn it into an error)
    """`code`: `invalid` cannot be used by anybody, `conflict` is in use by another, `full` has none left."""

    def __init__(self, code: Code, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.code: Code = code
        self.message = message
        self.hint = hint
