"""What the engine promises of whole trainings on a tiny FLUX, setting by setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from masuka.errors import Stop
from tests.tiny_training import Job, train_params, trained_weights


def straight(root: Path, **request: Any) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Losses and last state of a training that nothing disturbs."""
    params, job = train_params(root, **request), Job(root)
    job.run(params)
    return job.losses(), trained_weights(params)


def goes_on_exactly(root: Path, **request: Any) -> dict[int, float]:
    """The losses of a training that was paused inside a step; it must end as if it was not."""
    losses, expected = straight(root / "straight", **request)
    params = train_params(root / "paused", **request)
    with pytest.raises(Stop):
        Job(root / "paused", stop="pause", after_step=2, checks=5).run(params)
    again = Job(root / "paused", attempt=2)
    again.run(params)
    found = trained_weights(params)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name].double(), tensor.double(), rtol=0, atol=1e-6), name
    assert again.losses() == pytest.approx({n: losses[n] for n in again.losses()}, abs=1e-6)
    return losses


@pytest.mark.parametrize("optimizer", ["came", "schedulefree"])
def test_a_paused_training_goes_on_with_its_optimiser(tmp_path: Path, optimizer: str) -> None:
    losses = goes_on_exactly(tmp_path, optimizer=optimizer, steps=4, checkpoint_every=50)
    assert len(losses) == 4


def test_what_a_schedule_free_training_keeps_is_its_average(tmp_path: Path) -> None:
    _, state = straight(tmp_path, optimizer="schedulefree", steps=3)
    name = next(n.partition("/")[2] for n in state if n.startswith("average/") and "lora_B" in n)
    assert not torch.equal(state[f"average/{name}"], state[f"adapter/{name}"])
