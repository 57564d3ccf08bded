"""`sealane completion`: scripts for shells, made from the same grammar that parses."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.parser import describe
from sealane.cli.registry import Verb


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Completes commands, flags, their values, and the names of networks, sandboxes, endpoints and containers.",
        [
            "source <(sealane completion bash)",
            'sealane completion zsh > "${fpath[1]}/_sealane"',
            "sealane completion fish > ~/.config/fish/completions/sealane.fish",
        ],
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def completion(context: Context, arguments: Namespace) -> int:
    from sealane.cli.completion import SCRIPTS, grammar_of
    from sealane.cli.parser import build_parser

    context.output.raw(SCRIPTS[arguments.shell](grammar_of(build_parser())))
    return 0


VERBS = {"completion": Verb(configure, completion)}
