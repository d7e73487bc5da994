"""Optimisers and schedules by name, and their state as tensors and plain values.

Nothing here is pickled: a checkpoint is safetensors and JSON.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from masuka.errors import NoAccelerator
from masuka.requests.training import TrainImage


def build_optimizer(request: TrainImage, master: nn.Parameter) -> torch.optim.Optimizer:
    """The optimiser over the one vector of weights.

    Raises NoAccelerator for the 8-bit one without an NVIDIA GPU.
    """
    if request.optimizer == "prodigy":
        from prodigyopt import Prodigy

        # It prints a line about weight decay; a worker's output is the job's log.
        with contextlib.redirect_stdout(io.StringIO()):
            prodigy: torch.optim.Optimizer = Prodigy(
                [master], lr=1.0, weight_decay=request.weight_decay, use_bias_correction=True,
                safeguard_warmup=True,
            )  # fmt: skip
            return prodigy
    if request.optimizer == "adamw8bit":
        if master.device.type != "cuda":
            raise NoAccelerator("adamw8bit needs an NVIDIA GPU.", "Choose adamw, which learns the same.")
        from bitsandbytes.optim import AdamW8bit

        eight: torch.optim.Optimizer = AdamW8bit(
            [master], lr=request.learning_rate, weight_decay=request.weight_decay
        )
        return eight
    return torch.optim.AdamW(
        [master], lr=request.learning_rate, weight_decay=request.weight_decay, fused=True
    )


def build_schedule(request: TrainImage, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """The learning rate's course: a linear warm-up, then constant, cosine or linear."""

    def factor(step: int) -> float:
        if step < request.lr_warmup_steps:
            return (step + 1) / (request.lr_warmup_steps + 1)
        span = max(1, request.steps - request.lr_warmup_steps)
        done = min(1.0, (step - request.lr_warmup_steps) / span)
        if request.lr_scheduler == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 - done if request.lr_scheduler == "linear" else 1.0

    return LambdaLR(optimizer, factor)


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The present step length; for Prodigy, times the distance it estimated."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, plain values) of an optimiser over one parameter."""
    # Not state_dict(): bitsandbytes (0.50) hides its tensors one level deeper there, for FSDP.
    group = optimizer.param_groups[0]
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    places = {"state": optimizer.state.get(group["params"][0], {}), "group": group}
    for place, values in places.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value.detach()
            elif name != "params":
                plain[f"{place}.{name}"] = value
    return tensors, plain


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Puts an optimiser where `optimizer_state` found one of the same kind."""
    present = optimizer.state_dict()
    values = {**plain, **tensors}
    group = dict(present["param_groups"][0])
    for name, value in group.items():
        if name == "params":
            continue
        stored: Any = values.get(f"group.{name}", value)
        # JSON has no tuples; betas must stay one.
        group[name] = tuple(stored) if isinstance(value, tuple) else stored
    state = {k.removeprefix("state."): v for k, v in values.items() if k.startswith("state.")}
    optimizer.load_state_dict({"state": {0: state} if state else {}, "param_groups": [group]})
