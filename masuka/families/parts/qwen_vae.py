"""Latents of Qwen-Image's autoencoder, which Krea 2 has too: a video's with one frame.

Each channel has its own mean and deviation, in the VAE's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from masuka.families.parts import vae

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def drawn(
    autoencoder_config: Mapping[str, Any], posterior: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor:
    """One draw from the posterior, (B, C, h, w), as the transformer reads it."""
    latents = vae.draw(posterior, generator)
    mean, std = _statistics(autoencoder_config, latents)
    return (latents - mean) / std


def restored(autoencoder_config: Mapping[str, Any], latents: Tensor) -> Tensor:
    """The latents (B, C, h, w) as the VAE takes them."""
    mean, std = _statistics(autoencoder_config, latents)
    return latents * std + mean


def _statistics(config: Mapping[str, Any], like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (like.new_tensor(config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
    return mean, std
