"""Which pictures of a set show the same: exact copies, near copies, cuts of one another.

In three steps, so that 10,000 pictures take a minute or two and not hours. The 16 × 16
grey `look` of each picture is compared with windows of all others' (products of matrices,
in chunks). What is alike there must be alike in shapes and colours. What is left is looked
at: `overlays` lays the two thumbnails (256 px) onto each other and judges what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from masuka.datasets import overlays
from masuka.datasets.measures import LOOK_SIDE, unpacked
from masuka.datasets.overlays import Window

Sameness = Literal["duplicate", "near_duplicate", "crop_of"]
Thumbnail = Callable[[int], Image.Image | None]
"""The thumbnail of the row with this index, RGB; None where there is none."""
Floats = npt.NDArray[np.float32]

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
CELLS = 8
COPIES_EACH, CUTS_EACH = 6, 2
LEAST_LIKE, LEAST_LIKE_CUT = 0.93, 0.86
"""Correlation of 8 × 8 grey cells from which a pair is looked at.

Of 200 changed copies all were above 0.95; of 60 cuts of half to three quarters of each
side, 95 of 100 were above 0.86, and one in 200 pairs of other pictures.
"""
LEAST_SHAPE, LEAST_COLOUR = 0.80, 0.90
"""Cosines of edge directions and of mean colours, for all but small cuts; copies: 0.86, 0.95."""
NEARLY_WHOLE = 0.79
"""A cut that keeps so much of the area (0.9 of each side is 0.81) is a near copy, not a cut."""
CHUNK = 512
MOST_WITH_CUTS = 2000
"""Up to so many pictures, cuts down to half of each side are looked for; above, to 0.9 of it."""
_UNSEEN_BITS, _UNSEEN_LIKE = 4, 0.99


@dataclass(frozen=True)
class Pair:
    """Two pictures, by index, that show the same; `second` may be cut from `first`."""

    first: int
    second: int
    kind: Sameness
    likeness: float
    covered: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """`second` looks like that window of `first`."""

    first: int
    second: int
    window: Window
    likeness: float


def find(
    rows: Sequence[Mapping[str, Any]],
    thumbnail: Thumbnail | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> list[Pair]:
    """All pairs that show the same, the likeliest first; each two pictures once.

    A row is the `scores` of a picture with its `width` and `height`; those that were not
    measured are passed over. Without a thumbnail a pair is judged by its measures alone,
    with narrower limits. `check` is called between pictures and may raise.
    """
    there = [i for i, row in enumerate(rows) if row.get("look")]
    looks = np.stack([unpacked(rows[i]["look"]) for i in there]).astype(np.float32) if there else None
    if looks is None or len(there) < 2:
        return []
    small = lru_cache(maxsize=64)(thumbnail or (lambda index: None))
    found: dict[tuple[int, int], Pair] = {}
    for candidate in candidates(looks, check=check):
        check()
        first, second = there[candidate.first], there[candidate.second]
        names = (min(first, second), max(first, second))
        if names in found or not _alike(rows[first], rows[second], candidate.window):
            continue
        pair = _judged(rows, first, second, candidate, small)
        if pair is not None:
            found[names] = pair
    return sorted(found.values(), key=lambda pair: (-pair.likeness, pair.first, pair.second))


def windows(*, cuts: bool) -> list[Window]:
    """The parts of a picture that another may be; `cuts` go down to half of each side."""
    found = [WHOLE]
    for width, height in ((0.93, 0.93), (0.93, 1.0), (1.0, 0.93)):
        found += [
            (x * (1 - width), y * (1 - height), width, height)
            for x in ((0.0, 0.5, 1.0) if width < 1 else (0.0,))
            for y in ((0.0, 0.5, 1.0) if height < 1 else (0.0,))
        ]
    for size in (0.8, 0.7, 0.6, 0.5) if cuts else ():
        count = 2 + round((1 - size) / 0.06)
        steps = [i / (count - 1) * (1 - size) for i in range(count)]
        found += [(x, y, size, size) for x in steps for y in steps]
    return found


def described(looks: Floats, window: Window = WHOLE) -> Floats:
    """The light in 8 × 8 cells of that window, of mean 0 and length 1: (N, 64).

    One flat colour is like nothing and gives zeros.
    """
    across, down = _under(window[0], window[2]), _under(window[1], window[3])
    cells = down @ looks.reshape(-1, LOOK_SIDE, LOOK_SIDE) @ across.T
    flat = cells.reshape(len(looks), CELLS * CELLS)
    flat = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(lengths > 1.0, flat / np.maximum(lengths, 1e-6), 0.0).astype(np.float32)


def candidates(looks: Floats, *, check: Callable[[], None] = lambda: None) -> list[Candidate]:
    """What may be the same, the likeliest first; a few for each picture as the cut.

    `looks` is (N, 256), 0 to 255. Memory grows with N, not with its square.
    """
    whole = described(looks)
    copies: list[_Likest] = [{} for _ in looks]
    cuts: list[_Likest] = [{} for _ in looks]
    for window in windows(cuts=len(looks) <= MOST_WITH_CUTS):
        parts = described(looks, window).T
        near = window[2] * window[3] >= NEARLY_WHOLE
        likest, least, most = (copies, LEAST_LIKE, COPIES_EACH) if near else (cuts, LEAST_LIKE_CUT, CUTS_EACH)
        for start in range(0, len(looks), CHUNK):
            check()
            like = whole[start : start + CHUNK] @ parts
            rows = np.arange(len(like))
            like[rows, rows + start] = -1.0
            for row in np.flatnonzero(like.max(axis=1) >= least):
                _merge(likest[start + row], like[row], window, least, most)
    found = [
        Candidate(other, cut, window, like)
        for likest in (copies, cuts)
        for cut, others in enumerate(likest)
        for other, (like, window) in others.items()
    ]
    return sorted(found, key=lambda c: (-c.likeness, c.first, c.second))


_Likest = dict[int, tuple[float, Window]]
"""Other picture to how alike it is, and in which window of it."""


def _merge(likest: _Likest, like: Floats, window: Window, least: float, most: int) -> None:
    """Takes the best of a row into a picture's few likest, each other picture once."""
    columns = np.flatnonzero(like >= least)
    if columns.size > most:
        columns = columns[np.argpartition(-like[columns], most - 1)[:most]]
    for other in columns.tolist():
        value = float(like[other])
        if value > likest.get(other, (0.0, WHOLE))[0]:
            likest[other] = (value, window)
    for other in sorted(likest, key=lambda o: -likest[o][0])[most:]:
        del likest[other]


