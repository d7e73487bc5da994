"""Checkpoints: whole, found again, and never taken when damaged or of another training."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from masuka.errors import Conflict
from masuka.training.checkpoints import MANIFEST, Checkpoint, CheckpointFolder
from masuka.training.randomness import own_randomness, random_state, restore_random_state

IDENTITY = {"base": "pocket", "rank": 4}


def folder(path: Path, keep: int = 4, **identity: object) -> CheckpointFolder:
    return CheckpointFolder(path, identity={**IDENTITY, **identity}, keep=keep)


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"adapter": {"a": torch.full((3,), float(step))}}, {"losses": [0.1, 1 / 3]})


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    folder(tmp_path).save(checkpoint(5))
    found, damaged = folder(tmp_path).newest()
    assert found is not None and damaged == []
    assert found.step == 5
    assert torch.equal(found.groups["adapter"]["a"], torch.full((3,), 5.0))
    assert found.state == {"losses": [0.1, 1 / 3]}


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert folder(tmp_path).newest() == (None, [])


@pytest.mark.parametrize("harm", ["shorten", "flip", "remove", "manifest"])
def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path, harm: str) -> None:
    checkpoints = folder(tmp_path)
    checkpoints.save(checkpoint(5))
    newest = checkpoints.save(checkpoint(10))
    file = newest / "adapter.safetensors"
    data = file.read_bytes()
    if harm == "shorten":
        file.write_bytes(data[:-4])
    elif harm == "flip":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "remove":
        file.unlink()
    else:
        (newest / MANIFEST).write_text('{"format": 1, "files"')
    found, damaged = folder(tmp_path).newest()
    assert found is not None and found.step == 5
    assert len(damaged) == 1 and "step-00000010 is damaged" in damaged[0]
    again = folder(tmp_path)
    again.save(checkpoint(10))
    replaced, damaged = again.newest()
    assert replaced is not None and replaced.step == 10 and damaged == []


def test_damaged_ones_never_cost_the_one_just_saved(tmp_path: Path) -> None:
    for step in (10, 15, 20):
        (folder(tmp_path).save(checkpoint(step)) / "adapter.safetensors").write_bytes(b"")
    again = folder(tmp_path, keep=1)
    assert again.newest() == (
        None,
        [
            "The checkpoint step-00000020 is damaged.",
            "The checkpoint step-00000015 is damaged.",
            "The checkpoint step-00000010 is damaged; none is left, so the training starts again.",
        ],
    )
    again.save(checkpoint(5))
    found, damaged = folder(tmp_path).newest()
    assert found is not None and found.step == 5 and damaged == []
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


def test_damage_unseen_never_costs_the_one_just_saved(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path, keep=1)
    checkpoints.save(checkpoint(10))
    assert checkpoints.save(checkpoint(5)).is_dir()


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    folder(tmp_path).save(checkpoint(5))
    staging = tmp_path / ".staging-00000010"
    staging.mkdir()
    (staging / "adapter.safetensors").write_bytes(b"half")
    found, damaged = folder(tmp_path).newest()
    assert found is not None and found.step == 5 and damaged == []
    assert not staging.exists()


def test_old_checkpoints_are_forgotten(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path, keep=2)
    for step in (5, 10, 15, 20):
        checkpoints.save(checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


def test_a_checkpoint_of_another_training_is_a_conflict(tmp_path: Path) -> None:
    folder(tmp_path).save(checkpoint(5))
    with pytest.raises(Conflict, match="another rank"):
        folder(tmp_path, rank=8).newest()


def test_every_random_generator_goes_on_where_it_was() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    before = random_state()
    random.gauss(0, 1)
    np.random.normal()
    tensors, plain = random_state()
    try:
        expected = [draw() for _ in range(3)]
        restore_random_state(tensors, plain)
        assert [draw() for _ in range(3)] == expected
    finally:
        restore_random_state(*before)


def test_a_training_has_random_numbers_of_its_own() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    before = random_state()
    expected = draw()
    restore_random_state(*before)
    with own_randomness(5):
        first = draw()
    assert draw() == expected
    with own_randomness(5):
        assert draw() == first
    restore_random_state(*before)
