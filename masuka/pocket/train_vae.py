"""Trains the built-in model's autoencoder on drawn pictures, with the judge as its eye."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from masuka.pocket.norm import quicken, to_channels_last
from masuka.pocket.world import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from masuka.pocket.judge import Judge
    from masuka.pocket.session import Session

LATENT_CHANNELS = 8
BATCH = 16
KL_WEIGHT = 4e-4  # enough noise on the latents that the decoder forgives the transformer's errors
_FEATURE_STAGES = 4  # of the judge; the last one only sees what is named


def new_vae() -> AutoencoderKL:
    """The untrained autoencoder: f8, 8 latent channels, no attention."""
    kind = ("DownEncoderBlock2D",) * 4
    vae = AutoencoderKL(
        down_block_types=kind,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    to_channels_last(vae)
    return vae


def reconstruct(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The pictures after the bottleneck, and the KL per latent number."""
    moments = vae.encoder(pictures).float()
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-20, 10)
    latents = mean + noise * torch.exp(0.5 * log_variance)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return vae.decoder(latents.contiguous(memory_format=torch.channels_last)).float(), kl


def vae_loss(
    judge: Judge, pictures: Tensor, drawn: Tensor, labels: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """How far the reconstruction is from the picture, to the eye and to the judge."""
    edges = (pictures - F.avg_pool2d(pictures, 5, 1, 2)).abs().mean(1, keepdim=True)
    pixel = ((drawn - pictures).abs() * (1 + 4 * edges)).mean()
    with torch.no_grad():
        wanted = judge.features(pictures)
    seen = judge.features(drawn)
    feature, named = torch.zeros(()), torch.zeros(())
    for a, b in zip(seen[:_FEATURE_STAGES], wanted, strict=False):
        feature = feature + F.l1_loss(a.float(), b.float()) / (b.float().abs().mean() + 1e-3)
    logits, _ = judge.heads_from(seen[-1])
    for i, name in enumerate(ATTRIBUTES):
        named = named + F.cross_entropy(logits[name], labels[:, i])
    loss = pixel + 0.15 * feature + 0.02 * named
    figures = {"pixel": pixel.item(), "feature": feature.item(), "judge": named.item()}
    return loss, figures


def train(
    session: Session, judge: Judge, pictures: NDArray[np.uint8], labels: Tensor, say: Callable[[str], None]
) -> None:
    """Trains the session's autoencoder until its time is used."""
    vae: Any = session.module
    quicken(vae)
    to_channels_last(judge)
    started, first = time.monotonic(), session.step
    while not session.finished:
        rows = sorted(session.rng.sample(range(len(pictures)), BATCH))
        batch = as_batch(pictures[rows])
        if session.rng.random() < 0.5:
            batch = batch.flip(3).contiguous(memory_format=torch.channels_last)
        noise = torch.randn(BATCH, LATENT_CHANNELS, batch.shape[2] // 8, batch.shape[3] // 8)
        with torch.autocast("cpu", torch.bfloat16):
            drawn, kl = reconstruct(vae, batch, noise)
            loss, figures = vae_loss(judge, batch, drawn, labels[rows])
        session.advance(loss + KL_WEIGHT * kl)
        if session.step % 50 == 0:
            rate = (time.monotonic() - started) / (session.step - first)
            shown = " ".join(f"{k} {v:.4f}" for k, v in figures.items())
            say(
                f"vae step {session.step} {session.progress:.0%} {rate:.2f} s/step {shown} kl {kl.item():.2f}"
            )
    session.save()


def as_batch(pictures: NDArray[np.uint8]) -> Tensor:
    """Drawn pictures (B, H, W, 3) as (B, 3, H, W) in −1…1, channels last."""
    # Copied: a part of the file on disk is read-only, which torch warns of.
    return torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def reconstruction_figures(
    vae: AutoencoderKL, judge: Judge, pictures: NDArray[np.uint8], labels: Tensor
) -> dict[str, float]:
    """Share of reconstructions that the judge reads right, and the L1."""
    right = torch.zeros(len(ATTRIBUTES))
    distance = 0.0
    for at in range(0, len(pictures), 50):
        batch = as_batch(pictures[at : at + 50])
        drawn = vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
        logits, _ = judge(drawn)
        hits = [(logits[n].argmax(1) == labels[at : at + 50, i]).sum() for i, n in enumerate(ATTRIBUTES)]
        right += torch.stack(hits)
        distance += float((drawn - batch).abs().mean()) * len(batch)
    shares = {n: round(float(r) / len(pictures), 4) for n, r in zip(ATTRIBUTES, right, strict=True)}
    return {**shares, "l1": round(distance / len(pictures), 4)}


@torch.inference_mode()
def measure_latents(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> tuple[float, float]:
    """(scaling_factor, shift_factor) that bring the latents to mean 0 and deviation 1."""
    parts = [
        vae.encode(as_batch(pictures[at : at + 50])).latent_dist.mode() for at in range(0, len(pictures), 50)
    ]
    latents = torch.cat(parts)
    return round(1 / float(latents.std()), 5), round(float(latents.mean()), 5)
