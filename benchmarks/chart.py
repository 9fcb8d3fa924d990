"""Chart: the results in one picture, an SVG that light and dark pages can show. Pure."""

from __future__ import annotations

from html import escape

from .results import Measurement, Results, rate
from .tables import number

SHOWN = ("drain", "publish-many", "relay")
WIDTH, MARGIN = 660, 20
LABELS = 170  # room for names
FIGURES = 70  # room for figures behind the bars
BAR, GAP, HEAD = 22, 8, 44

_STYLE = """\
    svg { --ink: #1f2328; --soft: #59636e; --bar: #8c959f; --ours: #1a7f5a; }
    @media (prefers-color-scheme: dark) {
      svg { --ink: #e6e8eb; --soft: #a3abb4; --bar: #7d8590; --ours: #4cc38a; }
    }
    text { font-family: system-ui, sans-serif; fill: var(--ink); }
    .head { font-size: 16px; font-weight: 600; }
    .name, .figure { font-size: 14px; } .name { text-anchor: end; }
    .name, .figure { fill: var(--soft); }
    .ours { font-weight: 600; } text.ours { fill: var(--ink); }
    .bar { fill: var(--bar); } .bar.ours { fill: var(--ours); }"""


def chart_of(results: Results, ours: str = "omni-worker") -> str:
    """A panel of bars for each case that is shown and measured: events per second."""
    panels: list[str] = []
    top = MARGIN
    for name in SHOWN:
        if name in results.cases:
            lines, top = _panel(results.cases[name], ours, top)
            panels += lines
    said = "; ".join(_said(results.cases[name]) for name in SHOWN if name in results.cases)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img"'
            ' aria-labelledby="performance-title performance-text">',
            '  <title id="performance-title">Events per second, omni-worker beside others</title>',
            f'  <desc id="performance-text">{escape(said)}</desc>',
            "  <style>",
            _STYLE,
            "  </style>",
            *panels,
            "</svg>",
            "",
        ]
    )


def _panel(case: Measurement, ours: str, top: int) -> tuple[list[str], int]:
    """The lines of one panel, and where the next one begins."""
    rates = {label: rate(row) for label, row in case.rows.items() if row.rounds}
    most = max(rates.values(), default=1.0)
    lines = [f'  <text class="head" x="{MARGIN}" y="{top + 16}">{escape(case.title)}</text>']
    y = top + HEAD - 12
    for label, value in sorted(rates.items(), key=lambda one: one[1]):
        mark = " ours" if label == ours else ""
        length = max(1, round(value / most * (WIDTH - 2 * MARGIN - LABELS - FIGURES)))
        x, end, middle = MARGIN + LABELS, MARGIN + LABELS + length + 6, y + BAR - 6
        lines += [
            f'  <text class="name{mark}" x="{x - 8}" y="{middle}">{escape(label)}</text>',
            f'  <rect class="bar{mark}" x="{x}" y="{y}" width="{length}" height="{BAR}" rx="3"/>',
            f'  <text class="figure{mark}" x="{end}" y="{middle}">{number(value)}</text>',
        ]
        y += BAR + GAP
    return lines, y + MARGIN


def _said(case: Measurement) -> str:
    figures = ", ".join(f"{label} {number(rate(row))}" for label, row in case.rows.items())
    return f"{case.title}: {figures} events per second"
