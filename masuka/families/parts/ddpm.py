"""Discrete diffusion by a schedule of signal-to-noise ratios, as SDXL and its kind train by.

noisy = √a · latents + √(1 - a) · noise (Ho et al. 2020, arXiv:2006.11239), with a from one
of 1,000 steps; the level 0 … 1 of a family is the step's share of them. What is predicted is
the noise, or the velocity √a · noise - √(1 - a) · latents (arXiv:2202.00512). Knows no family.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012
"""Of every Stable Diffusion; √β rises evenly between them ('scaled_linear')."""
ALMOST_NOTHING = 2.0**-24
"""What is left of the picture at the last step of a schedule that ends in pure noise;
diffusers' Euler scheduler keeps the same, so that its first level is finite."""


@dataclass(frozen=True)
class Schedule:
    """How noise is added and what is predicted: 'epsilon' (the noise) or 'v'.

    With `ends_in_noise` the last step holds nothing of the picture (arXiv:2305.08891).
    """

    prediction: str = "epsilon"
    ends_in_noise: bool = False

    def timesteps(self, sigmas: Tensor) -> Tensor:
        """The step 0 … 999 of each noise level, as the denoiser takes them, (B,)."""
        return (sigmas * STEPS).long().clamp(0, STEPS - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        picture, noise_share = self._shares(sigmas, latents)
        return picture * latents + noise_share * noise

    def target(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        picture, noise_share = self._shares(sigmas, latents)
        return picture * noise - noise_share * latents

    def snr(self, sigmas: Tensor) -> Tensor:
        """The picture's variance by the noise's, (B,)."""
        kept = self._kept(sigmas)
        return kept / (1 - kept)

    def min_snr(self, sigmas: Tensor, gamma: float) -> Tensor:
        """Min-SNR's weight, (B,), for the error of what is predicted (arXiv:2303.09556)."""
        ratio = self.snr(sigmas)
        return ratio.clamp(max=gamma) / (ratio if self.prediction == "epsilon" else ratio + 1)

    def scheduler(self) -> Any:
        """The scheduler that draws as this schedule trains."""
        from diffusers import EulerDiscreteScheduler

        return EulerDiscreteScheduler(
            num_train_timesteps=STEPS, beta_start=FIRST_BETA, beta_end=LAST_BETA, beta_schedule="scaled_linear",
            prediction_type="epsilon" if self.prediction == "epsilon" else "v_prediction",
            rescale_betas_zero_snr=self.ends_in_noise, steps_offset=1,
            # Drawing must begin at the very last step where only there nothing is left of the picture.
            timestep_spacing="trailing" if self.ends_in_noise else "leading",
        )  # fmt: skip

    def _kept(self, sigmas: Tensor) -> Tensor:
        """The variance that is still the picture's, (B,), on the levels' device."""
        return alphas(self.ends_in_noise).to(sigmas.device)[self.timesteps(sigmas)]

    def _shares(self, sigmas: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        kept = self._kept(sigmas).to(like.device).view(-1, *(1 for _ in like.shape[1:]))
        return kept.sqrt(), (1 - kept).sqrt()


@cache
def alphas(ends_in_noise: bool) -> Tensor:
    """What each of the 1,000 steps keeps of the picture's variance, falling."""
    import torch

    roots = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, STEPS, dtype=torch.float64)
    kept = torch.cumprod(1 - roots**2, 0)
    if ends_in_noise:
        # The amplitudes are moved and stretched so that the last is nothing and the first as it was.
        amplitudes = kept.sqrt()
        first, last = amplitudes[0].clone(), amplitudes[-1].clone()
        kept = ((amplitudes - last) * first / (first - last)) ** 2
        kept[-1] = ALMOST_NOTHING
    return kept.float()


def evenly_spread(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels in (0, 1), (count,), each as likely as the other."""
    import torch

    return torch.rand(count, generator=generator, device=generator.device).clamp(min=1e-6)
