"""The best pictures of a set: good ones that differ, and how much the set varies at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from masuka.datasets.doctor import ALIKE, TARGET_PX, Row, faces_of, measured, shows_people
from masuka.datasets.outliers import described

VARIETY_WEIGHT = 2.0
"""A picture as far from the chosen ones as two usual pictures outweighs two points of quality."""
MOST_CONSIDERED = 1500
"""Pictures of the best quality among which the varied ones are chosen; 10,000 would take seconds."""
FEWEST_TO_VARY = 6
SAME_LIGHT, SAME_BACKGROUND, SAME_FRAMING = 0.03, 8.0, 0.95
"""Spread of exposure; median distance of border colours (Lab, 0–255 each); median likeness.

Pocket's sets of 20, six places each: 0.15, 45 and 0.55; at one place: 0.01, 2 and 0.90.
"""
SAME_FACE = 0.25
"""Spread of face heights against their mean: heads, half and whole bodies have about 0.6."""


def best(
    rows: Sequence[Row], findings: Mapping[str, Sequence[str]], *, count: int, class_word: str = ""
) -> list[int]:
    """The indexes of the `count` best varied pictures, the best first.

    `findings` are severities and kinds by SHA-256: 'bad', 'doubtful' and each kind's name.
    Copies are taken only where there are not enough others, unmeasured pictures last.
    """
    good = [i for i, row in enumerate(rows) if measured(row)]
    unknown = [i for i, row in enumerate(rows) if not measured(row)]
    chosen = _varied(rows, good, findings, count, class_word) if good else []
    return chosen + unknown[: count - len(chosen)]


def quality(row: Row, findings: Sequence[str] = (), *, people: bool = False) -> float:
    """How good a picture is by itself: about 0 to 3; findings cost."""
    scores = row["scores"]
    points = min(1.0, max(0.0, (scores["sharpness"] - 0.35) / 0.3))
    points += 0.5 * (1 - abs(2 * scores["exposure"] - 1)) + 0.3 * min(1.0, scores["contrast"] / 0.5)
    points += 0.5 * min(1.0, (row["width"] * row["height"]) ** 0.5 / (2 * TARGET_PX))
    points += 0.3 * (scores["jpeg_quality"] or 100) / 100
    if people:
        points += 0.5 * (len(faces_of(row)) == 1)
    return float(points - 2.0 * findings.count("bad") - 0.5 * findings.count("doubtful"))


def variety(rows: Sequence[Row], *, class_word: str = "") -> list[str]:
    """What all pictures have in common besides the character, each with what to do."""
    rows = [row for row in rows if measured(row)]
    if len(rows) < FEWEST_TO_VARY:
        return []
    found: list[str] = []
    exposures = np.array([row["scores"]["exposure"] for row in rows])
    borders = np.array([row["scores"]["border"] for row in rows], np.float64)
    if float(exposures.std()) < SAME_LIGHT:
        found.append("All pictures have nearly the same light. Add some taken at another time or place.")
    if _median_distance(borders) < SAME_BACKGROUND:
        found.append("All pictures have nearly the same background; it would be learnt. Add other places.")
    if shows_people(rows, class_word):
        heights = np.array([faces_of(row)[0][3] for row in rows if faces_of(row)])
        if len(heights) >= FEWEST_TO_VARY and float(heights.std() / heights.mean()) < SAME_FACE:
            found.append(
                "The face is about equally large in all pictures. Add heads, half and whole bodies alike."
            )
    elif 1 - _median_distance(described([row["scores"] for row in rows])) ** 2 / 2 > SAME_FRAMING:
        found.append("All pictures are framed nearly alike. Add other poses and distances.")
    return found


def _varied(
    rows: Sequence[Row], good: Sequence[int], findings: Mapping[str, Sequence[str]], count: int, class_word: str
) -> list[int]:
    """Takes the best first, then always the one whose quality and distance add up to most."""
    people = shows_people([rows[i] for i in good], class_word)
    points = np.array([_points(rows[i], findings.get(rows[i]["sha256"], ()), people) for i in good])
    considered = np.argsort(-points, kind="stable")[: max(MOST_CONSIDERED, 4 * count)]
    points = points[considered]
    vectors = described([rows[good[i]]["scores"] for i in considered])
    usual = max(1e-6, _median_distance(vectors))
    nearest = np.full(len(considered), 2.0)
    chosen: list[int] = []
    while len(chosen) < min(count, len(considered)):
        total = points + (VARIETY_WEIGHT * np.minimum(nearest / usual, 2.0) if chosen else 0.0)
        total[chosen] = -np.inf
        pick = int(np.argmax(total))
        chosen.append(pick)
        # Both have length 1.
        nearest = np.minimum(nearest, np.sqrt(np.maximum(0.0, 2 - 2 * (vectors @ vectors[pick]))))
    return [good[int(considered[i])] for i in chosen]


def _points(row: Row, findings: Sequence[str], people: bool) -> float:
    return quality(row, findings, people=people) - (10.0 if ALIKE & set(findings) else 0.0)


def _median_distance(vectors: npt.NDArray[Any]) -> float:
    """The median distance of two vectors; of some hundred where there are more."""
    some = vectors[:: max(1, len(vectors) // 300)]
    squares = (some * some).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * some @ some.T
    apart = distances[np.triu_indices(len(some), 1)]
    return float(np.sqrt(max(0.0, float(np.median(apart))))) if apart.size else 0.0
