"""Optimisers and schedules by name, and their state as tensors and plain values.

Nothing here is pickled: a checkpoint is safetensors and JSON.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from masuka.errors import NoAccelerator
from masuka.requests.training import TrainImage

FACTORED = ("adafactor", "came")
"""They keep a row and a column of a matrix's second moments instead of all; a vector has neither."""


def build_optimizer(
    request: TrainImage, master: nn.Parameter, matrices: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimiser over the one vector of weights; over `matrices` if `FACTORED`.

    Raises NoAccelerator for the 8-bit one without an NVIDIA GPU.
    """
    name, weights = request.optimizer, list(matrices) or [master]
    rate, decay = request.learning_rate, request.weight_decay
    if name == "prodigy":
        from prodigyopt import Prodigy

        # It prints a line about weight decay; a worker's output is the job's log.
        with contextlib.redirect_stdout(io.StringIO()):
            prodigy: torch.optim.Optimizer = Prodigy(
                [master], lr=1.0, weight_decay=decay, use_bias_correction=True, safeguard_warmup=True
            )
            return prodigy
    if name == "adamw8bit":
        if master.device.type != "cuda":
            raise NoAccelerator("adamw8bit needs an NVIDIA GPU.", "Choose adamw, which learns the same.")
        from bitsandbytes.optim import AdamW8bit

        eight: torch.optim.Optimizer = AdamW8bit([master], lr=rate, weight_decay=decay)
        return eight
    if name == "adamw":
        return torch.optim.AdamW([master], lr=rate, weight_decay=decay, fused=True)
    return _from_library(name, master, weights, rate=rate, decay=decay)


def _from_library(
    name: str, master: nn.Parameter, weights: list[nn.Parameter], *, rate: float, decay: float
) -> torch.optim.Optimizer:
    from pytorch_optimizer import CAME, AdaFactor, Lion, ScheduleFreeAdamW

    made: torch.optim.Optimizer
    if name == "adafactor":
        # Scaled by the weights' own size, a LoRA's B, which begins at zero, would hardly move.
        made = AdaFactor(
            weights, lr=rate, betas=(None, 0.999), weight_decay=decay,
            scale_parameter=False, relative_step=False,
        )  # fmt: skip
    elif name == "came":
        made = CAME(weights, lr=rate, weight_decay=decay)
    elif name == "lion":
        made = Lion([master], lr=rate, weight_decay=decay)
    else:
        made = ScheduleFreeAdamW([master], lr=rate, weight_decay=decay)
    return made


def matrices_of(values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> list[nn.Parameter]:
    """Each layer's part of the vector as a matrix that shares memory with it."""
    found = []
    for name, value in values.items():
        flat = value if value.dim() < 3 else value.flatten(1)
        one = nn.Parameter(flat)
        one.grad = gradients[name].view_as(flat)
        found.append(one)
    return found


def averaged(optimizer: torch.optim.Optimizer, master: Tensor, into: Tensor | None) -> Tensor | None:
    """The weights that a schedule-free optimiser stands for; None for every other.

    What it steps is not its result (Defazio et al. 2024, arXiv:2405.15682). Computed aside:
    its own switch there and back would not come back to the same numbers.
    """
    group = optimizer.param_groups[0]
    if "train_mode" not in group:
        return None
    ahead = optimizer.state.get(group["params"][0], {}).get("z", master)
    if into is None:
        into = torch.empty_like(master)
    return torch.lerp(master, ahead, 1 - 1 / group["betas"][0], out=into)


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


def follow_course(schedule: Any) -> None:
    """Sets the learning rate to what the course says of the step that it is at.

    A restored one has the rate of the course that it was stored with, which a training that
    goes on for more steps has left: the end of a cosine would make its first step none.
    """
    course: LambdaLR = getattr(schedule, "scheduler", schedule)
    groups = course.optimizer.param_groups
    for group, base, factor in zip(groups, course.base_lrs, course.lr_lambdas, strict=True):
        group["lr"] = base * factor(course.last_epoch)


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The present step length; for Prodigy, times the distance it estimated."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, plain values) of an optimiser with one group of parameters."""
    # Not state_dict(): bitsandbytes (0.50) hides its tensors one level deeper there, for FSDP.
    group = optimizer.param_groups[0]
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    places = {"group": group}
    for number, weight in enumerate(group["params"]):
        places[_place(number)] = optimizer.state.get(weight, {})
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
    by_place: dict[str, dict[str, Any]] = {}
    for key, value in {**plain, **tensors}.items():
        place, _, name = key.partition(".")
        by_place.setdefault(place, {})[name] = value
    group = dict(present["param_groups"][0])
    for name, stored in by_place.get("group", {}).items():
        # JSON has no tuples; betas must stay one.
        group[name] = tuple(stored) if isinstance(group.get(name), tuple) else stored
    state = {n: by_place[_place(n)] for n in range(len(group["params"])) if _place(n) in by_place}
    optimizer.load_state_dict({"state": state, "param_groups": [group]})


def _place(number: int) -> str:
    return f"state{number or ''}"
