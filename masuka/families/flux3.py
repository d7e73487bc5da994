"""The FLUX 3 Image klein family, drawn by diffusers' modular blocks: the base and the quick one.

Rectified flow over the latents of FLUX.2's autoencoder; eight layers of Qwen3-VL are the text.
Each text fills a window of its own length, whose padding the transformer sees: texts of
different windows are never one batch of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from masuka.families.base import Capabilities, Entry, Size
from masuka.families.flux2 import places, tiny_flux2_autoencoder
from masuka.families.parts import flow, flux2_vae, tiny, tiny_qwen, vae, weights
from masuka.families.parts.rectified import RectifiedFlow, TextEncoder, packed
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_SIZE = Size(
    denoiser=5_538_458_368, text_encoders=4_437_815_808, autoencoder=84_046_115, width=3072, blocks=33,
    text_tokens=160,
)  # fmt: skip
_TRAIN = {
    **TRAIN,
    "steps": Limit(100, 10_000, default=1000),
    "rank": Limit(4, 256, default=16),
    "resolution_px": Limit(256, 2048, 16, default=768),
}
KLEIN_BASE = Entry(
    id="flux3-klein-base",
    title="FLUX 3 Image klein base",
    repo="black-forest-labs/flux-3-image-klein-base",
    licence="FLUX Kommunity (non-commercial)",
    tier="mid",
    size_gib=18.8,
    about="The newest of the small ones, not for commercial use; asks for an account. Draws in 50 steps.",
    guidance="true_cfg",
    size=_SIZE,
    architecture="flux-3-image-klein-base",
    kohya_version="flux3",
    gated=True,
    commercial=False,
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 100, default=50),
        "guidance_scale": Limit(1, 20, default=4.0),
    },
    train_limits=_TRAIN,
)
KLEIN = Entry(
    id="flux3-klein",
    title="FLUX 3 Image klein",
    repo="black-forest-labs/flux-3-image-klein",
    licence="FLUX Kommunity (non-commercial)",
    tier="mid",
    size_gib=18.8,
    about="Draws in 16 steps and takes the LoRAs of FLUX 3 klein base; train on that one.",
    guidance="none",
    size=_SIZE,
    architecture="flux-3-image-klein",
    kohya_version="flux3",
    gated=True,
    commercial=False,
    trainable=False,
    draws_adapters_of=("flux3-klein-base",),
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 50, default=16),
        "guidance_scale": Limit(1, 1, default=1.0),
    },
    train_limits=_TRAIN,
)
# Blocks of reference pictures learn nothing from pictures alone, and are left out.
_BLOCK = r"(mode_blocks\.image|txt_mode_blocks|single_transformer_blocks)\.\d+\."
_ATTENTION = r"attn\.(to_q|to_k|to_v|to_out\.0)"
_MLP = r"ff\.linear_(in|out)"
_TEXT_LAYERS = (4, 8, 12, 16, 20, 24, 28, 32)
_WINDOW = 80
"""Tokens; a text's window is a multiple of it."""
_PLACE = 0.5
"""How far apart neighbouring patches are, where neighbouring words are 1."""
_SHIFT = 6.93
"""The constant shift of the model's own schedule, which its blocks state."""


