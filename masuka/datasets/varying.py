"""How a training varies a picture: mirrored, lighter, cropped, smaller; by seed alone.

Variant 0 is always the picture itself. The page's preview and the training take the same
path. Light: Pillow and numpy.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from masuka.datasets.buckets import Focus
from masuka.datasets.crops import Face, focus_on
from masuka.requests.edits import Augment

SCALES = (1.0, 0.75, 0.5)
"""Sizes that variants take in turn where several are wanted."""
COMPARED_PX = 24
FEWEST_COMPARED = 6
"""Fewer pictures say nothing about what is always on one side."""
ONE_SIDED = 0.62
"""Share of the left–right difference that all pictures have in common from which on it is
the character's. Pictures lit from any side have about 1/√n in common: 0.41 of six."""
_SLIGHT = 0.08


@dataclass(frozen=True)
class Variation:
    """What is done to one variant; factors are 1 and the crop whole for nothing."""

    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    colour: float = 1.0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def key(self) -> str:
        """A name for it; '' where the picture stays as it is."""
        return "" if self == PLAIN else json.dumps(asdict(self), sort_keys=True)

    def frame(self, image: Image.Image) -> Image.Image:
        """The picture or mask, cropped and mirrored."""
        if self.crop != PLAIN.crop:
            left, top, right, bottom = self.crop
            box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
            image = image.crop((math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else image

    def tint(self, image: Image.Image) -> Image.Image:
        """The RGB picture in its changed light and colours."""
        for factor, kind in (
            (self.brightness, ImageEnhance.Brightness),
            (self.contrast, ImageEnhance.Contrast),
            (self.colour, ImageEnhance.Color),
        ):
            if factor != 1.0:
                image = kind(image).enhance(factor)
        return image

    def focus(self, focus: Focus | None) -> Focus | None:
        """Where the focus lies in the cropped, mirrored picture."""
        if focus is None or self == PLAIN:
            return focus
        left, top, right, bottom = self.crop
        across = [(x - left) / (right - left) for x in (focus[0], focus[2])]
        down = [(y - top) / (bottom - top) for y in (focus[1], focus[3])]
        if self.flip:
            across = [1 - x for x in reversed(across)]
        return max(0.0, across[0]), max(0.0, down[0]), min(1.0, across[1]), min(1.0, down[1])


PLAIN = Variation()


def variation(
    augment: Augment, *, seed: int, name: str, number: int, focus: Focus | None = None
) -> Variation:
    """Variant `number` of the picture of that name; its focus is never cropped away."""
    if number == 0 or not augment.is_on:
        return PLAIN
    chance = random.Random(f"{seed}/vary/{name}/{number}")
    factors = [
        round(1 + chance.uniform(-most, most), 4)
        for most in (augment.brightness, augment.contrast, augment.colour)
    ]
    cut = [round(chance.uniform(0, augment.crop / 2), 4) for _ in range(4)]
    mirrored = chance.random() < 0.5
    kept = focus or (1.0, 1.0, 0.0, 0.0)
    crop = (
        min(cut[0], max(0.0, kept[0])),
        min(cut[1], max(0.0, kept[1])),
        max(1 - cut[2], min(1.0, kept[2])),
        max(1 - cut[3], min(1.0, kept[3])),
    )
    return Variation(augment.flip and mirrored, factors[0], factors[1], factors[2], crop)


def scale_of(augment: Augment, number: int) -> float:
    """The part of the resolution at which variants of that number are trained."""
    return SCALES[number % len(SCALES)] if augment.scales else 1.0


def preview(image: Image.Image, augment: Augment, *, seed: int, name: str, longest_px: int) -> bytes:
    """A WebP of a variant of the RGB picture, at most that large."""
    varied = variation(augment, seed=seed, name=name, number=1)
    image = varied.frame(image)
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    varied.tint(image).save(buffer, "WEBP", quality=85, method=4)
    return buffer.getvalue()


def one_sidedness(pictures: Iterable[tuple[Image.Image, Sequence[Face]]]) -> float:
    """How much of the pictures' left–right difference is the same in all, 0 to 1.

    Compared are the largest faces, whole pictures where none was found. 0 for fewer than
    six pictures, or where nearly nothing differs.
    """
    differences = [_difference(image, faces) for image, faces in pictures]
    if len(differences) < FEWEST_COMPARED:
        return 0.0
    own = float(np.mean([np.linalg.norm(d) for d in differences]))
    common = float(np.linalg.norm(np.mean(differences, axis=0)))
    return common / own if own > _SLIGHT * COMPARED_PX else 0.0


def warning(pictures: Iterable[tuple[Image.Image, Sequence[Face]]], captions: Iterable[str]) -> str:
    """Why mirroring may harm these pictures, as a sentence; '' where it may not."""
    sided = sum(any(word in {"left", "right"} for word in caption.lower().split()) for caption in captions)
    if one_sidedness(pictures) >= ONE_SIDED:
        return (
            "The pictures differ between left and right in the same way: a parting, a scar or a badge "
            "would be learnt on both sides. Better do not mirror."
        )
    if sided:
        count = "1 caption says" if sided == 1 else f"{sided:,} captions say"
        return f"{count} left or right, which is wrong of a mirrored picture."
    return ""


def _difference(image: Image.Image, faces: Sequence[Face]) -> Any:
    """The grey picture less its mirror image, of even light and contrast."""
    box = focus_on(faces[0]) if faces else (0.0, 0.0, 1.0, 1.0)
    wide, high = image.size
    grey = image.convert("L").resize(
        (COMPARED_PX, COMPARED_PX),
        Image.Resampling.BOX,
        box=(box[0] * wide, box[1] * high, box[2] * wide, box[3] * high),
    )
    values = np.asarray(grey, dtype=np.float64)
    values = (values - values.mean()) / max(8.0, float(values.std()))
    return values - values[:, ::-1]
