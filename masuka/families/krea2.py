"""The Krea 2 family: Raw, on which LoRAs are trained, and Turbo, which draws with them.

Rectified flow over latents in 2 × 2 patches. Qwen3-VL reads the prompt inside Qwen-Image's
template, and twelve of its layers together are the text. Its tokens have no places of their
own and what is masked is never looked at, so texts are kept without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.families.base import Capabilities, Entry, Size
from masuka.families.lora import adapters
from masuka.families.parts import flow, qwen_vae, tiny, tiny_qwen, vae, weights
from masuka.families.parts.patches import pack, position_ids, unpack
from masuka.families.parts.rectified import RectifiedFlow, TextEncoder, packed, repeated, within
from masuka.families.qwen_image import ANSWER, TEMPLATE, TEMPLATE_TOKENS
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_SIZE = Size(
    denoiser=12_820_073_036, text_encoders=4_437_815_808, autoencoder=126_892_531, width=6144, blocks=28,
    text_tokens=256,
)  # fmt: skip
_LICENCE = "Krea 2 Community (free below a million dollars of revenue)"
_TRAIN = {
    **TRAIN,
    "steps": Limit(100, 10_000, default=1500),
    "learning_rate": Limit(1e-6, 1e-2, default=2e-4),
    "rank": Limit(4, 256, default=32),
    "resolution_px": Limit(256, 2048, 16, default=768),
}
RAW = Entry(
    id="krea2-raw",
    title="Krea 2 Raw",
    repo="krea/Krea-2-Raw",
    licence=_LICENCE,
    tier="high",
    size_gib=32.4,
    about="Made to be trained on; its LoRAs draw in eight steps with Krea 2 Turbo. Asks for a licence click.",
    guidance="true_cfg",
    size=_SIZE,
    architecture="krea-2-raw",
    kohya_version="krea2",
    gated=True,
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 100, default=28),
        "guidance_scale": Limit(0, 20, default=3.5),
    },
    train_limits=_TRAIN,
)
TURBO = Entry(
    id="krea2-turbo",
    title="Krea 2 Turbo",
    repo="krea/Krea-2-Turbo",
    licence=_LICENCE,
    tier="high",
    size_gib=32.4,
    about="Draws in eight steps and takes the LoRAs of Krea 2 Raw; train on that one.",
    guidance="none",
    size=_SIZE,
    architecture="krea-2-turbo",
    kohya_version="krea2",
    gated=True,
    trainable=False,
    draws_adapters_of=("krea2-raw",),
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 16, default=8),
        "guidance_scale": Limit(0, 0, default=0.0),
    },
    train_limits=_TRAIN,
)
_BLOCK = r"transformer_blocks\.\d+\."
_READER = r"text_fusion\.(layerwise|refiner)_blocks\.\d+\."
_ATTENTION = r"attn\.(to_q|to_k|to_v|to_gate|to_out\.0)"
_MLP = r"ff\.(gate|up|down)"
_SHIFT = 2.5
_INDEX = "model_index.json"


class Krea2(RectifiedFlow):
    """The Krea 2 family; see `families.base.Family` for its methods."""

    name = "krea2"
    title = "Krea 2"
    entries: Sequence[Entry] = (RAW, TURBO)
    capabilities = Capabilities(negative_prompt=True, fp16=False)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + _ATTENTION,
        "attention_and_mlp": rf"({_BLOCK}|{_READER})({_ATTENTION}|{_MLP})",
    }
    classes = ("Krea2Transformer2DModel", "AutoencoderKLQwenImage", "Krea2Pipeline")
    text_class = "Qwen3VLModel"
    guidance_from = 0.0

    def text_encoder(
        self, folder: Path, *, dtype: torch.dtype, device: str, adaptable_only: bool = False
    ) -> TextEncoder:
        encoder = super().text_encoder(folder, dtype=dtype, device=device)
        layers = adapters.read_json(folder / _INDEX)["text_encoder_select_layers"]
        return replace(encoder, layers=tuple(layers))

    def text_encoder_of(self, pipeline: Any) -> TextEncoder:
        encoder = super().text_encoder_of(pipeline)
        return replace(encoder, layers=tuple(pipeline.text_encoder_select_layers))

    def encode_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        answer = encoder.tokenizer(ANSWER).input_ids
        longest = encoder.max_tokens + TEMPLATE_TOKENS - len(answer)
        asked = encoder.tokenizer(
            [TEMPLATE + caption for caption in captions], truncation=True, max_length=longest
        ).input_ids
        rows = [torch.tensor(row + answer) for row in asked]
        device = weights.device_of(encoder.model)
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        places = torch.arange(ids.shape[1], device=device).expand_as(ids)
        states = encoder.model(
            input_ids=ids, attention_mask=places < lengths[:, None], position_ids=places.expand(3, -1, -1),
            output_hidden_states=True, use_cache=False,
        ).hidden_states  # fmt: skip
        text = torch.stack([states[layer] for layer in encoder.layers], dim=2)
        return packed([own[TEMPLATE_TOKENS : len(row)] for own, row in zip(text, rows, strict=True)])

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return qwen_vae.drawn(autoencoder_config, posterior, generator)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.shifted(flow.logit_normal(count, generator), _SHIFT)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        import torch

        height, width = noisy.shape[-2:]
        embeds, mask = within(text)
        places = position_ids(embeds.shape[1], height // 2, width // 2, noisy.device)
        predicted = denoiser(
            hidden_states=pack(noisy),
            encoder_hidden_states=embeds,
            timestep=sigmas,
            position_ids=torch.cat(places),
            encoder_attention_mask=None if bool(mask.all()) else mask,
            return_dict=False,
        )[0]
        return unpack(predicted, height, width)

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        # The pipeline counts the places of the first text's tokens for both.
        length = max(len(each["prompt_embeds_mask"][0]) for each in (text, negative) if each)
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if negative else 0.0,
            "generator": list(generators),
            **repeated(_longer(text, length), count),
            **repeated(_longer(negative or {}, length), count, "negative_"),
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        width, height = (2 * (side // (pipeline.vae_scale_factor * 2)) for side in size_px)
        clean = unpack(flow.clean(pipeline.scheduler.sigmas, before, after, step), height, width)
        return qwen_vae.restored(pipeline.vae.config, clean)

    def tiny(self, folder: Path) -> Path:
        from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline, Krea2Transformer2DModel

        with tiny.seeded(14):
            transformer = Krea2Transformer2DModel(
                in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2,
                num_key_value_heads=1, intermediate_size=48, timestep_embed_dim=32,
                text_hidden_dim=tiny_qwen.WIDTH, num_text_layers=3, text_num_attention_heads=2,
                text_num_key_value_heads=2, text_intermediate_size=24, num_layerwise_text_blocks=1,
                num_refiner_text_blocks=1, axes_dims_rope=(4, 6, 6),
            )  # fmt: skip
            parts = {
                "text_encoder": tiny_qwen.qwen3_vl(layers=3).model,
                "tokenizer": tiny_qwen.tokenizer(2048),
                "vae": tiny_qwen.autoencoder(),
                "transformer": transformer,
            }
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=6400)
        Krea2Pipeline(scheduler=scheduler, **parts, text_encoder_select_layers=(1, 2, 3)).save_pretrained(folder)
        return folder


def _longer(text: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The text with zeros behind it, up to that many tokens."""
    import torch

    return {
        name: torch.cat([rows, rows.new_zeros(len(rows), length - rows.shape[1], *rows.shape[2:])], dim=1)
        for name, rows in text.items()
    }
