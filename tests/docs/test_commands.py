"""Commands in the documents are the real command line's, and recipes the Makefile's."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.markdown import ROOT, blocks, commands, documents, section
from sealane.cli.context import UsageError
from sealane.cli.parser import build_parser
from sealane.cli.registry import COMMANDS

MAKE = re.compile(r"^([a-z0-9-]+):.*##", re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SEPARATORS = {"|", ";", "&&", "||", "&"}


def lines() -> Iterator[tuple[Path, str]]:
    """Every command line of a `sh` or `console` block."""
    for document in documents():
        text = document.read_text(encoding="utf-8")
        for block in blocks(text, "console"):
            yield from ((document, command.text) for command in commands(block))
        for block in blocks(text, "sh"):
            yield from ((document, line) for line in block.splitlines() if line.strip())


def calls(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, as words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in SEPARATORS:
            if words:
                yield words
            words = []
        elif word.startswith((">", "2>")):
            continue
        else:
            words.append(word)
    if words:
        yield words


def bare(call: list[str]) -> list[str]:
    """Without `sudo`, and the program by its name."""
    words = call[1:] if call[0] == "sudo" else call
    return ["sealane", *words[1:]] if words[0].endswith("/sealane") else words


ALL = [(document, bare(call)) for document, line in lines() for call in calls(line)]


@pytest.mark.parametrize(
    "call", [call for _, call in ALL if call[0] == "sealane"], ids=lambda c: " ".join(c)[:60]
)
def test_the_command_line_parses(call: list[str]) -> None:
    arguments = build_parser(call[1:]).parse_args(call[1:])
    assert arguments.verb is not None


@pytest.mark.parametrize("call", [call for _, call in ALL if call[0] == "make"], ids=lambda c: " ".join(c))
def test_the_recipe_exists(call: list[str]) -> None:
    targets = [word for word in call[1:] if "=" not in word]
    assert targets
    assert set(targets) <= set(MAKE.findall(MAKEFILE))


@pytest.mark.parametrize(
    "call", [call for _, call in ALL if call[0].startswith("scripts/")], ids=lambda c: " ".join(c)
)
def test_the_script_exists(call: list[str]) -> None:
    assert (ROOT / call[0]).is_file()


def test_a_wrong_command_line_is_noticed() -> None:
    with pytest.raises(UsageError):
        build_parser(["attach"]).parse_args(["attach", "web", "front", "--no-such-flag"])
    assert list(calls("echo 'a | b' | sealane plan -f - | cut -c -9")) == [
        ["echo", "a | b"],
        ["sealane", "plan", "-f", "-"],
        ["cut", "-c", "-9"],
    ]


def test_what_is_said_to_be_missing_is_missing() -> None:
    text = section((ROOT / "README.md").read_text(encoding="utf-8"), "## Limits")
    missing = set(re.findall(r"`sealane ([a-z]+)`", text))
    assert missing
    assert not missing & {command.path[0] for command in COMMANDS}


def test_every_recipe_of_contributing_is_explained_by_make_help() -> None:
    """And the other way round: the recipes a contributor needs are in CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    needed = {"setup", "lint", "types", "layers", "docs", "test", "check", "test-long", "bench"}
    assert needed <= set(MAKE.findall(MAKEFILE))
    assert needed <= set(re.findall(r"[a-z-]+", "\n".join(blocks(text, "sh"))))
