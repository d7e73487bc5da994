"""Which pictures do not belong to the others: by likeness where a model is there, or by looks.

An `Embedder` turns small pictures into vectors. Without one, colours and shapes of the
measures stand in for it; they tell a landscape among portraits, not one person from
another, and the doctor says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from masuka.datasets.measures import unpacked

Floats = npt.NDArray[np.float64]

FEWEST = 8
"""With fewer pictures nothing is usual, so nothing is odd."""
NEIGHBOURS = 3
MOST_SHARE = 0.1
"""At most a tenth of a set is odd; more of them are another theme of the set."""
CHUNK = 1024


def odd_ones(
    scores: Sequence[Mapping[str, Any]], vectors: Floats | None = None
) -> list[tuple[int, float]]:
    """Index and how far out, in usual spreads, of the pictures that are like no other.

    `vectors` (N, D) of an embedder decide where they are given, else colours and shapes.
    """
    if len(scores) < FEWEST:
        return []
    far = _from_neighbours(described(scores) if vectors is None else _unit(vectors))
    usual = float(np.median(far))
    spread = max(1.4826 * float(np.median(np.abs(far - usual))), 0.08 * usual, 1e-6)
    out = (far - usual) / spread
    limit = 4.5 if vectors is None else 3.5
    odd = sorted(np.flatnonzero(out > limit).tolist(), key=lambda i: -out[i])
    return [(i, round(float(out[i]), 1)) for i in odd[: max(1, int(MOST_SHARE * len(scores)))]]


def described(scores: Sequence[Mapping[str, Any]]) -> Floats:
    """Colours, shapes and light of each picture as one vector of length 1: (N, 416)."""
    parts = []
    for name, weight in (("histogram", 1.0), ("shape", 0.7), ("look", 0.7)):
        part = np.stack([unpacked(row[name]) for row in scores]).astype(np.float64)
        if name == "look":
            part -= part.mean(axis=1, keepdims=True)
        parts.append(weight * _unit(part))
    return _unit(np.hstack(parts))


def _unit(vectors: npt.NDArray[Any]) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float64)


def _from_neighbours(vectors: Floats) -> Floats:
    """Each vector's mean distance (1 − cosine) from its nearest few."""
    found = np.empty(len(vectors))
    for start in range(0, len(vectors), CHUNK):
        like = vectors[start : start + CHUNK] @ vectors.T
        rows = np.arange(len(like))
        like[rows, rows + start] = -np.inf
        nearest = -np.partition(-like, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        found[start : start + CHUNK] = 1 - nearest.mean(axis=1)
    return found
