"""Every command and flag that an error, a hint or a report names is one that exists: people paste them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.markdown import ROOT
from sealane.cli.context import UsageError
from sealane.cli.parser import build_parser
from sealane.cli.registry import COMMANDS, GROUPS

SOURCES = ROOT / "src" / "sealane"
CALL = re.compile(r"`sealane ([^`…]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
FILLER = "x"
"""In place of what an f-string puts in."""

OTHER_PROGRAMS = re.compile(
    r"(iptables|ip6tables|nft|ip|bridge|tc|conntrack|firewall-cmd|docker|podman|runc|crun|skopeo|umoci|cp|systemctl|mount|cni"
    r")\b[^;\n]*"
)
"""Their flags are not ours; a command of theirs goes to the end of its sentence."""

IPTABLES = {"--dport", "--dst-type", "--ctstate"}
"""In rules whose program is put in by an f-string."""

DOCKERS = {"--ipam-driver", "--driver-opt", "--dns", "--ip-range", "--annotation"}
"""Of other engines, named where an integration explains what their users have typed."""


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Text that is shown: docstrings are not."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else FILLER for p in node.values]
            inside |= {id(p) for p in node.values}
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def shown() -> list[tuple[Path, int, str]]:
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [(path, line, text) for line, text in strings(tree)]
    return found


SHOWN = shown()
CALLS = sorted({call for _, _, text in SHOWN for call in CALL.findall(text)})


def words_of(call: str) -> list[str]:
    first = re.split(r"\s*(?:\||&&)\s*", call)[0]
    return [word.strip("'\"") for word in first.split()]


@pytest.mark.parametrize("call", CALLS)
def test_a_command_that_is_named_exists_with_its_flags(call: str) -> None:
    words = words_of(call)
    names = {name for command in COMMANDS for name in (" ".join(command.path),)}
    known = [n for n in range(len(words), 0, -1) if " ".join(words[:n]) in {*names, *GROUPS}]
    assert known or words[0].startswith("--") or FILLER in words, call
    flags = [word.partition("=")[0] for word in words if word.startswith("-")]
    if flags and known and words[0] != FILLER:
        assert set(flags) <= flags_of(tuple(words[: known[0]])), call


def flags_of(path: tuple[str, ...]) -> set[str]:
    """Those that a command takes: its parser knows no abbreviations."""
    parser = build_parser(list(path))
    for word in path:
        below = next(a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict))
        parser = below.choices[word]
    return {flag for action in parser._actions for flag in action.option_strings}


def every_flag() -> set[str]:
    return {flag for command in COMMANDS for flag in flags_of(command.path)}


HINTS = ("explain", "engine", "daemon", "integrations", "dns")
EVERY_FLAG = every_flag()


@pytest.mark.parametrize("package", HINTS)
def test_a_flag_that_is_named_is_one_of_some_command(package: str) -> None:
    for path, line, text in SHOWN:
        if path.relative_to(SOURCES).parts[0] != package:
            continue
        unknown = set(FLAG.findall(OTHER_PROGRAMS.sub("", text))) - EVERY_FLAG - DOCKERS - IPTABLES
        assert not unknown, f"{path.relative_to(ROOT)}:{line}: {text}"


def test_a_wrong_flag_is_noticed() -> None:
    assert "--gateway-priority" not in EVERY_FLAG
    assert "--gw-priority" in flags_of(("attach",))
    assert "--mtu" not in EVERY_FLAG
    with pytest.raises((UsageError, SystemExit)):
        build_parser(["attach"]).parse_args(["attach", "--gateway-priority", "1", "web", "front"])
