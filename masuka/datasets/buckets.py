"""Aspect buckets: the shapes that a training offers, and what of a picture fills one.

Pure arithmetic, read by the training, by the page's sheet and by the doctor alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from masuka.families import draw_limits_of
from masuka.requests.base import params
from masuka.requests.images import DrawImages

STEPS_PER_SIDE = 8
"""How finely the sides of buckets differ; finer ones split small sets into lonely batches."""
WIDEST = 3.0
"""Longest bucket as a ratio of its sides; what is longer still is cropped."""

Window = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels of the picture."""
Focus = tuple[float, float, float, float]
"""Left, top, right and bottom of what must stay in, in fractions of the picture."""


@dataclass(frozen=True, order=True)
class Shape:
    """Width and height of a bucket in pixels."""

    width: int
    height: int


def shapes_for(resolution_px: int, *, step: int, shortest: int, longest: int) -> list[Shape]:
    """The buckets of at most `resolution_px`² pixels, sides multiples of `step`.

    `shortest` and `longest` are the sides that the model draws; a model of one size has
    one bucket. Of others a bucket's shorter side may be less, so that a small resolution
    has buckets too. Never empty: the square is always among them.
    """
    square = min(max(resolution_px // step * step, shortest), longest)
    stride = step * max(1, round(resolution_px / STEPS_PER_SIDE / step))
    shapes = {Shape(square, square)}
    if shortest < longest:
        shortest = min(shortest, int(resolution_px / math.sqrt(WIDEST)))
    for width in range(math.ceil(shortest / stride) * stride, longest + 1, stride):
        height = int(resolution_px**2 / width / stride) * stride
        if shortest <= height <= longest and 1 / WIDEST <= width / height <= WIDEST:
            shapes.add(Shape(width, height))
    return sorted(shapes)


def shapes_of(base_id: str, resolution_px: int) -> list[Shape]:
    """The buckets that a base is trained in at that resolution; raises NotFound."""
    side = params(DrawImages, draw_limits_of(base_id))["width"]
    longest = 4 * resolution_px if side.maximum is None else int(side.maximum)
    return shapes_for(
        resolution_px, step=int(side.step or 1), shortest=int(side.minimum or 1), longest=longest
    )


def smaller_shape(shape: Shape, scale: float, base_id: str) -> Shape:
    """The bucket at a part of its size; itself where the base draws nothing so small."""
    if scale == 1.0:
        return shape
    side = params(DrawImages, draw_limits_of(base_id))["width"]
    step = int(side.step or 1)
    width, height = (max(step, round(px * scale / step) * step) for px in (shape.width, shape.height))
    return Shape(width, height) if max(width, height) >= (side.minimum or 1) else shape


def nearest_shape(width: int, height: int, shapes: Sequence[Shape]) -> Shape:
    """The bucket whose aspect ratio is nearest to the picture's."""
    ratio = math.log(width / height)
    return min(shapes, key=lambda s: (abs(math.log(s.width / s.height) - ratio), -s.width * s.height))


def scaled_size(width: int, height: int, shape: Shape) -> tuple[int, int]:
    """The size in whole pixels at which the picture just covers the bucket."""
    scale = max(shape.width / width, shape.height / height)
    return max(shape.width, round(width * scale)), max(shape.height, round(height * scale))


def cut_of(width: int, height: int, shape: Shape, focus: Focus | None = None) -> tuple[int, int]:
    """Left and top of the bucket's cut from the scaled picture, in its pixels.

    At the centre, moved no further than needed for `focus` to lie in it; what is larger
    than the bucket is cut around its own centre.
    """
    wide, high = scaled_size(width, height, shape)
    left = _moved(wide, shape.width, None if focus is None else (focus[0], focus[2]))
    top = _moved(high, shape.height, None if focus is None else (focus[1], focus[3]))
    return left, top


def crop_window(width: int, height: int, shape: Shape, focus: Focus | None = None) -> Window:
    """What of the picture the bucket shows, in the picture's own pixels."""
    wide, high = scaled_size(width, height, shape)
    left, top = cut_of(width, height, shape, focus)
    x, y = width / wide, height / high
    return left * x, top * y, (left + shape.width) * x, (top + shape.height) * y


def _moved(length: int, shown: int, kept: tuple[float, float] | None) -> int:
    start, last = (length - shown) // 2, length - shown
    if kept is None:
        return start
    low, high = kept[0] * length, kept[1] * length
    if high - low > shown:
        return min(max(round((low + high - shown) / 2), 0), last)
    return min(max(start, math.ceil(high - shown), 0), math.floor(low), last)
