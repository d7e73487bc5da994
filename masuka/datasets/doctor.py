"""What the doctor finds in a set: each finding with its severity, its words and its remedy.

Pure: rows of measures in, rows of findings out. Nothing is deleted or changed here; the
tables below hold every limit with its reason. Comparing pictures is `duplicates`' part,
telling who does not belong `outliers`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from masuka.datasets import duplicates, outliers
from masuka.datasets.keeping import thumbnail_of
from masuka.datasets.measures import VERSION

Strictness = Literal["none", "basic", "strict"]
Severity = Literal["bad", "doubtful"]
Row = Mapping[str, Any]
"""`sha256`, `scores`, `width`, `height`; `edits` and `aside` where there are any."""
Finding = dict[str, Any]
"""`sha256`, `kind`, `severity`, `about`, and `other_sha256` of the better of two alike."""
Remedy = Literal["aside", "face", "half", "smart"]
Thumbnail = Callable[[Row], Image.Image | None]
"""A row's small picture, RGB; None where there is none."""


@dataclass(frozen=True)
class KindOfFinding:
    """A finding in words: on a chip, explained, and on the button that helps.

    `does` is what the button does to all pictures of the kind: set aside, or crop.
    """

    label: str
    sentence: str
    remedy: str
    does: Remedy = "aside"


KINDS: dict[str, KindOfFinding] = {
    "duplicate": KindOfFinding(
        "Duplicate", "The same picture is in the set twice and would be learnt twice.", "Set the copies aside"),
    "near_duplicate": KindOfFinding(
        "Nearly the same", "A copy of another picture: scaled, cut a little, compressed or relit.",
        "Set the lesser copies aside"),
    "crop_of": KindOfFinding(
        "Part of another", "It was cut out of another picture of the set.", "Set the parts aside"),
    "blurred": KindOfFinding(
        "Blurred", "No part of it is sharp; a training learns the blur.", "Set the blurred aside"),
    "dark": KindOfFinding("Dark", "What it shows is hardly lit.", "Set the dark aside"),
    "bright": KindOfFinding(
        "Too bright", "What it shows is burnt out to white.", "Set the too bright aside"),
    "flat": KindOfFinding("Flat", "It has hardly any light and shade.", "Set the flat aside"),
    "small": KindOfFinding(
        "Small", "It has fewer pixels than a training looks at; it would be enlarged.", "Set the small aside"),
    "compressed": KindOfFinding(
        "Compressed", "It was saved as JPEG of low quality; its blocks would be learnt.",
        "Set the compressed aside"),
    "narrow": KindOfFinding(
        "Narrow", "It is so long that a training cuts much of it off.", "Crop to what matters", "smart"),
    "no_face": KindOfFinding(
        "No face found", "No face was found; one that looks away is easily missed.", "Set those without aside"),
    "tiny_face": KindOfFinding(
        "Small face", "The face is a small part of the picture.", "Crop to the upper half", "half"),
    "cut_face": KindOfFinding(
        "Face cut off", "The face touches the edge of the picture.", "Set the cut off aside"),
    "many_faces": KindOfFinding(
        "Several faces", "It shows more than one face; only one is the character's.", "Crop to the face", "face"),
    "odd_one_out": KindOfFinding(
        "Odd one out", "It is unlike all other pictures of the set.", "Set the odd ones aside"),
    "text": KindOfFinding(
        "Text", "Letters stand in it, a caption or a watermark; they would be learnt.", "Set those with text aside"),
}  # fmt: skip
"""Every kind of finding, the gravest first."""

ALIKE = frozenset({"duplicate", "near_duplicate", "crop_of"})
OF_FACES = frozenset({"no_face", "tiny_face", "cut_face", "many_faces"})
MENDED_BY_CROP = frozenset({"narrow", "small", *OF_FACES})
"""What a crop of the recipe was made for: the measures are of the picture as it came."""


@dataclass(frozen=True)
class Limits:
    """From where on a measure is bad, or doubtful; the looser end counts as doubtful."""

    sharpness: tuple[float, float]
    dark: tuple[float, float]
    highlights: tuple[float, float]
    contrast: tuple[float, float]
    jpeg_quality: tuple[int, int]
    aspect: tuple[float, float]
    share_of_resolution: tuple[float, float]
    face_area: float
    letters: int