def _under(start: float, length: float) -> Floats:
    """The share of each row of a look in each of 8 cells of a window: (8, 16)."""
    edges = (start + length * np.arange(CELLS + 1) / CELLS) * LOOK_SIDE
    rows = np.arange(LOOK_SIDE)
    shared = np.minimum(edges[1:, None], rows + 1) - np.maximum(edges[:-1, None], rows)
    shares: Floats = np.maximum(shared, 0.0).astype(np.float32)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any], window: Window) -> bool:
    """Whether shapes and colours agree; a small cut may have others than the whole."""
    if window[2] * window[3] < NEARLY_WHOLE:
        return True
    if _cosine(unpacked(one["shape"]), unpacked(other["shape"])) < LEAST_SHAPE:
        return False
    tints = [np.array([*row["border"][1:], *row["centre"][1:]], np.float64) - 128 for row in (one, other)]
    return min(np.abs(t).max() for t in tints) < 8 or _cosine(*tints) >= LEAST_COLOUR


def _cosine(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / max(1e-9, float(np.linalg.norm(a) * np.linalg.norm(b))))


def _judged(
    rows: Sequence[Mapping[str, Any]], first: int, second: int, candidate: Candidate, small: Thumbnail
) -> Pair | None:
    """The pair, where a closer look confirms it."""
    one, other = rows[first], rows[second]
    if one["pixels"] == other["pixels"]:
        return Pair(*_larger_first(rows, first, second), "duplicate", 1.0)
    pictures = small(first), small(second)
    if pictures[0] is None or pictures[1] is None:
        return _judged_unseen(rows, first, second, candidate)
    match = overlays.lay(pictures[0], pictures[1], candidate.window)
    if match is None:
        return None
    covered = min(match.covered_first, match.covered_second)
    if covered >= NEARLY_WHOLE:
        return Pair(*_larger_first(rows, first, second), "near_duplicate", match.likeness, covered)
    if match.covered_first > match.covered_second:
        first, second = second, first
    return Pair(first, second, "crop_of", match.likeness, covered)


def _judged_unseen(
    rows: Sequence[Mapping[str, Any]], first: int, second: int, candidate: Candidate
) -> Pair | None:
    """The pair by its hashes and colours alone: only what was hardly changed."""
    one, other = rows[first], rows[second]
    for name in ("phash", "dhash"):
        if (int(one[name], 16) ^ int(other[name], 16)).bit_count() > _UNSEEN_BITS:
            return None
    names = ("histogram", "shape")
    if min(candidate.likeness, *(_cosine(unpacked(one[n]), unpacked(other[n])) for n in names)) < _UNSEEN_LIKE:
        return None
    return Pair(*_larger_first(rows, first, second), "near_duplicate", candidate.likeness)


def _larger_first(rows: Sequence[Mapping[str, Any]], first: int, second: int) -> tuple[int, int]:
    sizes = [rows[i].get("width", 0) * rows[i].get("height", 0) for i in (first, second)]
    return (second, first) if sizes[1] > sizes[0] else (first, second)
