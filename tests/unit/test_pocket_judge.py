"""The judge reads what was drawn, and knows a robot again in another place."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from masuka import pocket
from masuka.errors import NotFound
from masuka.pocket import world
from masuka.pocket.judge import Judge, as_tensor


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(pocket.JUDGE_FOLDER)


def fresh(count: int) -> list[world.Scene]:
    rng = random.Random("never trained on")
    return [world.sample_any_scene(rng) for _ in range(count)]


def test_it_reads_every_attribute_of_fresh_drawings(judge: Judge) -> None:
    scenes = fresh(40)
    found = judge.attributes([world.draw(scene) for scene in scenes])
    assert found == [scene.attributes for scene in scenes]


def test_it_reads_pictures_of_another_size_and_a_poor_jpeg(judge: Judge) -> None:
    spoilt = []
    scenes = fresh(12)
    for scene in scenes:
        file = io.BytesIO()
        world.draw(scene, 200).save(file, "JPEG", quality=50)
        spoilt.append(Image.open(file))
    assert judge.attributes(spoilt) == [scene.attributes for scene in scenes]


def test_the_same_robot_is_more_alike_than_another(judge: Judge) -> None:
    one = judge.embed([image for image, _ in world.character_set(3, 6)])
    other = judge.embed([image for image, _ in world.character_set(8, 6)])
    assert torch.allclose(one.norm(dim=1), torch.ones(6))
    same = (one @ one.T)[~torch.eye(6, dtype=torch.bool)].min()
    assert same > (one @ other.T).max() + 0.1


def test_pictures_become_numbers_from_minus_one_to_one() -> None:
    tensor = as_tensor([Image.new("RGB", (128, 128), "white"), Image.new("L", (64, 32), 0)])
    assert tensor.shape == (2, 3, 128, 128)
    assert tensor[0].eq(1).all()
    assert tensor[1].eq(-1).all()


def test_a_folder_without_a_judge_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no judge"):
        Judge.load(tmp_path)


def test_a_saved_judge_reads_the_same(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path, {"fresh_hat": 1.0})
    image = world.draw(fresh(1)[0])
    assert torch.equal(Judge.load(tmp_path).embed([image]), judge.embed([image]))
