"""A trace as a picture (SVG 1.1): a box a namespace, a line a step, arrows where it crosses, the verdict last."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from sealane.explain.packet import Hop, Step, Trace
from sealane.explain.render import is_passing, minimal

_MARGIN, _PADDING, _GAP = 20, 14, 34
_LINE, _SIZE = 20, 13
_CHAR = 0.62 * _SIZE
"""How wide a letter of a monospaced font is, roughly; wide enough in those at hand."""

_COLOURS = {"rule": "#8a4b08", "nat": "#6a1b9a", "bridge": "#00695c", "link": "#0d47a1", "route": "#1b5e20"}
_INK, _PAPER, _EDGE, _BOX = "#1a1a1a", "#ffffff", "#90a4ae", "#f5f7f8"
_GOOD, _BAD = ("#e3f4e5", "#2e7d32"), ("#fdeaea", "#c62828")


def svg(trace: Trace) -> str:
    """A document of its own, with the question for its title."""
    boxes = [_Box(hop.name, list(_lines(hop))) for hop in trace.hops]
    ending = [trace.reason, *([f"→ {trace.hint}"] if trace.hint else [])]
    verdict = _Box(minimal(trace), [(text, _INK) for text in ending])
    width = max(box.width for box in [*boxes, verdict])
    parts: list[str] = []
    y = float(_MARGIN)
    for box in boxes:
        parts += box.draw(_MARGIN, y, width, _BOX, _EDGE)
        y += box.height
        parts.append(_arrow(_MARGIN + width / 2, y))
        y += _GAP
    parts += verdict.draw(_MARGIN, y, width, *(_GOOD if trace.passes else _BAD))
    return _document(escape(minimal(trace)), width + 2 * _MARGIN, y + verdict.height + _MARGIN, parts)


def _lines(hop: Hop) -> Iterator[tuple[str, str]]:
    """Texts and their colours."""
    for step in hop.steps:
        if not is_passing(step):
            yield f"{step.kind:10} {_told(step)}", _COLOURS.get(step.kind, _INK)


def _told(step: Step) -> str:
    return f"{step.text}   [{step.origin_name}]" if step.origin_name else step.text


class _Box:
    def __init__(self, title: str, lines: list[tuple[str, str]]) -> None:
        self._title, self._lines = title, lines
        texts = [title, *(text for text, _ in lines)]
        self.width = 2 * _PADDING + _CHAR * max(map(len, texts))
        self.height = 2 * _PADDING + _LINE * len(texts)

    def draw(self, x: float, y: float, width: float, fill: str, edge: str) -> Iterator[str]:
        yield (
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{self.height:g}" rx="8" fill="{fill}" '
            f'stroke="{edge}"/>'
        )
        baseline = y + _PADDING + _SIZE
        yield _text(x + _PADDING, baseline, self._title, _INK, weight="bold")
        for number, (text, colour) in enumerate(self._lines, 1):
            yield _text(x + _PADDING, baseline + number * _LINE, text, colour)


def _text(x: float, y: float, text: str, colour: str, weight: str = "normal") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-weight="{weight}" xml:space="preserve">{escape(text)}</text>'


def _arrow(x: float, y: float) -> str:
    return f'<line x1="{x:g}" y1="{y:g}" x2="{x:g}" y2="{y + _GAP - 6:g}" stroke="{_EDGE}" stroke-width="2" marker-end="url(#tip)"/>'


def _document(title: str, width: float, height: float, parts: list[str]) -> str:
    tip = f'<marker id="tip" markerWidth="8" markerHeight="8" refX="4" refY="3" orient="auto"><path d="M0,0 L6,3 L0,6 z" fill="{_EDGE}"/></marker>'
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
                f'font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="{_SIZE}" role="img">'
            ),
            f"<title>{title}</title>",
            f"<defs>{tip}</defs>",
            f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
            *parts,
            "</svg>",
            "",
        ]
    )
