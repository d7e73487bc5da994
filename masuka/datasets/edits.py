"""A picture as its recipe says: turned, straightened, cropped, mirrored, cut out.

The stored file is never changed. What is rendered is a function of the file, its recipe,
its mask and its cut-out alone, so that a training and the page see the same. Light:
Pillow only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageChops

from masuka.datasets.buckets import Focus
from masuka.requests.edits import PictureEdits

GREY = (128, 128, 128)
_TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
"""Pillow turns against the clock."""
_MASK, _MATTE = "mask_sha256", "matte_sha256"


@dataclass(frozen=True)
class Recipe:
    """What is done to a picture; the sums are of its mask's and its cut-out's files."""

    edits: PictureEdits = field(default_factory=PictureEdits)
    mask_sha256: str = ""
    matte_sha256: str = ""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Recipe:
        """The recipe as a picture's `edits` keep it; {} is none."""
        if not row:
            return PLAIN
        edits = {name: value for name, value in row.items() if name not in (_MASK, _MATTE)}
        return cls(PictureEdits.parse(edits), str(row.get(_MASK, "")), str(row.get(_MATTE, "")))

    def as_row(self) -> dict[str, Any]:
        """What differs from a picture left as it is; {} for none."""
        row: dict[str, Any] = self.edits.model_dump(mode="json", exclude_defaults=True)
        sums = {_MASK: self.mask_sha256, _MATTE: self.matte_sha256}
        return row | {name: value for name, value in sums.items() if value}

    @property
    def masks(self) -> bool:
        """Whether the painted mask counts."""
        return bool(self.mask_sha256) and self.edits.mask

    @property
    def cuts_out(self) -> bool:
        """Whether the background is not the picture's own."""
        return bool(self.matte_sha256) and self.edits.background != "keep"

    @property
    def pixels_key(self) -> str:
        """A name for all that changes the pixels; '' where nothing does."""
        row = self.edits.model_dump(mode="json", exclude_defaults=True, exclude={"mask", "background"})
        if self.cuts_out:
            row |= {"background": self.edits.background, _MATTE: self.matte_sha256}
        return json.dumps(row, sort_keys=True) if row else ""

    @property
    def key(self) -> str:
        """A name for all that changes what is learnt; '' where nothing does."""
        mask = f" mask {self.mask_sha256}" if self.masks else ""
        return f"{self.pixels_key}{mask}"


@dataclass(frozen=True)
class Rendered:
    """The picture as it is shown and learnt from; `weights` is white where it counts."""

    image: Image.Image
    weights: Image.Image | None = None


PLAIN = Recipe()


def version_of(sha256: str, row: Mapping[str, Any]) -> str:
    """64 hex digits that change with the picture's looks; without edits its own sum."""
    key = Recipe.from_row(row).pixels_key if row else ""
    return hashlib.sha256(f"{sha256}\0{key}".encode()).hexdigest() if key else sha256


def render(
    image: Image.Image,
    recipe: Recipe,
    *,
    mask: Image.Image | None = None,
    matte: Image.Image | None = None,
) -> Rendered:
    """The RGB picture as the recipe says; mask and matte have the picture's own size."""
    image = image.convert("RGB")
    weights = mask.convert("L") if mask is not None and recipe.masks else None
    if matte is not None and recipe.cuts_out:
        shown = matte.convert("L")
        behind = Image.new("RGB", image.size, "white" if recipe.edits.background == "white" else GREY)
        image = Image.composite(image, behind, shown)
        if recipe.edits.background == "removed":
            weights = shown if weights is None else ImageChops.multiply(weights, shown)
    return Rendered(_shaped(image, recipe.edits), None if weights is None else _shaped(weights, recipe.edits))


def edited_size(width: int, height: int, edits: PictureEdits) -> tuple[int, int]:
    """Width and height of the rendered picture, without rendering it."""
    width, height = _upright_size(width, height, edits)
    left, top, right, bottom = _pixels(edits.crop, width, height)
    return _smaller(right - left, bottom - top, edits.longest_px)


def through(box: Focus, width: int, height: int, edits: PictureEdits) -> Focus | None:
    """Where a box of the stored picture is in the rendered one; None where cut away.

    Boxes are fractions; a straightened one is the box around the turned box.
    """
    corners = [(x, y) for x in (box[0], box[2]) for y in (box[1], box[3])]
    corners = [_turned(x, y, edits.turn) for x, y in corners]
    if edits.turn in (90, 270):
        width, height = height, width
    corners = [_straightened(x, y, width, height, edits.straighten) for x, y in corners]
    left, top, right, bottom = edits.crop or (0.0, 0.0, 1.0, 1.0)
    corners = [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in corners]
    if edits.flip:
        corners = [(1 - x, y) for x, y in corners]
    across, down = [x for x, _ in corners], [y for _, y in corners]
    kept = max(0.0, min(across)), max(0.0, min(down)), min(1.0, max(across)), min(1.0, max(down))
    return kept if kept[0] < kept[2] and kept[1] < kept[3] else None


def _shaped(image: Image.Image, edits: PictureEdits) -> Image.Image:
    """The geometry alone, for pictures and masks alike."""
    if edits.turn:
        image = image.transpose(_TURNS[edits.turn])
    if edits.straighten:
        width, height = _inner_size(*image.size, edits.straighten)
        image = image.rotate(-edits.straighten, resample=Image.Resampling.BICUBIC)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    if edits.crop is not None:
        image = image.crop(_pixels(edits.crop, *image.size))
    if edits.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = _smaller(*image.size, edits.longest_px)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _upright_size(width: int, height: int, edits: PictureEdits) -> tuple[int, int]:
    if edits.turn in (90, 270):
        width, height = height, width
    return _inner_size(width, height, edits.straighten)


def _inner_size(width: int, height: int, degrees: float) -> tuple[int, int]:
    """The largest size of the same shape that a picture turned about its middle fills."""
    if not degrees:
        return width, height
    part = _inner_part(width, height, degrees)
    return max(1, math.floor(width * part)), max(1, math.floor(height * part))


def _inner_part(width: int, height: int, degrees: float) -> float:
    angle = math.radians(abs(degrees))
    return 1 / (math.cos(angle) + math.sin(angle) * max(width / height, height / width))


def _pixels(crop: tuple[float, ...] | None, width: int, height: int) -> tuple[int, int, int, int]:
    if crop is None:
        return 0, 0, width, height
    left, top = min(round(crop[0] * width), width - 1), min(round(crop[1] * height), height - 1)
    return left, top, max(left + 1, round(crop[2] * width)), max(top + 1, round(crop[3] * height))


def _smaller(width: int, height: int, longest_px: int | None) -> tuple[int, int]:
    if longest_px is None or max(width, height) <= longest_px:
        return width, height
    scale = longest_px / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _turned(x: float, y: float, degrees: int) -> tuple[float, float]:
    return {0: (x, y), 90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[degrees]


def _straightened(x: float, y: float, width: int, height: int, degrees: float) -> tuple[float, float]:
    if not degrees:
        return x, y
    angle, part = math.radians(degrees), _inner_part(width, height, degrees)
    across, down = (x - 0.5) * width, (y - 0.5) * height
    turned_x = across * math.cos(angle) - down * math.sin(angle)
    turned_y = across * math.sin(angle) + down * math.cos(angle)
    return 0.5 + turned_x / (width * part), 0.5 + turned_y / (height * part)
