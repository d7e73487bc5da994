"""Requests about how a picture is changed for the training, and how often it is varied."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field

SMALLEST_CROP = 0.02
"""Shortest side of a crop, as a part of the picture's."""
Crop = tuple[float, float, float, float]
"""Left, top, right and bottom as parts of the picture's width and height, 0 to 1."""


def clean_crop(value: Any) -> Crop | None:
    """A crop from four numbers or a text like '0.1, 0, 0.9, 1', None for all.

    Raises InvalidInput.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if value in (None, "", (), []):
        return None
    parts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    try:
        left, top, right, bottom = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise _wrong_crop("The crop is not four numbers.") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise _wrong_crop("The crop does not lie in the picture.")
    if right - left < SMALLEST_CROP or bottom - top < SMALLEST_CROP:
        raise _wrong_crop("The crop is too small.")
    whole = (left, top, right, bottom) == (0, 0, 1, 1)
    return None if whole else (left, top, right, bottom)


def _wrong_crop(message: str) -> InvalidInput:
    hint = (
        "Give left, top, right and bottom as parts of the picture from 0 to 1, "
        f"at least {SMALLEST_CROP} apart: 0.1, 0, 0.9, 1."
    )
    return InvalidInput(message, hint, field="crop")


class PictureEdits(Request):
    """How a picture is changed to be shown and learnt from; its file stays as it is.

    In this order: turn, straighten, crop, flip, size; the background before all of them.
    """

    turn: int = field(0, help="Degrees to turn it, clockwise.", unit="degrees", ge=0, le=270, multiple_of=90)
    straighten: float = field(
        0.0, help="Degrees to turn it so that it stands upright, clockwise; its corners are cut off.",
        unit="degrees", ge=-15, le=15,
    )  # fmt: skip
    crop: Annotated[Crop | None, BeforeValidator(clean_crop)] = field(
        None, help="What is kept of the turned picture: left, top, right, bottom from 0 to 1; all if empty."
    )
    flip: bool = field(False, help="Mirror it, left to right.")
    longest_px: int | None = field(
        None, label="Longest side", help="Make it smaller, to this longest side; as it is if empty.",
        unit="px", ge=64, le=8192,
    )  # fmt: skip
    background: Literal["keep", "white", "grey", "removed"] = field(
        "keep",
        help="What is behind the character; 'removed' is grey and not learnt from. Needs a cut-out.",
    )
    mask: bool = field(True, help="Learn mostly from what the painted mask covers, where there is one.")


class Augment(Request):
    """How a training varies the pictures of a set; nothing of it is stored as a copy."""

    flip: bool = field(False, help="Mirror half of the variants; not for a face or badge with two sides.")
    brightness: float = field(0.0, help="How much lighter or darker, at most.", ge=0, le=0.5)
    contrast: float = field(0.0, help="How much more or less contrast, at most.", ge=0, le=0.5)
    colour: float = field(0.0, help="How much more or less colour, at most.", ge=0, le=0.5)
    crop: float = field(
        0.0, label="Random crop", help="How much of each side may be cut off, at most.", ge=0, le=0.3
    )
    scales: bool = field(
        False, label="Several sizes", help="Also train at three quarters and at half of the resolution."
    )
    variants: int = field(
        4, help="Variants of each picture, the picture itself among them; each takes memory.", ge=2, le=16
    )

    @property
    def is_on(self) -> bool:
        """Whether anything is varied."""
        return any((self.flip, self.brightness, self.contrast, self.colour, self.crop, self.scales))
