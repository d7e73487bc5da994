"""How many letters stand in a row in a picture: written text, told without any model.

Cautious: a row counts only where pieces of one colour, one height and one thickness of
stroke stand on one line, close together, and are not all alike, as windows and fence posts
are. It reads nothing, and misses text that touches, is curved, faint or very small.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[Any]
Pieces = npt.NDArray[Any]
"""(N, 7): left, top, width, height and area in pixels, mean tone, half of the thickest stroke."""

SIDE_PX = 640
FEWEST = 6
"""Letters in a row that count as text: of 560 drawn pictures without any, none had so many."""
LOWEST_PX, HIGHEST_SHARE = 7, 0.14
"""Heights of letters; higher ones are logos on a dress, which belong to the picture."""
_STROKE_PX = 25
_LEAST_CONTRAST = 28
_SAME_TONE, _THICKEST = 30.0, 0.24
_MOST_PIECES = 500
"""Foliage and gravel fall into thousands of pieces; there nothing is read into them."""


def longest_row(grey: Grey) -> int:
    """The number of letters in the longest row of a picture, 0 where there is none."""
    scale = SIDE_PX / max(grey.shape)
    if scale < 1:
        # Less than halved, each pixel counts either way; the mean of areas takes five times as long.
        how = cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=how)
    longest = 0
    for ground in (grey, cv2.bitwise_not(grey)):  # light on dark, then dark on light
        longest = max([longest, *(len(row) for row in _rows(_pieces(ground)) if _differ(row))])
    return longest


def _pieces(ground: Grey) -> Pieces:
    """What stands out and may be a letter by its size, fullness and stroke, from left to right.

    Nothing where no FEWEST of them follow one another on a line: most pictures are done then.
    """
    stands_out = cv2.morphologyEx(ground, cv2.MORPH_TOPHAT, np.ones((_STROKE_PX, _STROKE_PX), np.uint8))
    mask = (stands_out > _LEAST_CONTRAST).astype(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_BBDT)
    _, _, wide, high, area = np.asarray(boxes).T
    full = area / np.maximum(1, wide * high)
    may_be = (high >= LOWEST_PX) & (high <= HIGHEST_SHARE * mask.shape[0]) & (wide >= 2) & (wide <= 1.6 * high)
    may_be &= (full >= 0.12) & (full <= 0.92)
    may_be[0] = False  # what does not stand out
    if not FEWEST <= may_be.sum() <= _MOST_PIECES or not _may_row(boxes[may_be]).any():
        return np.empty((0, 7))
    inside = may_be[labels]
    names = np.asarray(labels)[inside]
    tones = np.bincount(names, ground[inside], len(may_be)) / np.maximum(1, area)
    strokes = np.zeros(len(may_be))
    np.maximum.at(strokes, names, cv2.distanceTransform(mask, cv2.DIST_L2, 3)[inside])
    may_be &= strokes <= _THICKEST * high
    found: Pieces = np.column_stack([boxes, tones, strokes])[may_be]
    return found[np.argsort(found[:, 0], kind="stable")]


def _may_row(boxes: npt.NDArray[Any], tone: npt.NDArray[Any] | None = None) -> npt.NDArray[np.bool_]:
    """Which pieces may begin a row by what each must have in common with the next.

    All pairs at once. The limits follow from those of `_rows`: there a piece has 0.6 to
    1.55 of the usual height, which the heights of two that follow one another enclose.
    """
    left, top, wide, high = (boxes[:, i].astype(np.float32) for i in range(4))
    foot, usual = top + high, np.minimum.outer(high, high) / 0.6
    gap = left - (left + wide)[:, None]
    pairs = (left > left[:, None]) & (gap < 1.1 * usual) & (gap > -0.15 * usual)
    pairs &= (np.abs(foot - foot[:, None]) < 0.18 * usual) & (np.maximum.outer(high, high) < 1.55 * usual)
    if tone is not None:
        pairs &= np.abs(tone - tone[:, None]) < 2 * _SAME_TONE
    followed: npt.NDArray[np.bool_] = np.ones(len(boxes), bool)
    for _ in range(FEWEST - 1):
        followed = np.any(pairs & followed, axis=1)
    return followed


def _rows(pieces: Pieces) -> list[Pieces]:
    """Pieces of one height, tone and stroke that follow one another on a line, FEWEST at least."""
    left, top, wide, high, _, tone, stroke = pieces.T
    foot = top + high
    free = np.ones(len(pieces), bool)
    found: list[Pieces] = []
    for first in np.flatnonzero(_may_row(pieces, tone)).tolist():
        row, last = [first], first
        while free[first]:
            usual = float(np.median(high[row]))
            gap = left - (left[last] + wide[last])
            follows = (
                free & (left > left[last]) & (gap > -0.15 * usual) & (gap < 1.1 * usual)
                & (np.abs(foot - foot[last]) < 0.18 * usual) & (high > 0.6 * usual) & (high < 1.55 * usual)
                & (np.abs(tone - tone[first]) < _SAME_TONE)
                & (np.abs(stroke - stroke[first]) < 0.6 * stroke[first] + 0.7)
            )  # fmt: skip
            following = np.flatnonzero(follows)
            if not following.size:
                break
            last = int(following[0])
            row.append(last)
        if len(row) >= FEWEST:
            free[row] = False
            found.append(pieces[row])
    return found


def _differ(row: Pieces) -> bool:
    """Whether the pieces differ from one another as letters do, and windows do not."""
    _, _, wide, high, area, _, _ = row.T
    return bool(wide.std() >= 0.12 * wide.mean() and (area / (wide * high)).std() >= 0.05)
