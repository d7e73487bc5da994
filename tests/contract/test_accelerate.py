"""What the training relies on in accelerate, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _as_in_a_fresh_process() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_one_process_has_one_precision_until_it_is_reset() -> None:
    """Why the learner calls `_reset_state`, which is private: a notebook trains twice in a process.

    It can go once accelerate (1.15) takes another precision by itself, or offers a public way.
    """
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"
    with pytest.raises(ValueError, match="mixed_precision"):
        Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert Accelerator(cpu=True, mixed_precision="no").mixed_precision == "no"


def test_what_is_prepared_steps_and_its_state_is_that_of_the_original() -> None:
    """Checkpoints read the optimiser through the wrapper; the schedule moves once a step."""
    weights = torch.nn.Parameter(torch.ones(3))
    plain = torch.optim.AdamW([weights], lr=0.5)
    accelerator = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=2)
    optimizer, schedule = accelerator.prepare(
        plain, torch.optim.lr_scheduler.LambdaLR(plain, lambda step: 1 / (step + 1))
    )
    accelerator.backward((weights * 2).sum())
    assert torch.equal(weights.grad, torch.full((3,), 1.0))  # type: ignore[arg-type] # divided by the accumulation
    norm = accelerator.clip_grad_norm_([weights], 0.1)
    assert float(norm) == pytest.approx(3**0.5)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups is plain.param_groups
    assert optimizer.state[weights]["step"] == 1
    assert plain.param_groups[0]["lr"] == 0.25
    assert accelerator.scaler is None
