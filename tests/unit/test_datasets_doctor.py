"""What the doctor finds, and what it leaves alone."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageEnhance, ImageFilter

from masuka.datasets import doctor, measures, outliers
from masuka.pocket import world
from tests import scenes

SIZE = (640, 560)
STRICT = ("basic", "strict")


def row(image: Image.Image, name: str = "", **scores: Any) -> dict[str, Any]:
    quality = None
    if isinstance(image, Image.Image) and (tables := getattr(image, "quantization", None)):
        quality = measures.jpeg_quality(tables)
    measured = measures.measure(image, width=image.width, height=image.height, jpeg_quality=quality)
    return {
        "sha256": name or f"{id(image):064x}", "width": image.width, "height": image.height,
        "scores": {**measured, **scores},
    }  # fmt: skip


def kinds(image: Image.Image, strictness: str = "basic", *, class_word: str = "robot", **scores: Any) -> set[str]:
    found = doctor.examine([row(image, "a", **scores)], strictness=strictness, class_word=class_word)
    return {finding["kind"] for finding in found}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@pytest.fixture(scope="module")
def good() -> list[Image.Image]:
    """Sharp, well-lit pictures of every kind of scene."""
    return [scenes.scene(seed, SIZE) for seed in (1, 2, 3, 4, 6)]


def test_good_pictures_have_no_findings(good: list[Image.Image]) -> None:
    found = doctor.examine([row(image, str(n)) for n, image in enumerate(good)], class_word="robot")
    assert found == []


def test_of_equals_the_one_that_came_first_stays(good: list[Image.Image]) -> None:
    whole = good[0]
    wide, high = whole.size
    cut = whole.crop((wide // 30, high // 30, wide - wide // 30, high - high // 30)).resize(whole.size)
    for images in ((whole, cut), (cut, whole)):
        rows = [row(image, name, sharpness=0.7) for name, image in zip("ab", images, strict=True)]
        by_name = dict(zip("ab", images, strict=True))
        found = doctor.compare(rows, thumbnail=lambda one, of=by_name: of[one["sha256"]])
        assert [(f["sha256"], f["other_sha256"]) for f in found] == [("b", "a")]


@pytest.mark.parametrize("radius", [3.5, 6.0])
def test_blur_is_bad(good: list[Image.Image], radius: float) -> None:
    for image in good:
        assert "blurred" in kinds(image.filter(ImageFilter.GaussianBlur(radius)))


def test_a_blurred_background_is_not_blur(good: list[Image.Image]) -> None:
    for image in good:
        around = image.filter(ImageFilter.GaussianBlur(9))
        around.paste(image.crop((200, 150, 440, 400)), (200, 150))
        assert "blurred" not in kinds(around, "strict")


def test_slight_softness_matters_only_to_the_strict(good: list[Image.Image]) -> None:
    soft = [image.filter(ImageFilter.GaussianBlur(2.4)) for image in good]
    found = {strictness: sum("blurred" in kinds(image, strictness) for image in soft) for strictness in STRICT}
    assert found["basic"] < found["strict"]


def test_dark_and_burnt_out_pictures_are_found(good: list[Image.Image]) -> None:
    for image in good:
        assert "dark" in kinds(ImageEnhance.Brightness(image).enhance(0.12))
        assert "bright" in kinds(ImageEnhance.Brightness(image).enhance(9.0))
        assert not {"dark", "bright"} & kinds(ImageEnhance.Brightness(image).enhance(0.8))


def test_a_white_backdrop_is_not_burnt_out(good: list[Image.Image]) -> None:
    white = Image.new("RGB", (900, 900), "white")
    white.paste(good[0], (130, 170))
    assert "bright" not in kinds(white, "strict")


def test_fog_is_flat_and_not_blurred(good: list[Image.Image]) -> None:
    for image in good:
        fog = Image.blend(image, Image.new("RGB", image.size, (150, 150, 150)), 0.92)
        assert kinds(fog) & {"flat", "blurred"} == {"flat"}


@pytest.mark.parametrize(
    ("quality", "basic", "strict"), [(20, "bad", "bad"), (40, "doubtful", "bad"), (60, None, "doubtful"), (85, None, None)]
)
def test_low_quality_of_a_jpeg_is_found(
    good: list[Image.Image], quality: int, basic: str | None, strict: str | None
) -> None:
    rows = [row(jpeg(good[0], quality), "a")]
    for strictness, expected in zip(STRICT, (basic, strict), strict=True):
        found = doctor.examine(rows, strictness=strictness, class_word="robot")
        severities = [f["severity"] for f in found if f["kind"] == "compressed"]
        assert severities == ([expected] if expected else [])


def test_compression_that_scaling_hides_is_not_minded() -> None:
    large = scenes.scene(3, (1600, 1200))
    assert "compressed" not in kinds(jpeg(large, 20), "strict")


def test_small_is_judged_against_the_resolution(good: list[Image.Image]) -> None:
    rows = [row(good[0], "a")]
    for resolution, expected in ((512, []), (768, ["doubtful"]), (1536, ["bad"])):
        found = doctor.examine(rows, resolution_px=resolution, class_word="robot")
        assert [f["severity"] for f in found if f["kind"] == "small"] == expected


def test_a_set_that_is_small_throughout_is_not_called_small() -> None:
    rows = [row(image, str(n)) for n, (image, _) in enumerate(world.character_set(3, 12))]
    assert doctor.usual_resolution(rows) == 0
    assert not [f for f in doctor.examine(rows, class_word="robot") if f["kind"] == "small"]


@pytest.mark.parametrize(("size", "expected"), [((1200, 620), set()), ((1400, 600), {"narrow"}), ((600, 2000), {"narrow"})])
def test_long_pictures_are_narrow(size: tuple[int, int], expected: set[str]) -> None:
    assert kinds(scenes.scene(1, size)) & {"narrow"} == expected


FACE = [0.4, 0.2, 0.2, 0.25, 0.9]


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        ([], {"no_face"}),
        ([[0.4, 0.2, 0.2, 0.25, 0.2]], {"no_face"}),
        ([FACE], set()),
        ([[0.5, 0.1, 0.05, 0.06, 0.9]], {"tiny_face"}),
        ([[0.0, 0.2, 0.2, 0.25, 0.9]], {"cut_face"}),
        ([FACE, [0.7, 0.2, 0.15, 0.2, 0.9]], {"many_faces"}),
        ([FACE, [0.9, 0.2, 0.03, 0.04, 0.9]], set()),
    ],
)
def test_faces_of_people_are_judged(good: list[Image.Image], faces: list[list[float]], expected: set[str]) -> None:
    assert kinds(good[1], class_word="young woman", faces=faces) & doctor.OF_FACES == expected


def test_nobody_asks_a_robot_for_a_face(good: list[Image.Image]) -> None:
    assert not kinds(good[1], class_word="robot", faces=[]) & doctor.OF_FACES


def test_without_a_detector_no_face_is_missed(good: list[Image.Image]) -> None:
    measured = row(good[1], "a")
    measured["scores"].pop("faces", None)
    assert not doctor.examine([measured], class_word="woman")


def test_a_crop_mends_what_it_was_made_for(good: list[Image.Image]) -> None:
    narrow = {**row(scenes.scene(1, (1400, 560)), "a"), "edits": {"crop": [0.2, 0, 0.6, 1]}}
    assert doctor.examine([narrow], class_word="robot") == []


def test_the_lesser_of_two_alike_has_the_finding(good: list[Image.Image]) -> None:
    small = good[2].resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS)
    rows = [row(small, "small"), row(good[2], "large"), row(good[3], "other"), row(jpeg(good[3], 40), "jpeg")]
    seen = dict(zip(["small", "large", "other", "jpeg"], (small, good[2], good[3], jpeg(good[3], 40)), strict=True))
    found = doctor.compare(rows, thumbnail=lambda r: seen[r["sha256"]].convert("RGB"))
    assert {(f["sha256"], f["kind"], f["other_sha256"]) for f in found} == {
        ("small", "near_duplicate", "large"), ("jpeg", "near_duplicate", "other"),
    }  # fmt: skip


def test_of_many_copies_one_stays() -> None:
    base = scenes.scene(11, SIZE)
    copies = [base, base.copy(), *(scenes.CHANGES[c](base, random.Random(5)) for c in scenes.CHANGES)]
    rows = [row(image, str(number)) for number, image in enumerate(copies)]
    found = doctor.compare(rows, thumbnail=lambda r: copies[int(r["sha256"])])
    assert len({f["sha256"] for f in found}) == len(copies) - 1


def test_with_strictness_none_nothing_is_looked_at(good: list[Image.Image]) -> None:
    twice = [row(good[0].filter(ImageFilter.GaussianBlur(6)), name) for name in "ab"]
    assert doctor.examine(twice, strictness="none") == []
    assert doctor.examine(twice, strictness="basic") != []


def test_scores_of_another_version_are_passed_over(good: list[Image.Image]) -> None:
    old = row(good[0].filter(ImageFilter.GaussianBlur(6)), "a", v=measures.VERSION - 1)
    assert doctor.examine([old, {**old, "scores": {}}]) == []


def characters() -> Iterator[list[dict[str, Any]]]:
    for seed in range(2):
        yield [row(image, str(n)) for n, (image, _) in enumerate(world.character_set(seed, 20))]


@pytest.mark.parametrize("seen", [True, False])
def test_a_robots_own_pictures_have_no_findings(seen: bool) -> None:
    for seed, rows in enumerate(characters()):
        drawn = [image for image, _ in world.character_set(seed, 20)]
        thumbnail = (lambda r, drawn=drawn: drawn[int(r["sha256"])]) if seen else None
        assert doctor.examine(rows, class_word="robot", thumbnail=thumbnail) == []


def test_a_landscape_among_robots_is_the_odd_one_out() -> None:
    for number, rows in enumerate(characters()):
        rows.append(row(scenes.scene(5 * number + 1, (128, 128)), "landscape"))
        found = doctor.examine(rows, class_word="robot")
        assert [f["sha256"] for f in found if f["kind"] == "odd_one_out"] == ["landscape"]


def test_few_pictures_have_no_odd_one() -> None:
    rows = [*next(characters())[: outliers.FEWEST - 2], row(scenes.scene(1, (128, 128)), "landscape")]
    assert outliers.odd_ones([r["scores"] for r in rows]) == []


def test_every_kind_has_words() -> None:
    for kind in doctor.KINDS.values():
        assert kind.sentence.endswith(".") and kind.remedy and not kind.label.endswith(".")


def test_a_kept_picture_is_better_than_one_that_is_aside(good: list[Image.Image]) -> None:
    small = good[2].resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS)
    rows = [row(small, "small"), {**row(good[2], "large"), "aside": True}]
    found = doctor.compare(rows, thumbnail=lambda r: small if r["sha256"] == "small" else good[2])
    assert [(f["sha256"], f["other_sha256"]) for f in found] == [("large", "small")]
