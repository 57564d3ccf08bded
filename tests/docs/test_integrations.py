"""What the pages of docs/integrations list is what the code has."""

import re

from docs.markdown import ROOT, section
from sealane.integrations.oci.annotations import FOR_ALL, FOR_ONE
from sealane.programs.cni import errors
from sealane.programs.cni.runtime import CAPABILITIES
from sealane.programs.cni.spec import OPTIONS

PAGE = (ROOT / "docs" / "integrations" / "kubernetes.md").read_text(encoding="utf-8")


def listed(heading: str) -> list[set[str]]:
    """The quoted words or numbers of the first column, for each table of a section."""
    found: dict[str, set[str]] = {}
    table = ""
    for line in section(PAGE, heading).splitlines():
        if not line.startswith("|"):
            table = ""
        elif not table:
            table = line
            found[table] = set()
        elif not set(line) <= set("|-: "):
            found[table] |= set(re.findall(r"\w+", line.split("|")[1]))
    return list(found.values())


def test_keys_capabilities_and_codes_are_all_listed() -> None:
    keys, capabilities, codes = listed("## The plugin's object")
    assert keys == OPTIONS
    assert capabilities == CAPABILITIES
    known = {str(value) for name, value in vars(errors).items() if name.isupper() and type(value) is int}
    # 51 comes from plugins behind ours alone.
    assert codes == known - {str(errors.DEGRADED)}


CHECKLIST = (ROOT / "docs" / "integrations" / "checklist.md").read_text(encoding="utf-8")


def test_each_point_of_the_protocols_names_its_test() -> None:
    """That they exist is for `test_links.py`."""
    rows = [line for line in CHECKLIST.splitlines() if line.startswith("|") and not set(line) <= set("|- ")]
    points = [row.split("|")[1:-1] for row in rows if "held by" not in row]
    assert len(points) > 80
    for point, held_by in points:
        assert re.search(r"`test_\w+\.py::test_\w+`", held_by), point


def test_annotations_are_all_listed() -> None:
    page = (ROOT / "docs" / "integrations" / "oci.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `sealane\.([^`]+)`", section(page, "## Annotations"), re.MULTILINE)
    listed = [key.rpartition(".") for key in keys]
    assert [field for network, _, field in listed if not network] == list(FOR_ALL)
    assert [field for network, _, field in listed if network == "NETWORK"] == list(FOR_ONE)