LIMITS: dict[Strictness, Limits] = {
    "basic": Limits(
        sharpness=(0.40, 0.40), dark=(0.10, 0.16), highlights=(0.50, 0.35), contrast=(0.06, 0.10),
        jpeg_quality=(30, 50), aspect=(3.0, 2.0), share_of_resolution=(0.5, 1.0), face_area=0.01, letters=8,
    ),
    "strict": Limits(
        sharpness=(0.40, 0.50), dark=(0.14, 0.20), highlights=(0.35, 0.20), contrast=(0.08, 0.15),
        jpeg_quality=(50, 75), aspect=(2.0, 1.6), share_of_resolution=(1.0, 1.0), face_area=0.05, letters=6,
    ),
}  # fmt: skip
"""(bad, doubtful) of each measure.

- sharpness: sharp photographs and drawings measured 0.60 to 0.88; blurred by 2 px of 512
  they had 0.45 or less, by 3 px 0.35 or less. Motion of 11 px gave 0.38.
- dark: mean luma of the frame, where its middle is as dark; Pocket's nights have 0.29.
- highlights: share of pure white where the middle is white too, so that a white backdrop
  is none.
- contrast: span of the luma without its outer twentieths; fog has about 0.15.
- jpeg_quality: 50 are the standard's own tables, 75 libjpeg's default.
- aspect: 2 was MASUKA 2's limit; 3 is the longest bucket (`buckets.WIDEST`).
- share_of_resolution: root of the area against the resolution; enlarging twice blurs.
- letters: `letters.FEWEST`, and two more: a word on a shirt is no watermark.
- face_area: MASUKA 2 asked for a twentieth of the picture; a whole body leaves 1 to 2 %.
"""
TARGET_PX = 512
"""Resolution that is asked for where nothing was chosen: the least that people train at."""
SECOND_FACE = 0.35
"""A second face counts from this share of the first one's area; smaller ones are bystanders."""
SURE_FACE = 0.5
EDGE = 0.004
WHITE, DARK_MIDDLE = 240, 60
"""Lightness of the middle, 0 to 255, that counts as white, and as dark."""
DETAIL_HIDDEN = 2.0
"""Scaled down by so much, JPEG's blocks of 8 pixels are hardly seen any more."""
PEOPLE = frozenset({
    "person", "people", "man", "woman", "boy", "girl", "child", "kid", "baby", "lady", "guy", "human", "actor",
    "actress", "singer", "dancer", "player", "model", "bride", "groom", "mother", "father", "portrait", "face",
})  # fmt: skip
"""Class words whose pictures ought to show a face that a detector of people knows."""


