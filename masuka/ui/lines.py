"""Several measured lines in one SVG: scores over steps, trainings beside each other.

Lines differ in colour and in dashes, and a list below names them: never colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from masuka.ui.charts import MOST_POINTS, Point
from masuka.ui.markup import esc
from masuka.ui.words import number, short

WIDTH, HEIGHT = 420, 170
MOST_LINES = 6
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 10, 24


@dataclass(frozen=True)
class Line:
    """What was measured under one name, in the order of steps."""

    name: str
    points: Sequence[Point]


def lines_chart(
    lines: Sequence[Line], *, label: str, last_step: int, best_step: int | None = None, level: float | None = None
) -> str:
    """The lines over the steps, '' without any; `level` is the base alone.

    The best step is marked by an upright line. At most MOST_LINES are drawn.
    """
    shown = [Line(line.name, _finite(line.points)) for line in lines[:MOST_LINES]]
    shown = [line for line in shown if line.points]
    if not shown:
        return ""
    values = [p.value for line in shown for p in line.points] + ([] if level is None else [level])
    low, high = _room(min(values), max(values))
    last = max(last_step, *(line.points[-1].step for line in shown))

    def place(step: float, value: float) -> tuple[float, float]:
        wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return _LEFT + wide * step / max(1, last), _TOP + tall * (1 - (value - low) / (high - low))

    parts = [_grid(low, high, last, place(0, low)[1])]
    if level is not None:
        y = place(0, level)[1]
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if best_step is not None:
        x = place(best_step, low)[0]
        parts.append(f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    for at, line in enumerate(shown):
        spots = [place(p.step, p.value) for p in line.points]
        path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<path class="line l{at}" d="{path}"/>')
        if len(spots) <= 12:
            parts += [f'<circle class="dot l{at}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots]
    return (
        f'<svg class="chart lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(_said(label, shown))}">'
        f"{''.join(parts)}</svg>"
    )


def names_of(lines: Sequence[Line], *, level: str = "") -> str:
    """The list that names the lines, each beside a piece of itself."""
    marks = [(f"l{at}", line.name) for at, line in enumerate(lines[:MOST_LINES])]
    if level:
        marks.append(("level", level))
    items = "".join(
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true"><line class="line {kind}" x1="0" x2="28" y1="4" y2="4"/></svg>'
        f"{esc(name)}</li>"
        for kind, name in marks
    )
    return f'<ul class="names chart">{items}</ul>'


def _said(label: str, lines: Sequence[Line]) -> str:
    """The chart for those who do not see it."""
    told = [
        f"{line.name} from {short(line.points[0].value)} at step {number(line.points[0].step)} "
        f"to {short(line.points[-1].value)} at step {number(line.points[-1].step)}"
        for line in lines
    ]
    return f"{label}: {'; '.join(told)}"


def _finite(points: Sequence[Point]) -> list[Point]:
    found = [p for p in points if math.isfinite(p.value)]
    each = max(1, math.ceil(len(found) / MOST_POINTS))
    return found[::each] if not found or found[::each][-1] == found[-1] else [*found[::each], found[-1]]


def _room(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _grid(low: float, high: float, last: int, bottom: float) -> str:
    parts = []
    for i in range(3):
        value = low + (high - low) * i / 2
        y = bottom - (bottom - _TOP) * i / 2
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 6}">step 0</text>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{number(last)}</text>')
    return f'<g class="grid">{"".join(parts)}</g>'
