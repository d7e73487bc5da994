"""Latents of the autoencoder of FLUX.2 and FLUX 3: 2 × 2 patches as channels, batch-normalised.

The statistics are buffers of the VAE and no configuration, so they are applied where the VAE
is at hand: what is cached is what the transformer reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from masuka.families.parts import vae

if TYPE_CHECKING:
    from torch import Tensor, nn


def posterior(autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Mean and std (B, 4C, h/2, w/2), normalised, of pixels (B, 3, H, W) in [-1, 1]."""
    found = vae.posterior(autoencoder, pixels)
    _, std = _statistics(autoencoder, found["std"])
    return {"mean": normalised(autoencoder, found["mean"]), "std": fold(found["std"]) / std}


def normalised(autoencoder: Any, latents: Tensor) -> Tensor:
    """What the transformer reads, (B, 4C, h/2, w/2), of VAE latents (B, C, h, w)."""
    mean, std = _statistics(autoencoder, latents)
    return (fold(latents) - mean) / std


def restored(autoencoder: Any, latents: Tensor) -> Tensor:
    """The VAE's latents (B, C, h, w) of normalised ones (B, 4C, h/2, w/2)."""
    mean, std = _statistics(autoencoder, latents)
    return unfold(latents * std + mean)


def fold(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) with each 2 × 2 patch as channels, (B, 4C, h/2, w/2)."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * 4, height // 2, width // 2)


def unfold(folded: Tensor) -> Tensor:
    """The latents (B, C, h, w) that `fold` folded."""
    batch, channels, height, width = folded.shape
    patches = folded.reshape(batch, channels // 4, 2, 2, height, width)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, height * 2, width * 2)


def sequence(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as a sequence (B, h · w, C)."""
    return latents.flatten(2).transpose(1, 2)


def grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """The latents (B, C, height, width) that `sequence` made a sequence of."""
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], height, width)


def _statistics(autoencoder: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    norm, config = autoencoder.bn, autoencoder.config
    mean = norm.running_mean.view(1, -1, 1, 1).to(like.device, like.dtype)
    variance = norm.running_var.view(1, -1, 1, 1).float()
    return mean, (variance + config.batch_norm_eps).sqrt().to(like.device, like.dtype)
