"""What most autoencoders have in common: a Gaussian posterior, then a scale and a shift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from masuka.families.parts import weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def posterior(autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Posterior mean and std of pixels (B, 3, H, W) in [-1, 1].

    (B, C, h, w), fp32, on the CPU.
    """
    found = distribution(autoencoder, pixels)
    return {"mean": of_pictures(found.mean), "std": of_pictures(found.std)}


def of_pictures(latents: Tensor) -> Tensor:
    """The latents, fp32, on the CPU, without the one frame of a video's autoencoder."""
    return (latents.squeeze(2) if latents.dim() == 5 else latents).float().cpu()


def distribution(autoencoder: Any, pixels: Tensor) -> Any:
    """The posterior as diffusers has it; a video's autoencoder gets one frame."""
    inputs = pixels.to(weights.device_of(autoencoder), next(autoencoder.parameters()).dtype)
    if hasattr(autoencoder, "temperal_downsample"):
        inputs = inputs.unsqueeze(2)
    return autoencoder.encode(inputs).latent_dist


def draw(posterior: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
    """One draw from the posterior, (B, C, h, w), not yet scaled."""
    import torch

    mean, std = posterior["mean"], posterior["std"]
    noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
    return mean + std * noise.to(mean.device)


def drawn(
    autoencoder_config: Mapping[str, Any], posterior: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor:
    """One draw from the posterior, shifted and scaled by the VAE's configuration."""
    shift = autoencoder_config.get("shift_factor") or 0.0
    return (draw(posterior, generator) - shift) * float(autoencoder_config["scaling_factor"])
