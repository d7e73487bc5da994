"""A training that can be stopped at any moment and goes on where it was.

Owns the clock, the learning rate over time, the moving average of the weights
and the checkpoint; it knows nothing of what is trained.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAVE_EVERY_S = 120.0
_MUON_RATE = 1.2  # times the rate of AdamW; 2.5 made the loss rise


class Average:
    """Exponential moving average of a module's weights; young averages move faster."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average one step towards the module's weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        floats: list[Tensor] = []
        news: list[Tensor] = []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                floats.append(self.shadow[name])
                news.append(value.detach())
            else:
                self.shadow[name].copy_(value)
        torch._foreach_lerp_(floats, news, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.count, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a checkpoint's average."""
        self.count = state["count"]
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)


class Session:
    """Counts the time over restarts, sets the learning rate, keeps the checkpoint."""

    def __init__(
        self,
        path: Path,
        minutes: float,
        module: nn.Module,
        *,
        rate: float,
        decay: float = 0.999,
        warmup_steps: int = 100,
        flat: float = 0.5,
        matrices: Sequence[nn.Parameter] = (),
    ) -> None:
        self.path, self.budget_s, self.rate = path, minutes * 60, rate
        self.warmup_steps, self.flat = warmup_steps, flat
        self.module = module
        self.average = Average(module, decay)
        self.optimizers = _optimizers(module, rate, [p for p in matrices if p.requires_grad])
        self.step = 0
        self.spent_s = 0.0
        self.rng = random.Random(0)
        if path.is_file():
            self._load()
        self._since = self._saved = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the time budget that is used, 0…1."""
        return min(1.0, self._elapsed() / self.budget_s)

    @property
    def finished(self) -> bool:
        """True when the time budget is used."""
        return self.progress >= 1.0

    def advance(self, loss: Tensor) -> None:
        """One optimizer step on the loss, the average and, now and then, the checkpoint."""
        rate = self.rate * self._shape()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * (_MUON_RATE if isinstance(optimizer, torch.optim.Muon) else 1)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.module)
        self.step += 1
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Writes the checkpoint whole or not at all."""
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "spent_s": self._elapsed(),
            "rng": self.rng.getstate(),
            "torch_rng": torch.get_rng_state(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)
        self._saved = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self.spent_s = state["step"], state["spent_s"]
        version, numbers, gauss = state["rng"]
        self.rng.setstate((version, tuple(numbers), gauss))
        torch.set_rng_state(state["torch_rng"])

    def _elapsed(self) -> float:
        return self.spent_s + time.monotonic() - self._since if hasattr(self, "_since") else self.spent_s

    def _shape(self) -> float:
        warm = min(1.0, (self.step + 1) / self.warmup_steps)
        if self.progress <= self.flat:
            return warm
        falling = (self.progress - self.flat) / (1 - self.flat)
        return warm * max(0.02, 0.5 * (1 + math.cos(math.pi * falling)))


def _optimizers(
    module: nn.Module, rate: float, matrices: Sequence[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    """AdamW for everything but the matrices, which learn faster with Muon (kellerjordan.github.io/posts/muon)."""
    apart = {id(matrix) for matrix in matrices}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    ]
    if matrices:
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=1e-3, adjust_lr_fn="match_rms_adamw")
        optimizers.append(muon)
    return optimizers
