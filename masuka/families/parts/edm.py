"""Diffusion with its own preconditioning (EDM, Karras et al. 2022, arXiv:2206.00364).

noisy = (latents + s · noise) / √(s² + d²), where s runs from 0.002 to 80 and d is the
latents' own deviation; what is predicted is scaled so that its variance is one. A family's
level 0 … 1 is the place on the schedule that drawing goes down. Knows no family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST, LARGEST, BEND = 0.002, 80.0, 7.0
DEVIATION = 0.5


def noise_of(sigmas: Tensor) -> Tensor:
    """The noise's deviation s at each level, (B,)."""
    low, high = SMALLEST ** (1 / BEND), LARGEST ** (1 / BEND)
    spread: Tensor = (low + sigmas * (high - low)) ** BEND
    return spread


def timesteps(sigmas: Tensor) -> Tensor:
    """What the denoiser is told of each level, (B,)."""
    return noise_of(sigmas).log() / 4


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """The latents at these levels, as the denoiser takes them."""
    deviation = _beside(noise_of(sigmas), latents)
    return (latents + deviation * noise) / (deviation**2 + DEVIATION**2).sqrt()


def target(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """What the denoiser should predict."""
    deviation = _beside(noise_of(sigmas), latents)
    return (latents * deviation / DEVIATION - noise * DEVIATION) / (deviation**2 + DEVIATION**2).sqrt()


def snr(sigmas: Tensor) -> Tensor:
    """The picture's variance by the noise's, (B,)."""
    return (DEVIATION / noise_of(sigmas)) ** 2


def min_snr(sigmas: Tensor, gamma: float) -> Tensor:
    """Min-SNR's weight, (B,): a prediction's error is the picture's by its scale."""
    deviation = noise_of(sigmas)
    scale = (deviation * DEVIATION) ** 2 / (deviation**2 + DEVIATION**2)
    return snr(sigmas).clamp(max=gamma) * scale / DEVIATION**2


def scheduler() -> Any:
    """The scheduler that draws as this trains."""
    from diffusers import EDMDPMSolverMultistepScheduler

    return EDMDPMSolverMultistepScheduler(
        sigma_min=SMALLEST, sigma_max=LARGEST, sigma_data=DEVIATION, rho=BEND, prediction_type="epsilon"
    )


def _beside(levels: Tensor, like: Tensor) -> Tensor:
    return levels.to(like.device).view(-1, *(1 for _ in like.shape[1:]))
