"""The chart as SVG: one bar per instance, from the crash to the access, coloured by what it waited for."""

from __future__ import annotations

from html import escape

from unlatch.postmortem.document import Chart, duration
from unlatch.postmortem.durations import PHASES

COLOURS = {
    "detection": "#b2182b",
    "guest": "#d6604d",
    "evidence": "#92c5de",
    "person": "#762a83",
    "lease": "#c2a5cf",
    "turn": "#e7d4e8",
    "locks": "#4393c3",
    "copy": "#2166ac",
    "recovery": "#1b7837",
    "failure": "#f4a582",
    "between": "#d9d9d9",
}
"""Waiting is red and purple, working is blue and green."""

_WIDTH, _LEFT, _RIGHT = 920, 130, 30
_TOP, _BAR, _STEP = 34, 26, 40
_LEGEND_COLUMNS, _LEGEND_LINE = 3, 20
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800)
_MOST_TICKS = 10
_FONT = 'font-family="Helvetica, Arial, sans-serif" font-size="12"'


def svg(chart: Chart) -> str:
    """The picture, whole and without anything from elsewhere: it can stand in a page or in a file of its own."""
    used = [phase for phase in PHASES if any(bar.phase == phase for _, bars in chart.rows for bar in bars)]
    legend_y = _TOP + _STEP * len(chart.rows) + 24
    height = legend_y + _LEGEND_LINE * -(-len(used) // _LEGEND_COLUMNS) + 8
    size, label = f'width="{_WIDTH}" height="{height}"', f'aria-label="{escape(chart.summary)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height}" role="img" {label} {_FONT}>',
        f'<rect x="0" y="0" width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *_axis(chart, legend_y - 24),
    ]
    for number, (name, bars) in enumerate(chart.rows):
        y = _TOP + _STEP * number
        parts.append(
            f'<text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end" fill="#222222">{escape(_cut(name))}</text>'
        )
        for bar in bars:
            x, width = _x(bar.began_s, chart), _x(bar.ended_s, chart) - _x(bar.began_s, chart)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" height="{_BAR}" fill="{COLOURS[bar.phase]}">'
                f"<title>{PHASES[bar.phase]}: {duration(bar.ended_s - bar.began_s)}</title></rect>"
            )
    parts += _objective(chart, legend_y - 24)
    for number, phase in enumerate(used):
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) // _LEGEND_COLUMNS * (number % _LEGEND_COLUMNS)
        y = legend_y + _LEGEND_LINE * (number // _LEGEND_COLUMNS)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[phase]}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 10}" fill="#222222">{PHASES[phase]}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(seconds: float, chart: Chart) -> float:
    """Where a moment is."""
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(seconds / chart.length_s, 1.0)


def _axis(chart: Chart, bottom: int) -> list[str]:
    step = next((s for s in _TICKS_S if chart.length_s / s <= _MOST_TICKS), _TICKS_S[-1])
    parts = []
    for number in range(int(chart.length_s // step) + 1):
        x = _x(number * step, chart)
        parts.append(f'<line x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{bottom}" stroke="#e5e5e5"/>')
        label = "crash" if number == 0 else _tick(number * step)
        parts.append(f'<text x="{x:.1f}" y="16" text-anchor="middle" fill="#666666">{label}</text>')
    return parts


def _tick(seconds: int) -> str:
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def _objective(chart: Chart, bottom: int) -> list[str]:
    if chart.objective_s is None or chart.objective_s > chart.length_s:
        return []
    x = _x(chart.objective_s, chart)
    line = f'<line x1="{x:.1f}" y1="22" x2="{x:.1f}" y2="{bottom}" stroke="#000000" stroke-dasharray="4 3"/>'
    label = f'<text x="{x + 4:.1f}" y="{bottom + 10}" fill="#000000">objective {duration(chart.objective_s)}</text>'
    return [line, label]


def _cut(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "\u2026"  # noqa: PLR2004  # what fits left of the bars


def text_bars(chart: Chart, width: int = 60) -> list[str]:
    """The same as text: one letter per phase, and what the letters mean."""
    letters = dict(zip(PHASES, "DGEPLTUCRF.", strict=True))
    longest = max([len(name) for name, _ in chart.rows], default=0)
    lines = []
    for name, bars in chart.rows:
        cells = []
        for cell in range(width):
            at = (cell + 0.5) * chart.length_s / width
            cells.append(next((letters[b.phase] for b in bars if b.began_s <= at < b.ended_s), " "))
        lines.append(f"{name:>{longest}} |{''.join(cells)}|")
    used = [p for p in PHASES if any(b.phase == p for _, bars in chart.rows for b in bars)]
    lines.append(f"{'':>{longest}}  one letter is {duration(chart.length_s / width)}")
    return [*lines, *(f"{'':>{longest}}  {letters[p]} {PHASES[p]}" for p in used)]
