"""Docker's flags that are none here: those that ask for what happens anyway are taken, and the others are refused with a
reason and what to do instead, which a list of the flags that there are would hide."""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from sealane.cli.context import UsageError

Reasons = Mapping[str, tuple[str, str]]
"""A flag, or several with `/` between them → why not, and the hint; as `sealane.compose.unsupported` has it of keys."""


class _Refusal(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, *, const: tuple[str, str], **rest: Any) -> None:
        # With a value or without one: `--gpus all`, `--privileged=true`, `-P`.
        nargs = "?" if option_strings else "*"
        super().__init__(option_strings, dest, nargs, const, help=argparse.SUPPRESS, **rest)

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse's signature)
        namespace: argparse.Namespace,  # noqa: ARG002
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if option_string is not None or values:
            refuse(option_string or str(self.metavar), self.const)


def refuse(name: str, why: tuple[str, str]) -> NoReturn:
    reason, hint = why
    raise UsageError(f"{name} is not supported: {reason}", field=name, hint=hint)


def add_unsupported(parser: argparse.ArgumentParser, reasons: Reasons) -> None:
    for names, why in reasons.items():
        for name in names.split("/"):
            if name.startswith("-"):
                parser.add_argument(name, action=_Refusal, const=why, dest=argparse.SUPPRESS)
            else:
                parser.add_argument(name.lower(), metavar=name, action=_Refusal, const=why)


def add_ignored(parser: argparse.ArgumentParser, flags: str, why: str) -> None:
    """Flags, `/` between them, that ask for what happens anyway: scripts written for Docker have them."""
    parser.add_argument(
        *flags.split("/"), action="store_true", dest=argparse.SUPPRESS, default=argparse.SUPPRESS, help=why
    )
