"""What the documents list is what the code has: bounds, options, events, packages, libraries, guards."""

import argparse
import ast
import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

from docs.markdown import ROOT, SOURCES, documents, section, table_rows
from sealane import limits
from sealane.cli.parser import build_parser
from sealane.daemon.config import RUN_DIR, SOCKET, STATE_DIR
from sealane.daemon.main import DOCKER
from sealane.integrations.cnm.integration import PLUGIN_SOCKET
from sealane.linux.facts import KERNEL_MIN

OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
DATAPLANE = (ROOT / "docs" / "design" / "dataplane.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RULES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "rules").glob("*.md"))
UNITS = ROOT / "packaging" / "systemd"

README_LINES_MAX = 200
ARCHITECTURE_LINES_MAX = 150
DRAWING_LINES_MAX = 15


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def bounds_of(module: ModuleType) -> dict[str, float]:
    return {name: value for name, value in vars(module).items() if name.isupper()}


def test_every_bound_is_listed_with_its_value() -> None:
    rows = table_rows(section(OPERATING, "## Bounds"))
    listed = {quoted(row[0])[0]: float(row[1].replace(",", "")) for row in rows}
    assert listed == bounds_of(limits)


def test_every_option_of_the_daemon_is_listed() -> None:
    parser = build_parser(["daemon"])
    daemon = next(
        action.choices["daemon"]
        for action in parser._actions
        if isinstance(action.choices, dict) and "daemon" in action.choices
    )
    shown = [action for action in daemon._actions if action.help != argparse.SUPPRESS]
    options = {word for action in shown for word in action.option_strings if word.startswith("--")}
    rows = table_rows(section(OPERATING, "## The daemon"))
    listed = {word for row in rows for word in quoted(row[0]) if word.startswith("--")}
    assert listed == options - {"--help", "--json"}


def test_paths_by_default_are_as_listed() -> None:
    text = section(OPERATING, "## The daemon")
    for path in (STATE_DIR, RUN_DIR, SOCKET):
        assert f"`{path}`" in text


def test_every_event_is_listed() -> None:
    emitted: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_emit = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"emit", "tell_of"}
            if is_emit and node.args and isinstance(node.args[0], ast.Constant):
                emitted.add(node.args[0].value)
    rows = table_rows(section(OPERATING, "## Events"))
    assert {kind for row in rows for kind in quoted(row[0])} == emitted


def test_every_condition_is_listed() -> None:
    """Subjects that are made of an id (`endpoint 3fa9c1…`) are listed as `endpoint ID`."""
    source = (SOURCES / "daemon" / "conditions.py").read_text(encoding="utf-8")
    said = {
        keyword.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Condition"
        for keyword in node.keywords
        if keyword.arg == "subject" and isinstance(keyword.value, ast.Constant)
    }
    rows = table_rows(section(OPERATING, "## Status"))
    listed = {subject for row in rows for subject in quoted(row[0])}
    assert said
    assert said <= listed


def test_exit_codes_are_those_of_the_help() -> None:
    codes = set(re.findall(r"^  (\d+) ", build_parser().format_help(), re.MULTILINE))
    rows = table_rows(section(OPERATING, "## The daemon"))
    assert {row[0] for row in rows if row[0].isdigit()} == codes


def test_every_package_has_its_line() -> None:
    packages = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    rows = table_rows(section(ARCHITECTURE, "## Packages"))
    assert {name for row in rows for name in quoted(row[0])} == packages


def test_pure_packages_are_those_of_the_contract() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    pure = next(contract for contract in contracts if contract["name"].startswith("The pure packages"))
    named = re.search(r"The pure packages \(([^)]*)\)", ARCHITECTURE)
    assert named is not None
    assert {f"sealane.{name}" for name in quoted(named[1])} == set(pure["source_modules"])


def test_documents_to_be_read_first_are_short() -> None:
    assert len(README.splitlines()) <= README_LINES_MAX
    assert len(ARCHITECTURE.splitlines()) <= ARCHITECTURE_LINES_MAX


def test_every_library_has_its_reason() -> None:
    """In the record of the first ones, or in that of a later one."""
    records = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "adr").glob("0*.md"))]
    decisions = [section(record, "## Decision") for record in records if "\n| library |" in record]
    reasons = {row[0] for decision in decisions for row in table_rows(decision)}
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]
    assert reasons == {re.split(r"[<>=~!]", text)[0] for text in needed}


def test_requirements_are_those_of_the_code() -> None:
    text = section(README, "## Requirements")
    assert f"Linux {KERNEL_MIN[0]}.{KERNEL_MIN[1]}" in text
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert f"Python {versions[0]} to {versions[-1]}" in text
    for library in PROJECT["dependencies"]:
        assert re.split(r"[<>=~!]", library)[0] in text


