"""Letters in a row are counted, and nothing else is taken for letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from masuka.datasets import doctor, letters, measures
from masuka.pocket import world
from tests import scenes


def grey(image: Image.Image) -> Any:
    return np.asarray(image.convert("L"))


def written(image: Image.Image, text: str, size: int, colour: str = "white") -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).text((20, 30), text, font=ImageFont.load_default(size), fill=colour)
    return image


@pytest.mark.parametrize("size", [24, 32, 44])
@pytest.mark.parametrize(("ground", "colour"), [("black", "white"), ("white", "black"), ("teal", "white")])
def test_a_line_of_text_is_counted(size: int, ground: str, colour: str) -> None:
    image = written(Image.new("RGB", (640, 300), ground), "Studio Lumen 2024", size, colour)
    assert letters.longest_row(grey(image)) > letters.FEWEST


def test_most_captions_on_pictures_are_found() -> None:
    drawn = [scenes.scene(seed, (640, 480)) for seed in range(15)]
    found = sum(letters.longest_row(grey(written(image, "copyright Studio Lumen", 30))) >= letters.FEWEST for image in drawn)
    assert found >= 7


def test_pictures_without_text_have_no_letters() -> None:
    drawn = [scenes.scene(seed, (512, 384)) for seed in range(30)]
    drawn += [image for image, _ in world.character_set(9, 20)]
    assert max(letters.longest_row(grey(image)) for image in drawn) < letters.FEWEST


def test_windows_and_fences_are_not_letters() -> None:
    image = Image.new("RGB", (640, 480), "grey")
    pen = ImageDraw.Draw(image)
    for x in range(30, 600, 24):
        pen.rectangle((x, 100, x + 10, 124), fill="white")
        pen.rectangle((x, 300, x + 6, 340), fill="black")
    assert letters.longest_row(grey(image)) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_tiny_pictures_have_none(size: tuple[int, int]) -> None:
    assert letters.longest_row(grey(Image.new("RGB", size, "red"))) == 0


def test_the_strict_mind_fewer_letters() -> None:
    image = scenes.scene(3, (560, 540))
    scores = measures.measure(image, width=560, height=540)
    for count, kinds in ((9, ["basic", "strict"]), (6, ["strict"]), (5, [])):
        row = {"sha256": "a", "width": 560, "height": 540, "scores": {**scores, "letters": count}}
        found = {s for s in ("basic", "strict") for f in doctor.examine([row], strictness=s) if f["kind"] == "text"}
        assert sorted(found) == kinds
