"""The Z-Image family: the base, and Turbo, which learns with a training adapter.

Rectified flow with the clock turned round: the transformer is told 1 - sigma, and predicts
latents - noise. It takes texts and latents as lists; Qwen3's last layer but one is the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.families.base import Capabilities, Entry, Preset, Size
from masuka.families.parts import flow, tiny, tiny_qwen, vae, weights
from masuka.families.parts.rectified import RectifiedFlow, TextEncoder, packed
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_SIZE = Size(
    denoiser=6_154_908_736, text_encoders=4_022_468_096, autoencoder=83_819_683, width=3840, blocks=34
)
BASE = Entry(
    id="zimage",
    title="Z-Image",
    repo="Tongyi-MAI/Z-Image",
    revision="04cc4abb7c5069926f75c9bfde9ef43d49423021",
    licence="Apache-2.0",
    tier="mid",
    size_gib=19.1,
    about="Photographs and people, free for any use; the one of the two to train on.",
    guidance="true_cfg",
    size=_SIZE,
    architecture="z-image",
    kohya_version="zimage",
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 100, default=28),
        "guidance_scale": Limit(0, 20, default=4.0),
    },
    train_limits={
        **TRAIN,
        "steps": Limit(100, 10_000, default=2000),
        "rank": Limit(4, 256, default=16),
        "resolution_px": Limit(256, 2048, 16, default=768),
    },
)
TURBO = Entry(
    id="zimage-turbo",
    title="Z-Image Turbo",
    repo="Tongyi-MAI/Z-Image-Turbo",
    revision="f332072aa78be7aecdf3ee76d5c247082da564a6",
    licence="Apache-2.0",
    tier="mid",
    size_gib=30.6,
    about="Draws in eight steps and is free for any use; learns with an adapter that keeps it quick.",
    guidance="none",
    size=_SIZE,
    architecture="z-image-turbo",
    kohya_version="zimage",
    training_adapter="ostris/zimage_turbo_training_adapter",
    draws_adapters_of=("zimage",),
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 16, default=8),
        "guidance_scale": Limit(0, 0, default=0.0),
    },
    train_limits={
        **TRAIN,
        "steps": Limit(100, 10_000, default=2500),
        "rank": Limit(4, 256, default=16),
        "resolution_px": Limit(256, 2048, 16, default=768),
    },
    presets=(Preset("Quick portrait", {"width": 832, "height": 1216, "num_inference_steps": 8}),),
)
_BLOCK = r"(layers|noise_refiner|context_refiner)\.\d+\."
_ATTENTION = r"attention\.(to_q|to_k|to_v|to_out\.0)"
_MLP = r"feed_forward\.w[123]"
_SHIFT = 2.0
"""Towards noise while learning: less than the scheduler's 3 (Turbo) and 6 for drawing."""


class ZImage(RectifiedFlow):
    """The Z-Image family; see `families.base.Family` for its methods."""

    name = "zimage"
    title = "Z-Image"
    entries: Sequence[Entry] = (BASE, TURBO)
    capabilities = Capabilities(negative_prompt=True, fp16=False)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + _ATTENTION,
        "attention_and_mlp": rf"{_BLOCK}({_ATTENTION}|{_MLP})",
    }
    classes = ("ZImageTransformer2DModel", "AutoencoderKL", "ZImagePipeline")
    text_class = "Qwen3Model"
    guidance_from = 0.0

    def encode_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        texts = [
            encoder.tokenizer.apply_chat_template(
                [{"role": "user", "content": caption}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=True,
            )
            for caption in captions
        ]
        batch = encoder.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=encoder.max_tokens
        ).to(weights.device_of(encoder.model))
        mask = batch.attention_mask.bool()
        states = encoder.model(
            input_ids=batch.input_ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states[-2]
        return packed([state[own] for state, own in zip(states, mask, strict=True)])

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return vae.drawn(autoencoder_config, posterior, generator)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.shifted(flow.logit_normal(count, generator), _SHIFT)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        import torch

        predicted = denoiser(
            list(noisy.unsqueeze(2).unbind(0)), 1 - sigmas, _listed(text), return_dict=False
        )[0]
        return -torch.stack(list(predicted)).squeeze(2)

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if negative else 0.0,
            "generator": list(generators),
            "prompt_embeds": _listed(text) * count,
            **({"negative_prompt_embeds": _listed(negative) * count} if negative else {}),
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        clean = flow.clean(pipeline.scheduler.sigmas, before, after, step)
        scale, shift = pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor
        return clean / float(scale) + float(shift or 0.0)

    def tiny(self, folder: Path) -> Path:
        from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

        with tiny.seeded(12):
            transformer = ZImageTransformer2DModel(
                in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
                cap_feat_dim=tiny_qwen.WIDTH, axes_dims=[4, 6, 6], axes_lens=[256, 64, 64],
            )  # fmt: skip
            for padding in (transformer.x_pad_token, transformer.cap_pad_token):
                padding.data.normal_()
            parts = {
                "text_encoder": tiny_qwen.qwen3(layers=3).model,
                "tokenizer": tiny_qwen.tokenizer(96),
                "vae": tiny.autoencoder(),
                "transformer": transformer,
            }
        scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
        ZImagePipeline(scheduler=scheduler, **parts).save_pretrained(folder)
        return folder


def _listed(text: Mapping[str, Tensor]) -> list[Tensor]:
    """Each text (T, D) at its own length, as transformer and pipeline take them."""
    mask = text["prompt_embeds_mask"] > 0.5
    return [embeds[own] for embeds, own in zip(text["prompt_embeds"], mask, strict=True)]
