"""The machine is gone in the middle of a training; from the vault alone everything goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_flux import tiny_folder
from tests.tiny_training import Job, train_params, trained_weights
from tests.worker.vault_drill import drill

VALUES: dict[str, Any] = {"steps": 300, "checkpoint_every": 20, "ema_decay": 0.9, "caption_dropout": 0.2}


@pytest.mark.slow
def test_a_training_outlives_its_machine(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        straight = train_params(tmp_path / "straight", base=tiny_folder(), **VALUES)
        whole = Job(tmp_path / "straight")
        whole.run(straight)
    finally:
        torch.set_num_threads(threads)
    lost = drill(
        tmp_path / "machine", tmp_path / "vault", train_params(tmp_path / "given", base=tiny_folder(), **VALUES)
    )
    assert 0 < lost.steps_now < VALUES["steps"]
    assert lost.losses == pytest.approx(whole.losses(), abs=1e-6)
    expected, found = trained_weights(straight), trained_weights(lost.params)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(tensor.double(), found[name].double(), rtol=0, atol=1e-6), name
    assert lost.lost_s <= 60
    assert lost.back_s <= 120
