"""Budgets of the code (style.md §5.6): sizes, docstrings, and imports that form no cycle."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.markdown import ROOT, SOURCES

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 50
INIT_LINES_MAX = 60
LAZY = ("sealane.cli", "sealane.programs")
"""The packages that may import ours inside functions: a command loads what it needs when it runs."""

MODULES = sorted(SOURCES.rglob("*.py"))
PROGRAMS = [*MODULES, *sorted((ROOT / "bench").glob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def body_lines(function: Function) -> int:
    """Without the docstring, from the first statement to the last line."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {name_of(path) for path in MODULES}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(node: ast.AST) -> set[str]:
    """Modules of ours that one import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & KNOWN
    if isinstance(node, ast.ImportFrom) and node.module:
        below = {f"{node.module}.{alias.name}" for alias in node.names} & KNOWN
        # `from package import module` needs the module; its package is a re-export at most.
        return below or {node.module} & KNOWN
    return set()


def imports(path: Path) -> set[str]:
    """At module level; what only type checkers import is no cycle at run time."""
    found: set[str] = set()
    pending: list[ast.AST] = list(tree(path).body)
    while pending:
        node = pending.pop()
        if is_type_checking(node) or isinstance(node, Function | ast.ClassDef):
            continue
        found |= imported(node)
        pending += ast.iter_child_nodes(node)
    return found


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan), without recursion on the graph's depth."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(root: str) -> None:
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, below = work[-1]
            for child in below:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    work.append((child, iter(sorted(graph[child]))))
                    break
                if child in stack:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = stack[stack.index(node) :]
                    del stack[stack.index(node) :]
                    if len(component) > 1:
                        found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=shown)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= (INIT_LINES_MAX if path.name == "__init__.py" else FILE_LINES_MAX)


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{shown(path)}:{function.lineno} {function.name}: {body_lines(function)} lines"
        for path in PROGRAMS
        for function in functions(path)
        if body_lines(function) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    assert [shown(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_imports_form_no_cycle() -> None:
    graph = {name_of(path): imports(path) - {name_of(path)} for path in MODULES}
    assert sum(map(len, graph.values())) > len(graph), "hardly any import was found: the reader is broken"
    assert cycles(graph) == []


def test_a_cycle_would_be_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_nothing_but_commands_and_programs_imports_lazily() -> None:
    lazy = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        if not name_of(path).startswith(LAZY)
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and imported(node)
    ]
    assert lazy == []


def decoded_on_first_use(path: Path) -> Iterator[str]:
    """Structs that a call of `decode` names (a type that a function is given is a plain one, of Docker's options)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "decode":
            for word in node.keywords:
                if word.arg == "type" and isinstance(word.value, ast.Name) and not word.value.id.islower():
                    yield f"{shown(path)}:{node.lineno}: {word.value.id}"


def test_what_is_decoded_is_known_before_there_are_threads() -> None:
    """msgspec learns a struct when it first decodes one, and another thread then finds it half learnt: SIGSEGV. A
    Decoder beside the struct learns it on import."""
    daemons = [path for path in MODULES if not name_of(path).startswith(LAZY)]
    assert [found for path in daemons for found in decoded_on_first_use(path)] == []
