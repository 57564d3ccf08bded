"""docs/faults.md is the fault corpus as a table; `pytest --update` writes it."""

from docs.markdown import ROOT
from kernel.fault_corpus import FAULTS, Fault

PAGE = ROOT / "docs" / "faults.md"
WORDS = {
    "ext": "192.0.2.200", "ext6": "2001:db8::200", "host4": "192.0.2.17", "host6": "2001:db8::17",
    "web4": "10.71.0.2", "api4": "10.71.0.3", "api6": "fd71::3", "webmac": "MAC", "gateway": "10.71.0.1",
    "bridge": "BRIDGE",
}  # fmt: skip
HEAD = """# Faults, and who names them

Each of these was made on a real kernel, by commands that a person could have typed, and the true cause is in what the
command in the third column prints: `tests/kernel/test_faults.py` does it again in every run. The page is generated from
`tests/kernel/fault_corpus.py`.

Networks: `front` (dual-stack bridge, with `web`, which publishes 8080, and 8081 on 127.0.0.1 only; and `api`), `back`
(`db`), `vault` (internal; `safe`), `lone` (`icc=false`; `one`, `two`), `side` (routed; `near`, `far`); `hub` is on front
and back. A stranger on the LAN is 192.0.2.200, the host 192.0.2.17.

| what is broken | made by | ask `sealane` | it says |
|---|---|---|---|
"""


def page() -> str:
    return HEAD + "".join(map(row, FAULTS))


def row(fault: Fault) -> str:
    made = "<br>".join(f"{where}: `{filled(line)}`" for where, line in fault.make)
    if fault.background is not None and fault.background[1].startswith("listen"):
        made = f"{fault.background[0]}: a server at `{filled(fault.background[1].removeprefix('listen '))}`"
    cells = fault.name, made or "as it was asked for", f"`{filled(fault.ask)}`", f"“{filled(fault.answer)}”"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def filled(text: str) -> str:
    return text.format(**WORDS)


def test_the_page_is_the_corpus(request) -> None:
    if request.config.getoption("--update"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run `pytest --update tests/docs/test_faults_page.py`"


def test_there_are_enough_of_them_and_none_twice() -> None:
    assert len(FAULTS) >= 40
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({(fault.make, fault.ask, fault.background) for fault in FAULTS}) == len(FAULTS)


def test_what_is_made_is_undone() -> None:
    """Or else the next is not alone."""
    assert [fault.name for fault in FAULTS if bool(fault.make) != bool(fault.undo)] == []
