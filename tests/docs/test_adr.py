"""Decisions: numbered without gaps, one page each, listed, and never orphaned."""

import re
from pathlib import Path

import pytest

from docs.markdown import ROOT, section, table_rows

FOLDER = ROOT / "docs" / "adr"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
HEADINGS = ["## Context", "## Decision", "## Alternatives", "## Consequences"]
LINES_MAX = 60


def test_numbers_have_no_gaps() -> None:
    assert [path.name[:4] for path in RECORDS] == [f"{n:04d}" for n in range(1, len(RECORDS) + 1)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.stem)
def test_a_record_has_its_form(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    title, _, date, status, *_ = text.splitlines()
    assert title.startswith(f"# {record.name[:4]}: ")
    assert re.fullmatch(r"Date: \d{4}-\d{2}-\d{2}", date)
    assert re.fullmatch(r"Status: (accepted|superseded by \d{4})", status)
    assert re.findall(r"^## .*$", text, re.MULTILINE) == HEADINGS
    for heading in HEADINGS:
        assert section(text, heading).strip(), f"{heading} is empty"
    assert len(text.splitlines()) <= LINES_MAX


def test_the_list_is_the_folder() -> None:
    rows = table_rows((FOLDER / "README.md").read_text(encoding="utf-8"))
    listed = [re.fullmatch(r"\[(\d{4})\]\((.+)\)", row[0]) for row in rows]
    assert [match and match[2] for match in listed] == [path.name for path in RECORDS]
    assert [match and match[1] for match in listed] == [path.name[:4] for path in RECORDS]


def test_numbers_that_are_quoted_exist() -> None:
    known = {path.name[:4] for path in RECORDS}
    quoting = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py")]
    for path in quoting:
        for quoted in re.findall(r"ADR[ -](\d{4})(?:, (\d{4}))?", path.read_text(encoding="utf-8")):
            assert {number for number in quoted if number} <= known, path
