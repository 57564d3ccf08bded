"""Links and paths in the documents lead somewhere."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from docs.markdown import ROOT, SOURCES, anchors, documents, links, prose

DOCUMENTS = documents()
_QUOTED = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(
    r"([\w./*{},-]*[\w*}]\.(?:py|md|toml|sql|yaml|service|socket)|(?:src|tests|docs|examples)/[\w./*-]+)(?:::(\w+))?"
)
_BRACES = re.compile(r"(.*)\{([^}]*)\}(.*)")
ELSEWHERE = {"compose.yaml", "tests/scenarios/NAME/"}
"""Names that stand for a file of the reader's."""


def mentioned(text: str) -> set[tuple[str, str]]:
    """(path, test's name) of everything between backticks that is a path of this repository."""
    found: set[tuple[str, str]] = set()
    for quoted in _QUOTED.findall(prose(text)):
        match = _PATH.fullmatch(quoted)
        if match and match[1] not in ELSEWHERE:
            braces = _BRACES.fullmatch(match[1])
            names = [f"{braces[1]}{one}{braces[3]}" for one in braces[2].split(",")] if braces else [match[1]]
            found |= {(name, match[2] or "") for name in names}
    return found


def places(name: str, near: Path = ROOT) -> list[Path]:
    """A path is given from the repository's root, from the package, or from where the document is; a mere name is that
    of a file below the document, or of a file of tests."""
    found = [path for base in (ROOT, SOURCES, near) for path in base.glob(name.rstrip("/"))]
    if name.startswith("test_") and "/" not in name:
        found += (ROOT / "tests").rglob(name)
    return found or ([] if near == ROOT or "/" in name else list(near.rglob(name)))


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    for link in links(document.read_text(encoding="utf-8")):
        assert "://" not in link, f"{link}: documents stand on their own"
        where, _, fragment = link.partition("#")
        target = (document.parent / where).resolve() if where else document
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_paths_exist(document: Path) -> None:
    for name, test in mentioned(document.read_text(encoding="utf-8")):
        found = places(name, document.parent)
        assert found, f"there is no {name}"
        if test:
            assert any(test in functions(path) for path in found), f"there is no {test} in {name}"


def test_paths_are_recognised() -> None:
    """Else the test above would find nothing wrong anywhere."""
    assert mentioned("see `kernel/text.py`, `tests/unit/x.py::test_y` and `linux/{apply,session}.py`") == {
        ("kernel/text.py", ""),
        ("tests/unit/x.py", "test_y"),
        ("linux/apply.py", ""),
        ("linux/session.py", ""),
    }
    assert not places("kernel/no_such_module.py")


def test_every_document_is_reached_from_the_readme() -> None:
    seen, pending = set(), [ROOT / "README.md"]
    while pending:
        document = pending.pop()
        if document in seen:
            continue
        seen.add(document)
        if document.suffix == ".md":
            text = document.read_text(encoding="utf-8")
            pending += [(document.parent / link.partition("#")[0]).resolve() for link in links(text)]
    missing = {d for d in DOCUMENTS if ROOT / "docs" in d.parents or d.parent == ROOT} - seen
    assert not missing
