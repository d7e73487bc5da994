"""One small picture laid onto another: where it fits, and whether they show the same.

Robust to scale, compression, light and cuts; strict about content: another face in the
same place is a difference of a few pixels, but a strong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Window = tuple[float, float, float, float]
"""Left, top, width and height as shares of a picture."""
Pixels = npt.NDArray[Any]
Transform = npt.NDArray[Any]
"""(2, 3): from the second picture's pixels to the first's."""

ROUGH_PX, FINE_PX = 96, 160
LEAST_ROUGH, LEAST_FINE = 0.80, 0.90
"""Correlation after laying on at both sizes; of 200 changed copies the least were 0.81 and 0.925."""
MOST_DIFFERENT = 55.0
"""Of 255, mean of 5 × 5 px at FINE_PX, in the thousandth that differs most.

200 changed copies had up to 47 (median 3), 450 pairs that only look alike at least 95.
"""
LEAST_COVERED = 0.2
_CLIPPED_LOW, _CLIPPED_HIGH = 4, 250


@dataclass(frozen=True)
class Match:
    """`likeness` is the correlation, 0 to 1; the shares of both pictures that meet."""

    likeness: float
    covered_first: float
    covered_second: float
    difference: float


def lay(first: Image.Image, second: Image.Image, window: Window) -> Match | None:
    """How the second lies on the first, near that window of it; None if they differ."""
    one, other = (np.asarray(picture.convert("RGB")) for picture in (first, second))
    found = _laid(_sized(one, ROUGH_PX), _sized(other, ROUGH_PX), window)
    if found is None:
        return None
    one, other = _sized(one, FINE_PX), _sized(other, FINE_PX)
    greys = _grey(one), _grey(other)
    laid = _refined(*greys, _scaled(found, FINE_PX / ROUGH_PX), 30)
    if laid is None or laid[0] < LEAST_FINE:
        return None
    likeness, transform = laid
    inside = _inside(transform, one, other)
    covered_second = float(inside.mean())
    covered_first = covered_second * abs(float(np.linalg.det(transform[:, :2]))) * other.size / one.size
    if min(covered_first, covered_second) < LEAST_COVERED:
        return None
    different = difference(one, other, transform, inside)
    if different > MOST_DIFFERENT:
        return None
    return Match(likeness, min(1.0, covered_first), covered_second, different)


def difference(one: Pixels, other: Pixels, transform: Transform, inside: npt.NDArray[np.bool_]) -> float:
    """How much the worst thousandth of `other` differs from what is under it, to 255.

    Light is matched first; half a pixel to each side is forgiven.
    """
    height, width = other.shape[:2]
    under = cv2.warpAffine(
        one, transform, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)  # fmt: skip
    worst = np.zeros((height, width), np.float32)
    near = np.ones((3, 3), np.uint8)
    for channel in range(3):
        below, above = under[..., channel], other[..., channel].astype(np.float32)
        gain, offset = _matched_light(below, above, inside)
        expected = np.clip(gain * below + offset, 0, 255)
        # A clipped value may have been anything beyond.
        least = np.where(below <= _CLIPPED_LOW, 0.0, cv2.erode(expected, near))
        most = np.where(below >= _CLIPPED_HIGH, 255.0, cv2.dilate(expected, near))
        off = np.maximum(0.0, np.maximum(above - most, least - above))
        worst = np.maximum(worst, off / min(1.5, max(0.5, gain))).astype(np.float32)
    worst[~inside] = 0.0
    return float(np.percentile(cv2.blur(worst, (5, 5))[inside], 99.9))


def _laid(one: Pixels, other: Pixels, window: Window) -> Transform | None:
    """The transform at the rough size: from the window, or else from features."""
    greys = _grey(one), _grey(other)
    laid = _refined(*greys, _of_window(one, other, window), 30)
    if laid is not None and laid[0] >= LEAST_FINE:
        return laid[1]
    by_features = _by_features(*greys)
    tries = [laid] if by_features is None else [laid, _refined(*greys, by_features, 30)]
    good = [found for found in tries if found is not None and found[0] >= LEAST_ROUGH]
    return max(good, key=lambda found: found[0])[1] if good else None


def _refined(one: Pixels, other: Pixels, start: Transform, steps: int) -> tuple[float, Transform] | None:
    """The correlation and the transform that maximise it near `start` (ECC; Evangelidis 2008)."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-4)
    try:
        likeness, transform = cv2.findTransformECC(  # type: ignore[call-overload]  # a mask may be None
            other, one, start.astype(np.float32), cv2.MOTION_AFFINE, criteria, None, 5
        )
    except cv2.error:  # it does not converge: they have nothing in common there
        return None
    sizes = np.linalg.svd(np.asarray(transform)[:, :2], compute_uv=False)
    return (float(likeness), transform) if 0.3 < sizes[1] <= sizes[0] < 3.0 else None


