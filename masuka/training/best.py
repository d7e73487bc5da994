"""Which checkpoint of a training is best, at which weight, and whether it learnt too much.

Rules over figures: knows no model, no picture and no file but the list of scores, which a
resumed training goes on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ALIKE = 0.01
"""Likenesses that differ by less are level: four pictures do not tell them apart."""
WEIGHTS = (0.6, 0.8, 1.0, 1.2)
"""The weights at which the best checkpoint is tried."""
LEVEL_WEIGHTS = 0.02
RULE = (
    "The best checkpoint is the one whose samples are most like the pictures; of those within "
    f"{ALIKE:g} of it, the one with the lowest validation. Without likeness, the lowest validation."
)
WEIGHT_RULE = (
    f"Of the weights whose likeness is within {LEVEL_WEIGHTS:g} of the highest, the one that follows the "
    "prompt best; of those, the one nearest to 1."
)
_FALLEN = 0.25
_RISEN = 0.05


@dataclass(frozen=True)
class Scored:
    """What was measured after `step` steps at `weight`, by the scores' names."""

    step: int
    weight: float
    values: Mapping[str, float]


class Scores:
    """Every score of a run, in a file; the same step and weight is replaced."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)

    def add(self, scored: Scored) -> None:
        self._known[scored.step, scored.weight] = scored
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps([asdict(one) for one in self._known.values()]))
        part.replace(self._file)

    def at(self, step: int, weight: float = 1.0) -> Scored | None:
        """What was measured there before, if it was."""
        return self._known.get((step, weight))

    def until(self, step: int) -> list[Scored]:
        """Those of the LoRA as it was learnt (weight 1) up to that step, in order."""
        return sorted(
            (one for one in self._known.values() if one.weight == 1.0 and 0 < one.step <= step),
            key=lambda one: one.step,
        )

    def without(self) -> Scored | None:
        """What the base draws without the LoRA."""
        return self._known.get((0, 0.0))


def best_of(scores: Sequence[Scored]) -> Scored | None:
    """The best by RULE, the earliest of several; None where nothing was measured."""
    known = [one for one in scores if "likeness" in one.values]
    if known:
        highest = max(one.values["likeness"] for one in known)
        scores = [one for one in known if one.values["likeness"] > highest - ALIKE]
    known = [one for one in scores if "validation" in one.values]
    if known:
        return min(known, key=lambda one: (one.values["validation"], one.step))
    return max(scores, key=lambda one: (one.values.get("likeness", 0.0), -one.step), default=None)


def scores_since_best(scores: Sequence[Scored]) -> int:
    """How many scores there were after the best one."""
    best = best_of(scores)
    return 0 if best is None else sum(one.step > best.step for one in scores)


def best_weight_of(scores: Sequence[Scored]) -> float | None:
    """The weight by WEIGHT_RULE; None where no likeness was measured."""
    known = [one for one in scores if "likeness" in one.values]
    if not known:
        return None
    highest = max(one.values["likeness"] for one in known)
    level = [one for one in known if one.values["likeness"] >= highest - LEVEL_WEIGHTS]
    return max(level, key=lambda one: (one.values.get("prompt", 0.0), -abs(one.weight - 1), -one.weight)).weight


def overfit(scores: Sequence[Scored], without: Scored | None, *, held: bool) -> str:
    """One sentence with figures where too much was learnt; '' where it was not.

    Validation tells it only where the measured pictures were not learnt from (`held`).
    """
    if len(scores) < 2:
        return ""
    last, signs = scores[-1], []
    if held and "validation" in last.values:
        low = min(scores, key=lambda one: one.values.get("validation", float("inf")))
        lowest = low.values["validation"]
        if last.values["validation"] > lowest * (1 + _RISEN):
            signs.append(
                f"the validation rose from {lowest:.3f} at step {low.step:,} to {last.values['validation']:.3f}"
            )
    for name, words in (("variety", "the samples vary less"), ("prompt", "the prompts are followed less")):
        measured = [one for one in (without, *scores) if one is not None and name in one.values]
        if name == "variety":  # the base draws others than the character: it is no measure
            measured = [one for one in measured if one is not without]
        if not measured or name not in last.values:
            continue
        top = max(measured, key=lambda one: one.values[name])
        if last.values[name] < top.values[name] * (1 - _FALLEN):
            when = "without the LoRA" if top is without else f"at step {top.step:,}"
            signs.append(f"{words} ({last.values[name]:.2f}, and {top.values[name]:.2f} {when})")
    if not signs:
        return ""
    return f"By step {last.step:,} it learnt too much: {' and '.join(signs)}."


def _read(file: Path) -> dict[tuple[int, float], Scored]:
    """What the file holds; a run from before there were scores has none."""
    if not file.exists():
        return {}
    rows = [Scored(int(r["step"]), float(r["weight"]), r["values"]) for r in json.loads(file.read_text())]
    return {(one.step, one.weight): one for one in rows}