def test_guards_that_are_named_are_in_the_rules() -> None:
    comments = set(re.findall(r'comment "[0-9a-f]{16} ([^"]+)"', RULES))
    comments |= {re.sub(r"^n:[0-9a-f]{12}:", "n:X:", comment) for comment in comments}
    rows = table_rows(section(DATAPLANE, "## Guards"))
    named = {
        word for row in rows for word in quoted(row[1]) if re.fullmatch(r"(guard|base|n:X):[\w-]+", word)
    }
    assert len(named) > 10
    assert named <= comments


def test_drops_that_are_in_the_rules_are_named() -> None:
    """Each reason for which a packet is dropped is in a document, so that whoever reads a counter finds it."""
    drops = set(re.findall(r'drop comment "[0-9a-f]{16} ([^"]+)"', RULES))
    drops = {re.sub(r"^n:[0-9a-f]{12}:", "n:X:", comment) for comment in drops}
    assert drops <= set(quoted(section(DATAPLANE, "## Guards")))


def test_base_chains_are_all_described() -> None:
    chains = set(re.findall(r"^add chain \w+ sealane (\w+) \{ type", RULES, re.MULTILINE))
    rows = table_rows(section(DATAPLANE, "## The chains"))
    assert {quoted(row[0])[0] for row in rows} == chains


def test_drawings_fit_into_fifteen_lines() -> None:
    for document in documents():
        text = document.read_text(encoding="utf-8")
        for drawing in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE):
            height = len(drawing.splitlines())
            assert height <= DRAWING_LINES_MAX, f"{document.name}: {height} lines from {drawing[:60]!r}"


@pytest.mark.parametrize("design", sorted((ROOT / "docs" / "design").glob("*.md")), ids=lambda p: p.stem)
def test_a_design_page_says_which_paths_it_is_about_and_ends_in_review_notes(design: Path) -> None:
    text = design.read_text(encoding="utf-8")
    assert re.search(r"^Paths: `", text, re.MULTILINE)
    last = re.findall(r"^#{2,3} .*$", text, re.MULTILINE)[-1]
    assert last.endswith("Review notes")


def test_no_registry_is_named() -> None:
    for document in documents():
        text = document.read_text(encoding="utf-8")
        assert not re.search(r"\b(pypi|npmjs|docker\.io|quay\.io|ghcr\.io|crates\.io)\b", text, re.IGNORECASE)


def test_words_of_the_glossary_stand_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word.strip() for row in table_rows(text) for word in row[0].split(",")]
    assert len(words) > 50
    assert len(words) == len(set(words))


def test_measurements_have_their_place() -> None:
    assert README.count("<!-- bench:start -->") == README.count("<!-- bench:end -->") == 1
    assert README.index("<!-- bench:start -->") < README.index("<!-- bench:end -->")


# --- units ----------------------------------------------------------------------------------------------------------


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name, encoding="utf-8")
    return parser


def test_the_service_starts_the_daemon_and_spares_containers() -> None:
    service = unit("sealane.service")["Service"]
    words = service["ExecStart"].split()
    assert build_parser(words[1:]).parse_args(words[1:]).command == "daemon"
    assert service["Type"] == "notify"
    assert service["KillMode"] == "process"
    assert int(service["LimitNOFILE"]) >= 65536


def test_the_service_has_no_mount_namespace_of_its_own() -> None:
    """What the daemon pins under its run directory must be seen by the host."""
    service = unit("sealane.service")["Service"]
    confining = (
        "Private",
        "Protect",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "Bind",
        "Root",
        "TemporaryFile",
    )
    assert not [name for name in service if name.startswith((*confining, "RuntimeDirectory", "DynamicUser"))]


def test_the_socket_for_docker_is_where_docker_looks_and_known_by_its_name() -> None:
    parsed = unit("sealane-docker.socket")
    socket = parsed["Socket"]
    words = ["daemon", "--docker-plugin-socket"]
    assert (
        socket["ListenStream"] == PLUGIN_SOCKET == build_parser(words).parse_args(words).docker_plugin_socket
    )
    assert socket["FileDescriptorName"] == DOCKER
    assert (socket["Service"], socket["SocketMode"]) == ("sealane.service", "0600")
    assert "docker.service" in parsed["Unit"]["Before"]


def test_the_socket_is_where_clients_look() -> None:
    socket = unit("sealane.socket")["Socket"]
    assert socket["ListenStream"] == SOCKET
    assert socket["SocketMode"] == "0600"
    assert socket["DirectoryMode"] == "0700"