def examine(
    rows: Sequence[Row],
    *,
    strictness: str = "basic",
    class_word: str = "",
    resolution_px: int = 0,
    thumbnail: Thumbnail | None = None,
    vectors: Mapping[str, npt.NDArray[Any]] | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Every finding of a set; [] with strictness none.

    Rows without scores are passed over; pictures that are `aside` say nothing about the
    others. `resolution_px` is what a training will look at, 0 for the usual. `thumbnail`
    makes comparing surer, and so do `vectors` of an embedder, by SHA-256. `check` is
    called often and may raise Stop.
    """
    if strictness not in LIMITS:
        return []
    seen = [row for row in rows if measured(row)]
    limits = LIMITS[strictness]
    target = resolution_px or usual_resolution(seen)
    people = shows_people(seen, class_word)
    found = [finding for row in seen for finding in _of_one(row, limits, target, people=people)]
    found += compare(seen, thumbnail=thumbnail, check=check)
    found += _odd_ones([row for row in seen if not row.get("aside")], vectors or {})
    mended = {row["sha256"] for row in seen if (row.get("edits") or {}).get("crop")}
    return [f for f in found if f["kind"] not in MENDED_BY_CROP or f["sha256"] not in mended]


def _odd_ones(rows: Sequence[Row], vectors: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
    """Those like no other, by their vectors where all have one."""
    whole = bool(rows) and all(row["sha256"] in vectors for row in rows)
    stacked = np.stack([vectors[row["sha256"]] for row in rows]) if whole else None
    odd = outliers.odd_ones([row["scores"] for row in rows], stacked)
    return [_finding(rows[i], "odd_one_out", "doubtful", distance=distance) for i, distance in odd]


def compare(
    rows: Sequence[Row],
    *,
    thumbnail: Thumbnail | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """The findings about pictures that show the same; the lesser of two has it."""
    flat = [{**row["scores"], "width": row["width"], "height": row["height"]} for row in rows]
    seen = None if thumbnail is None else lambda number: thumbnail(rows[number])
    found: list[Finding] = []
    told: set[str] = set()
    for pair in sorted(duplicates.find(flat, seen, check=check), key=_gravest):
        first, second = pair.first, pair.second
        if pair.kind != "crop_of" and _rank(rows, second) > _rank(rows, first):
            first, second = second, first
        better, worse = rows[first], rows[second]
        if worse["sha256"] in told:
            continue
        told.add(worse["sha256"])
        severity: Severity = "doubtful" if pair.kind == "crop_of" else "bad"
        about = {"likeness": round(pair.likeness, 3), "covered": round(pair.covered, 3)}
        found.append({**_finding(worse, pair.kind, severity, **about), "other_sha256": better["sha256"]})
    return found


def thumbnails_in(folder: Path) -> Thumbnail:
    """The thumbnail of a row, where intake left it in the set's folder."""

    def opened(row: Row) -> Image.Image | None:
        file = thumbnail_of(folder / str(row["sha256"])[:16])
        if not file.is_file():
            return None
        with Image.open(file) as picture:
            return picture.convert("RGB")

    return opened


def measured(row: Row) -> bool:
    """Whether the row's scores are of today's measures."""
    return bool(row.get("scores")) and row["scores"].get("v") == VERSION


def usual_resolution(rows: Sequence[Row]) -> int:
    """TARGET_PX, or 0 (ask nothing) for a set that is small throughout, as Pocket's."""
    sides = [(row["width"] * row["height"]) ** 0.5 for row in rows]
    return TARGET_PX if sides and median(sides) >= TARGET_PX else 0


def shows_people(rows: Sequence[Row], class_word: str) -> bool:
    """Whether faces are to be expected: the class says so, or most pictures have one."""
    if not any("faces" in row["scores"] for row in rows):
        return False
    if set(class_word.casefold().split()) & PEOPLE:
        return True
    return sum(bool(faces_of(row)) for row in rows) > 0.6 * len(rows)


def faces_of(row: Row) -> list[list[float]]:
    """The faces that the detector is sure of, the largest first."""
    return [face for face in row["scores"].get("faces", []) if face[4] >= SURE_FACE]


def worth(row: Row) -> tuple[bool, int, int, float]:
    """Which of two pictures alike to keep, larger is better.

    One that is kept already, with more pixels, a better JPEG, sharper.
    """
    scores = row["scores"]
    # In steps of 1.4: a slight cut must not lose against heavy compression.
    size = round(2 * log2(max(1, row["width"] * row["height"])))
    return (not row.get("aside"), size, scores["jpeg_quality"] or 100, scores["sharpness"])


def _rank(rows: Sequence[Row], index: int) -> tuple[tuple[bool, int, int, float], int]:
    """Its worth; of equals the one that came first. Without, three copies could all be the lesser."""
    return worth(rows[index]), -index


def _of_one(row: Row, limits: Limits, target_px: int, *, people: bool) -> Iterator[Finding]:
    """The findings about one picture alone."""
    yield from _of_light(row, limits)
    scores, width, height = row["scores"], row["width"], row["height"]
    if scores["contrast"] > limits.contrast[0]:  # what has no edges is flat, not blurred
        yield from _under(row, "blurred", scores["sharpness"], limits.sharpness)
    side = (width * height) ** 0.5
    if target_px:
        yield from _under(row, "small", side / target_px, limits.share_of_resolution, resolution_px=target_px)
    if side < DETAIL_HIDDEN * max(target_px, TARGET_PX):
        yield from _under(row, "compressed", scores["jpeg_quality"] or 100, limits.jpeg_quality)
    if scores["letters"] >= limits.letters:
        yield _finding(row, "text", "doubtful", value=scores["letters"], limit=limits.letters)
    longer = max(width, height) / max(1, min(width, height))
    yield from _over(row, "narrow", round(longer, 2), limits.aspect)
    if people and "faces" in scores:
        yield from _of_faces(row, limits)


def _of_light(row: Row, limits: Limits) -> Iterator[Finding]:
    scores = row["scores"]
    yield from _under(row, "flat", scores["contrast"], limits.contrast)
    if scores["centre"][0] <= DARK_MIDDLE:
        yield from _under(row, "dark", scores["exposure"], limits.dark)
    if scores["centre"][0] >= WHITE:
        yield from _over(row, "bright", scores["highlights"], limits.highlights)


def _of_faces(row: Row, limits: Limits) -> Iterator[Finding]:
    faces = faces_of(row)
    if not faces:
        yield _finding(row, "no_face", "doubtful")
        return
    x, y, width, height = faces[0][:4]
    area = width * height
    if area < limits.face_area:
        yield _finding(row, "tiny_face", "doubtful", value=round(area, 4), limit=limits.face_area)
    if min(x, y) <= EDGE or max(x + width, y + height) >= 1 - EDGE:
        yield _finding(row, "cut_face", "doubtful")
    others = [face for face in faces[1:] if face[2] * face[3] >= SECOND_FACE * area]
    if others:
        yield _finding(row, "many_faces", "doubtful", value=1 + len(others))


def _under(
    row: Row, kind: str, value: float, limits: tuple[float, float], **about: Any
) -> Iterator[Finding]:
    """The finding where a value is under its limits (bad, doubtful)."""
    bad, doubtful = limits
    if value < max(bad, doubtful):
        severity: Severity = "bad" if value < bad else "doubtful"
        limit = bad if severity == "bad" else doubtful
        yield _finding(row, kind, severity, value=round(value, 3), limit=limit, **about)


def _over(row: Row, kind: str, value: float, limits: tuple[float, float]) -> Iterator[Finding]:
    """The finding where a value is over its limits (bad, doubtful)."""
    bad, doubtful = limits
    if value > min(bad, doubtful):
        severity: Severity = "bad" if value > bad else "doubtful"
        yield _finding(row, kind, severity, value=value, limit=bad if severity == "bad" else doubtful)


def _finding(row: Row, kind: str, severity: Severity, **about: Any) -> Finding:
    return {"sha256": row["sha256"], "kind": kind, "severity": severity, "about": about}


def _gravest(pair: duplicates.Pair) -> tuple[int, float]:
    return list(KINDS).index(pair.kind), -pair.likeness
