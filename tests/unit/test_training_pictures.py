"""Checking, bucketing and decoding the pictures of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from masuka.datasets.buckets import Shape, nearest_shape, shapes_for
from masuka.errors import InvalidInput, Stop
from masuka.jobs.reporter import EventFile
from masuka.training.pictures import (
    Picture,
    check_pictures,
    content_hash,
    pictures_of,
    seen,
)
from tests.tiny_training import picture_params


@pytest.fixture
def reporter(tmp_path: Path) -> EventFile:
    return EventFile(tmp_path / "events.jsonl", tmp_path / "scratch")


def params(folder: Path, count: int = 3) -> dict[str, object]:
    return {"pictures": picture_params(folder, count), "trigger_word": "mira7x", "class_word": "robot"}


def test_captions_are_filled_and_sizes_are_the_files_own(tmp_path: Path, reporter: EventFile) -> None:
    pictures = pictures_of(params(tmp_path))
    assert [p.caption for p in pictures] == [f"mira7x robot number {n}" for n in range(3)]
    assert check_pictures(pictures, reporter) == [(128, 128), (200, 120), (60, 100)]
    reporter.close()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "has changed"),
    ],
)
def test_a_picture_that_is_gone_or_changed_is_named(
    tmp_path: Path, reporter: EventFile, harm: object, words: str
) -> None:
    pictures = pictures_of(params(tmp_path))
    harm(pictures[1].file)  # type: ignore[operator]
    with pytest.raises(InvalidInput, match=words) as caught:
        check_pictures(pictures, reporter)
    reporter.close()
    assert "1.png" in caught.value.message
    assert caught.value.hint


def test_a_damaged_picture_is_named(tmp_path: Path, reporter: EventFile) -> None:
    import hashlib

    described = params(tmp_path)
    first = described["pictures"][0]  # type: ignore[index]
    file = Path(first["file"])
    file.write_bytes(file.read_bytes()[:-2000])
    first["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(InvalidInput, match=r"0\.png is damaged"):
        check_pictures(pictures_of(described), reporter)
    reporter.close()


def test_no_pictures_and_a_stop_are_heard(tmp_path: Path) -> None:
    stopping = EventFile(tmp_path / "events.jsonl", tmp_path / "scratch", lambda: "cancel")
    with pytest.raises(InvalidInput, match="no pictures"):
        check_pictures([], stopping)
    with pytest.raises(Stop):
        check_pictures(pictures_of(params(tmp_path)), stopping)
    stopping.close()


@pytest.mark.parametrize("resolution", [256, 512, 768, 1024, 1040])
def test_buckets_keep_the_area_the_step_and_the_sides(resolution: int) -> None:
    shapes = shapes_for(resolution, step=16, shortest=256, longest=2048)
    assert Shape(resolution // 16 * 16, resolution // 16 * 16) in shapes
    for shape in shapes:
        assert shape.width % 16 == 0 and shape.height % 16 == 0
        assert min(shape.width, shape.height) >= min(256, resolution / 3**0.5)
        assert max(shape.width, shape.height) <= 2048
        assert shape.width * shape.height <= resolution**2
        assert 1 / 3 <= shape.width / shape.height <= 3
    assert len(shapes) > 4


def test_a_model_of_one_size_has_one_bucket() -> None:
    assert shapes_for(128, step=16, shortest=128, longest=128) == [Shape(128, 128)]


def test_a_picture_goes_to_the_bucket_of_its_ratio() -> None:
    shapes = shapes_for(512, step=16, shortest=256, longest=2048)
    assert nearest_shape(900, 900, shapes) == Shape(512, 512)
    wide, tall = nearest_shape(1600, 900, shapes), nearest_shape(900, 1600, shapes)
    assert wide.width > wide.height and tall.height > tall.width
    assert abs(wide.width / wide.height - 16 / 9) < 0.25


def test_pixels_cover_the_bucket_and_are_cut_at_the_centre(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), "black")
    picture.paste("white", (100, 0, 200, 100))
    picture.save(tmp_path / "wide.png")
    pixels = seen(Picture(tmp_path / "wide.png", "", ""), Shape(64, 64)).pixels
    assert pixels.shape == (3, 64, 64)
    assert torch.all(pixels[:, :, 4:60] > 0.99)
    small = Image.new("L", (5, 7), 255)
    small.save(tmp_path / "small.png")
    assert torch.equal(
        seen(Picture(tmp_path / "small.png", "", ""), Shape(64, 32)).pixels, torch.ones(3, 32, 64)
    )


def test_the_content_hash_knows_captions_and_not_order(tmp_path: Path) -> None:
    one = pictures_of(params(tmp_path))
    changed = params(tmp_path)
    changed["pictures"][0]["caption"] = "another"  # type: ignore[index]
    assert content_hash(one) == content_hash(one[::-1])
    assert content_hash(one) != content_hash(pictures_of(changed))
