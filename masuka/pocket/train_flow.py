"""Trains the built-in model's transformer and text encoders on cached latents.

Flow matching (arXiv 2210.02747) on captions of which one in ten is empty, so that
the pipeline can guide with true_cfg_scale and an empty negative prompt.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from masuka.pocket.norm import quicken, to_channels_last
from masuka.pocket.tokens import TEXT_TOKENS, clip_tokenizer, t5_tokenizer
from masuka.pocket.train_vae import LATENT_CHANNELS, as_batch
from masuka.pocket.world import caption

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from masuka.pocket.session import Session
    from masuka.pocket.world import Scene

BATCH = 64
EMPTY_SHARE = 0.1
EARLY_SHARE = 0.25  # of the times, evenly from 0.85 to 1: there a picture gets its place, and a
# logit-normal alone hardly ever trains it ("at night" stayed light in one picture of five)
_SIDE = 8  # image tokens per row: 128 px / 8 (VAE) / 2 (packing)


class Painter(nn.Module):
    """The transformer with its two text encoders: everything that is trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.t5_tokenizer, self.clip_tokenizer = t5_tokenizer(), clip_tokenizer()
        self.transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * LATENT_CHANNELS,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=64,
            num_attention_heads=4,
            joint_attention_dim=192,
            pooled_projection_dim=128,
            guidance_embeds=False,
            axes_dims_rope=(8, 28, 28),
        )
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(self.t5_tokenizer), d_model=192, d_kv=48, num_heads=4, d_ff=384,
                num_layers=2, dropout_rate=0.0, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
            )
        )  # fmt: skip
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(self.clip_tokenizer), hidden_size=128, intermediate_size=512,
                num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=TEXT_TOKENS,
                projection_dim=128, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
        _start_silent(self.transformer)

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the blocks' attention and MLP layers."""
        return [
            weight
            for name, weight in self.transformer.named_parameters()
            if "transformer_blocks" in name and weight.ndim == 2 and "norm" not in name
        ]

    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """T5 states (B, 32, 192) and pooled CLIP (B, 128), as FluxPipeline makes them."""
        t5, pooled = (
            tokenizer(
                list(texts),
                padding="max_length",
                max_length=TEXT_TOKENS,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for tokenizer in (self.t5_tokenizer, self.clip_tokenizer)
        )
        states: Tensor = self.t5(t5)[0]
        return states, self.clip(pooled).pooler_output

    def velocity(self, latents: Tensor, times: Tensor, read: tuple[Tensor, Tensor]) -> Tensor:
        """Predicted noise − picture of packed latents (B, 64, 32) at times (B,) in 0…1."""
        result: Tensor = self.transformer(
            hidden_states=latents,
            timestep=times,
            pooled_projections=read[1],
            encoder_hidden_states=read[0],
            txt_ids=torch.zeros(TEXT_TOKENS, 3),
            img_ids=_IMAGE_IDS,
            return_dict=False,
        )[0]
        return result.float()


_IMAGE_IDS = FluxPipeline._prepare_latent_image_ids(1, _SIDE, _SIDE, torch.device("cpu"), torch.float32)


def _start_silent(transformer: Any) -> None:
    """Zeroes every modulation and the output, so that each block starts as the identity."""
    for block in transformer.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
    for block in transformer.single_transformer_blocks:
        nn.init.zeros_(block.norm.linear.weight)
        nn.init.zeros_(block.norm.linear.bias)
    for linear in (transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


@torch.inference_mode()
def cache_latents(vae: AutoencoderKL, pictures: NDArray[np.uint8], say: Callable[[str], None]) -> Tensor:
    """Packed, scaled latents (N, 64, 32) of the pictures, in bf16."""
    quicken(vae)
    to_channels_last(vae)
    parts = []
    for at in range(0, len(pictures), 64):
        batch = as_batch(pictures[at : at + 64])
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encoder(batch).float().chunk(2, dim=1)[0]
        scaled = (mean - vae.config.shift_factor) * vae.config.scaling_factor
        packed = FluxPipeline._pack_latents(scaled, len(batch), LATENT_CHANNELS, 2 * _SIDE, 2 * _SIDE)
        parts.append(packed.bfloat16())
        if at % 6400 == 0:
            say(f"latents {at} of {len(pictures)}")
    return torch.cat(parts).clone()


def train(session: Session, scenes: list[Scene], latents: Tensor, say: Callable[[str], None]) -> None:
    """Flow matching until the session's time is used."""
    painter: Any = session.module
    mean, started, first = 0.0, time.monotonic(), session.step
    while not session.finished:
        texts, x0 = _batch(session.rng, scenes, latents)
        times, noise, noisy = _noised(x0)
        with _quick_attention():
            with torch.autocast("cpu", torch.bfloat16):
                out = painter.velocity(noisy, times, painter.read(texts))
            loss = F.mse_loss(out, noise - x0)
            session.advance(loss)
        mean = loss.item() if mean == 0 else 0.98 * mean + 0.02 * loss.item()
        if session.step % 50 == 0:
            rate = (time.monotonic() - started) / (session.step - first)
            say(f"flow step {session.step} {session.progress:.0%} {rate:.2f} s/step loss {mean:.4f}")
    session.save()


@contextmanager
def _quick_attention() -> Iterator[None]:
    """Plain bf16 attention: for 96 tokens its backward takes a fifth off a step (torch 2.13, CPU)."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)


def _batch(rng: random.Random, scenes: list[Scene], latents: Tensor) -> tuple[list[str], Tensor]:
    rows = rng.sample(range(len(scenes)), BATCH)
    texts = ["" if rng.random() < EMPTY_SHARE else _dressed(caption(scenes[row], rng), rng) for row in rows]
    return texts, latents[rows].float()


def _dressed(text: str, rng: random.Random) -> str:
    """The caption as people type it: sometimes with a capital and a full stop."""
    if rng.random() < 0.3:
        text = text[:1].upper() + text[1:]
    return text + "." if rng.random() < 0.15 else text


def _noised(x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    times = torch.sigmoid(torch.randn(len(x0)))
    early = torch.rand(len(x0)) < EARLY_SHARE
    times = torch.where(early, 0.85 + 0.15 * torch.rand(len(x0)), times)
    noise = torch.randn_like(x0)
    share = times.view(-1, 1, 1)
    return times, noise, (1 - share) * x0 + share * noise