class Flux3(RectifiedFlow):
    """The FLUX 3 Image klein family; see `families.base.Family` for its methods."""

    name = "flux3"
    title = "FLUX 3 klein"
    entries: Sequence[Entry] = (KLEIN_BASE, KLEIN)
    capabilities = Capabilities(negative_prompt=True, fp16=False)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + _ATTENTION,
        "attention_and_mlp": rf"{_BLOCK}({_ATTENTION}|{_MLP})",
    }
    classes = ("Flux3Transformer2DModel", "AutoencoderKLFlux2", "Flux3ModularPipeline")
    text_class = "Qwen3VLForConditionalGeneration"
    max_tokens: ClassVar[int] = 2048

    def encode_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        return packed([self._window(encoder, caption) for caption in captions])

    def _window(self, encoder: TextEncoder, caption: str) -> Tensor:
        """One text (T, D) with its padding, which is part of what the transformer reads."""
        import torch

        text = encoder.tokenizer.apply_chat_template(
            [{"role": "user", "content": caption}], tokenize=False, add_generation_prompt=True
        )
        known = encoder.tokenizer(text, truncation=True, max_length=encoder.max_tokens).input_ids
        length = min(-(-len(known) // _WINDOW) * _WINDOW, encoder.max_tokens)
        batch = encoder.tokenizer(
            text, return_tensors="pt", padding="max_length", padding_side="right", truncation=True,
            max_length=length,
        ).to(weights.device_of(encoder.model))  # fmt: skip
        # Where padding stands has changed with transformers; the model learnt it at place 1.
        counted = torch.arange(length, device=batch.input_ids.device)[None]
        states = encoder.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask,
            position_ids=counted.masked_fill(batch.attention_mask == 0, 1),
            output_hidden_states=True, use_cache=False, logits_to_keep=1,
        ).hidden_states  # fmt: skip
        return torch.cat([states[layer][0] for layer in _TEXT_LAYERS], dim=-1)

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return flux2_vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return vae.draw(posterior, generator)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.shifted(flow.logit_normal(count, generator), _SHIFT)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        import torch

        lengths = (text["prompt_embeds_mask"] > 0.5).sum(1).tolist()
        alike = [[n for n, length in enumerate(lengths) if length == each] for each in sorted(set(lengths))]
        found = [_of_one_window(denoiser, noisy[rows], sigmas[rows], text, rows, lengths) for rows in alike]
        order = torch.tensor([n for rows in alike for n in rows], device=noisy.device).argsort()
        return torch.cat(found)[order]

    def pipeline(
        self, folder: Path, *, dtype: torch.dtype, device: str, computes_on: str = "", **parts: Any
    ) -> Any:
        from masuka.families.parts.flux3_pipeline import Flux3Pipeline

        own = ("transformer", "vae", "text_encoder", "tokenizer")
        there = {name: parts[name] for name in own if name in parts}
        if not {"text_encoder", "tokenizer"} <= there.keys():
            encoder = self.text_encoder(folder, dtype=dtype, device=device)
            there = {"text_encoder": encoder.model, "tokenizer": encoder.tokenizer, **there}
        if "transformer" not in there:
            there["transformer"] = self.denoiser(folder, dtype=dtype, device=device)
        if "vae" not in there:
            there["vae"] = self.autoencoder(folder, dtype=dtype, device=device)
        return Flux3Pipeline(**there)

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        led = {"negative_prompt_embeds": _whole(negative, count)} if negative else {}
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if negative else 1.0,
            "generator": list(generators),
            "prompt_embeds": _whole(text, count),
            **led,
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        width, height = (side // (pipeline.vae_scale_factor * 2) for side in size_px)
        clean = flow.clean(pipeline.scheduler.sigmas, before, after, step)
        return flux2_vae.restored(pipeline.vae, flux2_vae.grid(clean, height, width))

    def tiny(self, folder: Path) -> Path:
        from diffusers import Flux3Transformer2DModel

        from masuka.families.parts.flux3_pipeline import modular_folder

        with tiny.seeded(15):
            transformer = Flux3Transformer2DModel(
                in_channels=16, cond_in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=len(_TEXT_LAYERS) * tiny_qwen.WIDTH,
                timestep_channels=32, axes_dims_rope=(4, 4, 4, 4),
            )  # fmt: skip
            parts = {
                "text_encoder": tiny_qwen.qwen3_vl(layers=max(_TEXT_LAYERS) + 1),
                "tokenizer": tiny_qwen.tokenizer(2048),
                "vae": tiny_flux2_autoencoder(),
                "transformer": transformer,
            }
        modular_folder(folder, parts)
        return folder


def _of_one_window(
    denoiser: nn.Module,
    noisy: Tensor,
    sigmas: Tensor,
    text: Mapping[str, Tensor],
    rows: Sequence[int],
    lengths: Sequence[int],
) -> Tensor:
    """The prediction for the rows, whose texts are of one length."""
    height, width = noisy.shape[-2:]
    text_ids, image_ids = _places(lengths[rows[0]], height, width, noisy.device)
    predicted = denoiser(
        hidden_states=flux2_vae.sequence(noisy),
        encoder_hidden_states=text["prompt_embeds"][list(rows), : lengths[rows[0]]],
        timestep=sigmas,
        img_ids=image_ids,
        txt_ids=text_ids,
        return_dict=False,
    )[0]
    return flux2_vae.grid(predicted, height, width)


@lru_cache(maxsize=32)
def _places(tokens: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    text_ids, image_ids = places(tokens, rows, columns, device)
    return text_ids, image_ids * _PLACE


def _whole(text: Mapping[str, Tensor], count: int) -> Tensor:
    """The window of one text, as often as there are pictures of it."""
    length = int((text["prompt_embeds_mask"][0] > 0.5).sum())
    return text["prompt_embeds"][:, :length].repeat_interleave(count, 0)
