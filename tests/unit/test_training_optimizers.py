"""Optimisers and schedules by name, and exact copies of their state."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

from masuka.errors import NoAccelerator
from masuka.requests.training import TrainImage
from masuka.training.optimizers import (
    FACTORED,
    averaged,
    build_optimizer,
    build_schedule,
    learning_rate_of,
    matrices_of,
    optimizer_state,
    restore_optimizer,
)


def request(**values: Any) -> TrainImage:
    return TrainImage.parse({"dataset_id": 1, "steps": 20, "lr_warmup_steps": 0, **values})


def weights() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, 40))


def walk(master: nn.Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        master.grad = torch.sin(master.detach() * 3 + step)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "prodigy", "lion", "schedulefree"])
def test_a_restored_optimiser_takes_the_same_steps(name: str) -> None:
    asked = request(optimizer=name, learning_rate=1e-2)
    straight, first, second = weights(), weights(), weights()
    walk(straight, build_optimizer(asked, straight), range(8))
    before = build_optimizer(asked, first)
    walk(first, before, range(5))
    tensors, plain = optimizer_state(before)
    after = build_optimizer(asked, second)
    with torch.no_grad():
        second.copy_(first)
    restore_optimizer(after, tensors, json.loads(json.dumps(plain)))
    walk(second, after, range(5, 8))
    assert torch.equal(second, straight)
    assert learning_rate_of(after) == learning_rate_of(build_and_walk(asked))
    assert not torch.equal(first, straight)


def parts(master: nn.Parameter) -> list[nn.Parameter]:
    """The vector's matrices: 4 × 6, 12 and 2 × 1 × 2."""
    shapes = {"a": (0, (4, 6)), "b": (24, (12,)), "c": (36, (2, 1, 2))}
    master.grad = torch.zeros_like(master)
    views = [
        {n: vector[start : start + math.prod(shape)].view(shape) for n, (start, shape) in shapes.items()}
        for vector in (master.data, master.grad)
    ]
    return matrices_of(*views)


def walk_parts(master: nn.Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        assert master.grad is not None
        master.grad.copy_(torch.sin(master.detach() * 3 + step))
        optimizer.step()


@pytest.mark.parametrize("name", FACTORED)
def test_a_factored_optimiser_sees_matrices_and_goes_on_exactly(name: str) -> None:
    asked = request(optimizer=name, learning_rate=1e-2)
    straight, first, second = weights(), weights(), weights()
    walk_parts(straight, build_optimizer(asked, straight, parts(straight)), range(8))
    before = build_optimizer(asked, first, parts(first))
    walk_parts(first, before, range(5))
    tensors, plain = optimizer_state(before)
    assert tensors["state.exp_avg_sq_row"].shape == (4,) and tensors["state.exp_avg_sq_col"].shape == (6,)
    assert tensors["state1.exp_avg_sq"].shape == (12,), "a vector is kept whole"
    kept = {key: tensor.clone() for key, tensor in tensors.items()}
    with torch.no_grad():
        second.copy_(first)
    after = build_optimizer(asked, second, parts(second))
    restore_optimizer(after, kept, json.loads(json.dumps(plain)))
    walk_parts(second, after, range(5, 8))
    assert torch.equal(second, straight)
    assert not torch.equal(first, straight)


@pytest.mark.parametrize("name", ["adafactor", "came", "lion", "schedulefree", "prodigy", "adamw"])
def test_every_optimiser_comes_closer(name: str) -> None:
    """A LoRA's B begins at zero: also from there each must come to what is wanted."""
    wanted = torch.linspace(-0.05, 0.05, 40)
    master = nn.Parameter(torch.zeros(40))
    asked = request(optimizer=name, learning_rate=1e-3, weight_decay=0.0)
    optimizer = build_optimizer(asked, master, parts(master) if name in FACTORED else ())
    master.grad = torch.zeros(40) if master.grad is None else master.grad
    for _ in range(150):
        master.grad.copy_(master.detach() - wanted)
        optimizer.step()
    assert float((master.detach() - wanted).norm()) < 0.2 * float(wanted.norm())


def test_a_schedule_free_optimisers_result_is_its_own_and_disturbs_nothing() -> None:
    asked = request(optimizer="schedulefree", learning_rate=1e-2)
    master, other = weights(), weights()
    optimizer = build_optimizer(asked, master)
    walk(master, optimizer, range(6))
    before = master.detach().clone()
    result = averaged(optimizer, master.data, None)
    assert torch.equal(master, before)
    theirs: Any = build_optimizer(asked, other)
    walk(other, theirs, range(6))
    theirs.eval()
    assert result is not None and torch.equal(result, other) and not torch.equal(result, before)
    assert averaged(build_optimizer(request(), weights()), master.data, None) is None


def test_a_restored_eight_bit_optimiser_takes_the_same_steps() -> None:
    """bitsandbytes' own state_dict is nested; from 4096 weights on it keeps 8 bits."""
    from bitsandbytes.optim import AdamW8bit

    first = nn.Parameter(torch.linspace(-1, 1, 8192))
    before = AdamW8bit([first], lr=1e-2)
    walk(first, before, range(3))
    tensors, plain = optimizer_state(before)
    assert tensors["state.state1"].dtype == torch.uint8
    second = nn.Parameter(first.detach().clone())
    after = AdamW8bit([second], lr=1e-2)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    restore_optimizer(after, kept, json.loads(json.dumps(plain)))
    walk(first, before, range(3, 6))
    walk(second, after, range(3, 6))
    assert torch.equal(first, second)


def build_and_walk(asked: TrainImage) -> torch.optim.Optimizer:
    master = weights()
    optimizer = build_optimizer(asked, master)
    walk(master, optimizer, range(8))
    return optimizer


def test_the_eight_bit_optimiser_needs_a_gpu() -> None:
    with pytest.raises(NoAccelerator, match="NVIDIA"):
        build_optimizer(request(optimizer="adamw8bit"), weights())


@pytest.mark.parametrize(
    ("schedule", "at_start", "at_middle", "at_end"),
    [("constant", 1.0, 1.0, 1.0), ("linear", 1.0, 0.5, 0.05), ("cosine", 1.0, 0.5, 0.0062)],
)
def test_schedules_go_where_their_names_say(
    schedule: str, at_start: float, at_middle: float, at_end: float
) -> None:
    rates = rates_of(request(lr_scheduler=schedule, learning_rate=1e-3))
    assert rates[0] == pytest.approx(at_start * 1e-3)
    assert rates[10] == pytest.approx(at_middle * 1e-3)
    assert rates[19] == pytest.approx(at_end * 1e-3, rel=0.02)


def test_the_warm_up_rises_from_its_first_step() -> None:
    rates = rates_of(request(lr_warmup_steps=4, learning_rate=1e-3))
    assert rates[:6] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])


def rates_of(asked: TrainImage) -> list[float]:
    master = weights()
    optimizer = build_optimizer(asked, master)
    schedule = build_schedule(asked, optimizer)
    rates = []
    for _ in range(asked.steps):
        rates.append(learning_rate_of(optimizer))
        walk(master, optimizer, range(1))
        schedule.step()
    return rates
