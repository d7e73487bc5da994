"""A training's loss as an SVG: at most 300 points, drawn on the server, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from masuka.ui.markup import esc
from masuka.ui.words import number, short

MOST_POINTS = 300
WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 84, 12, 28
_LINES = 4
_BEYOND = 1e12


@dataclass(frozen=True)
class Point:
    """One measured step."""

    step: int
    value: float


def loss_chart(points: Sequence[Point], *, total_steps: int, label: str = "loss") -> str:
    """The curve with its running mean; an empty frame while there is nothing to show.

    The thin line is what was measured, the strong one an exponential mean over about a
    twentieth of the shown points. Points that are not finite, or beyond any loss, are
    left out.
    """
    shown = _thinned([p for p in points if math.isfinite(p.value) and abs(p.value) < _BEYOND])
    if len(shown) < 2:
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="No figures yet">'
            f"{_frame(0, 1)}"
            f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">The first steps will appear here</text></svg>'
        )
    means = _means([p.value for p in shown], weight=max(0.05, 2 / (len(shown) / 20 + 1)))
    low, high = _range([p.value for p in shown], means)
    last_step = max(total_steps, shown[-1].step)
    raw = _path([(p.step, min(p.value, high)) for p in shown], last_step, low, high)
    mean = _path([(p.step, m) for p, m in zip(shown, means, strict=True)], last_step, low, high)
    x, y = _x(shown[-1].step, last_step), _y(means[-1], low, high)
    described = (
        f"{label} from {short(means[0])} at step {number(shown[0].step)} "
        f"to {short(means[-1])} at step {number(shown[-1].step)}"
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(described)}">'
        f"{_frame(low, high)}{_steps(last_step)}"
        f'<path class="raw" d="{raw}"/><path class="mean" d="{mean}"/>'
        f'<circle class="last" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
        f'<text class="now" x="{min(x + 8, WIDTH - _RIGHT + 8):.1f}" y="{y + 4:.1f}">'
        f"{esc(label)} {short(means[-1])}</text></svg>"
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS; of each bucket the lowest or the highest, in turn."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = len(points) / MOST_POINTS
    kept = [points[0]]
    for i in range(1, MOST_POINTS - 1):
        bucket = points[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))]
        kept.append((min if i % 2 else max)(bucket, key=lambda p: p.value))
    return [*kept, points[-1]]


def _means(values: Sequence[float], weight: float) -> list[float]:
    means: list[float] = []
    mean = values[0]
    for value in values:
        mean += weight * (value - mean)
        means.append(mean)
    return means


def _range(values: Sequence[float], means: Sequence[float]) -> tuple[float, float]:
    """From just under the lowest to the 98th percentile: one spike hides nothing."""
    ordered = sorted(values)
    high = max(ordered[min(len(ordered) - 1, int(len(ordered) * 0.98))], max(means))
    low = min(ordered[0], min(means))
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def _x(step: float, last_step: int) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (step / max(1, last_step))


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))


def _path(points: Sequence[tuple[float, float]], last_step: int, low: float, high: float) -> str:
    return "M" + " L".join(f"{_x(s, last_step):.1f},{_y(v, low, high):.1f}" for s, v in points)


def _frame(low: float, high: float) -> str:
    parts = []
    for i in range(_LINES):
        value = low + (high - low) * i / (_LINES - 1)
        y = _y(value, low, high)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    return f'<g class="grid">{"".join(parts)}</g>'


def _steps(last_step: int) -> str:
    at = [(0, "start"), (last_step / 2, "middle"), (last_step, "end")]
    marks = "".join(
        f'<text x="{_x(step, last_step):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">'
        f"{'step ' if step == 0 else ''}{number(round(step))}</text>"
        for step, anchor in at
    )
    return f'<g class="grid">{marks}</g>'
