"""The pictures of a training: checked before anything is loaded, edited as their recipes
say, varied, cut to their buckets, turned into pixels. Knows no model and no cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from masuka.datasets.buckets import Focus, Shape, cut_of, scaled_size
from masuka.datasets.content import hash_of, line_of
from masuka.datasets.edits import Recipe, edited_size
from masuka.datasets.rendered import rendered
from masuka.datasets.varying import PLAIN, Variation
from masuka.errors import InvalidInput
from masuka.generation import prompts
from masuka.generation.prompts import SEVERAL, fill
from masuka.jobs.reporter import Reporter


@dataclass(frozen=True)
class Picture:
    """One picture of the set, its caption with trigger and class word filled in.

    `others` are more captions that are as true; each step says one of them all.
    `focus` is what a bucket must keep of the edited picture; `mask` and `matte` are the
    files that the recipe means.
    """

    file: Path
    sha256: str
    caption: str
    recipe: Recipe = field(default_factory=Recipe)
    focus: Focus | None = None
    mask: Path | None = None
    matte: Path | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What a bucket shows: pixels (3, H, W) in [-1, 1], weights (1, H, W) or None."""

    pixels: Tensor
    weights: Tensor | None


def pictures_of(params: Mapping[str, Any], caption: str = "") -> list[Picture]:
    """The pictures that the job's params list, in their order.

    `caption` is said of those that have none.
    """
    words = {"trigger_word": params.get("trigger_word", ""), "class_word": params.get("class_word", "")}
    return [_picture({**p, "caption": p["caption"] or caption}, words) for p in params["pictures"]]


def check_pictures(pictures: Sequence[Picture], reporter: Reporter) -> list[tuple[int, int]]:
    """(width, height) of each edited picture; every file is read and compared.

    Raises InvalidInput, naming the file, for the first that is missing, changed or damaged.
    """
    if not pictures:
        raise InvalidInput("The data set has no pictures.", "Add some first.", field="dataset_id")
    sizes = []
    for number, picture in enumerate(pictures, 1):
        reporter.check()
        sizes.append(_checked_size(picture))
        reporter.progress(number, len(pictures))
    return sizes


def seen(picture: Picture, shape: Shape, variation: Variation = PLAIN) -> Seen:
    """The edited picture, varied, scaled to the bucket and cut with its focus in it."""
    shown = rendered(picture.file, picture.recipe, mask=picture.mask, matte=picture.matte)
    image, focus = variation.frame(shown.image), variation.focus(picture.focus)
    pixels = variation.tint(_cut(image, shape, focus))
    array = np.asarray(pixels, dtype=np.float32) / 127.5 - 1.0
    weights = None
    if shown.weights is not None:
        grey = np.asarray(_cut(variation.frame(shown.weights), shape, focus), dtype=np.float32) / 255.0
        weights = torch.from_numpy(grey)[None]
    return Seen(torch.from_numpy(array).permute(2, 0, 1).contiguous(), weights)


def place_of(picture: Picture, size: tuple[int, int], shape: Shape) -> tuple[int, int] | None:
    """Where the bucket is cut from the scaled picture; None for its middle."""
    cut = cut_of(*size, shape, picture.focus)
    return None if cut == cut_of(*size, shape) else cut


def content_hash(pictures: Sequence[Picture]) -> str:
    """One hash over every picture, caption and recipe, whatever their order."""
    return hash_of(line_of(p.sha256, SEVERAL.join((p.caption, *p.others)), p.recipe, p.focus) for p in pictures)


def _picture(described: Mapping[str, Any], words: Mapping[str, str]) -> Picture:
    first, *others = (fill(text, **words) for text in prompts.alternatives(described["caption"]))
    focus = described.get("focus")
    mask, matte = described.get("mask"), described.get("matte")
    return Picture(
        file=Path(described["file"]),
        sha256=described["sha256"],
        caption=first,
        others=tuple(others),
        recipe=Recipe.from_row(described.get("edits") or {}),
        focus=None if focus is None else tuple(map(float, focus)),  # type: ignore[arg-type]  # four
        mask=Path(mask) if mask else None,
        matte=Path(matte) if matte else None,
    )


def _cut(image: Image.Image, shape: Shape, focus: Focus | None) -> Image.Image:
    size = scaled_size(*image.size, shape)
    left, top = cut_of(*image.size, shape, focus)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image.crop((left, top, left + shape.width, top + shape.height))


def _checked_size(picture: Picture) -> tuple[int, int]:
    name = picture.file.name
    _must_be(picture.file, picture.sha256, f"picture {name}", "Remove it from the data set and add it again.")
    again = "Make it again, or remove it from the picture."
    if picture.recipe.masks:
        _must_be(picture.mask, picture.recipe.mask_sha256, f"mask of {name}", again)
    if picture.recipe.cuts_out:
        _must_be(picture.matte, picture.recipe.matte_sha256, f"cut-out of {name}", again)
    try:
        with Image.open(picture.file) as opened:
            opened.load()
            return edited_size(*opened.size, picture.recipe.edits)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidInput(
            f"The picture {name} is damaged.",
            "Remove it from the data set and add it again.",
            field="dataset_id",
        ) from error


def _must_be(file: Path | None, sha256: str, what: str, hint: str) -> None:
    """Raises InvalidInput when the file is gone or is not the one of that sum."""
    try:
        digest = "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        message = f"The {what} cannot be read ({error.strerror})."
        raise InvalidInput(message, hint, field="dataset_id") from error
    if not digest:
        raise InvalidInput(f"The {what} is gone.", hint, field="dataset_id")
    if digest != sha256:
        raise InvalidInput(f"The {what} has changed since it was added.", hint, field="dataset_id")