def _by_features(one: Pixels, other: Pixels) -> Transform | None:
    """The transform that most of the common corners agree on (ORB, RANSAC)."""
    finder = cv2.ORB_create(300, fastThreshold=8, edgeThreshold=9, patchSize=15)  # type: ignore[attr-defined]
    corners_one, names_one = finder.detectAndCompute(one, None)
    corners_other, names_other = finder.detectAndCompute(other, None)
    if names_one is None or names_other is None or min(len(corners_one), len(corners_other)) < 6:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(names_other, names_one)
    if len(pairs) < 6:
        return None
    transform, agreeing = cv2.estimateAffinePartial2D(
        np.array([corners_other[pair.queryIdx].pt for pair in pairs], np.float32),
        np.array([corners_one[pair.trainIdx].pt for pair in pairs], np.float32),
        ransacReprojThreshold=2.0, maxIters=500,
    )  # fmt: skip
    return transform if transform is not None and int(agreeing.sum()) >= 6 else None


def _matched_light(below: Pixels, above: Pixels, inside: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Gain and offset that take one channel to the other's light, by what most pixels say."""
    clear = inside & (np.minimum(below, above) > _CLIPPED_LOW) & (np.maximum(below, above) < _CLIPPED_HIGH)
    if clear.sum() < 0.1 * inside.sum():
        clear = inside
    x, y = below[clear], above[clear]
    weight = np.ones_like(x)
    gain, offset = 1.0, 0.0
    for _ in range(4):
        total = float(weight.sum())
        mean_x, mean_y = float((weight * x).sum()) / total, float((weight * y).sum()) / total
        spread = max(1e-6, float((weight * (x - mean_x) ** 2).sum()))
        gain = min(2.2, max(0.45, float((weight * (x - mean_x) * (y - mean_y)).sum()) / spread))
        offset = mean_y - gain * mean_x
        off = np.abs(gain * x + offset - y)
        weight = np.where(off < max(6.0, 1.5 * float(np.median(off))), 1.0, 0.05)
    return gain, offset


def _inside(transform: Transform, one: Pixels, other: Pixels) -> npt.NDArray[np.bool_]:
    """Where the second picture lies on the first, two pixels from its rim."""
    height, width = other.shape[:2]
    full = np.full(one.shape[:2], 255, np.uint8)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    laid = (cv2.warpAffine(full, transform, (width, height), flags=flags) > 0).astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    found: npt.NDArray[np.bool_] = cv2.erode(laid, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    return found


def _sized(pixels: Pixels, side_px: int) -> Pixels:
    scale = side_px / max(pixels.shape[:2])
    size = (max(12, round(pixels.shape[1] * scale)), max(12, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _grey(pixels: Pixels) -> Pixels:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _of_window(one: Pixels, other: Pixels, window: Window) -> Transform:
    left, top, width, height = window
    return np.array([
        [width * one.shape[1] / other.shape[1], 0, left * one.shape[1]],
        [0, height * one.shape[0] / other.shape[0], top * one.shape[0]],
    ], np.float32)  # fmt: skip


def _scaled(transform: Transform, scale: float) -> Transform:
    return np.hstack([transform[:, :2], transform[:, 2:] * scale])
