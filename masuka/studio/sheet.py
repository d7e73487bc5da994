"""What a trainer sees of a picture: bucket, window, caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from masuka.datasets import crops
from masuka.datasets.buckets import Focus, Shape, Window, crop_window, nearest_shape
from masuka.datasets.edits import Recipe, edited_size, version_of
from masuka.datasets.lint import is_longer
from masuka.store.outlines import Sized
from masuka.store.pictures import Picture

ENLARGED_FROM = 1.02
CUT_FROM = 1 / 3
"""Share of a picture outside of its bucket from which it is pointed out."""


@dataclass(frozen=True)
class SheetRow:
    """What a trainer sees of one picture.

    `width` and `height` are its bucket's; `window` is what of the edited picture fills it
    (left, top, right, bottom, 0 to 1), `scale` the bucket's pixels per pixel of the
    picture. `caption` has trigger and class word filled in.
    """

    picture_id: int
    width: int
    height: int
    window: Window
    scale: float
    enlarged: bool
    caption: str
    masked: bool
    version: str
    """For the picture's address; see `datasets.edits.version_of`."""


@dataclass(frozen=True)
class Overview:
    """What a trainer makes of a whole set, in numbers of pictures.

    `buckets` come the fullest first. `cut` pictures lose CUT_FROM or more at their edges, the captions of `too_long` are not
    read to their end.
    """

    pictures: int
    buckets: tuple[tuple[Shape, int], ...]
    enlarged: int
    cut: int
    too_long: int


def overview(
    sizes: Iterable[Sized], captions: Iterable[str], shapes: Sequence[Shape], longest_tokens: int
) -> Overview:
    """What a trainer with those buckets makes of pictures of these sizes."""
    buckets: Counter[Shape] = Counter()
    enlarged = cut = 0
    for sized in sizes:
        width, height = edited_size(sized.width, sized.height, Recipe.from_row(sized.edits).edits)
        shape = nearest_shape(width, height, shapes)
        buckets[shape] += sized.count
        enlarged += sized.count * (_scale(width, height, shape) > ENLARGED_FROM)
        # Where a face is decides which part is cut off, not how much.
        cut += sized.count * (cut_off(_window(width, height, shape, None)) >= CUT_FROM)
    too_long = sum(is_longer(caption, longest_tokens) for caption in captions)
    return Overview(buckets.total(), tuple(buckets.most_common()), enlarged, cut, too_long)


def cut_off(window: Window) -> float:
    """The share of a picture that lies outside of that window of it."""
    left, top, right, bottom = window
    return 1 - (right - left) * (bottom - top)


def sheet_row(picture: Picture, shapes: Sequence[Shape], caption: str) -> SheetRow:
    """What a trainer with those buckets sees; the caption has its words filled in."""
    recipe = Recipe.from_row(picture.edits)
    width, height = edited_size(picture.width, picture.height, recipe.edits)
    shape = nearest_shape(width, height, shapes)
    focus = crops.focus_of(picture.scores, picture.width, picture.height, recipe.edits)
    scale = _scale(width, height, shape)
    return SheetRow(
        picture_id=picture.id,
        width=shape.width,
        height=shape.height,
        window=_window(width, height, shape, focus),
        scale=scale,
        enlarged=scale > ENLARGED_FROM,
        caption=caption,
        masked=recipe.masks or (recipe.cuts_out and recipe.edits.background == "removed"),
        version=version_of(picture.sha256, picture.edits),
    )


def _window(width: int, height: int, shape: Shape, focus: Focus | None) -> Window:
    left, top, right, bottom = crop_window(width, height, shape, focus)
    return left / width, top / height, right / width, bottom / height


def _scale(width: int, height: int, shape: Shape) -> float:
    return max(shape.width / width, shape.height / height)
