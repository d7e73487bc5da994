"""What can be measured of one picture without any model, as flat JSON values.

Pure and quick: one small RGB picture in, numbers and short texts out. Judging them is
`doctor`'s part, comparing pictures `duplicates`'.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from masuka.datasets import faces, letters

VERSION = 2
"""Grows when a measure changes its meaning; older scores are then measured again."""
SMALL_PX = 1024
"""The longer side of the picture that is measured; a larger one is scaled down first."""
LOOK_SIDE = 16
HISTOGRAM_BINS = 64
SHAPE_CELLS, SHAPE_ANGLES = 4, 6

Grey = npt.NDArray[Any]
"""(height, width) of 0 to 255."""
Pixels = npt.NDArray[Any]
"""(height, width, 3) of 0 to 255."""

_TILES = 8
_BLUR_TAPS = 9
_SHARPEST_SHARE = 0.15
_LEAST_EDGE, _LEAST_OF_STRONGEST = 0.3, 0.15
"""A tile says something from this mean difference of neighbours on (of 255, and of the strongest tile's)."""


def measure(
    small: Image.Image, *, width: int, height: int, jpeg_quality: int | None = None
) -> dict[str, Any]:
    """The measures of a picture of width × height px, seen as `small` (RGB).

    `v` is VERSION. `sharpness` 0 to 1 of the sharpest parts; `exposure` the mean and
    `contrast` the span of the luma, 0 to 1; `shadows` and `highlights` the shares that
    are clipped; `letters` how many stand in the longest row. `pixels` names the exact picture, `phash` and `dhash` (hex, 64 bits) the
    rough picture; `look` (base64, 16 × 16 grey), `histogram` and `shape` describe it for
    comparing; `border` and `centre` are mean Lab colours. `faces` are [x, y, width,
    height, score] as shares of the frame, missing where no detector was there.
    """
    if small.mode != "RGB":
        small = small.convert("RGB")
    if max(small.size) > SMALL_PX:
        small = small.copy()
        small.thumbnail((SMALL_PX, SMALL_PX), Image.Resampling.BOX)
    pixels = np.asarray(small)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    scores: dict[str, Any] = {
        "v": VERSION,
        "sharpness": round(sharpness(grey), 3),
        "letters": letters.longest_row(grey),
        **_light(grey),
        "jpeg_quality": jpeg_quality,
        **_compared(pixels, grey, f"{width}x{height}"),
    }
    found = _faces(grey)
    if found is not None:
        scores["faces"] = found
    return scores


def jpeg_quality(quantization: Mapping[int, Sequence[int]]) -> int | None:
    """The quality, 1 to 100, whose luminance table comes nearest to these tables.

    None without tables. Exact for encoders that scale the standard's own tables, such as
    libjpeg; by the sum of the table, which does not depend on the order of its values.
    """
    if 0 not in quantization:
        return None
    total = sum(quantization[0])
    return min(range(1, 101), key=lambda quality: (abs(_table_sum(quality) - total), -quality))


def sharpness(grey: Grey) -> float:
    """How sharp the sharpest parts are, 0 (blurred) to 1, whatever the contrast.

    In tiles, after Crete et al., "The blur effect" (2007): how much of the differences
    between neighbours is lost by blurring again, the blurrier direction counting. Tiles
    without edges say nothing; a picture without any edge is 0.
    """
    small = cv2.GaussianBlur(grey, (3, 3), 0)  # noise of the sensor is no sharpness
    tile = max(1, min(max(16, max(small.shape) // _TILES), min(small.shape) - 1))
    found, weights = [], []
    for axis in (1, 0):
        taps = (_BLUR_TAPS, 1) if axis else (1, _BLUR_TAPS)
        edges = _differences(small, axis)
        lost = cv2.subtract(edges, _differences(cv2.blur(small, taps), axis))
        weight = _means(edges, tile)
        found.append(_means(lost, tile) / np.maximum(weight, 1e-3))
        weights.append(weight)
    weight = np.minimum(*weights)
    least = max(_LEAST_EDGE, _LEAST_OF_STRONGEST * float(weight.max()))
    clear = np.sort(np.minimum(*found)[weight >= least])[::-1]
    if not clear.size:
        return 0.0
    best = clear[: max(1, round(_SHARPEST_SHARE * weight.size))]
    return float(np.clip(best.mean(), 0.0, 1.0))


def unpacked(text: str) -> npt.NDArray[np.uint8]:
    """The bytes of `look`, `histogram` or `shape` as numbers."""
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)


def _compared(pixels: Pixels, grey: Grey, size: str) -> dict[str, Any]:
    """What pictures are compared by; all but the name from a rough, quickly made copy."""
    step = max(1, min(grey.shape) // 128)  # whole steps are many times quicker than any others
    rough = cv2.resize(
        pixels[: grey.shape[0] // step * step, : grey.shape[1] // step * step],
        (grey.shape[1] // step, grey.shape[0] // step),
        interpolation=cv2.INTER_AREA,
    )
    return {"pixels": _named(grey, rough, size), **_looks(rough)}


def _named(grey: Grey, rough: Pixels, size: str) -> str:
    """16 hex digits that two pictures share only where they look the same.

    All of the light, but roughly the colours: hashing all of them takes as long as
    measuring them.
    """
    digest = hashlib.sha256(np.ascontiguousarray(grey).data)
    digest.update(np.ascontiguousarray(rough).data)
    digest.update(size.encode())
    return digest.hexdigest()[:16]


def _differences(grey: Grey, axis: int) -> Grey:
    """Each value's difference from its neighbour to the right (1) or below (0)."""
    here, next_one = grey[:-1, :-1], grey[:-1, 1:] if axis else grey[1:, :-1]
    return cv2.absdiff(here, next_one)


def _means(values: Grey, tile: int) -> npt.NDArray[np.float64]:
    """The means of tiles of tile × tile values; what is left over at the ends is not looked at."""
    rows, columns = max(1, values.shape[0] // tile), max(1, values.shape[1] // tile)
    strips = [
        cv2.reduce(values[row * tile : (row + 1) * tile], 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
        for row in range(rows)
    ]
    starts = np.arange(columns) * tile
    sums = np.add.reduceat(np.stack(strips)[:, : columns * tile], starts, axis=1)
    return sums / float(tile * tile)


def _light(grey: Grey) -> dict[str, float]:
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    shares = counts / counts.sum()
    reached = np.cumsum(shares)
    low, high = int(np.searchsorted(reached, 0.05)), int(np.searchsorted(reached, 0.95))
    return {
        "exposure": round(float((shares * np.arange(256)).sum()) / 255, 3),
        "contrast": round((high - low) / 255, 3),
        "shadows": round(float(shares[:9].sum()), 3),
        "highlights": round(float(shares[250:].sum()), 3),
    }


def _looks(rough: Pixels) -> dict[str, Any]:
    grey = cv2.cvtColor(rough, cv2.COLOR_RGB2GRAY)
    look = cv2.resize(grey, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.resize(rough, (64, 64), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    inside = np.zeros((64, 64), dtype=bool)
    inside[12:56, 16:48] = True
    return {
        "phash": _phash(grey),
        "dhash": _dhash(grey),
        "look": _packed(look),
        "histogram": _histogram(lab),
        "shape": _shape(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)),
        "border": [int(v) for v in lab[~inside].mean(axis=0).round()],
        "centre": [int(v) for v in lab[inside].mean(axis=0).round()],
    }


def _phash(grey: Grey) -> str:
    """The signs of the 64 lowest cosines, against their median; hex."""
    cosines = cv2.dct(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))[
        :8, :8
    ].ravel()
    return np.packbits(cosines > np.median(cosines[1:])).tobytes().hex()


def _dhash(grey: Grey) -> str:
    """Whether each of 8 × 8 cells is darker than its right neighbour; hex."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()


def _histogram(lab: Pixels) -> str:
    """Shares of 64 colours in Lab, as square roots of 0 to 255; base64."""
    cells = (lab[..., 0] >> 6).astype(np.int64) * 16
    # a and b lie near 128 in photographs; a quarter of the range each side holds nearly all.
    for shift, channel in ((4, 1), (1, 2)):
        cells += (np.clip((lab[..., channel].astype(np.int64) - 96) >> 4, 0, 3)) * shift
    counts = np.bincount(cells.ravel(), minlength=HISTOGRAM_BINS)
    return _packed(np.sqrt(counts / counts.sum()) * 255)


def _shape(grey: Grey) -> str:
    """Strengths of edge directions in 4 × 4 cells, the strongest being 255; base64."""
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    angle = ((np.arctan2(down, across) % np.pi) / np.pi * SHAPE_ANGLES).astype(np.int64) % SHAPE_ANGLES
    size = 64 // SHAPE_CELLS
    rows, columns = np.indices(grey.shape) // size
    cells = (rows * SHAPE_CELLS + columns) * SHAPE_ANGLES + angle
    sums = np.bincount(
        cells.ravel(), weights=np.hypot(across, down).ravel(), minlength=SHAPE_CELLS**2 * SHAPE_ANGLES
    )
    return _packed(sums / max(1e-6, float(sums.max())) * 255)


def _packed(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.clip(values, 0, 255).round().astype(np.uint8).tobytes()).decode()


@cache
def _table_sum(quality: int) -> int:
    """The sum of libjpeg's luminance table at this quality, its 64 values clamped."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((value * scale + 50) // 100, 1), 255) for value in _LUMINANCE)


_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""ITU-T T.81, Annex K, table K.1."""


def _faces(grey: Grey) -> list[list[float]] | None:
    """Faces as shares of the frame; None where there is no detector."""
    if faces.why_none():
        return None
    return [face.as_list() for face in faces.detect(Image.fromarray(grey))]
