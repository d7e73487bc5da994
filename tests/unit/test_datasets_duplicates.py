"""Copies of pictures are found, changed as they may be; other pictures are left alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masuka.datasets import duplicates, measures, overlays
from tests import scenes

SIZE = (384, 320)
FAMILIES = 10


def row(image: Image.Image) -> dict[str, Any]:
    scores = measures.measure(image, width=image.width, height=image.height)
    return {**scores, "width": image.width, "height": image.height}


def thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((256, 256), Image.Resampling.LANCZOS)
    return small


def found(images: list[Image.Image], *, seen: bool = True) -> list[duplicates.Pair]:
    small = [thumbnail(image) for image in images]
    return duplicates.find([row(image) for image in images], small.__getitem__ if seen else None)


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [scenes.scene(seed, SIZE) for seed in range(FAMILIES)]


@pytest.mark.parametrize("change", scenes.CHANGES)
def test_a_changed_copy_is_found_and_only_that(originals: list[Image.Image], change: str) -> None:
    copies = [scenes.CHANGES[change](image, random.Random(number)) for number, image in enumerate(originals)]
    pairs = found([*originals, *copies])
    expected = {(number, number + FAMILIES) for number in range(FAMILIES)}
    assert {(min(p.first, p.second), max(p.first, p.second)) for p in pairs} == expected
    assert {p.kind for p in pairs} == {"near_duplicate"}


def test_another_figure_in_the_same_place_is_no_copy(originals: list[Image.Image]) -> None:
    assert found([*originals, *(scenes.rival(seed, SIZE) for seed in range(FAMILIES))]) == []


def test_another_face_of_the_same_robot_is_no_copy() -> None:
    pictures = [picture for seed in range(8) for picture in scenes.moment(seed, 256)]
    assert found(pictures) == []


def test_the_same_pixels_are_a_duplicate_and_the_larger_file_comes_first(
    originals: list[Image.Image],
) -> None:
    pairs = found([originals[1], originals[1].copy()])
    assert [(p.kind, p.likeness) for p in pairs] == [("duplicate", 1.0)]
    smaller = originals[2].resize((SIZE[0] // 2, SIZE[1] // 2))
    assert [(p.first, p.second) for p in found([smaller, originals[2]])] == [(1, 0)]


def test_another_colour_of_the_same_lightness_is_no_duplicate(originals: list[Image.Image]) -> None:
    red, green = (originals[0].copy() for _ in range(2))
    box = tuple(side // 3 for side in red.size) + tuple(side // 2 for side in red.size)
    red.paste((200, 40, 40), box)
    green.paste((30, 123, 60), box)
    greys = [image.convert("L").tobytes() for image in (red, green)]
    assert greys[0] == greys[1]
    names = [
        measures.measure(image, width=image.width, height=image.height)["pixels"] for image in (red, green)
    ]
    assert names[0] != names[1]


def test_a_part_cut_out_is_a_crop_of_the_whole(originals: list[Image.Image]) -> None:
    width, height = SIZE
    parts = [
        image.crop((int(width * x), int(height * y), int(width * (x + 0.62)), int(height * (y + 0.62))))
        for image, x, y in zip(originals, (0.02, 0.3, 0.2, 0.36, 0.1), (0.3, 0.1, 0.05, 0.36, 0.2), strict=False)
    ]
    pairs = found([*originals[:5], *parts])
    assert {(p.first, p.second, p.kind) for p in pairs} == {(n, n + 5, "crop_of") for n in range(5)}
    assert all(0.3 < p.covered < 0.5 for p in pairs)


def test_without_thumbnails_only_what_was_hardly_changed_is_found(originals: list[Image.Image]) -> None:
    copies = [scenes.recompressed(image, random.Random(3)) for image in originals]
    pairs = found([*originals, *copies], seen=False)
    assert {(min(p.first, p.second), max(p.first, p.second)) for p in pairs} <= {
        (number, number + FAMILIES) for number in range(FAMILIES)
    }
    assert len(pairs) >= FAMILIES - 2


def test_pictures_that_were_not_measured_are_passed_over(originals: list[Image.Image]) -> None:
    rows = [{}, row(originals[0]), {}, row(originals[0])]
    assert [(p.first, p.second) for p in duplicates.find(rows)] == [(1, 3)]
    assert duplicates.find([{}, {}]) == duplicates.find([]) == []


def test_a_stop_is_passed_on(originals: list[Image.Image]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        duplicates.find([row(originals[0])] * 2, check=stop)


def test_flat_pictures_are_like_nothing() -> None:
    assert found([Image.new("RGB", (80, 80), colour) for colour in ("grey", "white", "black")]) == []


def test_thousands_are_compared_in_chunks() -> None:
    rng = np.random.default_rng(1)
    looks = rng.integers(0, 256, (1300, 256)).astype(np.float32)
    looks[1299] = looks[3] * 0.5 + 20
    pairs = {(c.first, c.second) for c in duplicates.candidates(looks)}
    assert {(3, 1299), (1299, 3)} <= pairs


def test_pictures_without_anything_in_common_do_not_lie_on_each_other(originals: list[Image.Image]) -> None:
    assert overlays.lay(thumbnail(originals[0]), thumbnail(originals[3]), duplicates.WHOLE) is None
