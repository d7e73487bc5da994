"""What a trainer sees of a picture: bucket, window, caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masuka.datasets import crops
from masuka.datasets.buckets import Shape, Window, crop_window, nearest_shape
from masuka.datasets.edits import Recipe, edited_size, version_of
from masuka.store.pictures import Picture

ENLARGED_FROM = 1.02


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


def sheet_row(picture: Picture, shapes: Sequence[Shape], caption: str) -> SheetRow:
    """What a trainer with those buckets sees; the caption has its words filled in."""
    recipe = Recipe.from_row(picture.edits)
    width, height = edited_size(picture.width, picture.height, recipe.edits)
    shape = nearest_shape(width, height, shapes)
    focus = crops.focus_of(picture.scores, picture.width, picture.height, recipe.edits)
    left, top, right, bottom = crop_window(width, height, shape, focus)
    scale = max(shape.width / width, shape.height / height)
    return SheetRow(
        picture_id=picture.id,
        width=shape.width,
        height=shape.height,
        window=(left / width, top / height, right / width, bottom / height),
        scale=scale,
        enlarged=scale > ENLARGED_FROM,
        caption=caption,
        masked=recipe.masks or (recipe.cuts_out and recipe.edits.background == "removed"),
        version=version_of(picture.sha256, picture.edits),
    )
