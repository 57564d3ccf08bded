"""Traces as pictures."""

from xml.etree import ElementTree as ET

import msgspec
import pytest

from sealane.explain.graph import svg
from sealane.explain.packet import Trace
from sealane.explain.question import Question, explain
from sealane.explain.render import is_passing, minimal
from unit.explain.worlds import OUTSIDE, Town

SVG = "{http://www.w3.org/2000/svg}"


def ask(source: str, target: str) -> Trace:
    town = Town()
    return explain(Question(source=source, target=target), town.intent, town.compiled, town.foreign_state)


def texts(document: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(document).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("source", "target"), [("web", "api:80"), ("web", "db:80"), ("web", f"[{OUTSIDE[6]}]:80")]
)
def test_all_that_a_summary_says_is_in_the_picture(source: str, target: str) -> None:
    trace = ask(source, target)
    shown = texts(svg(trace))
    assert [text for text in shown if text in {hop.name for hop in trace.hops}] == [
        hop.name for hop in trace.hops
    ]
    assert minimal(trace) in shown
    assert trace.reason in shown
    assert f"→ {trace.hint}" in shown or not trace.hint
    for step in (step for hop in trace.hops for step in hop.steps if not is_passing(step)):
        assert any(step.text in text for text in shown)


def test_every_text_lies_within_the_picture() -> None:
    root = ET.fromstring(svg(ask("web", "db:80")))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter(f"{SVG}text"):
        assert 0 < float(element.attrib["y"]) < height
        # A monospaced letter is at least half as wide as it is high.
        assert float(element.attrib["x"]) + len(element.text or "") * 13 / 2 < width


def test_boxes_do_not_overlap() -> None:
    root = ET.fromstring(svg(ask("web", "api:80")))
    boxes = [b for b in root.iter(f"{SVG}rect") if "y" in b.attrib]
    ends = [(float(b.attrib["y"]), float(b.attrib["y"]) + float(b.attrib["height"])) for b in boxes]
    assert len(boxes) == 4
    assert all(above[1] < below[0] for above, below in zip(ends, ends[1:], strict=False))


def test_a_denial_looks_otherwise_than_a_delivery() -> None:
    verdicts = [
        [b for b in ET.fromstring(svg(ask("web", target))).iter(f"{SVG}rect") if "y" in b.attrib][-1]
        for target in ("api:80", "db:80")
    ]
    assert verdicts[0].attrib["fill"] != verdicts[1].attrib["fill"]


def test_markup_in_a_text_stays_text() -> None:
    trace = msgspec.structs.replace(ask("web", "api:80"), question="<script>&", reason="a < b & c")
    shown = texts(svg(trace))
    assert "a < b & c" in shown
    assert any(text.startswith("<script>&") for text in shown)
