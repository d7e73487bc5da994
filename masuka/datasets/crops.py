"""Faces as boxes, and crops around them: the face, half of the body, the whole.

Boxes and crops are parts of the picture, 0 to 1. Light: who finds faces is `faces`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from masuka.datasets.buckets import Focus
from masuka.datasets.edits import through
from masuka.requests.edits import SMALLEST_CROP, Crop, PictureEdits

Part = Literal["face", "half", "body", "smart"]
PARTS: dict[Part, str] = {
    "face": "the face",
    "half": "half of the body",
    "body": "the body",
    "smart": "what matters",
}

FACE_ROOM = 1.5
"""Side of a face crop in sides of the face (MASUKA 2's)."""
_REACH = {"half": (1.7, 0.7, 3.4), "body": (3.0, 0.9, 8.5)}
"""In faces: to each side of its middle, above its top, below its top. A head is about an
eighth of a standing person, and a detector's box is less than the head."""
_DETAIL_KEPT = 0.96
_DETAIL_PX = 128
_LEAST_SIDE = SMALLEST_CROP + 0.001
"""A little more than a recipe asks for, so that rounding leaves enough."""
_LEAST_DETAIL = 0.5
"""A crop to the detail keeps at least this much of each side."""


@dataclass(frozen=True)
class Face:
    """A face's box in fractions of the picture.

    `score`, 0 to 1, compares within one detector."""

    x: float
    y: float
    width: float
    height: float
    score: float

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    def as_list(self) -> list[float]:
        """[x, y, width, height, score], as a picture's scores keep it."""
        return [round(v, 4) for v in (self.x, self.y, self.width, self.height, self.score)]


def faces_of(scores: Mapping[str, Any]) -> list[Face] | None:
    """The faces that the scores of a picture tell; None where nobody has looked."""
    rows = scores.get("faces")
    return None if rows is None else [Face(*map(float, row[:5])) for row in rows]


def focus_of(scores: Mapping[str, Any], width: int, height: int, edits: PictureEdits) -> Focus | None:
    """What of the edited picture a bucket must keep: its largest face, with room."""
    found = faces_of(scores)
    seen = through(focus_on(found[0]), width, height, edits) if found else None
    return None if seen is None else _within(*seen)


def turned(found: Sequence[Face], width: int, height: int, edits: PictureEdits) -> list[Face]:
    """Where the picture's faces lie once it is edited, those cut away left out."""
    boxes = [
        (through((f.x, f.y, f.x + f.width, f.y + f.height), width, height, edits), f.score) for f in found
    ]
    return [
        Face(box[0], box[1], box[2] - box[0], box[3] - box[1], score)
        for box, score in boxes
        if box is not None
    ]


def crop_to(face: Face, part: Part, width: int, height: int) -> Crop:
    """What of the picture to keep, so that it shows that part around the face."""
    if part == "face":
        side = FACE_ROOM * max(face.width * width, face.height * height)
        x, y = face.centre
        return _large_enough(_fitted(x - side / 2 / width, y - side / 2 / height, side / width, side / height))
    beside, above, below = _REACH["half" if part == "half" else "body"]
    left, top = face.centre[0] - beside * face.width, face.y - above * face.height
    right, bottom = face.centre[0] + beside * face.width, face.y + below * face.height
    return _large_enough(_within(left, top, right, bottom))


def crop_to_detail(small: Image.Image) -> Crop:
    """The part of the picture with nearly all of its edges, with a margin."""
    grey = small.convert("L")
    grey.thumbnail((_DETAIL_PX, _DETAIL_PX), Image.Resampling.BILINEAR)
    values = np.asarray(grey, dtype=np.float32)
    edges = np.zeros_like(values)
    edges[:, 1:] += np.abs(np.diff(values, axis=1))
    edges[1:] += np.abs(np.diff(values, axis=0))
    left, right = _span(edges.sum(axis=0))
    top, bottom = _span(edges.sum(axis=1))
    return _within(left, top, right, bottom)


def focus_on(face: Face) -> Focus:
    """What of the picture a bucket should keep: the face with room around it."""
    room_x, room_y = (FACE_ROOM - 1) / 2 * face.width, (FACE_ROOM - 1) / 2 * face.height
    return _within(
        face.x - room_x, face.y - room_y, face.x + face.width + room_x, face.y + face.height + room_y
    )


def _span(sums: Any) -> tuple[float, float]:
    """Where along a side the middle share of the sums lies, as fractions."""
    total = float(sums.sum())
    if total <= 0:
        return 0.0, 1.0
    share = np.cumsum(sums) / total
    cut = (1 - _DETAIL_KEPT) / 2
    low = int(np.searchsorted(share, cut)) / len(sums)
    high = (int(np.searchsorted(share, 1 - cut)) + 1) / len(sums)
    missing = _LEAST_DETAIL - (high - low)
    if missing > 0:
        low = min(max(0.0, low - missing / 2), 1 - _LEAST_DETAIL)
        high = low + _LEAST_DETAIL
    return max(0.0, low - 0.02), min(1.0, high + 0.02)


def _fitted(left: float, top: float, width: float, height: float) -> Crop:
    """The box moved into the picture, made smaller in its own shape where it is too large."""
    scale = min(1.0, 1 / width, 1 / height)
    middle_x, middle_y = left + width / 2, top + height / 2
    width, height = width * scale, height * scale
    left = min(max(middle_x - width / 2, 0.0), 1 - width)
    top = min(max(middle_y - height / 2, 0.0), 1 - height)
    return _within(left, top, left + width, top + height)


def _large_enough(crop: Crop) -> Crop:
    """The crop, grown where a side is shorter than a recipe takes: a far or cut off face."""
    left, right = _grown(crop[0], crop[2])
    top, bottom = _grown(crop[1], crop[3])
    return _within(left, top, right, bottom)


def _grown(low: float, high: float) -> tuple[float, float]:
    if high - low >= _LEAST_SIDE:
        return low, high
    low = min(max((low + high - _LEAST_SIDE) / 2, 0.0), 1 - _LEAST_SIDE)
    return low, low + _LEAST_SIDE


def _within(left: float, top: float, right: float, bottom: float) -> Crop:
    return (
        round(max(0.0, left), 4), round(max(0.0, top), 4),
        round(min(1.0, right), 4), round(min(1.0, bottom), 4),
    )  # fmt: skip
