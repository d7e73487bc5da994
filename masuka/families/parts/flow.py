"""Rectified flow, which most families of today train by: noisy = (1 - sigma) · latents + sigma · noise.

The model predicts noise - latents (Esser et al. 2024, arXiv:2403.03206). Knows no family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """The latents (B, C, h, w) at these noise levels (B,)."""
    levels = sigmas.to(latents.device).view(-1, *(1 for _ in latents.shape[1:]))
    return latents + levels * (noise - latents)


def velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """What the model should predict."""
    return noise - latents


def evenly(sigmas: Tensor) -> Tensor:
    """A weight of one for every noise level, (B,)."""
    import torch

    return torch.ones_like(sigmas)


def snr(sigmas: Tensor) -> Tensor:
    """The picture's variance by the noise's, (B,), where both start with one."""
    return ((1 - sigmas) / sigmas) ** 2


def min_snr(sigmas: Tensor, gamma: float) -> Tensor:
    """Min-SNR's weight, (B,): the error of noise - latents is the picture's by sigma."""
    return snr(sigmas).clamp(max=gamma) * sigmas**2


def logit_normal(count: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Noise levels in (0, 1), (count,): most in the middle, few at the ends."""
    import torch

    drawn = torch.randn(count, generator=generator, device=generator.device)
    return torch.sigmoid(mean + std * drawn)


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """The levels moved towards noise by the factor that a model's scheduler states."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def clean(sigmas: Tensor, before: Tensor, after: Tensor, step: int) -> Tensor:
    """A guess at the finished latents from one step, in the pipeline's layout."""
    now, then = (float(s) for s in sigmas[step : step + 2])
    return after.float() - then * (after.float() - before.float()) / (then - now)
