"""Optimisers and schedules by name, and exact copies of their state."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from masuka.errors import NoAccelerator
from masuka.requests.training import TrainImage
from masuka.training.optimizers import (
    build_optimizer,
    build_schedule,
    learning_rate_of,
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


@pytest.mark.parametrize("name", ["adamw", "prodigy"])
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
