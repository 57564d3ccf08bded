"""docs/doctor.md tells the table of causes as the code has it, and its bounds."""

from docs.markdown import ROOT, section, table_rows
from sealane.engine.diagnosing import FINDINGS_MAX, SUBJECTS_MAX
from sealane.explain.doctor.causes import CAUSES
from sealane.linux.evidence import FLOWS_MAX, SANDBOXES_MAX
from sealane.linux.foreign_nft import RULES_MAX
from sealane.linux.nameservers import ANSWER_S

PAGE = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_every_cause_is_listed_as_it_is() -> None:
    desired = [(f"`{cause.name}`", cause.looks_at, cause.hint) for cause in CAUSES]
    assert [tuple(row) for row in table_rows(section(PAGE, "## Causes"))] == desired


def test_bounds_are_the_codes() -> None:
    told = {row[0]: row[1].split(" ")[0].rstrip(";") for row in table_rows(section(PAGE, "## Bounds"))}
    assert told == {
        "subjects": f"{SUBJECTS_MAX}",
        "sandboxes": f"{SANDBOXES_MAX:,}",
        "rules of one foreign table": f"{RULES_MAX:,}",
        "tracked connections gone through": f"{FLOWS_MAX:,}",
        "findings told one by one": f"{FINDINGS_MAX:,}",
        "a nameserver's answer": f"{ANSWER_S:g}",
    }


def test_every_cause_has_a_test_on_the_real_kernel() -> None:
    texts = [
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "kernel").glob("test_doctor_*.py")
    ]
    untested = [cause.name for cause in CAUSES if not any(f'"{cause.name}"' in text for text in texts)]
    assert untested == []
