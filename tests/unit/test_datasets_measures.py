"""What is measured of one picture: told apart where it differs, alike where it does not."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image, ImageEnhance, ImageFilter

from masuka.datasets import measures
from masuka.pocket import world


@pytest.fixture(scope="module")
def robot() -> Image.Image:
    return world.draw(world.character_scenes(7, 1)[0], 512)


def measured(image: Image.Image) -> dict[str, object]:
    return measures.measure(image, width=image.width, height=image.height, jpeg_quality=None)


def test_scores_are_json_and_carry_their_version(robot: Image.Image) -> None:
    scores = measured(robot)
    assert json.loads(json.dumps(scores)) == scores
    assert scores["v"] == measures.VERSION


@pytest.mark.parametrize("radius", [2, 4, 8])
def test_a_blurred_picture_is_less_sharp(robot: Image.Image, radius: int) -> None:
    blurred = robot.filter(ImageFilter.GaussianBlur(radius))
    assert measured(blurred)["sharpness"] < 0.8 * measured(robot)["sharpness"]  # type: ignore[operator]


def test_low_contrast_is_not_blur(robot: Image.Image) -> None:
    pale = ImageEnhance.Contrast(robot).enhance(0.5)
    assert measured(pale)["sharpness"] == pytest.approx(measured(robot)["sharpness"], abs=0.05)


def test_a_picture_of_one_colour_has_no_sharpness_and_no_contrast() -> None:
    scores = measured(Image.new("RGB", (300, 200), (90, 90, 90)))
    assert (scores["sharpness"], scores["contrast"]) == (0.0, 0.0)
    assert scores["exposure"] == pytest.approx(90 / 255, abs=0.01)


def test_light_is_measured_in_shares() -> None:
    half = Image.new("RGB", (100, 100), "black")
    half.paste("white", (0, 0, 50, 100))
    scores = measured(half)
    assert (scores["shadows"], scores["highlights"], scores["exposure"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 92, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(robot: Image.Image, quality: int) -> None:
    stream = io.BytesIO()
    robot.save(stream, "JPEG", quality=quality)
    opened = Image.open(stream)
    assert measures.jpeg_quality(opened.quantization) == quality  # type: ignore[attr-defined]


def test_without_tables_there_is_no_quality() -> None:
    assert measures.jpeg_quality({}) is None


def test_exact_pixels_have_one_name_and_others_another(robot: Image.Image) -> None:
    other = robot.copy()
    other.putpixel((5, 5), (1, 2, 3))
    assert measured(robot)["pixels"] == measured(robot.copy())["pixels"] != measured(other)["pixels"]


@pytest.mark.parametrize("size", [(16, 16), (17, 900), (900, 17), (1025, 1024), (3000, 40)])
def test_every_shape_can_be_measured(size: tuple[int, int]) -> None:
    gradient = Image.linear_gradient("L").resize(size).convert("RGB")
    scores = measured(gradient)
    assert len(measures.unpacked(str(scores["look"]))) == measures.LOOK_SIDE**2
    assert len(measures.unpacked(str(scores["histogram"]))) == measures.HISTOGRAM_BINS
