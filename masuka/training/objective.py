"""Which noise levels are learnt, with which noise, and how much each error counts.

Drawn for one picture at a time from a generator of its own, so that a step is the same
however its pictures are divided into micro-steps. Knows no step and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from masuka.families.base import Family
from masuka.families.parts import flow
from masuka.requests.training import TrainImage


@dataclass(frozen=True)
class Objective:
    """The family's own objective unless a setting says otherwise."""

    family: Family
    timesteps: str = "auto"
    shift: float = 1.0
    noise_offset: float = 0.0
    min_snr_gamma: float = 0.0

    @classmethod
    def of(cls, family: Family, request: TrainImage) -> Objective:
        """As the request says."""
        return cls(
            family,
            timesteps=request.timesteps,
            shift=request.timestep_shift,
            noise_offset=request.noise_offset,
            min_snr_gamma=request.min_snr_gamma,
        )

    def sigma(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """The noise level, (1,), of one picture's latents (1, C, h, w)."""
        if self.timesteps == "uniform":
            # Never 0, where nothing is to be predicted.
            drawn = torch.rand(1, generator=generator).clamp(1e-4, 1 - 1e-4)
        elif self.timesteps == "logit_normal":
            drawn = flow.logit_normal(1, generator)
        else:
            drawn = self.family.sample_sigmas(1, latents.shape, generator)
        return drawn if self.shift == 1.0 else flow.shifted(drawn, self.shift)

    def noise(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Noise like one picture's latents (1, C, h, w), on the CPU."""
        noise = torch.randn(latents.shape, generator=generator)
        if self.noise_offset:
            # One brightness for a whole channel: without it no picture is learnt as dark or light.
            noise += self.noise_offset * torch.randn(*latents.shape[:2], 1, 1, generator=generator)
        return noise

    def weight(self, sigmas: Tensor) -> Tensor:
        """How much each picture's error counts, (B,)."""
        weight = self.family.loss_weight(sigmas)
        return weight * self.family.min_snr(sigmas, self.min_snr_gamma) if self.min_snr_gamma else weight
